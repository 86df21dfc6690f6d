"""Re-scoring: the log-prob of every candidate under every view. Not here: choosing among them.

Under a view all candidates pass through the model at once, as one trie over the view's cached prefix: shared beginnings
are computed once and the prefix not at all.
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
from ttt_core.solve.prefix import Query

TRIES = 32  # a batch holds about as many; larger ones share more beginnings, but attention grows with their square


def rescore(
    model: LoadedModel,
    queries: list[Query],
    grids: list[np.ndarray],
    views: Sequence[Augmentation],
    config: RescoreConfig,
    deadline: float,
    *,
    kept: list | None = None,
    counts: Counter | None = None,
) -> np.ndarray:
    """(candidates, views) nats of `grids`, in the task's own orientation. queries: one a view. The rest: see `score`."""
    answers = [[answer_ids(model.format.grammar, apply(view, grid)) for grid in grids] for view in views]
    return np.array(score(model, queries, answers, config, deadline, kept=kept, counts=counts)).reshape(len(views), -1).T


def score(
    model: LoadedModel,
    queries: list[Query],
    answers: list[list[np.ndarray]],
    config: RescoreConfig,
    deadline: float,
    *,
    kept: list | None = None,
    counts: Counter | None = None,
) -> list[np.ndarray]:
    """Per query the log-probs, nats, of its `answers`, token ids (T,) with their end.

    NaN where the deadline (monotonic seconds) came first or the model has no room. kept: see `prefix.batches`. counts:
    gets the tokens of "score", and "score_unshared", what scoring one by one takes.
    """
    scores, counts = [np.full(len(own), np.nan) for own in answers], Counter() if counts is None else counts
    room = [prefix.context(model) - len(query.prefix) for query in queries]
    fitting = [[a for a, ids in enumerate(own) if len(ids) <= room[q]] for q, own in enumerate(answers)]
    asked = [q for q, own in enumerate(fitting) if own]
    for part, prefixes in prefix.batches(model, queries, config.batch_tokens, counts, kept=kept, only=asked):
        work = []  # (query, row of the prefixes, numbers of its answers, their trie)
        for row, q in enumerate(part):
            own = [answers[q][a] for a in fitting[q]]
            for run in trie.chunks(own, config.batch_tokens // TRIES):
                tree = trie.build([own[i] for i in run], model.format.grammar)
                work.append((q, row, [fitting[q][i] for i in run], tree))
        work.sort(key=lambda item: len(item[3]), reverse=True)
        while work and time.monotonic() < deadline:
            size = max(1, config.batch_tokens // (int(prefixes.lengths.max()) + len(work[0][3])))
            now, work = work[:size], work[size:]
            rows, tries = np.array([row for _, row, _, _ in now]), [tree for *_, tree in now]
            after = prefix.verify(model, prefixes, rows, tries, kept=False)
            for (q, row, numbers, tree), logprobs in zip(now, after, strict=True):
                for a, path in zip(numbers, tree.paths, strict=True):
                    ahead = np.concatenate([prefixes.logprobs[row][None], logprobs[path]])  # (T, V), before each token
                    scores[q][a] = _sum(model, queries[q], answers[q][a], ahead, config)
                counts["score"] += len(tree)
                counts["score_unshared"] += sum(int(prefixes.lengths[row]) + len(path) + 1 for path in tree.paths)
    return scores


def _sum(model: LoadedModel, query: Query, answer: np.ndarray, ahead: np.ndarray, config: RescoreConfig) -> float:
    """The log-prob of an answer, its end included; NaN if renormalised and not allowed."""
    if config.logprobs == "renormalised":
        bounds = limits([prefix.context(model) - len(query.prefix)] * len(answer), [query.prior] * len(answer))
        ahead = prefix.renormalised(ahead, model.format.grammar.allowed(trie.states(answer, model.format.grammar), bounds))
    total = float(ahead[np.arange(len(answer)), answer].sum())
    return total if np.isfinite(total) else np.nan
