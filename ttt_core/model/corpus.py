"""The pretraining corpus cut into views and steps: each epoch another view of every pair, like lengths together.

A pair's view is drawn per epoch (dihedral, scale, border) or per step (colours) from (seed, epoch) and (seed, step)
alone, so that training resumes exactly and data can be made ahead. Not here: where pairs come from (`sources.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ttt_core.arc import augment
from ttt_core.arc.encode import IGNORE, GridFormat, Sequence
from ttt_core.arc.tasks import MAX_SIDE, Pair

FORMAT = GridFormat()
PAD = FORMAT.symbols.index("<pad>")
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


@dataclass(frozen=True, eq=False)
class Epoch:
    """Views of all N pairs and the steps: dihedrals, scales, lengths, answers (N,), borders (N, 4)."""

    dihedrals: np.ndarray
    scales: np.ndarray
    borders: np.ndarray  # rows before and after, columns before and after, of background
    lengths: np.ndarray  # tokens of the pair's sequence in its view
    answers: np.ndarray  # those of them that are targets
    steps: list[list[np.ndarray]]  # of each its micro-batches of like lengths: indices into corpus.pairs


def length(pair: Pair) -> int:
    """Tokens of a pair's sequence in the grid format."""
    return 3 + sum(height * (width + 1) for height, width in (pair.input.shape, pair.output.shape))


def plan_epoch(
    corpus: Corpus, seed: int, epoch: int, batch_tokens: int, max_tokens: int, scale_share=0.0, translate_share=0.0
) -> Epoch:
    """The epoch's views, and steps of at most batch_tokens padded tokens. A pair goes through its eight dihedrals in eight epochs, in an order of its own.

    scale_share, translate_share: share of the pairs that are enlarged 2 or 3 times, or moved by a border of colour 0
    (only pairs whose grids have one size); each only where the sequence still has at most max_tokens.
    """
    n, rng = len(corpus.pairs), augment.task_rng(seed, f"epoch {epoch}")
    turns = np.argsort(augment.task_rng(seed, f"dihedrals {epoch // 8}").random((n, 8)), axis=1)
    dihedrals = turns[:, epoch % 8]
    sizes = np.array([(*p.input.shape, *p.output.shape) for _, p in corpus.pairs])  # (N, 4)
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
    return Epoch(dihedrals, scales, borders, lengths, answers, _cut(lengths, batch_tokens, rng))


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
    rows, tasks = [], []
    colors = [augment.permute_colors(corpus.free[corpus.pairs[i][0]], rng) for i in indices]
    for index, mapping in list(zip(indices, colors, strict=True))[part]:
        task, pair = corpus.pairs[index]
        seen = augment.Augmentation(int(epoch.dihedrals[index]), mapping)
        grown = (_grow(grid, epoch.scales[index], epoch.borders[index]) for grid in (pair.input, pair.output))
        rows.append(FORMAT.pair(Pair(*(augment.apply(seen, grid) for grid in grown))))
        tasks.append(task)
    ids = {"task_ids": torch.tensor(tasks), "dihedral_ids": torch.from_numpy(epoch.dihedrals[indices[part]])}
    return {**collate(rows), **ids}


def _grow(grid: np.ndarray, scale: int, border: np.ndarray) -> np.ndarray:
    grid = grid.repeat(scale, axis=0).repeat(scale, axis=1) if scale > 1 else grid
    return np.pad(grid, (border[:2], border[2:])) if border.any() else grid


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
