"""A KV cache whose rows are queries and whose columns are tokens of a tree: a prefix, then branches that share it.

Rows need not be equally long; a pass writes its tokens at its rows' own ends, in place, and a mask says who sees whom,
so that branches fork without a copy. Any model that takes transformers' caches and (B, 1, T, S) masks serves. Not here:
what the tokens are.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns beyond those in use that a buffer is made with; it grows by half
STEP = 64  # columns that are read, a multiple of this: on CPU every new shape costs a kernel, and megabytes to keep it


@dataclass(eq=False)
class Place:
    """Where the pass under way reads and writes.

    rows: (A,) of the cache; columns: (A, T) of the new tokens; end: columns that are read. is_whole: the pass has tokens for
    all rows, in order, and what those not in `rows` have is not written; the cache is then read without a copy. kept:
    whether what is written stays; else a row may stand in `rows` more than once.
    """

    rows: Tensor
    columns: Tensor
    end: int
    is_whole: bool
    kept: bool


class Columns(DynamicLayer):
    """A layer's keys and values, buffers (B, H, S, d) with room to spare, as `place` says."""

    def __init__(self, place: list[Place]):
        super().__init__()
        self.place = place

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """What the new tokens (A, H, T, d) attend to: (A, H, end, d) keys and values, themselves included."""
        place = self.place[0]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = (_buffer(new, new.shape[0], place.end) for new in (key_states, value_states))
        if place.kept and place.end > self.keys.shape[2]:
            self.keys, self.values = (_grown(old, place.end) for old in (self.keys, self.values))
        return _through(self.keys, key_states, place), _through(self.values, value_states, place)


def _through(buffer: Tensor, new: Tensor, place: Place) -> Tensor:
    if not place.kept:
        old = buffer[:, :, : place.end - new.shape[2]]
        return torch.cat([old if place.is_whole else old[place.rows], new], dim=2)
    written = new[place.rows] if place.is_whole else new
    buffer.transpose(1, 2)[place.rows[:, None], place.columns] = written.transpose(1, 2)
    seen = buffer[:, :, : place.end]
    return seen if place.is_whole else seen[place.rows]


def _buffer(like: Tensor, rows: int, columns: int) -> Tensor:
    return like.new_empty(rows, like.shape[1], columns + ROOM, like.shape[3]).zero_()  # garbage could be a NaN


def _grown(old: Tensor, columns: int) -> Tensor:
    new = _buffer(old, len(old), max(columns, old.shape[2] * 3 // 2))
    new[:, :, : old.shape[2]] = old
    return new


@dataclass(frozen=True, eq=False)
class TreeCache:
    """transformers' view of the layers, and the place they share (a list of one, changed before every pass)."""

    kv: Cache
    place: list[Place]

    def select(self, rows: Tensor, columns: Tensor) -> "TreeCache":
        """A copy that holds `rows` (A,) alone, of each its `columns` (A, W) in that order."""
        place: list[Place] = list(self.place)
        layers = []
        for layer in self.kv.layers:
            copy = Columns(place)
            copy.lazy_initialization(layer.keys, layer.values)
            copy.keys, copy.values = (_selected(old, rows, columns) for old in (layer.keys, layer.values))
            layers.append(copy)
        return TreeCache(Cache(layers=layers), place)


def _selected(old: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    new = _buffer(old, len(rows), columns.shape[1])
    new[:, :, : columns.shape[1]] = old.transpose(1, 2)[rows[:, None], columns].transpose(1, 2)
    return new


def empty() -> TreeCache:
    """A cache that takes its shape from the first pass."""
    place: list[Place] = []
    return TreeCache(Cache(layer_class_to_replicate=lambda: Columns(place)), place)


def tree_mask(sees: Tensor, own: Tensor, used: np.ndarray, kept: bool) -> tuple[Tensor, Tensor]:
    """The mask (A, 1, T, S) of a pass and the columns (A, T) of its tokens.

    sees: bool (A, T, W), which older columns each token attends to; own: bool (A, T, T), which new ones; used:
    (A,) columns in use, behind which the new ones stand if kept, else behind the longest.
    """
    A, T, _ = sees.shape
    end = int(used.max()) + T
    end = -(-end // STEP) * STEP if kept else end
    starts = torch.from_numpy(used if kept else np.full(A, end - T)).to(sees.device)
    columns = starts[:, None] + torch.arange(T, device=sees.device)  # (A, T)
    mask = torch.zeros(A, T, end, dtype=torch.bool, device=sees.device)
    mask[:, :, : min(end, sees.shape[2])] = sees[:, :, :end]
    mask.scatter_(2, columns[:, None].expand(A, T, T), own)
    return mask[:, None], columns
