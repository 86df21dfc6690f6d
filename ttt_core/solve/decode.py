"""Search: every answer of a view whose probability lies above the floor, grammar first.

All views of a batch side by side: each goes on, token by token, until a branch of it needs a pass, and when all do, one pass
serves all (`advance.py`), so that what is found depends neither on the batch nor on its order. Log-probs are the model's own, in
nats, unless `decode.logprobs` says otherwise. Not here: the branches and their cache (`frontier.py`, `cache.py`), what is
expected beforehand (`drafts.py`), what is given up where time is short (`hurry.py`), mapping answers to the task.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from ttt_core.arc.grammar import Limits, State, limits
from ttt_core.config import DecodeConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve import prefix
from ttt_core.solve.advance import passed
from ttt_core.solve.drafts import Drafts, states
from ttt_core.solve.feed import context_tokens
from ttt_core.solve.frontier import Frontier, compacted, start
from ttt_core.solve.hurry import Pace, hurried
from ttt_core.solve.prefix import Prefixes, Query

Answer = tuple[np.ndarray, float]  # answer token ids (T,) with their end, log-prob


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
    expected: Callable[[int], np.ndarray | None] = lambda i: None,
    first: int = 0,
    kept: list | None = None,
    counts: Counter | None = None,
    last: float = -math.inf,
) -> Iterator[tuple[int, list[Answer]]]:
    """(query, its answers, most probable first), batch by batch.

    expected: token ids of the answer to expect of a query, asked when its batch begins; None: its `draft`, if it has one. It
    changes the work, not the answers. first, kept: see `prefix.batches`. counts: gets the tokens of "prefill", "draft",
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
        drafts = Drafts(prefixes.logprobs, bounds, model.format.grammar, config.drafts)
        for number, i in enumerate(part):
            ids = expected(i)
            if (ids := queries[i].draft if ids is None else ids) is not None:
                drafts.expect(number, ids)
        tokens = np.array([query.expected for query in asked])
        found = _search(model, prefixes, drafts, bounds, tokens, config, deadline, last, counts)
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
    pace of its last passes answers of the `expected` tokens (Q,) would end after the deadline, it hurries: each query keeps
    its most probable branch alone where much is missing; on a CPU, where fewer queries are faster, as many of the first go
    on as will be in time, the others wait; and until there is an answer, the best branches go on below the floor.
    """
    found: list[list[Answer]] = [[] for _ in range(len(prefixes))]
    counts["search_unshared"] += int(prefixes.lengths.sum())
    most = 2 * config.batch_tokens
    fronts, pace = [start(model, prefixes, most)], Pace(deadline)
    while fronts and time.monotonic() < (deadline if last is None or any(found) else max(deadline, last)):
        needs_any = fronts[-1].hurried and last is not None and not any(found)
        front = _to_a_pass(model, fronts.pop(), drafts, bounds, config, found, needs_any, counts)
        if not len(front.owner):
            pace = Pace(deadline)
            continue
        front = passed(model, front, drafts, counts)
        lengths = front.lengths()
        share = pace.share(int(np.maximum(1, expected[front.asked] - lengths)[lengths > 0].sum()))
        if share < 1:
            front, share = hurried(model, front, config, share)
        parts = compacted(front, drafts, most, share)
        fronts += reversed(parts)
        pace = pace if len(parts) == 1 else Pace(deadline)
    return found


def _to_a_pass(
    model, front: Frontier, drafts: Drafts, bounds: Limits, config: DecodeConfig, found: list, needs_any: bool, counts
) -> Frontier:
    """`front` when all its queries wait for a pass or have ended. Ended answers go into `found`.

    needs_any: the best branch of a query goes on below the floor.
    """
    while True:
        waits = np.zeros(len(front.asked), bool)
        waits[front.owner[front.entry < 0]] = True
        if waits[front.owner].all():
            return front
        front = _along(model, front, drafts, bounds, config, needs_any, counts)
        front = _level(model, front, drafts, waits, bounds, config, found, needs_any, counts)


def _scores(model, config: DecodeConfig, allowed: np.ndarray, total: np.ndarray, logprobs: np.ndarray) -> np.ndarray:
    """Log-probs (..., V) of branches of `total` (...) with a further token; -inf where that is not allowed."""
    ahead = prefix.renormalised(logprobs, allowed) if config.logprobs == "renormalised" else logprobs
    return np.where(allowed, total[..., None] + ahead, -np.inf)


def _along(model, front: Frontier, drafts: Drafts, bounds: Limits, config: DecodeConfig, needs_any: bool, counts):
    """Queries of one branch as far along its draft as no other token is to be taken; what `_level` does there, at once."""
    left = np.where(np.bincount(front.owner)[front.owner] == 1, drafts.left(front.entry), 0)
    one = np.flatnonzero((front.entry >= 0) & (left > 0))
    if not len(one):
        return front
    grammar, owner, left = model.format.grammar, front.owner[one], left[one]
    steps = np.arange(left.max() + 1)
    entries = front.entry[one, None] + np.minimum(steps, left[:, None])  # (N, T + 1): the branch's own, then its draft
    tokens = drafts.tokens(entries)[:, 1:]  # (N, T)
    chains = np.append(np.where(steps[:-1] < left[:, None], tokens, -1), np.full((len(one), 1), -1), axis=1)
    state = states(chains, front.state.take(one), grammar.row_end)  # (N, T + 1)
    flat = State(state.rows[:, :-1].ravel(), state.cols[:, :-1].ravel(), state.width[:, :-1].ravel())
    allowed = grammar.allowed(flat, bounds.take(np.repeat(front.asked[owner], len(steps) - 1)))
    allowed = allowed.reshape(*tokens.shape, -1)  # (N, T, V)
    logprobs = drafts.logprobs(entries[:, :-1])
    alone = _scores(model, config, allowed, np.zeros(tokens.shape), logprobs)
    taken = np.take_along_axis(alone, tokens[:, :, None], axis=2)[:, :, 0]
    total = np.cumsum(np.append(front.total[one, None], taken, axis=1), axis=1)  # (N, T + 1)
    goes_on = total[:, :-1, None] + alone >= np.log(config.floor)
    if needs_any or config.search == "greedy":
        best = (np.arange(alone.shape[2]) == alone.argmax(axis=2)[:, :, None]) & np.isfinite(alone)
        goes_on = best if config.search == "greedy" else goes_on | (best & ~goes_on.any(axis=2, keepdims=True))
    goes_on &= np.isfinite(alone)
    drafted = np.take_along_axis(goes_on, tokens[:, :, None], axis=2)[:, :, 0] & (steps[:-1] < left[:, None])
    n = np.logical_and.accumulate(drafted & (goes_on.sum(axis=2) == 1), axis=1).sum(axis=1)  # (N,) tokens taken
    one, owner, n, every = one[n > 0], owner[n > 0], n[n > 0], np.flatnonzero(n > 0)
    fields = {name: getattr(front, name).copy() for name in ("total", "depth", "token", "entry", "path", "spent")}
    depth = fields["depth"][one]
    fields["path"] = _widened(fields["path"], int((depth + n).max(initial=0)))
    step = np.arange(int(n.max(initial=0))) < n[:, None]
    row, at = np.nonzero(step)
    fields["path"][one[row], depth[row] + at] = entries[every[row], at + 1]
    fields["total"][one], fields["entry"][one] = total[every, n], entries[every, n]
    fields["token"][one], fields["depth"][one] = tokens[every, n - 1], depth + n
    fields["spent"][owner] += n
    counts["search_unshared"] += int(((front.prefixes.lengths[owner] + depth) * n + n * (n + 1) // 2).sum())
    after = State(*(field.copy() for field in (front.state.rows, front.state.cols, front.state.width)))
    for field, values in zip((after.rows, after.cols, after.width), (state.rows, state.cols, state.width), strict=True):
        field[one] = values[every, n]
    return replace(front, **fields, state=after)


def _widened(path: np.ndarray, columns: int) -> np.ndarray:
    more = max(0, columns - path.shape[1])
    return np.pad(path, ((0, 0), (0, more and max(more, 32))), constant_values=-1)


def _level(
    model, front: Frontier, drafts, waits, bounds: Limits, config: DecodeConfig, found: list, needs_any: bool, counts
) -> Frontier:
    """Every branch of the queries that do not wait (Q,) a token further."""
    grammar, greedy = model.format.grammar, config.search == "greedy"
    now, rest = (front.branches(np.flatnonzero(waits[front.owner] == still)) for still in (False, True))
    owner = now["owner"]
    allowed = grammar.allowed(now["state"], bounds.take(front.asked[owner]))
    scores = _scores(model, config, allowed, now["total"], drafts.logprobs(now["entry"]))  # (N, V)
    goes_on = np.zeros_like(allowed) if greedy else scores >= np.log(config.floor)
    if greedy or needs_any:
        one_each = np.ones(len(front.asked), np.int64)
        goes_on[_best(scores, owner, *np.nonzero(np.isfinite(scores)), one_each)] = True
    branch, token = np.nonzero(goes_on)
    ended = token == grammar.end
    for b in branch[ended]:
        answer = np.append(drafts.tokens(now["path"][b, : now["depth"][b]]), grammar.end)
        found[front.asked[owner[b]]].append((answer, float(scores[b, grammar.end])))
    caps = np.clip(config.max_tokens - front.spent, 1, config.max_branches)
    branch, token = _best(scores, owner, branch[~ended], token[~ended], caps)
    owner, depth, before = owner[branch], now["depth"][branch], now["state"].take(branch)
    entry = drafts.after(now["entry"][branch], token)
    path = _widened(now["path"][branch], int(depth.max(initial=-1)) + 1)
    path[np.arange(len(branch)), depth] = entry
    rest["path"] = _widened(rest["path"], path.shape[1])
    path = _widened(path, rest["path"].shape[1])
    counts["search_unshared"] += int((front.prefixes.lengths[owner] + depth + 1).sum())
    fields = {
        "owner": owner, "total": scores[branch, token], "depth": depth + 1, "token": token, "before": before,
        "state": grammar.advance(before, token), "entry": entry, "path": path,
    }  # fmt: skip
    order = np.argsort(np.append(rest["owner"], owner), kind="stable")
    fields = {name: _joined(rest[name], value, order) for name, value in fields.items()}
    return replace(front, **fields, spent=front.spent + np.bincount(owner, minlength=len(front.asked)))


def _joined(one, other, order: np.ndarray):
    if isinstance(one, State):
        pairs = ((one.rows, other.rows), (one.cols, other.cols), (one.width, other.width))
        return State(*(np.concatenate(pair)[order] for pair in pairs))
    return np.concatenate([one, other])[order]


def _best(scores: np.ndarray, owner: np.ndarray, branch, token, caps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the continuations (branch, token) of each query its `caps` most probable, in the order they came."""
    queries = owner[branch]
    if (np.bincount(queries, minlength=len(caps)) <= caps).all():
        return branch, token
    order = np.lexsort((token, branch, -scores[branch, token], queries))
    rank = np.arange(len(order)) - np.searchsorted(queries, queries)  # queries rise, so the order keeps their places
    kept = np.sort(order[rank < caps[queries]])
    return branch[kept], token[kept]
