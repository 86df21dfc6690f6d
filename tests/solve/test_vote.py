"""Selectors against scores worked out by hand, and two attempts that always differ."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_core.arc.result import Candidate
from ttt_core.arc.submission import PLACEHOLDER
from ttt_core.errors import InputError
from ttt_core.solve.vote import SELECTORS, rank, select

TEST_INPUT = np.array([[7, 7]], np.uint8)


def candidate(color, logprobs, found_in):
    return Candidate(np.array([[color]], np.uint8), tuple(logprobs), tuple(found_in))


# Views 0 and 8 share a dihedral. Means: -1.5, -2.0, -3.0.
PROBABLE = candidate(1, (-1.0, -2.0), (0,))
OFTEN = candidate(2, (-3.0, -3.0), (0, 8, 16))  # in one dihedral alone
SPREAD = candidate(3, (-1.0, -3.0), (1, 2))
SCORES = {
    "sum_logprob": [-3.0, -6.0, -4.0],
    "count_minus_nll": [-0.5, 0.0, 0.0],
    "majority": [1 + 1 / 5, 3 + 1 / 8, 2 + 1 / 6],
    "hierarchical": [1 / 5, 1 + 1 / 8, 2 + 1 / 6],
}


@pytest.mark.parametrize("name", SELECTORS)
def test_scores_are_those_worked_out_by_hand(name):
    assert SELECTORS[name]([PROBABLE, OFTEN, SPREAD]) == pytest.approx(SCORES[name])


def test_selectors_choose_differently_where_their_scores_do():
    best = {name: int(rank([PROBABLE, OFTEN, SPREAD], name)[0].grid[0, 0]) for name in SELECTORS}
    assert best == {"sum_logprob": 1, "count_minus_nll": 2, "majority": 2, "hierarchical": 3}


def test_a_view_that_did_not_score_counts_the_mean_and_not_nothing():
    half = candidate(1, (-4.0, math.nan), (0,))
    whole = candidate(2, (-3.0, -3.0), (0,))
    assert rank([half, whole], "sum_logprob")[0] is whole
    assert np.nansum(half.logprobs) > np.nansum(whole.logprobs), "leaving it out would choose the other"


@pytest.mark.parametrize("name", ["majority", "hierarchical"])
def test_equal_votes_are_told_apart_by_mean_log_prob_however_low(name):
    low, high = candidate(1, (-900.0,), (0,)), candidate(2, (-800.0,), (1,))
    assert rank([low, high], name)[0] is high


@pytest.mark.parametrize("name", SELECTORS)
def test_the_order_of_discovery_does_not_matter(name):
    twins = [candidate(color, (-1.0,), (0,)) for color in (3, 1, 2)]
    told = [[int(c.grid[0, 0]) for c in rank(given, name)] for given in (twins, twins[::-1])]
    assert told == [[1, 2, 3]] * 2


def test_an_unknown_selector_is_named_with_those_there_are():
    with pytest.raises(InputError, match=r"unknown selector mode: choose one of sum_logprob, .*hierarchical"):
        rank([PROBABLE], "mode")


def test_too_few_candidates_are_filled_up_with_the_input_then_the_placeholder():
    first, second = select([PROBABLE], "sum_logprob", TEST_INPUT)
    assert np.array_equal(first, PROBABLE.grid) and np.array_equal(second, TEST_INPUT)
    first, second = select([], "sum_logprob", TEST_INPUT)
    assert np.array_equal(first, TEST_INPUT) and np.array_equal(second, PLACEHOLDER)


grids = st.sampled_from([np.array(PLACEHOLDER, np.uint8), np.ones((2, 2), np.uint8), TEST_INPUT, PROBABLE.grid])


@given(st.lists(grids, max_size=3), grids, st.sampled_from(sorted(SELECTORS)))
def test_two_attempts_always_differ(found, test_input, name):
    first, second = select([Candidate(grid, (-1.0,), (0,)) for grid in found], name, test_input)
    assert not np.array_equal(first, second)


def test_the_dihedral_of_a_view_is_what_its_name_says():
    views = [f"d{d} c0123456789" for d in (0, 1, 2, 3, 0, 1, 2, 3)]  # two passes of four views
    once, twice = candidate(1, (-1.0,), (0, 4)), candidate(2, (-1.0,), (1, 6))
    assert [int(c.grid[0, 0]) for c in rank([once, twice], "hierarchical", views)] == [2, 1]
    assert [int(c.grid[0, 0]) for c in rank([once, twice], "hierarchical")] == [1, 2], "by number they are equal"
