"""Re-scoring: the log-prob of every candidate under every view. Not here: choosing among them.

Under a view all candidates pass through the model at once, as one trie over the view's cached prefix: shared beginnings
are computed once and the prefix not at all. What a view's own search has found keeps the log-prob it was found with.
"""

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ttt_core.arc.augment import Augmentation, apply
from ttt_core.arc.encode import answer_ids
from ttt_core.arc.grammar import limits
from ttt_core.config import RescoreConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve import prefix, trie
from ttt_core.solve.clock import fits, fitting_size, timed
from ttt_core.solve.prefix import Query

TRIE_TOKENS = 512  # of one trie at most: larger ones share more beginnings, but attention grows with their square
CPU_PASS = 2048  # new tokens of one pass on a CPU: twice as many no longer fit its caches and take a tenth longer


def rescore(
    model: LoadedModel,
    queries: list[Query],
    grids: list[np.ndarray],
    views: Sequence[Augmentation],
    config: RescoreConfig,
    deadline: float,
    *,
    kept: list | None = None,
    known: Sequence[dict[bytes, float]] | None = None,
    counts: Counter | None = None,
) -> np.ndarray:
    """(candidates, views) nats of `grids`, in the task's own orientation; queries: one a view; rest: see `score`."""
    answers = [[answer_ids(model.format.grammar, apply(view, grid)) for grid in grids] for view in views]
    given = score(model, queries, answers, config, deadline, kept=kept, known=known, counts=counts)
    return np.array(given).reshape(len(views), -1).T


def score(
    model: LoadedModel,
    queries: list[Query],
    answers: list[list[np.ndarray]],
    config: RescoreConfig,
    deadline: float,
    *,
    kept: list | None = None,
    known: Sequence[dict[bytes, float]] | None = None,
    counts: Counter | None = None,
) -> list[np.ndarray]:
    """Per query the log-probs, nats, of its `answers`, token ids (T,) with their end.

    NaN where the deadline (monotonic seconds) came first or the model has no room. kept: see `prefix.batches`. known:
    per query log-probs that its search has found, by the bytes of the token ids; they are not computed again. counts:
    gets the tokens of "score", and "score_unshared", what scoring one by one takes; and "unscored", answers that had no time.
    """
    counts, known = Counter() if counts is None else counts, known or [{}] * len(queries)
    scores = [
        np.array([got.get(ids.tobytes(), np.nan) for ids in own]) for got, own in zip(known, answers, strict=True)
    ]
    counts["score_unshared"] += sum(len(q.prefix) + len(ids) for q, own in zip(queries, answers) for ids in own)
    room = [query.room(model) for query in queries]
    fitting = [
        [a for a, ids in enumerate(own) if np.isnan(scores[q][a]) and len(ids) <= room[q]]
        for q, own in enumerate(answers)
    ]
    asked, counts["unscored"] = [q for q, own in enumerate(fitting) if own], sum(map(len, fitting))
    batches = prefix.batches(model, queries, config.batch_tokens, counts, kept=kept, only=asked, deadline=deadline)
    for part, prefixes in batches:
        work = []  # (query, row of the prefixes, numbers of its answers, their trie)
        for row, q in enumerate(part):
            own = [answers[q][a] for a in fitting[q]]
            for run in trie.chunks(own, min(TRIE_TOKENS, config.batch_tokens)):
                tree = trie.build([own[i] for i in run], model.format.grammar)
                work.append((q, row, [fitting[q][i] for i in run], tree))
        work.sort(key=lambda item: -len(item[3]))
        if not fits(model, "score", sum(len(tree) for *_, tree in work), deadline):  # a view counts once it is whole
            tallest = {q: len(tree) for q, *_, tree in reversed(work)}
            work.sort(key=lambda item: (-tallest[item[0]], item[0]))
        while work and time.monotonic() < deadline:
            widest, count = np.maximum.accumulate([len(tree) for *_, tree in work]), np.arange(1, len(work) + 1)
            is_small = (int(prefixes.lengths.max()) + widest) * count <= config.batch_tokens
            if model.device.type == "cpu":
                is_small &= widest * count <= CPU_PASS
            size = fitting_size(model, "score", widest, max(1, int(is_small.sum())), deadline)
            if not size:
                break
            now, work = work[:size], work[size:]
            rows, tries = np.array([row for _, row, _, _ in now]), [tree for *_, tree in now]
            with timed(model, "score", size * int(widest[size - 1])):
                after = prefix.verify(model, prefixes, rows, tries)
            for (q, row, numbers, tree), logprobs in zip(now, after, strict=True):
                for a, path in zip(numbers, tree.paths, strict=True):
                    ahead = np.concatenate([prefixes.logprobs[row][None], logprobs[path]])  # (T, V), before each token
                    scores[q][a] = _sum(model, queries[q], answers[q][a], ahead, config)
                counts["score"] += len(tree)
                counts["unscored"] -= len(numbers)
    return scores


def _sum(model: LoadedModel, query: Query, answer: np.ndarray, ahead: np.ndarray, config: RescoreConfig) -> float:
    """The log-prob of an answer, its end included; NaN if renormalised and not allowed."""
    if config.logprobs == "renormalised":
        bounds = limits([query.room(model)] * len(answer), [query.prior] * len(answer))
        ahead = prefix.renormalised(
            ahead, model.format.grammar.allowed(trie.states(answer, model.format.grammar), bounds)
        )
    total = float(ahead[np.arange(len(answer)), answer].sum())
    return total if np.isfinite(total) else np.nan
