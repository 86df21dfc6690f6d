"""The frontier of a search: the live branches of a batch of queries, and the cache that they keep to.

It starts as the empty answer of every query; what finished queries and dead branches leave in the cache is compacted away,
and a frontier goes on in two parts where its cache has outgrown its tokens or the time is short. Not here: which tokens
extend it (`decode.py`), how short the time is (`hurry.py`).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ttt_core.arc.grammar import State
from ttt_core.model.load import LoadedModel
from ttt_core.solve.drafts import Drafts
from ttt_core.solve.prefix import Prefixes

SLACK = 64  # columns that a compacted cache may grow by before it is looked at again


@dataclass(frozen=True, eq=False)
class Frontier:
    """R live branches, equally long, of Q queries with a cache of their own, in order of queries.

    asked: (Q,) number of each query in its batch; used: (Q,) columns in use; spent: (Q,) tokens visited so far.
    owner: (R,) place in `asked`; total: (R,) log-prob; tokens: (R, depth); entry: (R,) in the drafts, the last one off
    them; sees: bool (R, S), the columns of its prefix and its tokens; logprobs: (R, V) of the next token.
    look_at: columns in use at which the cache is compacted. hurried: time is short for it.
    """

    prefixes: Prefixes
    asked: np.ndarray
    used: np.ndarray
    spent: np.ndarray
    owner: np.ndarray
    total: np.ndarray
    tokens: np.ndarray
    state: State
    entry: np.ndarray
    sees: Tensor
    logprobs: np.ndarray
    look_at: int
    hurried: bool = False


def start(model: LoadedModel, prefixes: Prefixes, drafts: Drafts, most: int) -> Frontier:
    """The empty answer of every query."""
    n, every = len(prefixes), np.arange(len(prefixes))
    sees = torch.from_numpy(np.arange(drafts.ends.max()) < prefixes.lengths[:, None]).to(model.device)
    spent, tokens, state = np.zeros(n, np.int64), np.zeros((n, 0), np.int16), model.format.grammar.start(n)
    look_at = _look_at(n, sees.shape[1], most)
    return Frontier(
        prefixes, every, drafts.ends, spent, every, np.zeros(n), tokens, state, every, sees, prefixes.logprobs, look_at
    )


def compacted(front: Frontier, drafts: Drafts, most: int, share: float = 1.0) -> list[Frontier]:
    """`front` without finished queries and dead branches in its cache, once these are half of it; in two where needed.

    most: cached tokens, padding included, that more than one query may have. share: of the queries, for the first of two.
    """
    live, owner = np.unique(front.owner, return_inverse=True)
    if share == 1 and 2 * len(live) > len(front.asked) and front.used.max() < front.look_at:
        return [front]
    device = front.sees.device
    alive = torch.zeros(len(live), front.sees.shape[1], dtype=torch.int32, device=device)
    alive.index_add_(0, torch.from_numpy(owner).to(device), front.sees.int())
    ends = torch.from_numpy(drafts.ends[front.asked[live]]).to(device)
    alive = (alive > 0) | (torch.arange(alive.shape[1], device=device) < ends[:, None])
    columns = torch.argsort(~alive, dim=1, stable=True)  # (Q, S): those in use first, in order
    sees = front.sees.gather(1, columns[torch.from_numpy(owner).to(device)])
    whole = replace(
        front, asked=front.asked[live], used=alive.sum(dim=1).cpu().numpy(), spent=front.spent[live], owner=owner,
        sees=sees, prefixes=front.prefixes.take(live),
    )  # fmt: skip
    share = share if len(live) * (whole.used.max() + SLACK) <= most else min(share, 0.5)
    first = max(1, int(share * len(live)))
    parts = np.split(np.arange(len(live)), [first] if first < len(live) else [])
    return [_part(whole, part, columns, most) for part in parts]


def _part(front: Frontier, queries: np.ndarray, columns: Tensor, most: int) -> Frontier:
    """The part of `front` that belongs to consecutive `queries`, with a cache of its own of their `columns` alone."""
    branch = np.flatnonzero((front.owner >= queries[0]) & (front.owner <= queries[-1]))
    index = torch.from_numpy(branch).to(columns.device)
    used = front.used[queries]
    width = int(used.max())
    return Frontier(
        front.prefixes.moved(queries, columns[torch.from_numpy(queries).to(columns.device), :width]),
        front.asked[queries], used, front.spent[queries], front.owner[branch] - queries[0], front.total[branch],
        front.tokens[branch], front.state.take(branch), front.entry[branch], front.sees[index, :width],
        front.logprobs[branch], _look_at(len(queries), width, most), front.hurried,
    )  # fmt: skip


def _look_at(n_queries: int, width: int, most: int) -> int:
    """How long a cache `width` columns wide may become before it is compacted."""
    return 2 * width + SLACK if n_queries == 1 else min(2 * width + SLACK, most // n_queries)
