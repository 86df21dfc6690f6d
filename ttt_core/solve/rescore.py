"""Re-scoring: the log-prob of every candidate under every view. Not here: choosing among them.

Under a view all candidates pass through the model at once, as one trie over the view's cached prefix: shared beginnings
are computed once and the prefix not at all.
"""

import time
from collections import Counter

import numpy as np
import torch

from ttt_core.arc.augment import apply
from ttt_core.arc.encode import answer_ids
from ttt_core.config import RescoreConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve import prefix, trie
from ttt_core.solve.prefix import Prefixes, Query
from ttt_core.solve.trie import Trie

TRIES = 32  # a batch holds about as many; larger ones share more beginnings, but attention grows with their square


@torch.inference_mode()
def rescore(
    model: LoadedModel,
    queries: list[Query],
    grids: list[np.ndarray],
    views,
    config: RescoreConfig,
    deadline: float,
    *,
    kept: list | None = None,
    counts: Counter | None = None,
) -> np.ndarray:
    """(candidates, views) nats, NaN where the deadline (monotonic seconds) came first.

    queries: one a view, of the same test input. grids: in the task's own orientation. kept: see `prefix.batches`.
    counts: gets the tokens of "score", and "score_unshared", what scoring one by one takes.
    """
    scores, counts = np.full((len(grids), len(views)), np.nan), Counter() if counts is None else counts
    grammar = model.format.grammar
    for part, prefixes in prefix.batches(model, queries, config.batch_tokens, counts, kept=kept):
        past = prefixes.mask.shape[1]
        work = []  # (view, row of the prefixes, indices of grids, their answers)
        for row, v in enumerate(part):
            answers = [answer_ids(grammar, apply(views[v], grid)) for grid in grids]
            runs = trie.chunks(answers, config.batch_tokens // TRIES)
            work += [(v, row, run, [answers[g] for g in run]) for run in runs]
        built = [trie.build(answers, grammar) for *_, answers in work]
        order = sorted(range(len(work)), key=lambda i: len(built[i]), reverse=True)
        while order and time.monotonic() < deadline:
            count = max(1, config.batch_tokens // (past + len(built[order[0]])))
            now, order = order[:count], order[count:]
            tries = [built[i] for i in now]
            after, _ = prefix.verify(model, prefixes, [work[i][1] for i in now], tries)
            for i, tree, logprobs in zip(now, tries, after, strict=True):
                v, row, run, answers = work[i]
                scores[run, v] = _sums(tree, answers, logprobs, prefixes, row)
                counts["score"] += len(tree)
                counts["score_unshared"] += sum(prefixes.lengths[row] + len(answer) for answer in answers)
    return scores


def _sums(tree: Trie, answers: list[np.ndarray], logprobs: np.ndarray, prefixes: Prefixes, row: int) -> list[float]:
    """Per answer the sum of its tokens' log-probs, its end included."""
    sums = []
    for answer, path in zip(answers, tree.paths, strict=True):
        ahead = np.concatenate([prefixes.logprobs[row][None], logprobs[list(path)]])  # (T, V): before each token
        sums.append(float(ahead[np.arange(len(answer)), answer].sum()))
    return sums
