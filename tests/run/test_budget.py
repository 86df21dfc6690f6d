"""The deadline, the reserve, and quotas that waste nothing."""

import math

import pytest

from ttt_core.errors import InputError
from ttt_core.run.budget import Budget, quota_s


@pytest.mark.parametrize(("seconds", "reserve_s"), [(10, 2), (300, 6), (3599, 71.98), (3600, 120), (43200, 864)])
def test_reserve(seconds, reserve_s):
    assert Budget(0, seconds).reserve_s == pytest.approx(reserve_s)


def test_deadline_counts_from_the_given_start():
    budget = Budget(started=100, seconds=300)
    assert (budget.deadline, budget.hard_stop) == (394, 397)
    assert (budget.left_s(194), budget.left_s(500), budget.used_s(110)) == (200, 0, 10)


@pytest.mark.parametrize("seconds", [0, 1, 2])
def test_a_budget_within_the_reserve_leaves_nothing(seconds):
    assert Budget(5, seconds).left_s(5) == 0


@pytest.mark.parametrize("budget", [(0, -1), (0, math.nan), (0, math.inf), (math.nan, 10)])
def test_impossible_budgets(budget):
    with pytest.raises(InputError, match="give a"):
        Budget(*budget)


def spend(costs, needs, total_s, quota):
    """Seconds each task gets on a simulated clock when it uses at most what it needs."""
    now, got = 0.0, []
    for i, need in enumerate(needs):
        got.append(min(need, quota(total_s - now, costs[i], sum(costs[i:]))))
        now += got[-1]
    return got


def least_zero(left_s, cost, cost_left):
    return quota_s(left_s, cost, cost_left, 0.0)


def fixed_split(left_s, cost, cost_left):
    """The naive twin: every task the same share of the whole, whatever the others left over."""
    return 100 / 4


@pytest.mark.parametrize(("quota", "all_get_what_they_need"), [(least_zero, True), (fixed_split, False)])
def test_seconds_saved_by_one_task_go_to_the_rest(quota, all_get_what_they_need):
    needs = [5, 5, 40, 50]  # 100 s in all
    assert (spend([1, 1, 1, 1], needs, 100, quota) == needs) is all_get_what_they_need


def test_quotas_are_in_proportion_to_cost_and_use_everything():
    assert spend([1, 2, 7], [math.inf] * 3, 100, least_zero) == pytest.approx([10, 20, 70])


def test_a_small_budget_is_given_to_few_tasks_not_a_little_to_all():
    got = spend([1] * 10, [math.inf] * 10, 50, lambda *args: quota_s(*args, 20.0))
    assert got == [20, 20, 10, 0, 0, 0, 0, 0, 0, 0]
