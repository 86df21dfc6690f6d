"""The pretraining corpus cut into views and steps: each epoch another view of every pair.

A step is made of padded micro-batches of like lengths, or of packed rows: sequences end to end.

A pair's view is drawn per epoch (dihedral, scale, border) or per step (colours) from (seed, epoch) and (seed, step)
alone, so that training resumes exactly and data can be made ahead. Not here: where pairs come from (`sources.py`).
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ttt_core.arc import augment
from ttt_core.arc.encode import IGNORE, GridFormat, Sequence
from ttt_core.arc.tasks import MAX_SIDE, N_COLORS, Pair
from ttt_core.model.kernels import Run

FORMAT = GridFormat()
START, SEPARATOR, END, PAD = (FORMAT.symbols.index(name) for name in ("<start>", "<output>", "<end>", "<pad>"))
MAX_PADDING, MIN_FILL = 0.05, 0.125  # of a micro-batch's padded tokens; of the tokens that it may have
MICRO_TOKENS, PARTS = 4096, 4  # of a micro-batch at most, or this part of a step where that is more
POOL = 64  # steps' worth of sequences sorted by length together
BORDER = 3  # cells that a translated pair grows on each side at most


@dataclass(frozen=True, eq=False)
class Corpus:
    """task_ids; free: per task the colours that may be exchanged; pairs: (task index, pair); held_out likewise.

    shown: ids of the tasks of which nothing but a challenge file's demonstrations is known.
    """

    task_ids: tuple[str, ...]
    free: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[int, Pair], ...]
    held_out: tuple[tuple[int, Pair], ...]
    shown: frozenset[str] = frozenset()

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """(N, 4): height and width of each pair's input and output."""
        return np.array([(*p.input.shape, *p.output.shape) for _, p in self.pairs])

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """All grids of all pairs, end to end: uint8."""
        return np.concatenate([grid.ravel() for _, p in self.pairs for grid in (p.input, p.output)])

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """(N, 2): where in `cells` each pair's input and output begin."""
        areas = np.stack([self.sizes[:, 0] * self.sizes[:, 1], self.sizes[:, 2] * self.sizes[:, 3]], axis=1)
        return (np.cumsum(areas) - areas.ravel()).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class Epoch:
    """Views of all N pairs and the steps: dihedrals, scales, lengths, answers (N,), borders, sizes (N, 4)."""

    dihedrals: np.ndarray
    scales: np.ndarray
    borders: np.ndarray  # rows before and after, columns before and after, of background
    sizes: np.ndarray  # height and width of input and output in the view
    lengths: np.ndarray  # tokens of the pair's sequence in its view
    answers: np.ndarray  # those of them that are targets
    steps: list[list[np.ndarray]]  # of each its micro-batches or rows: indices into corpus.pairs


def length(pair: Pair) -> int:
    """Tokens of a pair's sequence in the grid format."""
    return 3 + sum(height * (width + 1) for height, width in (pair.input.shape, pair.output.shape))


def plan_epoch(
    corpus: Corpus,
    seed: int,
    epoch: int,
    batch_tokens: int,
    max_tokens: int,
    scale_share: float = 0.0,
    translate_share: float = 0.0,
    rows: int = 0,
) -> Epoch:
    """The epoch's views, and steps of at most batch_tokens padded tokens; or, with `rows`, of so many packed rows of at most batch_tokens tokens each.

    A pair goes through its eight dihedrals in eight epochs, in an order of its own.

    scale_share, translate_share: share of the pairs that are enlarged 2 or 3 times, or moved by a border of colour 0
    (only pairs whose grids have one size); each only where the sequence still has at most max_tokens.
    """
    n, rng = len(corpus.pairs), augment.task_rng(seed, f"epoch {epoch}")
    turns = np.argsort(augment.task_rng(seed, f"dihedrals {epoch // 8}").random((n, 8)), axis=1)
    dihedrals = turns[:, epoch % 8]
    sizes = corpus.sizes
    scales = np.where(rng.random(n) < scale_share, rng.integers(2, 4, n), 1)
    scales = np.where(_fit(sizes * scales[:, None], max_tokens), scales, 1)
    moves = (rng.random(n) < translate_share) & (sizes[:, :2] == sizes[:, 2:]).all(axis=1)
    borders = rng.integers(0, BORDER + 1, (n, 4)) * moves[:, None]
    grown = sizes * scales[:, None] + np.tile(borders[:, [0, 2]] + borders[:, [1, 3]], 2)
    borders = np.where(_fit(grown, max_tokens)[:, None], borders, 0)
    grown = sizes * scales[:, None] + np.tile(borders[:, [0, 2]] + borders[:, [1, 3]], 2)
    turned = np.where((dihedrals % 2 == 1)[:, None] ^ (dihedrals >= 4)[:, None], grown[:, [1, 0, 3, 2]], grown)
    answers = turned[:, 2] * (turned[:, 3] + 1) + 1
    lengths = _tokens(turned)
    steps = _cut_rows(lengths, batch_tokens, rows, rng) if rows else _cut(lengths, batch_tokens, rng)
    return Epoch(dihedrals, scales, borders, turned, lengths, answers, steps)


def _tokens(sizes: np.ndarray) -> np.ndarray:
    return 3 + sizes[:, 0] * (sizes[:, 1] + 1) + sizes[:, 2] * (sizes[:, 3] + 1)


def _fit(sizes: np.ndarray, max_tokens: int) -> np.ndarray:
    """Whether a pair of these sizes is one that a model could be given, whichever way it is turned."""
    return (sizes <= MAX_SIDE).all(axis=1) & (np.maximum(_tokens(sizes), _tokens(sizes[:, [1, 0, 3, 2]])) <= max_tokens)


def _cut(lengths: np.ndarray, batch_tokens: int, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Micro-batches in random order, each put into the first step that has room for it; the steps in random order."""
    order = rng.permutation(len(lengths))
    pool = max(1, int(POOL * batch_tokens / lengths.mean()))
    micro_tokens = min(batch_tokens, max(MICRO_TOKENS, batch_tokens // PARTS))
    cut = []
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        cut += pack(part[np.argsort(lengths[part], kind="stable")], lengths, micro_tokens)
    steps: list[list[np.ndarray]] = [[] for _ in cut]
    room = np.full(len(cut), max(batch_tokens, lengths.max()))
    for i in rng.permutation(len(cut)):
        padded = len(cut[i]) * lengths[cut[i]].max()
        first = int(np.argmax(room >= padded))
        steps[first].append(cut[i])
        room[first] -= padded
    used = [step for step in steps if step]
    return [used[i] for i in rng.permutation(len(used))]


def _cut_rows(lengths: np.ndarray, row_tokens: int, rows: int, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """Rows of consecutive sequences in random order, `rows` to a step; the last step may have fewer."""
    order = rng.permutation(len(lengths))
    ends, cuts = np.cumsum(lengths[order]), [0]
    while cuts[-1] < len(order):
        before = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, before + row_tokens, side="right"))))
    made = [order[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    return [made[i : i + rows] for i in range(0, len(made), rows)]


def pack(order: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Consecutive runs of `order` (lengths rising) of at most batch_tokens padded tokens, at least one sequence each.

    A run ends sooner where it would else hold more than MAX_PADDING, if it is not too small already.
    """
    runs, start, total = [], 0, 0
    for i in range(len(order)):
        longest, padded = lengths[order[i]], (i - start + 1) * lengths[order[i]]
        is_loose = padded - total - longest > MAX_PADDING * padded and padded > MIN_FILL * batch_tokens
        if i > start and (padded > batch_tokens or is_loose):
            runs.append(order[start:i])
            start, total = i, 0
        total += longest
    return [*runs, order[start:]] if len(order) else []


def make_batch(corpus: Corpus, epoch: Epoch, indices: np.ndarray, rng: np.random.Generator, part=slice(None)) -> dict:
    """GridLM's inputs for the micro-batch `indices`, colours permuted by `rng`; `part` of its rows, drawn as if for all."""
    colors, own = draw_colors(corpus, indices, rng)[part], indices[part]
    ids, positions, is_target = draw(corpus, epoch, own, colors)
    mask = np.arange(epoch.lengths[own].max()) < epoch.lengths[own][:, None]

    def padded(values: np.ndarray, fill: int) -> torch.Tensor:
        made = np.full((*mask.shape, *values.shape[1:]), fill, np.int64)
        made[mask] = values
        return torch.from_numpy(made)

    return {
        "input_ids": padded(ids, PAD),
        "labels": padded(np.where(is_target, ids, IGNORE), IGNORE),
        "position_ids": padded(positions, 1),
        "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        "task_ids": torch.tensor([corpus.pairs[i][0] for i in own]),
        "dihedral_ids": torch.from_numpy(epoch.dihedrals[own]),
    }


def make_row(corpus: Corpus, epoch: Epoch, indices: np.ndarray, rng: np.random.Generator, size: int) -> dict:
    """The inputs of a `rows.PackedGridLM` for the pairs `indices`, colours permuted by `rng`: (S,) each, S is `size` or the tokens there are if more.

    What the sequences leave of the row is a sequence without targets. labels: of each token the one that follows it.
    """
    ids, positions, is_target = draw(corpus, epoch, indices, draw_colors(corpus, indices, rng))
    lengths, spare = epoch.lengths[indices], max(0, size - len(ids))
    owners = np.repeat(indices, lengths)
    columns = {
        "input_ids": (ids, PAD),
        "labels": (np.append(np.where(is_target, ids, IGNORE)[1:], IGNORE), IGNORE),
        "position_ids": (positions, 1),
        "task_ids": (np.array([corpus.pairs[i][0] for i in indices])[np.repeat(np.arange(len(indices)), lengths)], 0),
        "dihedral_ids": (epoch.dihedrals[owners], 0),
    }
    batch = {
        name: torch.from_numpy(np.pad(array, [(0, spare)] + [(0, 0)] * (array.ndim - 1), constant_values=fill))
        for name, (array, fill) in columns.items()
    }
    sequences = zip(lengths.tolist(), (lengths - epoch.answers[indices]).tolist(), strict=True)
    runs = [Run(1, length, prefix - 1) for length, prefix in sequences]
    return {**batch, "runs": (*runs, Run(1, spare)) if spare else tuple(runs)}


def draw_colors(corpus: Corpus, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, V): the token that each token of a grid becomes in the pairs' views; colours are permuted, others stay."""
    tokens = np.tile(np.arange(FORMAT.vocab_size), (len(indices), 1))
    tokens[:, :N_COLORS] = [augment.permute_colors(corpus.free[corpus.pairs[i][0]], rng) for i in indices]
    return tokens


def draw(
    corpus: Corpus, epoch: Epoch, indices: np.ndarray, colors: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sequences of the pairs `indices` as the epoch views them, end to end: ids (S,), positions (S, 3), which are targets (S,).

    Each is what `GridFormat.pair` makes of the pair seen so. colors: see draw_colors.
    """
    lengths, sizes = epoch.lengths[indices], epoch.sizes[indices]
    of = np.repeat(np.arange(len(indices)), lengths)  # each token's sequence
    at = np.arange(len(of)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # its place there
    prefix = (lengths - epoch.answers[indices])[of]
    is_target = at >= prefix
    side = is_target.astype(np.int64)
    width = np.where(is_target, sizes[of, 3], sizes[of, 1])
    row, col = np.divmod(at - np.where(is_target, prefix, 1), width + 1)  # the end stands below its grid
    row[at == 0], col[at == 0] = -1, -1
    is_separator = at == prefix - 1
    row[is_separator], col[is_separator] = -1, -1
    ids = np.full(len(of), FORMAT.grammar.row_end)
    ids[at == 0], ids[is_separator], ids[at == lengths[of] - 1] = START, SEPARATOR, END
    cell = np.flatnonzero((col < width) & (ids == FORMAT.grammar.row_end))
    ids[cell] = colors[of[cell], _seen(corpus, epoch, indices[of[cell]], side[cell], row[cell], col[cell])]
    return ids, np.stack([side | is_separator, row + 1, col + 1], axis=1), is_target


def _seen(corpus: Corpus, epoch: Epoch, pair: np.ndarray, side: np.ndarray, row: np.ndarray, col: np.ndarray):
    """The cells at `row`, `col` of inputs (side 0) or outputs (1) of pairs as the epoch turns, enlarges and moves them: (n,)."""
    turns, is_transposed = epoch.dihedrals[pair] % 4, epoch.dihedrals[pair] >= 4
    is_across = is_transposed ^ (turns % 2 == 1)
    height, width = epoch.sizes[pair, 2 * side], epoch.sizes[pair, 2 * side + 1]
    height, width = np.where(is_across, width, height), np.where(is_across, height, width)  # before turning
    row, col = np.where(is_across, col, row), np.where(is_across, row, col)
    row = np.where(turns >= 2, height - 1 - row, row)
    col = np.where((turns == 1) | (turns == 2), width - 1 - col, col)
    row = (row - epoch.borders[pair, 0]) // epoch.scales[pair]
    col = (col - epoch.borders[pair, 2]) // epoch.scales[pair]
    is_inside = (row >= 0) & (row < corpus.sizes[pair, 2 * side]) & (col >= 0) & (col < corpus.sizes[pair, 2 * side + 1])
    place = corpus.starts[pair, side] + row * corpus.sizes[pair, 2 * side + 1] + col
    return np.where(is_inside, corpus.cells[np.where(is_inside, place, 0)], 0)


def collate(rows: list[Sequence], left: bool = False) -> dict[str, torch.Tensor]:
    """Padded tensors of sequences, on the right unless `left`: input_ids, labels, attention_mask (B, T); position_ids (B, T) or (B, T, 3)."""
    width = max(len(row) for row in rows)

    def padded(arrays, fill):
        stacked = np.full((len(rows), width, *arrays[0].shape[1:]), fill, np.int64)
        for target, array in zip(stacked, arrays, strict=True):
            target[slice(width - len(array), None) if left else slice(len(array))] = array
        return torch.from_numpy(stacked)

    return {
        "input_ids": padded([r.ids for r in rows], PAD),
        "labels": padded([r.labels for r in rows], IGNORE),
        "position_ids": padded([r.positions for r in rows], 1),
        "attention_mask": padded([np.ones(len(r), np.int64) for r in rows], 0),
    }


def held_out_batches(corpus: Corpus, batch_tokens: int) -> Iterator[dict[str, torch.Tensor]]:
    """The held-out pairs as they stand, for validation."""
    lengths = np.array([length(pair) for _, pair in corpus.held_out])
    for run in pack(np.argsort(lengths, kind="stable"), lengths, batch_tokens) if len(lengths) else []:
        tasks = torch.tensor([corpus.held_out[i][0] for i in run])
        rows = [FORMAT.pair(corpus.held_out[i][1]) for i in run]
        yield {**collate(rows), "task_ids": tasks, "dihedral_ids": torch.zeros_like(tasks)}
