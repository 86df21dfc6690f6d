"""The answer grammar under limits: exactly the grids that keep to them, and never a token after which none can be reached."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.arc.encode import answer_grid, answer_ids
from ttt_core.arc.grammar import Grammar, Prior, limits

TWO = frozenset({3, 7})  # few enough colours to write down every grid


def walk(grammar, bounds):
    """Every answer that the automaton lets end, and the beginnings from which it allows nothing."""
    answers, stuck, stack = set(), [], [((), grammar.start(1))]
    while stack:
        tokens, state = stack.pop()
        following = np.flatnonzero(grammar.allowed(state, bounds)[0])
        stuck += [tokens] * (len(following) == 0)
        for token in following:
            longer = (*tokens, int(token))
            if token == grammar.end:
                answers.add(longer)
            else:
                stack.append((longer, grammar.advance(state, np.array([token]))))
    return answers, stuck


def grids(max_side, colors):
    for height, width in itertools.product(range(1, max_side + 1), repeat=2):
        for cells in itertools.product(sorted(colors), repeat=height * width):
            yield np.array(cells, np.uint8).reshape(height, width)


@settings(max_examples=60, deadline=None)
@given(
    st.booleans(), st.integers(1, 3), st.integers(0, 16), st.integers(0, 3), st.integers(0, 3), st.sampled_from([TWO, {5}])
)  # fmt: skip
def test_the_answers_are_exactly_the_grids_within_the_limits(terminated, max_side, tokens, height, width, colors):
    height, width = min(height, max_side), min(width, max_side)
    grammar, prior = Grammar(15, 10, 13, terminated, max_side), Prior(height, width, frozenset(colors))
    answers, stuck = walk(grammar, limits([tokens], [prior]))
    expected = {
        tuple(map(int, answer_ids(grammar, grid)))
        for grid in grids(max_side, colors)
        if height in (0, grid.shape[0]) and width in (0, grid.shape[1])
    }
    assert answers == {ids for ids in expected if len(ids) <= tokens}
    assert stuck == ([] if answers else [()])  # room is kept from the first token on


def test_without_room_kept_a_limit_would_cut_answers_off():
    grammar, free = Grammar(15, 10, 13, max_side=3), limits([13], [Prior(colors=TWO)])
    answers, _ = walk(grammar, free)
    cut = {ids[:6] for ids in answers if len(ids) > 6}  # the naive limit: stop after six tokens
    assert all(ids[-1] != grammar.end for ids in cut) and cut
    assert all(ids[-1] == grammar.end for ids in walk(grammar, limits([6], [Prior(colors=TWO)]))[0])


def test_a_batch_keeps_each_answer_to_its_own_limits():
    grammar = Grammar(15, 10, 13)
    bounds = limits([931, 4, 931], [Prior(), Prior(), Prior(1, 2, frozenset({1}))])
    allowed = grammar.allowed(grammar.advance(grammar.start(3), np.array([1, 1, 1])), bounds)
    assert allowed[0].tolist() == [True] * 11 + [False] * 4
    assert np.flatnonzero(allowed[1]).tolist() == [*range(10), 10]
    assert np.flatnonzero(allowed[2]).tolist() == [1]


@pytest.mark.parametrize("terminated", [True, False])
def test_the_longest_answer_has_max_tokens_and_reads_back(terminated):
    grammar, largest = Grammar(15, 10, 13, terminated), np.zeros((30, 30), np.uint8)
    ids = answer_ids(grammar, largest)
    assert len(ids) == grammar.max_tokens() and np.array_equal(answer_grid(grammar, ids), largest)
