"""Answers that share their beginnings, as one tree of tokens: what re-scoring passes through the model once.

A node is a token after a certain beginning; ends are no nodes, since nothing is predicted after them. Nodes stand in
an order in which parents precede children. numpy only; not here: the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ttt_core.arc.grammar import Grammar, State


@dataclass(frozen=True, eq=False)
class Trie:
    """N nodes. tokens, depth: int64 (N,). before: the grammar's state before each.

    paths: per answer its nodes in order.
    """

    tokens: np.ndarray
    depth: np.ndarray
    before: State
    paths: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def ancestry(self) -> np.ndarray:
        """bool (N, N): [i, j] is true where j is i or a beginning of it."""
        reach = np.zeros((len(self), len(self)), bool)
        for path in self.paths:
            reach[np.ix_(path, path)] |= np.tri(len(path), dtype=bool)
        return reach


def build(answers: Sequence[np.ndarray], grammar: Grammar) -> Trie:
    """The trie of `answers`, each of them token ids (T,) with their end, allowed by `grammar`."""
    order = sorted(range(len(answers)), key=lambda i: answers[i].tolist())
    lengths = np.array([len(answers[i]) - 1 for i in order], np.int64)
    ids = np.full((len(answers), lengths.max(initial=0)), -1, np.int64)  # (A, T)
    for row, i in zip(ids, order, strict=True):
        row[: len(answers[i]) - 1] = answers[i][:-1]
    differs = np.ones(ids.shape, bool)
    differs[1:] = np.logical_or.accumulate(ids[1:] != ids[:-1], axis=1)
    is_new = differs & (ids >= 0)  # the answer before, in sorted order, does not begin so
    number = np.where(is_new, np.cumsum(is_new).reshape(ids.shape), 0)
    number = np.maximum.accumulate(number, axis=0) - 1  # (A, T): an old beginning has the node made for it above
    row, depth = np.nonzero(is_new)
    paths = {i: number[r, : lengths[r]] for r, i in enumerate(order)}
    before = grammar.before(ids, grammar.start(len(ids))).each(lambda field: field[row, depth])
    return Trie(ids[row, depth], depth, before, tuple(paths[i] for i in range(len(answers))))


def chunks(answers: list[np.ndarray], most: int) -> list[list[int]]:
    """Indices of `answers` in runs of at most `most` tokens (at least one answer), like beginnings side by side."""
    runs: list[list[int]] = []
    size = most
    for i in sorted(range(len(answers)), key=lambda i: answers[i].tolist()):
        if size + len(answers[i]) > most:
            runs.append([])
            size = 0
        runs[-1].append(i)
        size += len(answers[i])
    return runs


def states(answer: np.ndarray, grammar: Grammar) -> State:
    """The grammar's state before each token of an answer (T,), its end included."""
    return grammar.before(answer[None], grammar.start(1)).each(lambda field: field[0])
