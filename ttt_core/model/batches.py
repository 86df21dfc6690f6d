"""Pairs in their views as tensors: padded micro-batches, or packed rows of sequences end to end.

Not here: which views and which pairs together (`corpus.py`).
"""

from collections.abc import Iterator

import numpy as np
import torch

from ttt_core.arc import augment
from ttt_core.arc.encode import IGNORE, Sequence
from ttt_core.arc.tasks import N_COLORS
from ttt_core.model.attention import Run
from ttt_core.model.corpus import FORMAT, Corpus, Epoch, length, pack

START, SEPARATOR, END, PAD = (FORMAT.symbols.index(name) for name in ("<start>", "<output>", "<end>", "<pad>"))
FILLER = 512


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

    What the sequences leave of the row are sequences of FILLER tokens at most, without targets. labels: of each token the one that follows it.
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
    left = (Run(spare // FILLER, FILLER), Run(1, spare % FILLER))  # attention grows with the square of a sequence
    return {**batch, "runs": (*runs, *(run for run in left if run.count and run.length))}


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
    is_inside = (
        (row >= 0) & (row < corpus.sizes[pair, 2 * side]) & (col >= 0) & (col < corpus.sizes[pair, 2 * side + 1])
    )
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
