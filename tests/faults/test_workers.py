"""What workers and tasks do wrong: each fault costs its own task at most, and no other task's record changes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import running
from ttt_core.config import Config, SecondConfig
from ttt_core.run import devices
from ttt_core.run.supervise import Limits

HERE = Path(__file__).parent
ALONE = {  # costs the task; the reason names the stage
    "raise": "adapt: ValueError: went wrong",
    "recursion": "adapt: RecursionError: too deep",
    "sleep": "adapt: over its limit of",
    "busy": "adapt: over its limit of",
    "stop": "adapt: over its limit of",
}
SYSTEM = {  # costs a try; once more with a smaller profile
    "memory": "adapt: MemoryError: no room",
    "cuda": "adapt: RuntimeError: CUDA error",
    "torch memory": "adapt: OutOfMemoryError: CUDA out of memory",
    "rlimit": "Unable to allocate 1.00 GiB",
    "exit": "adapt: the worker ended with exit code 3",
    "system exit": "adapt: the worker ended with exit code 1",
    "interrupt": "adapt: the worker ended with exit code",
    "kill": "adapt: the worker was killed by signal 9",
    "abort": "adapt: the worker was killed by signal 6",
    "child": "adapt: the worker ended with exit code 0",
}


@pytest.fixture(scope="module")
def others():
    """The records of a run without faults; filled by the first test that needs them."""
    return {}


def undisturbed(place, others: dict) -> dict:
    if not others:
        place.run(name="whole")
        others.update(place.records("whole"))
    return others


@pytest.mark.parametrize("fault", ALONE)
def test_a_task_at_fault_is_a_recorded_reason_and_costs_itself_alone(place, others, fault):
    expected = undisturbed(place, others)
    summary = place.run({"b": fault}, limits=Limits(task_s=0.1, grace_s=0.1), budget_s=12.0)
    assert ALONE[fault] in summary.outcomes["b"]["reason"] and (summary.ok, summary.failed) == (3, 1)
    records = place.records()
    assert {name: records[name] for name in "acd"} == {name: expected[name] for name in "acd"}
    assert place.answered() == set("acd")


@pytest.mark.parametrize("fault", SYSTEM)
def test_a_system_failure_is_retried_once_with_a_smaller_profile(place, others, fault):
    expected = undisturbed(place, others)
    summary = place.run({"b": f"once {fault}"})
    records = place.records()
    assert summary.ok == 4 and records["b"]["notes"] == {"passes": 1, "smaller": True}
    assert {name: records[name] for name in "acd"} == {name: expected[name] for name in "acd"}


@pytest.mark.parametrize("fault", ["kill", "memory"])
def test_a_second_system_failure_costs_the_task(place, others, fault):
    expected = undisturbed(place, others)
    summary = place.run({"b": fault})
    assert SYSTEM[fault] in summary.outcomes["b"]["reason"] and (summary.ok, summary.failed) == (3, 1)
    assert {name: place.records()[name] for name in "acd"} == {name: expected[name] for name in "acd"}


@pytest.mark.parametrize("fault", ["sleep", "kill", "memory", "raise"])
def test_a_fault_after_the_search_costs_no_answer(place, others, fault):
    expected = undisturbed(place, others)
    config = Config(second=SecondConfig(passes=1))
    summary = place.run(
        {"b": f"{fault} in scoring"}, config=config, limits=Limits(task_s=0.1, grace_s=0.1), budget_s=12.0
    )
    records = place.records()
    lost = records["b"]["notes"].pop("lost")
    assert (summary.ok, summary.failed) == (4, 0) and (ALONE | SYSTEM)[fault].replace("adapt", "rescore") in lost
    assert records == expected


NAIVE = """
import json, sys, time
from ttt_core.arc import submission, tasks
from ttt_core.config import Config
from standin import load
challenges, attempts = tasks.read_challenges(sys.argv[1]), {}
solve = load(None, None, None)
for task in challenges.tasks:
    try:
        attempts[task.id] = solve([task], Config(), 0, time.monotonic() + 1, print)[0].attempts
    except Exception:
        pass
open(sys.argv[2], "wb").write(submission.dumps(submission.build(challenges, attempts)))
"""


@pytest.mark.parametrize("fault", ["sleep", "busy", "stop", "exit", "kill", "abort", "system exit", "interrupt"])
def test_the_naive_loop_loses_every_task_to_the_same_fault(place, fault):
    """One process, a deadline between tasks, `except Exception`: the field's usual loop."""
    (place.root / "run").mkdir()
    environ = os.environ | {"ACTS": json.dumps({"b": fault})}
    arguments = [str(place.root / "challenges.json"), str(place.root / "run" / "submission.json")]
    process = subprocess.Popen([sys.executable, "-c", NAIVE, *arguments], env=environ, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while "b" not in place.turns() and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert place.turns()[-1] == "b"
    assert not (place.root / "run" / "submission.json").exists()


def test_a_hung_task_is_gone_5_s_after_its_limit(place):
    began = time.monotonic()
    summary = place.run({"d": "stop"}, limits=Limits(task_s=0.5), budget_s=30.0)
    told = summary.outcomes["d"]
    assert told["used_s"] - told["planned_s"] < 5.0 and time.monotonic() - began < 30.0
    assert not any(running(pid) for pid in place.starts())


def test_a_valid_file_stands_within_10_s_of_the_start(place):
    place.write({f"t{i}": place.task(i % 4) for i in range(400)})
    place.monkeypatch.setenv("TASK_S", "60")
    paths = [str(place.root / name) for name in ("challenges.json", "model", "run")]
    began = time.monotonic()
    with subprocess.Popen([sys.executable, str(HERE / "runner.py"), *paths]) as process:
        while not (place.root / "run" / "submission.json").exists() and time.monotonic() - began < 30:
            time.sleep(0.02)
        took = time.monotonic() - began
        process.kill()
    assert took < 10 and place.answered() == set()


def test_a_worker_killed_at_each_start_ends_the_run_with_report_and_file(place):
    summary = place.run({"load": "kill"})
    assert summary.skipped == 4 and place.answered() == set() and len(place.starts()) == 7
    assert summary.stopped == "no worker could be started: load: the worker was killed by signal 9"
    assert (place.root / "run" / "report.html").exists()


def test_a_wall_clock_that_jumps_changes_nothing(place, monkeypatch):
    """An hour forward with every look at it; the naive twin, a deadline in time.time(), finds no time left."""
    real, looks = time.time, []
    monkeypatch.setattr(time, "time", lambda: real() + 3600 * (looks.append(0) or len(looks)))
    naive_deadline = time.time() + 60.0
    assert time.time() > naive_deadline
    assert place.run().ok == 4


def test_a_task_in_doubt_has_a_second_pass_and_one_that_fails_keeps_the_first(place):
    place.write({"a": place.task(0), "b-doubt": place.task(1), "c-doubt": place.task(2)})
    place.run({"c-doubt": "raise when wide"})
    sure, wide, failed = (place.records()[name] for name in ("a", "b-doubt", "c-doubt"))
    assert [record["notes"]["passes"] for record in (sure, wide, failed)] == [1, 2, 2]
    assert len(wide["candidates"][0]) == 4 and len(failed["candidates"][0]) == 2  # of both passes, of the first
    assert "went wrong" in failed["notes"]["second"] and place.answered() == {"a", "b-doubt", "c-doubt"}
    turns = len(place.turns())
    place.run()
    assert len(place.turns()) == turns  # no third one


def test_where_no_gpu_that_is_there_can_be_used_the_run_goes_on_with_the_cpu(place, monkeypatch, capfd):
    monkeypatch.setattr(devices, "visible_gpus", lambda environ: ("0", "1"))
    summary = place.run({"load": "refuse cuda"}, devices="auto", progress=True)
    assert summary.ok == 4 and summary.stopped == ""
    assert "0 CUDA devices here; the run goes on with the CPU" in capfd.readouterr().err
    named = place.run({"load": "refuse cuda"}, devices="cuda:0,1", name="named")
    assert named.ok == 0 and "no worker could be started" in named.stopped
