"""Search: every answer of a view whose probability lies above the floor, grammar first.

All views of a batch at once, token by token: one pass takes every live branch of every view a token further, so that
what is found depends neither on the batch nor on its order. Log-probs are the model's own, in nats, unless
`decode.logprobs` says otherwise. Not here: the branches and their cache (`frontier.py`, `cache.py`), answers tried beforehand
(`drafts.py`), what is given up where time is short (`hurry.py`), mapping answers to the task.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ttt_core.arc.grammar import Limits, limits
from ttt_core.config import DecodeConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve import prefix
from ttt_core.solve.drafts import Drafts, verified
from ttt_core.solve.feed import context_tokens
from ttt_core.solve.frontier import Frontier, compacted, start
from ttt_core.solve.hurry import Pace, hurried
from ttt_core.solve.prefix import Prefixes, Query

Answer = tuple[np.ndarray, float]  # answer token ids (T,) with their end, log-prob
PADDING, GPU_PADDING = 32, 2048  # padded tokens that take about as long as one more pass


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
    counts = Counter() if counts is None else counts
    for part, prefixes in prefix.batches(model, queries, config.batch_tokens, counts, first, kept, None, deadline):
        if time.monotonic() >= deadline:
            return
        asked = [queries[i] for i in part]
        room = [min(config.answer_tokens, context_tokens(model) - len(query.prefix)) for query in asked]
        bounds = limits(room, [query.prior for query in asked])
        tried = [drafts(i) if config.search == "dfs" and i >= first else [] for i in part]
        tried = [[ids for ids in own if len(ids) <= most] for own, most in zip(tried, room, strict=True)]
        table = verified(model, prefixes, tried, config.batch_tokens, counts)
        expected = np.array([query.expected for query in asked])
        found = _search(model, prefixes, table, bounds, expected, config, deadline, last, counts)
        last = None if any(found) else last
        for i, answers in zip(part, found, strict=True):
            yield i, sorted(answers, key=lambda answer: (-answer[1], answer[0].tobytes()))


def _search(
    model,
    prefixes: Prefixes,
    drafts: Drafts,
    bounds: Limits,
    expected,
    config: DecodeConfig,
    deadline: float,
    last: float | None,
    counts,
) -> list[list[Answer]]:
    """One batch of queries. It is searched in parts where its branches outgrow twice the batch's tokens.

    last: until when it goes on without an answer after the deadline; None where there are answers already. Where at the
    pace of its last levels answers of the `expected` tokens (Q,) would end after the deadline, it hurries: each query keeps
    its most probable branch alone where much is missing; on a CPU, where fewer queries are faster, as many of the first go
    on as will be in time, the others wait; and until there is an answer, the best branches go on below the floor.
    """
    found: list[list[Answer]] = [[] for _ in range(len(prefixes))]
    counts["search_unshared"] += int(prefixes.lengths.sum())
    most = 2 * config.batch_tokens
    fronts, pace = [start(model, prefixes, drafts, most)], Pace(deadline)
    while fronts and time.monotonic() < (deadline if last is None or any(found) else max(deadline, last)):
        needs_any = fronts[-1].hurried and last is not None and not any(found)
        front = _level(model, fronts.pop(), drafts, bounds, config, found, needs_any, counts)
        if front is None:
            pace = Pace(deadline)
            continue
        share = pace.share(int(expected[front.asked].max()) - front.tokens.shape[1])
        if share < 1:
            front, share = hurried(model, front, config, share)
        parts = compacted(front, drafts, most, share)
        fronts += reversed(parts)
        pace = pace if len(parts) == 1 else Pace(deadline)
    return found


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
        one_each = np.ones(len(front.asked), np.int64)
        goes_on[_best(scores, front.owner, *np.nonzero(np.isfinite(scores)), one_each)] = True
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
