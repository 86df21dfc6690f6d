"""The frontier of a search: the live branches of a batch of queries, and the cache that they keep to.

It starts as the empty answer of every query; what finished queries, dead branches and wrong drafts leave in the cache is
compacted away, and a frontier goes on in two parts where its cache has outgrown its tokens or the time is short. Not here: which
tokens extend it (`levels.py`), how short the time is (`hurry.py`).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from ttt_core.arc.grammar import State
from ttt_core.model.load import LoadedModel
from ttt_core.solve.drafts import Drafts
from ttt_core.solve.prefix import Prefixes

SLACK = 64  # columns that a compacted cache may grow by before it is looked at again


@dataclass(frozen=True, eq=False)
class Frontier:
    """R live branches of Q queries with a cache of their own, in order of queries; those of one query are equally long.

    asked: (Q,) number of each query in its batch; used: (Q,) columns in use; spent: (Q,) tokens visited so far.
    owner: (R,) place in `asked`; total: (R,) log-prob; depth: (R,) tokens; token: (R,) the last of them; state: of the grammar;
    before: where a branch waits, without its last token; entry: (R,) in the drafts, -1 while it waits for a pass; path: (R, D) entries of all
    tokens, -1 behind. look_at: columns in use at which the cache is compacted. hurried: time is short for it.
    """

    prefixes: Prefixes
    asked: np.ndarray
    used: np.ndarray
    spent: np.ndarray
    owner: np.ndarray
    total: np.ndarray
    depth: np.ndarray
    token: np.ndarray
    before: State
    state: State
    entry: np.ndarray
    path: np.ndarray
    look_at: int
    hurried: bool = False

    def branches(self, index: np.ndarray) -> dict:
        """The branches `index` alone, in that order: fields by name."""
        names = ("owner", "total", "depth", "token", "before", "state", "entry", "path")
        values = [getattr(self, name) for name in names]
        return {n: v.take(index) if isinstance(v, State) else v[index] for n, v in zip(names, values, strict=True)}

    def lengths(self) -> np.ndarray:
        """(Q,) tokens of each query's branches; -1 where it has none."""
        lengths = np.full(len(self.asked), -1)
        lengths[self.owner] = self.depth
        return lengths

    def sees(self, drafts: Drafts, index: np.ndarray) -> np.ndarray:
        """bool (N, S): columns that a branch of `index` attends to, its last token aside."""
        owner, path = self.owner[index], self.path[index]
        sees = np.arange(self.used.max()) < self.prefixes.lengths[owner][:, None]
        branch, place = np.nonzero(path >= 0)
        sees[branch, drafts.columns(path[branch, place])] = True
        return sees


def start(model: LoadedModel, prefixes: Prefixes, most: int) -> Frontier:
    """The empty answer of every query."""
    n, every, zeros = len(prefixes), np.arange(len(prefixes)), np.zeros(len(prefixes), np.int64)
    state, path = model.format.grammar.start(n), np.full((n, 0), -1, np.int32)
    look_at = _look_at(n, int(prefixes.lengths.max()), most)
    return Frontier(
        prefixes, every, prefixes.lengths, zeros, every, np.zeros(n), zeros, zeros, state, state, every, path, look_at
    )


def compacted(front: Frontier, drafts: Drafts, most: int, share: float = 1.0) -> list[Frontier]:
    """`front` without what nothing needs in its cache, once this is half of it; in two where needed.

    most: cached tokens, padding included, that more than one query may have. share: of the queries, for the first of two.
    """
    live, owner = np.unique(front.owner, return_inverse=True)
    if share == 1 and 2 * len(live) > len(front.asked) and front.used.max() < front.look_at:
        return [front]
    branch, place = np.nonzero(front.path >= 0)
    left = np.where(front.entry >= 0, drafts.left(front.entry), 0)
    ahead = np.repeat(front.entry - np.cumsum(left) + left + 1, left) + np.arange(
        left.sum()
    )  # drafted after the branches
    needed = np.concatenate([front.path[branch, place], ahead])
    rows, columns = np.concatenate([owner[branch], np.repeat(owner, left)]), drafts.columns(needed)
    alive = np.arange(front.used.max()) < front.prefixes.lengths[live][:, None]
    alive[rows, columns] = True
    drafts.move(needed, (np.cumsum(alive, axis=1) - 1)[rows, columns])
    columns = np.argsort(~alive, axis=1, kind="stable")  # (Q, S): those in use first, in order
    whole = replace(
        front, asked=front.asked[live], used=alive.sum(axis=1), spent=front.spent[live], owner=owner,
        prefixes=front.prefixes.take(live),
    )  # fmt: skip
    share = share if len(live) * (whole.used.max() + SLACK) <= most else min(share, 0.5)
    first = max(1, int(share * len(live)))
    parts = np.split(np.arange(len(live)), [first] if first < len(live) else [])
    return [_part(whole, part, columns, most) for part in parts]


def _part(front: Frontier, queries: np.ndarray, columns: np.ndarray, most: int) -> Frontier:
    """The part of `front` that belongs to consecutive `queries`, with a cache of its own of their `columns` alone."""
    branch = np.flatnonzero((front.owner >= queries[0]) & (front.owner <= queries[-1]))
    used = front.used[queries]
    width = int(used.max())
    device = front.prefixes.cache.kv.layers[0].keys.device
    prefixes = front.prefixes.moved(queries, torch.from_numpy(columns[queries, :width]).to(device))
    part = front.branches(branch) | {"owner": front.owner[branch] - queries[0]}
    look_at = _look_at(len(queries), width, most)
    return Frontier(
        prefixes, front.asked[queries], used, front.spent[queries], **part, look_at=look_at, hurried=front.hurried
    )


def _look_at(n_queries: int, width: int, most: int) -> int:
    """How long a cache `width` columns wide may become before it is compacted."""
    return 2 * width + SLACK if n_queries == 1 else min(2 * width + SLACK, most // n_queries)
