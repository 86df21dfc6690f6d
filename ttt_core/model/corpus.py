"""The pretraining corpus cut into views and steps: each epoch another view of every pair.

A step is made of padded micro-batches of like lengths, or of packed rows: sequences end to end. A pair's view is drawn
per epoch (dihedral, scale, border) or per step (colours) from (seed, epoch) and (seed, step) alone, so that training
resumes exactly and data can be made ahead. Not here: where pairs come from (`sources.py`), their tensors (`batches.py`).
"""

import functools
from dataclasses import dataclass

import numpy as np

from ttt_core.arc import augment
from ttt_core.arc.encode import GridFormat
from ttt_core.arc.tasks import MAX_SIDE, Pair

FORMAT = GridFormat()
MAX_PADDING, MIN_FILL = 0.05, 0.125  # of a micro-batch's padded tokens; of the tokens that it may have
MICRO_TOKENS, PARTS = 4096, 4  # of a micro-batch at most, or this part of a step where that is more
POOL = 64  # steps' worth of sequences sorted by length together
BORDER = 3  # cells that a translated pair grows on each side at most


@dataclass(frozen=True, eq=False)
class Corpus:
    """task_ids; free: per task the colours that may be exchanged; pairs: (task index, pair); held_out likewise.

    shown: ids of the tasks of which nothing but a challenge file's demonstrations is known, too long ones included.
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
    return _tokens(*pair.input.shape, *pair.output.shape)


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
    lengths = _tokens(*turned.T)
    steps = _cut_rows(lengths, batch_tokens, rows, rng) if rows else _cut(lengths, batch_tokens, rng)
    return Epoch(dihedrals, scales, borders, turned, lengths, answers, steps)


def _tokens(height, width, output_height, output_width):
    """Of numbers, or of arrays of them."""
    return 3 + height * (width + 1) + output_height * (output_width + 1)


def _fit(sizes: np.ndarray, max_tokens: int) -> np.ndarray:
    """Whether a pair of these sizes is one that a model could be given, whichever way it is turned."""
    tokens = np.maximum(_tokens(*sizes.T), _tokens(*sizes[:, [1, 0, 3, 2]].T))
    return (sizes <= MAX_SIDE).all(axis=1) & (tokens <= max_tokens)


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
