"""Answers that share their beginnings, as one tree of tokens: what drafting and re-scoring pass through the model once.

A node is a token after a certain beginning; ends are no nodes, since nothing is predicted after them. Nodes stand in
an order in which parents precede children. numpy only; not here: the model.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ttt_core.arc.grammar import Grammar, State


@dataclass(frozen=True, eq=False)
class Trie:
    """N nodes. tokens, parent (-1: first token of an answer), depth: int64 (N,). before, after: the grammar's states, N each.

    children: (node or -1, token) to node. paths: per answer its nodes in order, the end left out.
    """

    tokens: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    before: State
    after: State
    children: dict[tuple[int, int], int]
    paths: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def ancestry(self) -> np.ndarray:
        """bool (N, N): [i, j] is true where j is i or a beginning of it."""
        reach = np.eye(len(self), dtype=bool)
        for node, parent in enumerate(self.parent):
            if parent >= 0:
                reach[node] |= reach[parent]
        return reach

    def path(self, node: int) -> list[int]:
        """The nodes from the first token to `node`; empty for -1."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = int(self.parent[node])
        return nodes[::-1]


def build(answers: Iterable[np.ndarray], grammar: Grammar) -> Trie:
    """The trie of `answers`, each of them token ids (T,) with their end, allowed by `grammar`."""
    children, tokens, parents, depths, paths = {}, [], [], [], []
    for answer in answers:
        node, path = -1, []
        for depth, token in enumerate(map(int, answer[:-1])):
            if (node, token) not in children:
                children[node, token] = len(tokens)
                tokens.append(token), parents.append(node), depths.append(depth)
            node = children[node, token]
            path.append(node)
        paths.append(tuple(path))
    tokens, parents, depths = (np.array(values, np.int64) for values in (tokens, parents, depths))
    before, after = _states(tokens, parents, depths, grammar)
    return Trie(tokens, parents, depths, before, after, children, tuple(paths))


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


def _states(tokens, parents, depths, grammar: Grammar) -> tuple[State, State]:
    """The grammar's states before and after each node, level by level."""
    before, after = grammar.start(len(tokens)), grammar.start(len(tokens))
    for depth in range(int(depths.max(initial=-1)) + 1):
        level = np.flatnonzero(depths == depth)
        state = after.take(parents[level]) if depth else grammar.start(len(level))
        following = grammar.advance(state, tokens[level])
        for name in ("rows", "cols", "width"):
            getattr(before, name)[level] = getattr(state, name)
            getattr(after, name)[level] = getattr(following, name)
    return before, after
