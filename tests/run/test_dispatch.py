"""The loop over devices, on a backend that answers at once: retirement, lost supervisors, retries, nothing done twice."""

import dataclasses
import time
from collections import Counter

import numpy as np
import pytest

from ttt_core.arc.result import OUT_OF_TIME, Candidate, TaskResult
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import AdaptConfig, Config, SecondConfig
from ttt_core.run.budget import Budget
from ttt_core.run.dispatch import NoWorker, Work, shared_turns, solve_all
from ttt_core.run.supervise import Job, Limits, Outcome

GRID = np.array([[1, 2]], np.uint8)
TASKS = {f"t{i:02}": Task(f"t{i:02}", (Pair(GRID, GRID),) * (i + 1), (Pair(GRID),)) for i in range(12)}


def answer(job, logprob=-0.1):
    candidates = ((Candidate(GRID, (logprob,), (0,)), Candidate(9 - GRID, (-5.0,), (0,))),)
    told = {"attempts": ((GRID, 9 - GRID),), "candidates": candidates}
    return Outcome("result", results=tuple(TaskResult(t.id, "ok", **told) for t in job.tasks), is_alive=True)


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


def work(caught=(), budget_s=1000.0, config=Config()):
    kept, said = Counter(), []
    records = {}
    budget = Budget(time.monotonic(), budget_s)

    def keep(task_id, record, used_s):
        kept[task_id] += 1

    return Work(TASKS, config, 0, budget, Limits(pause_s=0.0), records, list(caught), keep, said.append), kept, said


def test_every_device_works_and_every_task_is_kept_once():
    plan, kept, _ = work()
    backend = Backend(["x", "y", "z"])
    assert solve_all(plan, backend) == "" and set(kept) == set(TASKS) and set(kept.values()) == {1}
    assert {name for name, method in backend.log if method == "solve"} == {"x", "y", "z"}
    assert Counter(method for _, method in backend.log)["start"] == 3
    assert {record.notes["device"] for record in plan.records.values()} == {"x", "y", "z"}


def test_tasks_in_doubt_have_further_passes_turn_and_turn_about_each_with_a_seed_of_its_own():
    plan, kept, _ = work(config=Config(second=SecondConfig(passes=3)))
    jobs = []

    def unsure(name, job):
        jobs.append((job.tasks[0].id, job.seed, job.config.decode.views))
        if job.tasks[0].id == "t01" and job.seed == 1:
            return Outcome.failed(job.tasks, "once", is_system=True)
        return answer(job, logprob=-3.0 if job.tasks[0].id < "t03" else -0.1)

    assert solve_all(plan, Backend(["x"], unsure)) == "" and kept["t00"] == 3 and kept["t03"] == 1
    further = [(task_id, seed) for task_id, seed, _ in jobs[12:]]
    assert sorted(further[:3]) == [("t00", 1), ("t01", 1), ("t02", 1)] and len(jobs) == 18
    assert sorted(further[3:]) == [("t00", 2), ("t01", 2), ("t02", 2)]
    passes = {name: record.notes["passes"] for name, record in plan.records.items()}
    assert passes["t00"] == passes["t01"] == 3 and passes["t03"] == 1
    assert [len(plan.records[name].candidates[0][0].logprobs) for name in ("t00", "t01")] == [3, 2]  # one pass failed


@pytest.mark.parametrize(("first", "second", "kept"), [(0, 3, 1), (3, 3, 2), (0, 0, 2), (3, 0, 2)])
def test_a_further_pass_whose_scoring_was_cut_changes_no_whole_one(first, second, kept):
    plan, _, _ = work(config=Config(second=SecondConfig(passes=2)))

    def unsure(name, job):
        outcome = answer(job, logprob=-3.0)
        cut = second if job.seed else first
        results = tuple(dataclasses.replace(r, notes={"cut_views": cut} if cut else {}) for r in outcome.results)
        return dataclasses.replace(outcome, results=results)

    assert solve_all(plan, Backend(["x"], unsure)) == ""
    assert {len(record.candidates[0][0].logprobs) for record in plan.records.values()} == {kept}
    assert {record.notes["passes"] for record in plan.records.values()} == {2}


def test_what_a_cut_scoring_filled_in_does_not_outweigh_a_whole_pass():
    plan, _, _ = work(config=Config(second=SecondConfig(passes=2)))

    def solve(name, job):
        found = ((GRID, (-3.0,) * 4),) if job.seed else ((GRID + 1, (-2.3,) * 2), (GRID + 2, (-2.3,) * 2))
        candidates = (tuple(Candidate(grid, logprobs, (0,)) for grid, logprobs in found),)
        told = {"attempts": ((GRID + 1, GRID + 2),), "notes": {} if job.seed else {"cut_views": 2}}
        results = tuple(TaskResult(t.id, "ok", candidates=candidates, **told) for t in job.tasks)
        return Outcome("result", results=results, is_alive=True)

    assert solve_all(plan, Backend(["x"], solve)) == ""
    for record in plan.records.values():
        assert np.array_equal(record.attempts[0][0], GRID) and len(record.candidates[0]) == 3


def test_a_task_that_needed_the_smaller_profile_has_it_in_its_further_passes_too():
    plan, _, _ = work(config=Config(second=SecondConfig(passes=3)))
    asked = {}

    def unsure(name, job):
        tokens = asked.setdefault(job.tasks[0].id, [])
        tokens.append(job.config.decode.batch_tokens)
        fails = (job.tasks[0].id, len(tokens)) in {("t01", 1), ("t02", 2)}
        return Outcome.failed(job.tasks, "memory", is_system=True) if fails else answer(job, logprob=-3.0)

    assert solve_all(plan, Backend(["x"], unsure)) == ""
    whole = Config().decode.batch_tokens
    assert asked["t00"] == [whole] * 3 and asked["t01"] == [whole, *[whole // 8] * 3]
    assert asked["t02"] == [whole, whole, whole // 8]


def test_a_task_that_finds_no_room_to_be_adapted_is_told_of():
    plan, _, said = work()
    notes = {"t03": "out of memory: 16 of 13 GiB", "t04": OUT_OF_TIME, "t05": ""}

    def noted(name, job):
        [result] = answer(job).results
        result = dataclasses.replace(result, notes={"steps": 0, "ended": notes.get(result.task_id, "")})
        return Outcome("result", results=(result,), is_alive=True)

    assert solve_all(plan, Backend(["x"], noted)) == ""
    assert said == ["t03: not adapted, out of memory: 16 of 13 GiB"]


def test_a_device_that_fails_seven_starts_is_retired_and_the_others_go_on():
    plan, kept, said = work()
    dead, ready = Outcome("dead", "load: no"), Outcome("ready", is_alive=True)
    backend = Backend(["x", "y"], start=lambda name: dead if name == "x" else ready)
    assert solve_all(plan, backend) == "" and len(kept) == 12
    assert backend.log.count(("x", "start")) == 7 and ("x", "solve") not in backend.log
    assert "x: retired after 7 failed starts" in said


def test_all_devices_retired_ends_the_run_and_says_why():
    plan, kept, _ = work()
    with pytest.raises(NoWorker, match="^no worker could be started: load: no$"):
        solve_all(plan, Backend("xy", start=lambda name: Outcome("dead", "load: no")))
    assert not kept


def test_a_start_that_would_fail_again_is_not_tried_again():
    plan, *_ = work()
    backend = Backend("x", start=lambda name: Outcome("dead", "load: ModelError: no", is_final=True))
    with pytest.raises(NoWorker, match="ModelError: no$"):
        solve_all(plan, backend)
    assert len(backend.log) == 1


def test_a_device_is_waited_for_longer_after_every_failed_start():
    plan, kept, said = work()
    plan, begun = dataclasses.replace(plan, limits=Limits(pause_s=0.001)), time.monotonic()
    starts = iter([Outcome("dead", "CUDA error: busy")] * 6 + [Outcome("ready", is_alive=True)])
    assert solve_all(plan, Backend("x", start=lambda name: next(starts))) == "" and len(kept) == 12
    waited = [line for line in said if "tried again after" in line]
    assert waited[0] == "x: tried again after 0.001 s" and waited[-1] == "x: tried again after 0.032 s"
    assert time.monotonic() - begun > 0.063


def test_a_device_that_fails_at_everything_does_not_empty_the_queue():
    plan, kept, said = work()
    plan = dataclasses.replace(plan, limits=Limits(pause_s=1000.0))

    def solve(name, job):
        if name == "x":
            return Outcome.failed(job.tasks, "solve: CUDA error: ECC", is_system=True)
        return answer(job)

    backend = Backend("xy", solve)
    assert solve_all(plan, backend) == "" and {r.status for r in plan.records.values()} == {"ok"}
    assert backend.log.count(("x", "solve")) == 3 and "x: tried again after 600 s" in said


def test_a_task_that_failed_has_another_turn_when_all_have_had_theirs():
    plan, kept, _ = work()
    turns = []

    def solve(name, job):
        turns.append(job.tasks[0].id)
        fails = job.tasks[0].id == "t03" or (job.tasks[0].id == "t05" and turns.count("t05") == 1)
        return Outcome.failed(job.tasks, "ValueError", is_system=False) if fails else answer(job)

    assert solve_all(plan, Backend("x", solve)) == ""
    assert set(turns[-2:]) == {"t03", "t05"} and len(turns) == 14
    assert [plan.records[f"t0{i}"].status for i in (3, 5)] == ["failed", "ok"]


def test_starts_that_fail_now_and_then_do_not_add_up():
    plan, kept, _ = work()
    starts = []

    def start(name):
        starts.append(name)
        return Outcome("dead", "no") if len(starts) % 3 else Outcome("ready", is_alive=True)

    def solve(name, job):
        done = answer(job)
        return Outcome("result", results=done.results)  # and the worker is gone

    assert solve_all(plan, Backend("x", solve, start)) == "" and len(kept) == 12 and len(starts) == 36


@pytest.mark.parametrize("failing", ["x", "both"])
def test_a_lost_device_costs_a_try_and_the_smaller_profile_is_used_once(failing):
    plan, kept, _ = work()
    profiles = []

    def solve(name, job):
        if job.tasks[0].id == "t05":
            profiles.append(job.config.decode.views)
        if job.tasks[0].id == "t05" and (failing == "both" or len(profiles) == 1):
            return Outcome.failed(job.tasks, "solve: the device's supervisor was lost", is_system=True)
        return answer(job)

    assert solve_all(plan, Backend("xy", solve)) == "" and len(kept) == 12
    assert profiles == ([16, 8, 16, 8] if failing == "both" else [16, 8])  # the last two when all have had their turn
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


UNADAPTED = Config(adapt=AdaptConfig(method="none"))


def test_tasks_without_adaptation_share_turns_of_like_cost_and_each_is_kept_once():
    plan, kept, _ = work(config=UNADAPTED)
    shared = []

    def solve(name, job):
        shared.append([task.id for task in job.tasks])
        return answer(job)

    assert solve_all(plan, Backend("x", solve)) == "" and set(kept) == set(TASKS) and set(kept.values()) == {1}
    assert sorted(shared) == [
        ["t00", "t01", "t02"],
        ["t03", "t04", "t05"],
        ["t06", "t07", "t08"],
        ["t09", "t10", "t11"],
    ]
    used = [record.notes["used_s"] for record in plan.records.values()]
    assert len(used) == 12 and max(used) < 1.0  # each its share


@pytest.mark.parametrize("is_system", [True, False])
def test_a_shared_turn_that_fails_costs_the_task_at_fault_alone(is_system):
    plan, kept, said = work(config=UNADAPTED)
    turns = Counter()

    def solve(name, job):
        turns.update(task.id for task in job.tasks)
        if any(task.id == "t04" for task in job.tasks):
            return Outcome.failed(job.tasks, "decode: went wrong", is_system=is_system)
        return answer(job)

    assert solve_all(plan, Backend("x", solve)) == "" and {n for i, n in kept.items() if i != "t04"} == {1}
    assert {task_id for task_id, record in plan.records.items() if record.status != "ok"} == {"t04"}
    again = (
        4 if is_system else 2
    )  # t04 by itself, in the end once more, each time with the smaller profile if that may help
    assert {task_id: n for task_id, n in turns.items() if n > 1} == {"t03": 2, "t04": 1 + again, "t05": 2}
    assert "t03 and 2 more: decode: went wrong; each once more by itself" in said


def test_a_continued_run_begins_again_with_what_had_no_time_for_an_answer():
    plan, *_ = work(config=Config(second=SecondConfig(passes=1)))
    empty = {"attempts": ((GRID, 9 - GRID),), "candidates": ((),), "notes": {"ended": OUT_OF_TIME}}
    for task_id in TASKS:
        plan.records[task_id] = answer(Job((TASKS[task_id],), plan.config, 0, 1.0, 1.0)).results[0]
    plan.records["t04"] = TaskResult("t04", "ok", **empty)
    asked = []

    def solve(name, job):
        asked.extend(task.id for task in job.tasks)
        return answer(job)

    assert solve_all(plan, Backend("x", solve)) == "" and asked == ["t04"]
    assert plan.records["t04"].candidates[0] and plan.records["t04"].notes["passes"] == 1


def test_adapted_tasks_and_few_tasks_have_turns_of_their_own():
    assert shared_turns(["a", "b"], {"a": 1.0, "b": 2.0}, devices=4) == {"a": ("a",), "b": ("b",)}
    plan, *_ = work()
    assert solve_all(plan, Backend("x", lambda name, job: answer(job) if len(job.tasks) == 1 else None)) == ""


def test_no_turn_may_outlast_the_run(monkeypatch):
    plan, kept, _ = work(budget_s=200.0)
    plan = dataclasses.replace(plan, limits=Limits(start_s=1e6, grace_s=1e6, pause_s=0.0))

    class Strict(Backend):
        def begin(self, name, method, argument, overdue_s):
            now, budget = time.monotonic(), plan.budget
            assert (argument if method == "start" else argument.seconds) <= budget.left_s(now) + 0.1
            assert method == "start" or argument.kill_s <= budget.hard_stop - now + 0.1
            assert overdue_s <= budget.last_word - now + 0.1
            super().begin(name, method, argument, overdue_s)

    assert solve_all(plan, Strict(["x"])) == "" and len(kept) == 12
