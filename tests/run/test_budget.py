"""The deadline and the reserve."""

import math

import pytest

from ttt_core.errors import InputError
from ttt_core.run.budget import Budget


@pytest.mark.parametrize(("seconds", "reserve_s"), [(10, 2), (300, 10), (3600, 120), (6000, 120), (43200, 864)])
def test_reserve(seconds, reserve_s):
    assert Budget(0, seconds).reserve_s == pytest.approx(reserve_s)


def test_deadline_counts_from_the_given_start():
    budget = Budget(started=100, seconds=300)
    assert (budget.deadline, budget.hard_stop, budget.last_word) == (390, 395, 397.5)
    assert (budget.left_s(190), budget.left_s(500), budget.used_s(110)) == (200, 0, 10)


@pytest.mark.parametrize("seconds", [0, 1, 2])
def test_a_budget_within_the_reserve_leaves_nothing(seconds):
    assert Budget(5, seconds).left_s(5) == 0


@pytest.mark.parametrize("budget", [(0, -1), (0, math.nan), (0, math.inf), (math.nan, 10)])
def test_impossible_budgets(budget):
    with pytest.raises(InputError, match="give a"):
        Budget(*budget)
