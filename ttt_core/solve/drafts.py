"""Drafts: what an answer is expected to be, passed through the model together with the token that is due.

A branch of the search that takes a drafted token needs no pass of its own. What the model says of a drafted token
corrects the draft behind it, so that a wrong one soon becomes what the search will ask for (Jacobi decoding,
arXiv:2305.10427). Drafts change the work, not the answers. numpy only; not here: the passes (`advance.py`), and which token a branch
takes (`levels.py`).
"""

import numpy as np

from ttt_core.arc.grammar import Grammar, Limits
from ttt_core.arc.tasks import N_COLORS

LEAST = 4  # tokens of a query in one pass where drafts fail, which costs little more than one
FIRST = 16  # half of the tokens before it is known whether drafts fail
PASS = 4096  # tokens of one pass, at most, unless there are more branches


class Drafts:
    """M tokens, or entries, that went through the model below Q prefixes, and what is expected of each query's answer.

    An entry has a token, a column in the cache, and log-probs (V,) of the token after it; where that was drafted, its entry
    follows. The first Q entries are the empty answers.
    """

    def __init__(self, logprobs: np.ndarray, bounds: Limits, grammar: Grammar, most: int):
        """logprobs: (Q, V), after the prefixes. most: tokens of a query in one pass, the one that is due included."""
        n = len(logprobs)
        self.row_end, self.most, self.room = grammar.row_end, max(1, most), bounds.tokens - 1  # an end is no entry
        self.expected = np.full((n, max(1, int(self.room.max(initial=0)))), -1, np.int64)  # -1: anything
        self.passes = np.zeros(n, np.int64)  # of each query
        self.size = n
        self._logprobs = logprobs.astype(np.float32)  # there may be a hundred thousand
        self._token, self._column, self._left = np.full(n, -1, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)

    def expect(self, query: int, ids: np.ndarray) -> None:
        """Expect the answer `ids`, with its end, of a query."""
        ids = ids[: min(len(ids) - 1, self.expected.shape[1])]
        self.expected[query, : len(ids)] = ids

    def after(self, entries: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The entries of `tokens` drafted after `entries`; -1 where another was, or none."""
        following = np.minimum(entries + 1, self.size - 1)
        return np.where((self._left[entries] > 0) & (self._token[following] == tokens), following, -1)

    def logprobs(self, entries: np.ndarray) -> np.ndarray:
        """(..., V) of the token after each of `entries` (...)."""
        return self._logprobs[entries].astype(np.float64)

    def tokens(self, entries: np.ndarray) -> np.ndarray:
        return self._token[entries]

    def columns(self, entries: np.ndarray) -> np.ndarray:
        return self._column[entries]

    def left(self, entries: np.ndarray) -> np.ndarray:
        """How many were drafted after each of `entries`: those that follow it in number."""
        return self._left[entries]

    def move(self, entries: np.ndarray, columns: np.ndarray) -> None:
        """`entries` stand in other `columns` now."""
        self._column[entries] = columns

    def chains(self, queries: np.ndarray, depth: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """(N, T), for a pass: `tokens`, numbers `depth` of answers to `queries`, (N,) each, and what is expected behind them; then -1.

        The more tokens a pass has brought a query forward so far, the more it gets, shared out among its branches.
        """
        branches = np.bincount(queries, minlength=len(self.passes))[queries]
        most = np.maximum(LEAST, 2 * (depth + FIRST) / (self.passes[queries] + 1))
        most = np.minimum(2 ** np.ceil(np.log2(most)).astype(int), self.most)  # a power of two: of few different shapes
        most = np.maximum(1, np.minimum(most, PASS // len(np.unique(queries))) // branches)
        behind = depth[:, None] + np.arange(1, max(1, int(most.max())))
        fits = (behind - depth[:, None] < most[:, None]) & (behind < self.room[queries][:, None])
        drafted = self.expected[queries[:, None], np.minimum(behind, self.expected.shape[1] - 1)]
        goes_on = np.logical_and.accumulate(fits & (drafted >= 0), axis=1)
        self.passes[np.unique(queries)] += 1
        width = int(goes_on.sum(axis=1).max(initial=0))
        return np.append(tokens[:, None], np.where(goes_on, drafted, -1)[:, :width], axis=1)

    def add(self, queries: np.ndarray, depth: np.ndarray, chains: np.ndarray, columns, logprobs, order) -> np.ndarray:
        """The first entries (N,) of `chains` (N, T), whose M tokens have `columns` (M,) and `logprobs` (M, V), chain by chain.

        order: of the chains, the one that is to be believed most last.
        """
        chain, place = np.nonzero(chains >= 0)
        lengths = np.bincount(chain, minlength=len(chains))
        begin = np.cumsum(lengths) - lengths
        first = self.size + begin
        self._append(logprobs, chains[chain, place], columns, lengths[chain] - 1 - place)
        likely = logprobs.argmax(axis=1)
        likely[(likely >= N_COLORS) & (likely != self.row_end)] = -1  # an end, or no token of an answer
        for number in order:
            at = depth[number] + 1
            part = likely[begin[number] :][: min(lengths[number], self.expected.shape[1] - at)]
            self.expected[queries[number], at : at + len(part)] = part
        return first

    def _append(self, logprobs, tokens, columns, left) -> None:
        size = self.size + len(tokens)
        while len(self._token) < size:
            self._logprobs, self._token, self._column, self._left = (
                np.concatenate([old, np.empty_like(old)])
                for old in (self._logprobs, self._token, self._column, self._left)
            )
        new = slice(self.size, size)
        self._logprobs[new], self._token[new], self._column[new], self._left[new] = logprobs, tokens, columns, left
        self.size = size
