"""Search: every answer of a view whose probability lies above the floor, grammar first.

All views of a batch side by side: each goes on, token by token, until a branch of it needs a pass, and when all do, one pass
serves all (`advance.py`), so that what is found depends neither on the batch nor on its order. Log-probs are the model's own, in
nats, unless `decode.logprobs` says otherwise. Not here: which branches go on (`levels.py`), what they keep in the cache
(`frontier.py`, `cache.py`), what is expected beforehand (`drafts.py`), what is given up where time is short (`hurry.py`), mapping
answers to the task.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ttt_core.arc.grammar import limits
from ttt_core.config import DecodeConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve import prefix
from ttt_core.solve.advance import passed
from ttt_core.solve.drafts import Drafts
from ttt_core.solve.frontier import Frontier, compacted, start
from ttt_core.solve.hurry import Pace, hurried
from ttt_core.solve.levels import Answer, Batch, to_a_pass
from ttt_core.solve.prefix import Prefixes, Query

CPU_DRAFTS = 32  # tokens of a view in one pass on a CPU, where more cost more than the passes that they spare


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
    only: Iterable[int] | None = None,
    kept: list | None = None,
    counts: Counter | None = None,
    last: float = -math.inf,
) -> Iterator[tuple[int, list[Answer]]]:
    """(query, its answers, most probable first), batch by batch.

    expected: token ids of the answer to expect of a query, asked when its batch begins; None: its `draft`, if it has one. It
    changes the work, not the answers. first, only, kept: see `prefix.batches`. counts: gets the tokens of "prefill", "draft",
    "search", and "search_unshared", what the same search takes without a cache. last: until then the search goes
    on after the deadline for a first answer (both monotonic seconds).
    """
    counts = Counter() if counts is None else counts
    for part, prefixes in prefix.batches(
        model, queries, config.batch_tokens, counts, first, kept, only, deadline, last
    ):
        if time.monotonic() >= (deadline if last is None else max(deadline, last)):
            return
        asked = [queries[i] for i in part]
        room = [min(config.answer_tokens, query.room(model)) for query in asked]
        bounds = limits(room, [query.prior for query in asked])
        most = min(config.drafts, CPU_DRAFTS) if model.device.type == "cpu" else config.drafts
        drafts = Drafts(prefixes.logprobs, bounds, model.format.grammar, most)
        for number, i in enumerate(part):
            ids = expected(i)
            if (ids := queries[i].draft if ids is None else ids) is not None:
                drafts.expect(number, ids)
        batch = Batch(model, config, bounds, drafts, [[] for _ in part], counts)
        _search(batch, prefixes, np.array([query.expected for query in asked]), deadline, last)
        last = None if any(batch.found) else last
        for i, answers in zip(part, batch.found, strict=True):
            yield i, sorted(answers, key=lambda answer: (-answer[1], answer[0].tobytes()))


def _search(batch: Batch, prefixes: Prefixes, expected: np.ndarray, deadline: float, last: float | None) -> None:
    """One batch of queries. It is searched in parts where its branches outgrow twice the batch's tokens.

    last: until when it goes on without an answer after the deadline; None where there are answers already. Where at the
    pace of its last passes answers of the `expected` tokens (Q,) would end after the deadline, it hurries: each query keeps
    its most probable branch alone where much is missing; on a CPU, where fewer queries are faster, as many of the first go
    on as will be in time, the others wait; and until there is an answer, the best branches go on below the floor.
    """
    model, found, most = batch.model, batch.found, 2 * batch.config.batch_tokens
    batch.counts["search_unshared"] += int(prefixes.lengths.sum())

    def left(front: Frontier) -> int:
        lengths = front.lengths()
        return int(np.maximum(1, expected[front.asked] - lengths)[lengths >= 0].sum())

    fronts = [start(model, prefixes, most)]
    pace = Pace(deadline, left(fronts[0]))
    while fronts and time.monotonic() < (deadline if last is None or any(found) else max(deadline, last)):
        needs_any = fronts[-1].hurried and last is not None and not any(found)
        front = to_a_pass(batch, fronts.pop(), needs_any)
        if not len(front.owner):
            pace = Pace(deadline, left(fronts[-1]) if fronts else 0)
            continue
        share = pace.share(left(front))
        if share < 1:
            front, share = hurried(model, front, batch.config, share)
        front, *others = compacted(front, batch.drafts, most, share)
        if others:
            pace = Pace(deadline, left(front))
        fronts += [*others, passed(batch, front)]
    for front in fronts:  # what the last passes have brought
        to_a_pass(batch, front, needs_any=False)
