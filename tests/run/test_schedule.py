"""The order of tasks."""

import numpy as np

from ttt_core.arc.tasks import Pair, Task
from ttt_core.run.schedule import cost, order


def task(task_id, side):
    grid = np.zeros((side, side), np.uint8)
    return Task(task_id, (Pair(grid, grid),), (Pair(grid),))


def test_cheapest_first_whatever_the_order_of_the_file():
    tasks = [task("big", 9), task("small", 2), task("middle", 5), task("also-small", 2)]
    expected = ["also-small", "small", "middle", "big"]
    assert [t.id for t in order(tasks)] == [t.id for t in order(tasks[::-1])] == expected


def test_a_task_that_failed_before_waits_for_those_without_a_turn():
    assert [t.id for t in order([task("a", 1), task("b", 9)], failed_before={"a"})] == ["b", "a"]


def test_cost_grows_with_the_task_but_not_from_zero():
    small, large = cost(task("a", 3)), cost(task("b", 30))
    assert small < large < 10 * small  # cells differ by 100: a share by cells alone would starve the small one
