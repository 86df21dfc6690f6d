"""The loop over devices, on a backend that answers at once: retirement, lost supervisors, retries, nothing done twice."""

import time
from collections import Counter

import numpy as np
import pytest

from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import Config
from ttt_core.run.budget import Budget
from ttt_core.run.dispatch import Work, solve_all
from ttt_core.run.supervise import Limits, Outcome

GRID = np.array([[1, 2]], np.uint8)
TASKS = {f"t{i:02}": Task(f"t{i:02}", (Pair(GRID, GRID),) * (i + 1), (Pair(GRID),)) for i in range(12)}


def answer(job):
    candidates = ((Candidate(GRID, (-0.1,), (0,)), Candidate(9 - GRID, (-5.0,), (0,))),)
    result = TaskResult(job.task.id, "ok", attempts=((GRID, 9 - GRID),), candidates=candidates)
    return Outcome("result", result=result, is_alive=True)


class Backend:
    """start, solve: what a device answers, by its name and the job."""

    def __init__(self, names, solve=lambda name, job: answer(job), start=lambda name: Outcome("ready", is_alive=True)):
        self.names, self.solve, self.start = tuple(names), solve, start
        self.told, self.log = [], []

    def begin(self, name, method, argument, overdue_s):
        assert name not in [told[0] for told in self.told] and overdue_s > 0
        self.told.append((name, method, argument))
        self.log.append((name, method))

    def ended(self):
        name, method, argument = self.told.pop(0)
        return [(name, self.start(name) if method == "start" else self.solve(name, argument))]


def work(caught=(), budget_s=1000.0):
    kept, said = Counter(), []
    records = {}
    budget = Budget(time.monotonic(), budget_s)

    def keep(task_id, record, used_s):
        kept[task_id] += 1

    return Work(TASKS, Config(), 0, budget, Limits(), records, list(caught), keep, said.append), kept, said


def test_every_device_works_and_every_task_is_kept_once():
    plan, kept, _ = work()
    backend = Backend(["x", "y", "z"])
    assert solve_all(plan, backend) == "" and set(kept) == set(TASKS) and set(kept.values()) == {1}
    assert {name for name, method in backend.log if method == "solve"} == {"x", "y", "z"}
    assert Counter(method for _, method in backend.log)["start"] == 3
    assert {record.notes["device"] for record in plan.records.values()} == {"x", "y", "z"}


def test_a_device_that_fails_three_starts_is_retired_and_the_others_go_on():
    plan, kept, said = work()
    dead, ready = Outcome("dead", "load: no"), Outcome("ready", is_alive=True)
    backend = Backend(["x", "y"], start=lambda name: dead if name == "x" else ready)
    assert solve_all(plan, backend) == "" and len(kept) == 12
    assert backend.log.count(("x", "start")) == 3 and ("x", "solve") not in backend.log
    assert "x: retired after 3 failed starts" in said


def test_all_devices_retired_ends_the_run_and_says_why():
    plan, kept, _ = work()
    assert solve_all(plan, Backend("xy", start=lambda name: Outcome("dead", "load: no"))) == (
        "no worker could be started: load: no"
    )
    assert not kept


def test_a_start_that_would_fail_again_is_not_tried_again():
    plan, *_ = work()
    backend = Backend("x", start=lambda name: Outcome("dead", "load: ModelError: no", is_final=True))
    assert solve_all(plan, backend).endswith("ModelError: no") and len(backend.log) == 1


def test_starts_that_fail_now_and_then_do_not_add_up():
    plan, kept, _ = work()
    starts = []

    def start(name):
        starts.append(name)
        return Outcome("dead", "no") if len(starts) % 3 else Outcome("ready", is_alive=True)

    def solve(name, job):
        done = answer(job)
        return Outcome("result", result=done.result)  # and the worker is gone

    assert solve_all(plan, Backend("x", solve, start)) == "" and len(kept) == 12 and len(starts) == 36


@pytest.mark.parametrize("failing", ["x", "both"])
def test_a_lost_device_costs_a_try_and_the_smaller_profile_is_used_once(failing):
    plan, kept, _ = work()
    profiles = []

    def solve(name, job):
        if job.task.id == "t05":
            profiles.append(job.config.decode.views)
        if job.task.id == "t05" and (failing == "both" or len(profiles) == 1):
            return Outcome.lost(job.task, "solve: the device's supervisor was lost")
        return answer(job)

    assert solve_all(plan, Backend("xy", solve)) == "" and len(kept) == 12
    assert profiles == [16, 8]
    assert plan.records["t05"].status == ("failed" if failing == "both" else "ok")


def test_a_signal_stops_claiming():
    plan, kept, _ = work()

    def solve(name, job):
        if len(kept) == 3:
            plan.caught.append("SIGTERM")
        return answer(job)

    backend = Backend("x", solve)
    assert solve_all(plan, backend) == "stopped by SIGTERM" and len(kept) == 4


def test_the_smallest_budget_starts_nothing():
    plan, kept, _ = work(budget_s=0.0)
    backend = Backend("xy")
    assert solve_all(plan, backend) == "the budget of 0 s was used up" and not backend.log and not kept
