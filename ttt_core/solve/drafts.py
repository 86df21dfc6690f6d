"""Drafts: answers found in other views, verified in one pass before a view is searched.

Branches of the search along them need no pass of their own. Not here: which answers are tried (`task.py`), how they become
tries (`trie.py`), the search that follows them (`decode.py`).
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ttt_core.model.load import LoadedModel
from ttt_core.solve import prefix, trie
from ttt_core.solve.prefix import Prefixes


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


def verified(
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
