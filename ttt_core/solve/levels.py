"""How branches of a search go on: which tokens follow each of them above the floor, and along drafts many at once.

Not here: the passes that give their log-probs (`advance.py`), what branches keep in the cache (`frontier.py`).
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from ttt_core.arc.grammar import Limits, State
from ttt_core.config import DecodeConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve import prefix
from ttt_core.solve.drafts import Drafts
from ttt_core.solve.frontier import Frontier

Answer = tuple[np.ndarray, float]  # answer token ids (T,) with their end, log-prob
MORE = 32  # columns that a path grows by


@dataclass(frozen=True, eq=False)
class Batch:
    """What Q queries that are searched side by side share. bounds: of their answers; found: theirs, as they end."""

    model: LoadedModel
    config: DecodeConfig
    bounds: Limits
    drafts: Drafts
    found: list[list[Answer]]
    counts: Counter

    def scores(self, state: State, queries: np.ndarray, entries: np.ndarray, total: np.ndarray) -> np.ndarray:
        """(N, V) log-probs of N branches with a further token; -inf where the grammar or the bounds forbid it."""
        allowed = self.model.format.grammar.allowed(state, self.bounds.take(queries))
        ahead = self.drafts.logprobs(entries)
        if self.config.logprobs == "renormalised":
            ahead = prefix.renormalised(ahead, allowed)
        return np.where(allowed, total[:, None] + ahead, -np.inf)


def to_a_pass(batch: Batch, front: Frontier, needs_any: bool) -> Frontier:
    """`front` when all its queries wait for a pass or have ended. Ended answers go into `batch.found`.

    needs_any: until there is an answer, the best branch of a query goes on below the floor.
    """
    while True:
        waits = np.zeros(len(front.asked), bool)
        waits[front.owner[front.entry < 0]] = True
        if waits[front.owner].all():
            return front
        needs_any = needs_any and not any(batch.found)
        front = _level(batch, _along_drafts(batch, front, needs_any), waits, needs_any)


def _level(batch: Batch, front: Frontier, waits: np.ndarray, needs_any: bool) -> Frontier:
    """Every branch of the queries that do not wait (Q,) a token further."""
    grammar, config, n_queries = batch.model.format.grammar, batch.config, len(front.asked)
    now, rest = (front.branches(np.flatnonzero(waits[front.owner] == still)) for still in (False, True))
    owner, is_greedy = now["owner"], config.search == "greedy"
    scores = batch.scores(now["state"], front.asked[owner], now["entry"], now["total"])
    goes_on = np.zeros(scores.shape, bool) if is_greedy else scores >= np.log(config.floor)
    if is_greedy or needs_any:
        goes_on[_best(scores, owner, *np.nonzero(np.isfinite(scores)), np.ones(n_queries, np.int64))] = True
    branch, token = np.nonzero(goes_on)
    ended = token == grammar.end
    for b in branch[ended]:
        answer = np.append(batch.drafts.tokens(now["path"][b, : now["depth"][b]]), grammar.end)
        batch.found[front.asked[owner[b]]].append((answer, float(scores[b, grammar.end])))
    caps = np.clip(config.max_tokens - front.spent, 1, config.max_branches)
    branch, token = _best(scores, owner, branch[~ended], token[~ended], caps)
    owner, depth, before = owner[branch], now["depth"][branch], now["state"].take(branch)
    entry = batch.drafts.after(now["entry"][branch], token)
    path = _wide(now["path"][branch], int(depth.max(initial=-1)) + 1)
    path[np.arange(len(branch)), depth] = entry
    rest["path"] = _wide(rest["path"], path.shape[1])
    further = {
        "owner": owner, "total": scores[branch, token], "depth": depth + 1, "token": token, "before": before,
        "state": grammar.advance(before, token), "entry": entry, "path": path,
    }  # fmt: skip
    batch.counts["search_unshared"] += int((front.prefixes.lengths[owner] + depth + 1).sum())
    order = np.argsort(np.append(rest["owner"], owner), kind="stable")
    fields = {name: _joined(rest[name], value, order) for name, value in further.items()}
    return replace(front, **fields, spent=front.spent + np.bincount(owner, minlength=n_queries))


def _best(scores: np.ndarray, owner: np.ndarray, branch, token, caps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the continuations (branch, token) of each query its `caps` most probable, in the order they came."""
    queries = owner[branch]
    if (np.bincount(queries, minlength=len(caps)) <= caps).all():
        return branch, token
    order = np.lexsort((token, branch, -scores[branch, token], queries))
    rank = np.arange(len(order)) - np.searchsorted(queries, queries)  # queries rise, so the order keeps their places
    kept = np.sort(order[rank < caps[queries]])
    return branch[kept], token[kept]


def _along_drafts(batch: Batch, front: Frontier, needs_any: bool) -> Frontier:
    """What `_level` does, again and again, where a query has one branch and no token but the drafted one may follow: at once."""
    is_one = (np.bincount(front.owner)[front.owner] == 1) & (front.entry >= 0)
    one = np.flatnonzero(is_one & (batch.drafts.left(front.entry) > 0))
    if not len(one):
        return front
    left, owner, depth = batch.drafts.left(front.entry[one]), front.owner[one], front.depth[one]
    places = np.arange(left.max() + 1)
    entries = front.entry[one, None] + np.minimum(places, left[:, None])  # (N, T + 1): its own, then drafted ones
    tokens = np.where(places[1:] <= left[:, None], batch.drafts.tokens(entries[:, 1:]), -1)  # (N, T)
    state = batch.model.format.grammar.before(np.pad(tokens, ((0, 0), (0, 1))), front.state.take(one))
    asked = np.repeat(front.asked[owner], len(places) - 1)
    before = state.each(lambda field: field[:, :-1].ravel())
    scores = batch.scores(before, asked, entries[:, :-1].ravel(), np.zeros(tokens.size))
    scores = scores.reshape(*tokens.shape, -1)  # (N, T, V): of each token by itself
    n, total = _taken(batch.config, scores, tokens, front.total[one], needs_any)
    each = np.arange(len(one))
    batch.counts["search_unshared"] += int(((front.prefixes.lengths[owner] + depth) * n + n * (n + 1) // 2).sum())
    row, at = np.nonzero(places[1:] <= n[:, None])
    path = _wide(front.path.copy(), int((depth + n).max()))
    path[one[row], depth[row] + at] = entries[row, at + 1]
    values = {
        "total": total[each, n], "depth": depth + n, "token": np.where(n > 0, tokens[each, n - 1], front.token[one]),
        "entry": entries[each, n], "state": state.each(lambda field: field[each, n]),
    }  # fmt: skip
    fields = {name: _put(getattr(front, name), one, value) for name, value in values.items()}
    return replace(front, **fields, path=path, spent=front.spent + np.bincount(owner, n, len(front.asked)).astype(int))


def _taken(config: DecodeConfig, scores, tokens, total, needs_any: bool) -> tuple[np.ndarray, np.ndarray]:
    """How many (N,) of the drafted `tokens` (N, T) are taken, and the log-probs (N, T + 1) of branches of `total` (N,) with them."""
    index = np.maximum(tokens, 0)[:, :, None]
    own = np.take_along_axis(scores, index, axis=2)[:, :, 0]
    total = np.cumsum(np.append(total[:, None], own, axis=1), axis=1)
    others = scores.copy()
    np.put_along_axis(others, index, -np.inf, axis=2)
    others = others.max(axis=2)
    if config.search == "greedy":
        is_taken = own > others
    else:
        floor = np.log(config.floor)
        is_taken = (total[:, :-1] + others < floor) & ((total[:, 1:] >= floor) | (needs_any & (own > others)))
    return np.logical_and.accumulate(is_taken & (tokens >= 0), axis=1).sum(axis=1), total


def _wide(path: np.ndarray, columns: int) -> np.ndarray:
    """`path` (R, D) with room for so many columns."""
    more = columns - path.shape[1]
    return np.pad(path, ((0, 0), (0, max(more, MORE))), constant_values=-1) if more > 0 else path


def _joined(one, other, order: np.ndarray):
    """A field of some branches and of others, in `order`."""
    if isinstance(one, State):
        return one.each(lambda a, b: _joined(a, b, order), other)
    return np.concatenate([one, other])[order]


def _put(old, index: np.ndarray, new):
    """A field of all branches, with `new` values at `index`."""
    if isinstance(old, State):
        return old.each(lambda a, b: _put(a, index, b), new)
    changed = old.copy()
    changed[index] = new
    return changed
