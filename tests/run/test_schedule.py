"""Quotas that waste nothing, the order of tasks, second turns where time is left; all on a simulated clock."""

import heapq
import math

import numpy as np
import pytest

from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import PRESETS, preset
from ttt_core.run.schedule import SLACK, Schedule, cost


def task(side, demonstrations=1, tests=1):
    grid = np.zeros((side, side), np.uint8)
    return Task("a", (Pair(grid, grid),) * demonstrations, (Pair(grid),) * tests)


@pytest.mark.parametrize("name", PRESETS)
def test_cost_grows_with_whatever_makes_work(name):
    config = PRESETS[name]
    small = cost(task(3), config)
    assert all(cost(larger, config) > small for larger in (task(30), task(3, demonstrations=4), task(3, tests=2)))
    assert cost(task(6), PRESETS["grid"]) < 10 * cost(task(3), PRESETS["grid"])  # adapting costs each as much


@pytest.mark.parametrize("side", [3, 25])
def test_cost_reckons_with_fewer_steps_of_long_sequences_alone(side):
    config, other = (preset("grid", [f"adapt.long_steps={n}"]) for n in (30, 0))
    assert (cost(task(side), config) < cost(task(side), other)) == (2 * side**2 > config.adapt.batch_tokens)


def test_a_task_of_large_grids_is_none_of_the_cheapest_though_its_steps_are_fewer():
    config = PRESETS["grid"]
    assert all(cost(task(side), config) > 1.3 * cost(task(6), config) for side in range(16, 31))


def schedule(costs, least_s=0.0, second=2.0):
    waiting = Schedule(costs, {name: second * cost for name, cost in costs.items()}, least_s)
    waiting.add(list(costs))
    return waiting


def simulate(waiting, needs, total_s, devices=1, doubts=None):
    """(what each turn was and got, when the last one ended): every turn uses at most what it needs."""
    events, got, now = [(0.0, name) for name in range(devices)], [], 0.0
    ends = {}
    while events:
        now, name = heapq.heappop(events)
        if name in ends:
            turn = waiting.ended(name, ends.pop(name), measured=True)
            if turn.number == 1 and doubts and turn.task_id in doubts:
                waiting.doubt(turn.task_id, doubts[turn.task_id], got[-1][2])
        if (turn := waiting.turn(name, now, total_s - now, devices)) is not None:
            ends[name] = min(turn.seconds, turn.number * needs[turn.task_id])
            got.append((turn.task_id, turn.number, ends[name]))
            heapq.heappush(events, (now + ends[name], name))
    return got, now


def test_seconds_saved_by_one_task_go_to_the_rest():
    needs = {"a": 5, "b": 5, "c": 40, "d": 50}  # 100 s in all
    got, _ = simulate(schedule(dict.fromkeys(needs, 1.0)), needs, 100)
    assert {name: seconds for name, _, seconds in got} == needs
    fixed = {name: min(need, 100 / 4) for name, need in needs.items()}  # the naive twin: each the same share
    assert fixed != needs


def test_quotas_are_in_proportion_to_cost_and_use_everything():
    got, end = simulate(schedule({"a": 1, "b": 2, "c": 7}), dict.fromkeys("abc", math.inf), 100)
    assert [seconds for *_, seconds in got] == pytest.approx([10, 20, 70]) and end == pytest.approx(100)


def test_a_small_budget_is_given_to_few_tasks_not_a_little_to_all():
    names = "abcdefghij"
    got, _ = simulate(schedule(dict.fromkeys(names, 1.0), least_s=20.0), dict.fromkeys(names, math.inf), 50)
    assert [seconds for *_, seconds in got] == [20, 20, 10]


def test_the_three_cheapest_then_longest_first_unless_the_time_is_short():
    costs = {f"t{i}": float(i + 1) for i in range(8)}
    order = [name for name, *_ in simulate(schedule(costs), costs, 1000)[0]]
    assert order == ["t0", "t1", "t2", "t7", "t6", "t5", "t4", "t3"]
    short = [name for name, *_ in simulate(schedule(costs), {name: 100 * c for name, c in costs.items()}, 100)[0]]
    assert short == sorted(costs)


def test_a_turn_that_the_clock_cut_is_taken_to_need_more():
    waiting = schedule(dict.fromkeys("abcd", 10.0))
    for was_cut in (False, True, False):
        waiting.turn("cpu", 0.0, 1000.0, 1)
        waiting.ended("cpu", 2.0, measured=True, was_cut=was_cut)
    assert waiting.pace.expected_s(10.0) == pytest.approx(8.0 / 3)


def test_before_there_is_a_pace_many_devices_begin_with_cheap_tasks_where_time_is_short():
    costs = {f"t{i:02}": float(i + 1) for i in range(40)}

    def first_turns(left_s):
        waiting = schedule(costs, least_s=20.0)
        return [waiting.turn(name, 0.0, left_s, 8).task_id for name in range(8)]

    assert first_turns(60.0) == sorted(costs)[:8]
    assert first_turns(200.0) == ["t00", "t01", "t02", "t39", "t38", "t37", "t36", "t35"]


def test_a_device_that_is_over_its_time_frees_no_time_of_others():
    waiting = schedule({"a": 1.0, "b": 1.0, "c": 2.0})
    assert waiting.turn("x", 0.0, 40.0, 2).seconds == 20.0
    assert waiting.turn("y", 30.0, 10.0, 2).seconds == pytest.approx(20.0 / 3)  # of 10 s of each, not of 10 more


def test_longest_first_ends_several_devices_together_and_cheapest_first_would_not():
    costs = {f"t{i}": 1.0 for i in range(20)} | {"long": 12.0}
    _, end = simulate(schedule(costs), costs, 1000, devices=4)
    waiting = schedule(costs)
    waiting.begun = -100  # the naive twin: always the cheapest
    _, naive = simulate(waiting, costs, 1000, devices=4)
    assert end <= 13 < naive


def test_a_task_far_over_its_expected_time_is_cut_whatever_time_is_left():
    costs = dict.fromkeys("abcdef", 1.0)
    got, _ = simulate(schedule(costs), costs | {"f": math.inf}, 10_000)
    assert {name: seconds for name, _, seconds in got}["f"] == pytest.approx(SLACK)


def test_the_pace_is_corrected_by_what_tasks_took():
    waiting = schedule(dict.fromkeys("abcd", 10.0))
    for seconds in (1.0, 1.0, 4.0):
        waiting.turn("cpu", 0.0, 1000.0, 1)
        waiting.ended("cpu", seconds, measured=True)
    assert waiting.pace.expected_s(10.0) == pytest.approx(2.0)


def test_what_failed_before_waits_for_all_others_and_a_retry_is_next_and_smaller():
    waiting = schedule({"a": 9.0, "b": 1.0})
    waiting.fresh.clear()
    waiting.first_left = 0.0
    waiting.add(["a"], ["b"])
    first = waiting.turn("x", 0, 100, 1)
    waiting.ended("x", 1.0, measured=False)
    waiting.retry(first, "x")
    again = waiting.turn("x", 0, 100, 1)
    waiting.ended("x", 1.0, measured=True)
    last = waiting.turn("x", 0, 100, 1)
    assert [(t.task_id, t.smaller) for t in (first, again, last)] == [("a", False), ("a", True), ("b", False)]


def test_a_retry_is_for_another_device_while_there_is_other_work():
    waiting = schedule({"a": 9.0, "b": 1.0, "c": 5.0})
    first = waiting.turn("x", 0, 100, 2)
    waiting.ended("x", 1.0, measured=False)
    waiting.retry(first, "x")
    other = waiting.turn("x", 0, 100, 2)
    again = waiting.turn("y", 0, 100, 2)
    assert not other.smaller and other.task_id != first.task_id
    assert again.smaller and again.task_id == first.task_id
    waiting.retry(again, "x")
    assert waiting.turn("y", 0, 100, 2).task_id == first.task_id
    waiting.ended("x", 1.0, measured=True)
    last = waiting.turn("x", 0, 100, 2)
    waiting.ended("x", 1.0, measured=True)
    waiting.retry(last, "x")
    assert waiting.turn("x", 0, 100, 2).task_id == last.task_id  # nothing else is left


def test_time_left_goes_to_tasks_in_doubt_the_least_probable_first():
    needs = dict.fromkeys("abcd", 5.0)
    got, end = simulate(schedule(needs), needs, 100, doubts={"b": 0.2, "d": 1.0})
    assert [turn[:2] for turn in got[4:]] == [("d", 2), ("b", 2)] and end == 40
    got, _ = simulate(schedule(needs), needs, 23, doubts={"b": 0.2, "d": 1.0})
    assert len(got) == 4  # less than a first turn took is left: no second one


def test_further_passes_are_few_and_whole_rather_than_many_and_cut():
    needs = dict.fromkeys("abcd", 5.0)
    got, end = simulate(schedule(needs), needs, 45, doubts=dict.fromkeys("abcd", 1.0))  # 25 s left, a share is 6.25
    assert [seconds for _, number, seconds in got if number == 2] == [10.0, 10.0] and end == 40


def test_every_task_has_one_turn_whatever_fails():
    rng = np.random.default_rng(0)
    costs = {f"t{i}": float(rng.lognormal()) for i in range(300)}
    waiting, now, busy, seen = schedule(costs), 0.0, {}, []
    while waiting.has_turn(1e9) or busy:
        for name in range(7):
            if name not in busy and (turn := waiting.turn(name, now, 1e9, 7)):
                busy[name] = turn
        name = list(busy)[int(rng.integers(len(busy)))]
        turn = busy.pop(name)
        failed = rng.random() < 0.3
        waiting.ended(name, 1.0, measured=not failed)
        now += 0.1
        if failed and not turn.smaller:
            waiting.retry(turn, name)
        else:
            seen.append(turn.task_id)
    assert sorted(seen) == sorted(costs) and waiting.first_left == pytest.approx(0, abs=1e-6)
    assert not waiting.running
