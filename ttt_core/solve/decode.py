"""Search: every answer of a view whose probability lies above the floor, grammar first.

All views of a batch at once, token by token: one pass takes every live branch of every view a token further, so that
what is found depends neither on the batch nor on its order. Drafts, answers found in other views, are verified in
one pass beforehand; the branches along them then need no pass of their own. The cache holds a tree a view (`cache.py`).
Log-probs are the model's own, in nats, unless `decode.logprobs` says otherwise. Not here: mapping answers to the task.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ttt_core.arc.grammar import Limits, State, limits
from ttt_core.config import DecodeConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve import prefix, trie
from ttt_core.solve.feed import context_tokens
from ttt_core.solve.prefix import Prefixes, Query

Answer = tuple[np.ndarray, float]  # answer token ids (T,) with their end, log-prob
PADDING, GPU_PADDING = 32, 2048  # padded tokens that take about as long as one more pass
SLACK = 64  # columns that a compacted cache may grow by before it is looked at again
PACED = 8  # levels after which the time that they took says whether the rest will end by the deadline
NARROWED = 0.5  # where less than this share will be in time, each query keeps one branch before queries are cut


@dataclass(frozen=True, eq=False)
class Drafts:
    """The drafts of all queries of a batch as one table; a query's root is the entry of its own number.

    children: (M, V), the entry after each entry with each token, -1 where no draft goes on; the last entry has none.
    logprobs: (M, V) of the next token; columns: (M,) in the cache; ends: (Q,) first column of each query behind them.
    """

    children: np.ndarray
    logprobs: np.ndarray
    columns: np.ndarray
    ends: np.ndarray


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


def decode(model: LoadedModel, queries: list[Query], config: DecodeConfig, deadline: float) -> list[list[Answer]]:
    """The answers found for each query, most probable first; what is found by the deadline (monotonic seconds)."""
    answers: list[list[Answer]] = [[] for _ in queries]
    for i, found in search(model, queries, config, deadline):
        answers[i] = found
    return answers


def search(
    model: LoadedModel,
    queries: list[Query],
    config: DecodeConfig,
    deadline: float,
    *,
    drafts: Callable[[int], list[np.ndarray]] = lambda i: [],
    first: int = 0,
    kept: list | None = None,
    counts: Counter | None = None,
    last: float = -math.inf,
) -> Iterator[tuple[int, list[Answer]]]:
    """(query, its answers, most probable first), batch by batch.

    drafts: token ids of answers to try first in a query that is none of the `first`, asked when its batch begins; they
    change the work, not the answers. first, kept: see `prefix.batches`. counts: gets the tokens of "prefill", "draft",
    "search", and "search_unshared", what the same search takes without a cache. last: until then the search goes
    on after the deadline for a first answer (both monotonic seconds).
    """
    counts, without = Counter() if counts is None else counts, last
    for part, prefixes in prefix.batches(model, queries, config.batch_tokens, counts, first, kept, None, deadline):
        if time.monotonic() >= deadline:
            return
        asked = [queries[i] for i in part]
        room = [min(config.answer_tokens, context_tokens(model) - len(query.prefix)) for query in asked]
        bounds = limits(room, [query.prior for query in asked])
        tried = [drafts(i) if config.search == "dfs" and i >= first else [] for i in part]
        tried = [[ids for ids in own if len(ids) <= most] for own, most in zip(tried, room, strict=True)]
        table = _drafts(model, prefixes, tried, config.batch_tokens, counts)
        expected = np.array([query.expected for query in asked])
        found = _search(model, prefixes, table, bounds, expected, config, (deadline, without), counts)
        without = None if any(found) else without
        for i, answers in zip(part, found, strict=True):
            yield i, sorted(answers, key=lambda answer: (-answer[1], answer[0].tobytes()))


def _drafts(
    model: LoadedModel, prefixes: Prefixes, drafts: list[list[np.ndarray]], batch_tokens: int, counts: Counter
) -> Drafts:
    """The table of `drafts`, verified: their nodes stand in the cache behind their prefixes.

    A pass verifies so many queries' drafts that these and their prefixes have at most batch_tokens, at least one's.
    """
    tries = [trie.build(answers, model.format.grammar) for answers in drafts]
    sizes, n = np.array([len(tree) for tree in tries]), len(tries)
    logprobs, columns, drafted = [prefixes.logprobs], [np.zeros(n, np.int64)], np.flatnonzero(sizes)
    children = np.full((n + sizes.sum() + 1, prefixes.logprobs.shape[1]), -1, np.int64)
    if len(drafted):
        at_once = max(1, batch_tokens // int(prefixes.lengths.max() + sizes.max()))
        for now in np.split(drafted, range(at_once, len(drafted), at_once)):
            logprobs += prefix.verify(model, prefixes, now, [tries[q] for q in now], kept=True)
        counts["draft"] += int(sizes.sum())
    start = n
    for q in drafted:
        below = np.where(tries[q].children >= 0, tries[q].children + start, -1)
        children[q], children[start : start + sizes[q]] = below[0], below[1:]
        columns.append(prefixes.lengths[q] + np.arange(sizes[q]))
        start += sizes[q]
    off = np.zeros((1, children.shape[1]))
    return Drafts(
        children, np.concatenate([*logprobs, off]), np.append(np.concatenate(columns), 0), prefixes.lengths + sizes
    )


def _search(
    model, prefixes: Prefixes, drafts: Drafts, bounds: Limits, expected, config: DecodeConfig, until: tuple, counts
) -> list[list[Answer]]:
    """One batch of queries. It is searched in parts where its branches outgrow twice the batch's tokens.

    until: the deadline, and until when it goes on without an answer, or None where there are answers already. Where at the
    pace of its last levels answers of the `expected` tokens (Q,) would end after the deadline, it hurries: each query keeps
    its most probable branch alone where much is missing; on a CPU, where fewer queries are faster, as many of the first go
    on as will be in time, the others wait; and until there is an answer, the best branches go on below the floor.
    """
    found: list[list[Answer]] = [[] for _ in range(len(prefixes))]
    counts["search_unshared"] += int(prefixes.lengths.sum())
    most, (deadline, last) = 2 * config.batch_tokens, until
    fronts, pace = [_start(model, prefixes, drafts, most)], _Pace(deadline)
    while fronts and time.monotonic() < (deadline if last is None or any(found) else max(deadline, last)):
        needs_any = fronts[-1].hurried and last is not None and not any(found)
        front = _level(model, fronts.pop(), drafts, bounds, config, found, needs_any, counts)
        if front is None:
            pace = _Pace(deadline)
            continue
        share = pace.share(int(expected[front.asked].max()) - front.tokens.shape[1])
        if share < 1:
            front, share = _hurried(model, front, config, share)
        parts = _compacted(front, drafts, most, share)
        fronts += reversed(parts)
        pace = pace if len(parts) == 1 else _Pace(deadline)
    return found


def _hurried(model, front: Frontier, config: DecodeConfig, share: float) -> tuple[Frontier, float]:
    """A front that is late, and the share of its queries to go on with."""
    is_cpu, is_narrow = model.device.type == "cpu", len(np.unique(front.owner)) == len(front.owner)
    if not is_narrow and (share < NARROWED or not is_cpu or len(front.asked) == 1):
        return replace(front, hurried=True, spent=np.full(len(front.asked), config.max_tokens)), 1.0
    return replace(front, hurried=True), share if is_cpu else 1.0


class _Pace:
    """How fast a front goes, against a deadline in monotonic seconds."""

    def __init__(self, deadline: float):
        self.deadline, self.levels, self.since = deadline, -1, time.monotonic()

    def share(self, ahead: int) -> float:
        """Asked after every level: the share of the `ahead` next ones that fits the time, looked at every PACED levels, else 1."""
        self.levels += 1
        if self.levels == 0:  # what the first one takes, new shapes take
            self.since = time.monotonic()
        if self.levels < PACED or math.isinf(self.deadline):
            return 1.0
        now = time.monotonic()
        takes, left = (now - self.since) / self.levels * ahead, max(0.0, self.deadline - now)
        self.levels, self.since = 0, now
        return left / takes if takes > left else 1.0


def _start(model: LoadedModel, prefixes: Prefixes, drafts: Drafts, most: int) -> Frontier:
    """The empty answer of every query."""
    n, every = len(prefixes), np.arange(len(prefixes))
    sees = torch.from_numpy(np.arange(drafts.ends.max()) < prefixes.lengths[:, None]).to(model.device)
    spent, tokens, state = np.zeros(n, np.int64), np.zeros((n, 0), np.int16), model.format.grammar.start(n)
    look_at = _look_at(n, sees.shape[1], most)
    return Frontier(
        prefixes, every, drafts.ends, spent, every, np.zeros(n), tokens, state, every, sees, prefixes.logprobs, look_at
    )


def _level(
    model, front: Frontier, drafts: Drafts, bounds: Limits, config: DecodeConfig, found: list, needs_any: bool, counts
) -> Frontier | None:
    """Every live branch a token further; None where none is left. Ended answers go into `found`.

    needs_any: the best branch of a query goes on below the floor.
    """
    grammar, greedy = model.format.grammar, config.search == "greedy"
    allowed = grammar.allowed(front.state, bounds.take(front.asked[front.owner]))
    ahead = prefix.renormalised(front.logprobs, allowed) if config.logprobs == "renormalised" else front.logprobs
    scores = np.where(allowed, front.total[:, None] + ahead, -np.inf)  # (R, V)
    goes_on = np.zeros_like(allowed) if greedy else scores >= np.log(config.floor)
    if greedy or needs_any:
        goes_on[_best(scores, front.owner, *np.nonzero(np.isfinite(scores)), np.ones(len(front.asked), np.int64))] = (
            True
        )
    branch, token = np.nonzero(goes_on)
    ended = token == grammar.end
    for b in branch[ended]:
        answer = np.append(front.tokens[b], grammar.end).astype(np.int64)
        found[front.asked[front.owner[b]]].append((answer, float(scores[b, grammar.end])))
    caps = np.clip(config.max_tokens - front.spent, 1, config.max_branches)
    branch, token = _best(scores, front.owner, branch[~ended], token[~ended], caps)
    return _advanced(model, front, drafts, scores, branch, token, counts) if len(branch) else None


def _best(scores: np.ndarray, owner: np.ndarray, branch, token, caps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the continuations (branch, token) of each query its `caps` most probable, in the order they came."""
    queries = owner[branch]
    if (np.bincount(queries, minlength=len(caps)) <= caps).all():
        return branch, token
    order = np.lexsort((token, branch, -scores[branch, token], queries))
    rank = np.arange(len(order)) - np.searchsorted(queries, queries)  # queries rise, so the order keeps their places
    kept = np.sort(order[rank < caps[queries]])
    return branch[kept], token[kept]


def _advanced(model, front: Frontier, drafts: Drafts, scores, branch, token, counts: Counter) -> Frontier:
    """The frontier of the continuations (branch, token); those on no draft go through the model."""
    owner, depth, state = front.owner[branch], front.tokens.shape[1], front.state.take(branch)
    entry = drafts.children[front.entry[branch], token]
    away = np.flatnonzero(entry < 0)
    entry = np.where(entry < 0, len(drafts.children) - 1, entry)
    active, row, n_new = np.unique(owner[away], return_inverse=True, return_counts=True)
    slot = np.arange(len(away)) - (np.cumsum(n_new) - n_new)[row]
    used = front.used.copy()
    column = drafts.columns[entry]
    column[away] = used[owner[away]] + slot
    used[active] += n_new
    sees = front.sees[torch.from_numpy(branch).to(front.sees.device)]  # (R, S)
    logprobs = drafts.logprobs[entry]
    if len(away):
        cells = model.format.positions(
            front.prefixes.lengths[owner], np.full(len(branch), depth), state.rows, state.cols
        )
        logprobs[away] = _passed(model, front, active, row, slot, token[away], cells[away], sees[away])
    sees = torch.nn.functional.pad(sees, (0, max(0, int(used.max()) - sees.shape[1])))
    sees[np.arange(len(branch)), column] = True
    counts["search"] += len(away)
    counts["search_unshared"] += int((front.prefixes.lengths[owner] + depth + 1).sum())
    spent = front.spent + np.bincount(owner, minlength=len(front.asked))
    return replace(
        front, used=used, spent=spent, owner=owner, total=scores[branch, token], entry=entry, sees=sees,
        logprobs=logprobs, tokens=np.append(front.tokens[branch], token[:, None].astype(np.int16), axis=1),
        state=model.format.grammar.advance(state, token),
    )  # fmt: skip


def _passed(model, front: Frontier, active, row, slot, token, cells, sees: Tensor) -> np.ndarray:
    """Log-probs (N, V) after N new tokens, each in its query's `row` of `active` and `slot`."""
    logprobs = np.empty((len(row), front.logprobs.shape[1]))
    for first, last in _runs(np.bincount(row), PADDING if model.device.type == "cpu" else GPU_PADDING):
        now = np.flatnonzero((slot >= first) & (slot < last))
        rows, r = np.unique(row[now], return_inverse=True)
        t, queries = slot[now] - first, active[rows]
        shape = (len(rows), int(t.max()) + 1)  # (A, T)
        ids, positions = np.zeros(shape, np.int64), np.ones((*shape, *cells.shape[1:]), np.int64)
        ids[r, t], positions[r, t] = token[now], cells[now]
        wide = torch.zeros(*shape, sees.shape[1], dtype=torch.bool, device=sees.device)
        wide[r, t] = sees[now]
        own = torch.eye(shape[1], dtype=torch.bool, device=sees.device)[None]
        used = front.used[queries] + first
        logits = prefix.grow(model, front.prefixes, queries, used, ids, positions, wide, own)
        logprobs[now] = prefix.logprobs_of(logits[r, t])
    return logprobs


def _runs(sizes: np.ndarray, padding: int) -> list[tuple[int, int]]:
    """Slots as one pass, or as two where that spares `padding`: the second for the queries with many branches alone."""
    most, ends = int(sizes.max()), np.unique(sizes)
    spared = np.array([(sizes <= end).sum() * (most - end) for end in ends])
    end = int(ends[spared.argmax()])
    return [(0, most)] if spared.max() < padding else [(0, end), (end, most)]


def _compacted(front: Frontier, drafts: Drafts, most: int, share: float = 1.0) -> list[Frontier]:
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
