"""A whole run: always a valid submission, a fault costs its own task alone, nothing is lost or done twice."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.processes import running
from ttt_core.arc import submission
from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.arc.tasks import read_challenges
from ttt_core.config import AdaptConfig, Config
from ttt_core.errors import InputError
from ttt_core.run import backends, report
from ttt_core.run.environment import worker_environment
from ttt_core.run.keep import describe
from ttt_core.run.report import write_report
from ttt_core.run.run import Limits, reselect, run, write_fallback

STANDIN = """
import json, os, signal, sys, time
from pathlib import Path
from ttt_core.arc.result import Candidate, TaskResult

def load(model, device, config):
    note(f"start {os.getpid()}")
    if "load" in acts():
        raise ValueError("weights missing")
    return solve

def acts():
    return json.loads(os.environ.get("ACTS", "{}"))

def note(line):
    with open(os.environ["NOTES"], "a") as file:
        file.write(line + "\\n")

def solve(tasks, config, seed, deadline, beat):
    return [solve_one(task, beat) for task in tasks]

def solve_one(task, beat):
    note(task.id)
    beat("adapt")
    time.sleep(0.002)  # a record's seconds have three places
    act = acts().get(task.id)
    if act == "raise":
        raise MemoryError("no memory for " + os.environ["LEAK"])
    if act == "exit":
        os._exit(3)
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "hang":
        time.sleep(60)
    if act == "other":
        return TaskResult("b", "ok", attempts=tuple((p.input, p.input) for p in task.test))
    if act == "malformed":
        return TaskResult(task.id, "ok")
    if act == "environment":
        print(dict(os.environ))
    if act == "gives up":
        return TaskResult(task.id, "failed", "adapt: the loss is NaN")
    pairs = [(p.input, 9 - p.input) for p in task.test]
    found = [(Candidate(a, (-0.1, -0.5), (0,)), Candidate(b, (-9.0, -0.1), (0, 1))) for a, b in pairs]
    return TaskResult(task.id, "ok", attempts=tuple(pairs), candidates=tuple(found))
"""
IDS = ["a", "b", "c", "d"]
NO_WAIT = Limits(task_s=0.1, grace_s=0.1, pause_s=0.0)
CANARY = "canary-51f0c2"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with challenges of four tasks, a model folder and a stand-in solver."""
    entries = {}
    for i, task_id in enumerate(IDS):
        pair = {"input": [[i, 1]], "output": [[1, i]]}
        entries[task_id] = {"train": [pair] * (i + 1), "test": [{"input": [[i, 2]]}] * (1 + i // 2)}
    (tmp_path / "challenges.json").write_text(json.dumps(entries))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "standin.py").write_text(STANDIN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("LEAK", CANARY)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    return tmp_path


@pytest.fixture
def go(place, monkeypatch):
    """Run the stand-in over the place's challenges; `acts`: what it does wrong, by task."""

    def start(acts=None, out="run", challenges="challenges.json", model="model", budget_s=60.0, **options):
        monkeypatch.setenv("ACTS", json.dumps(acts or {}))
        options = {"config": Config(), "progress": False, "solver": "standin:load", "limits": NO_WAIT} | options
        return run(place / challenges, place / model, place / out, budget_s=budget_s, **options)

    return start


def answered(place, out="run"):
    """The ids with an answer in the submission, which must be valid."""
    challenges, told = read_challenges(place / "challenges.json"), submission.read(place / out / "submission.json")
    submission.check(told, challenges)
    return {task_id for task_id, answers in told.items() if answers[0]["attempt_1"] != submission.PLACEHOLDER}


def notes(place):
    return (place / "notes").read_text().split("\n") if (place / "notes").exists() else []


def receipt(place, out="run"):
    return json.loads((place / out / "run.json").read_text())


def test_a_clean_run(place, go):
    summary = go(limits=Limits(task_s=10.0, grace_s=0.1))
    assert (summary.ok, summary.failed, summary.skipped, summary.stopped) == (4, 0, 0, "")
    assert answered(place) == set(IDS) and summary.submission == place / "run" / "submission.json"
    told = receipt(place)
    assert told["counts"] == {"ok": 4, "failed": 0, "skipped": 0, "selected": 4}
    assert told["identity"]["seed"] == 0 and told["versions"]["numpy"] == np.__version__
    assert all(row["planned_s"] >= row["used_s"] > 0 for row in told["tasks"].values())
    assert sum(line.startswith("start") for line in notes(place)) == 1  # the model is loaded once


FAULTS = {
    "other": "worker: result of task 'b' where c belongs",
    "malformed": "worker: result of task c: status 'ok' with 0 attempts for 2 test inputs",
    "gives up": "adapt: the loss is NaN",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_its_own_task_alone(place, go, fault):
    summary = go({"c": fault})
    assert (summary.ok, summary.failed, summary.skipped) == (3, 1, 0)
    assert answered(place) == {"a", "b", "d"}
    assert summary.outcomes["c"]["reason"].startswith(FAULTS[fault])


def test_a_hung_task_is_killed_at_its_limit_and_the_run_ends_in_time(place, go):
    began = time.monotonic()
    summary = go({"b": "hang"}, budget_s=15.0)
    assert time.monotonic() - began < 15.0 and answered(place) == {"a", "c", "d"}
    assert summary.outcomes["b"]["reason"].startswith("adapt: over its limit of")


def test_a_rerun_solves_only_what_is_missing_and_ends_with_the_same_bytes(place, go):
    go(out="whole")
    go({"c": "exit"})
    before = notes(place)
    record = place / "run" / "tasks" / "a.json"
    record.write_text(record.read_text().replace('"sha256":"', '"sha256":"0'))
    summary = go()
    assert [line for line in notes(place)[len(before) - 1 :] if line in IDS] == ["a", "c"]  # a: a torn record
    assert summary.ok == 4 and (place / "run" / "tasks" / "a.json.corrupt-1").exists()
    assert len(receipt(place)["set_aside"]) == 1
    files = [(place / out / "submission.json").read_bytes() for out in ("whole", "run")]
    assert files[0] == files[1]
    lines = len(notes(place))
    go()
    assert len(notes(place)) == lines  # all solved: not even a worker is started


def test_another_run_is_refused_and_the_answers_stay(place, go):
    go()
    (place / "other").mkdir()
    (place / "other" / "config.json").write_text("{ }")
    entries = json.loads((place / "challenges.json").read_text())
    (place / "fewer.json").write_text(json.dumps({task_id: entries[task_id] for task_id in "abc"}))
    other = dataclasses.replace(Config(), adapt=AdaptConfig(lr=1.0))
    cases = {"seed": {"seed": 1}, "config.adapt.lr": {"config": other}, "model_sha256": {"model": "other"}}
    cases |= {"tasks": {"tasks": "a"}, "challenges_sha256": {"challenges": "fewer.json"}}
    for field, options in cases.items():
        with pytest.raises(InputError, match=f"{field} was .*, now it is "):
            go(**options)
    with pytest.raises(InputError, match="challenges_sha256 was"):
        write_fallback(place / "fewer.json", place / "run")
    assert answered(place) == set(IDS)
    go(budget_s=30.0, devices="cpu")  # neither determines a result


def test_the_fallback_is_valid_and_never_loses_an_answer(place, go):
    path = write_fallback(place / "challenges.json", place / "run")
    assert path == place / "run" / "submission.json" and answered(place) == set()
    go({"c": "exit"})
    before = path.read_bytes()
    write_fallback(place / "challenges.json", place / "run")
    assert path.read_bytes() == before and answered(place) == {"a", "b", "d"}


@pytest.mark.parametrize("budget_s", [0.0, 2.0])
def test_no_time_leaves_the_fallback_and_starts_nothing(place, go, budget_s):
    summary = go(budget_s=budget_s)
    assert summary.skipped == 4 and answered(place) == set() and notes(place) == []
    assert summary.outcomes["a"] == {"status": "skipped", "reason": summary.stopped, "planned_s": 0.0, "used_s": 0.0}
    assert f"the budget of {budget_s:g} s was used up" == summary.stopped


def test_time_before_the_run_counts(place, go):
    assert go(started=time.monotonic() - 100).skipped == 4


def test_a_small_budget_solves_some(place, go):
    summary = go({task_id: "hang" for task_id in "cd"}, budget_s=10.0, limits=Limits(task_s=30.0, grace_s=0.1))
    assert (summary.ok, summary.failed, summary.skipped) == (2, 1, 1) and summary.seconds < 10.0


def test_seven_failed_starts_end_the_run(place, go):
    summary = go({"load": "fail"})
    assert summary.skipped == 4 and answered(place) == set()
    assert summary.stopped == "no worker could be started: load: ValueError: weights missing"
    assert len([line for line in notes(place) if line]) == 7


def test_a_worker_that_cannot_be_started_again_is_a_failed_start(place, go, monkeypatch):
    popen, started = subprocess.Popen, []

    def refuse(*args, **named):
        started.append(args)
        if len(started) > 1:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return popen(*args, **named)

    monkeypatch.setattr(subprocess, "Popen", refuse)
    summary = go({"b": "kill"}, devices="cpu")
    assert "no worker could be started: [Errno 11]" in summary.stopped and summary.ok == len(answered(place)) > 0


def test_a_backend_that_breaks_ends_the_run_with_what_it_has(place, go, monkeypatch):
    ended, seen = backends.Here.ended, []

    def breaks(self):
        seen.append(self)
        if len(seen) > 3:
            raise ConnectionError("the head is gone")
        return ended(self)

    monkeypatch.setattr(backends.Here, "ended", breaks)
    summary = go()
    assert summary.stopped == "the devices failed: ConnectionError: the head is gone"
    assert (summary.ok, summary.skipped) == (2, 2) and len(answered(place)) == 2


def test_a_bad_task_costs_only_itself(place, go):
    entries = json.loads((place / "challenges.json").read_text())
    entries["b"]["train"][0]["input"] = [[10]]
    (place / "challenges.json").write_text(json.dumps(entries))
    summary = go()
    assert (summary.ok, summary.skipped) == (3, 1) and answered(place) == {"a", "c", "d"}
    assert "holds 10" in summary.outcomes["b"]["reason"]


def test_a_file_of_no_usable_task_is_one_error_and_a_bad_task_is_named(place, go, capsys):
    entries = json.loads((place / "challenges.json").read_text())
    (place / "one.json").write_text(json.dumps(entries | {"b": {}}))
    go(challenges="one.json", progress=True)
    assert "task b" in capsys.readouterr().err
    (place / "none.json").write_text(json.dumps({"b": {}}))
    for tasks in (None, "1"):
        with pytest.raises(InputError, match="none.json: no usable task; the first: task b"):
            go(challenges="none.json", out="none", tasks=tasks)
    with pytest.raises(InputError, match="run folder .*model: is the folder of the model; give another"):
        go(out="model")
    assert list(submission.read(place / "none" / "submission.json")) == ["b"]


def test_a_damaged_record_is_told_though_the_fallback_was_written_before(place, go):
    go()
    record = place / "run" / "tasks" / "b.json"
    record.write_text(record.read_text().replace('"ok"', '"OK"'))
    write_fallback(place / "challenges.json", place / "run")
    go()
    assert "b.json.corrupt-1" in receipt(place)["set_aside"][0]


def test_a_folder_of_challenges_is_no_run_folder(place, go):
    (place / "folder").mkdir()
    (place / "folder" / "a.json").write_text(json.dumps(json.loads((place / "challenges.json").read_text())["a"]))
    for begin in (lambda: write_fallback(place / "folder", place / "folder"), lambda: go({}, "folder", "folder")):
        with pytest.raises(InputError, match="is the folder of challenges; give another"):
            begin()
    assert len(list((place / "folder").iterdir())) == 1


def test_what_solved_nothing_does_not_pin_its_folder(place, go):
    go(budget_s=0.0, seed=1)
    assert go(seed=2).ok == 4
    with pytest.raises(InputError, match="seed was 2, now it is 1"):
        go(seed=1)


def test_a_selection_keeps_the_others_at_the_placeholder(place, go):
    summary = go(tasks="2")
    assert summary.ok == 2 and list(summary.outcomes) == ["a", "b"] and answered(place) == {"a", "b"}


def test_a_missing_model_is_an_error_that_leaves_a_valid_file(place, go):
    with pytest.raises(InputError, match="model .*nowhere: is not a folder"):
        go(model="nowhere")
    assert answered(place) == set() and not (place / "run" / ".space").exists()


def test_no_file_of_a_run_holds_a_secret(place, go):
    go({"a": "environment", "b": "raise"})
    files = [path for path in (place / "run").rglob("*") if path.is_file()]
    assert "PYTHONPATH" in (place / "run" / "worker.log").read_text()  # the environment was printed ...
    told = [path for path in files if CANARY in path.read_text().replace(f"'LEAK': '{CANARY}'", "")]
    assert told == []  # ... without the token, which the test itself put in under another name


RUN = """
import sys
from ttt_core.config import Config
from ttt_core.run.run import run
print(run(*sys.argv[1:], config=Config(), budget_s=100, solver="standin:load"), flush=True)
"""


def start_process(place):
    arguments = [str(place / name) for name in ("challenges.json", "model", "run")]
    environ = worker_environment(os.environ) | {"ACTS": json.dumps({"c": "hang"})}
    process = subprocess.Popen([sys.executable, "-c", RUN, *arguments], env=environ, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: "c" in notes(place))
    return process, int(notes(place)[0].removeprefix("start "))


def wait_for(holds, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_what_it_has(place, number):
    process, child = start_process(place)
    process.send_signal(number)
    _, log = process.communicate(timeout=10)
    assert process.returncode == 0 and answered(place) == {"a", "b"} and not running(child)
    told = receipt(place)
    assert told["stopped"] == told["tasks"]["c"]["reason"] == f"stopped by {number.name}"
    line = log.split("[2/4]")[1].splitlines()[0]
    assert line.startswith(" b ok") and line.endswith("2 candidates p=0.74")


def test_a_killed_run_takes_its_worker_with_it_and_resumes(place, go):
    process, child = start_process(place)
    process.kill()
    process.communicate()
    wait_for(lambda: not running(child))
    assert answered(place) == {"a", "b"} and receipt(place)["counts"]["skipped"] == 2
    assert go().ok == 4 and notes(place).count("a") == 1


def test_the_parent_never_imports_torch():
    code = "import sys, ttt_core.run.run, ttt_core.__main__\nassert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=worker_environment(os.environ))


def test_one_line_a_task():
    grid = np.array([[1]], np.uint8)
    found = (Candidate(grid, (-0.1, -0.3)), Candidate(9 - grid, (-4.0,)))
    result = TaskResult("3aa6fb7a", "ok", attempts=((grid, 9 - grid),), candidates=(found,))
    assert describe(result, 24.07) == "3aa6fb7a ok 24.1 s 2 candidates p=0.82"
    assert describe(dataclasses.replace(result, candidates=((),)), 1) == "3aa6fb7a ok 1.0 s 0 candidates"
    assert describe(TaskResult("x", "failed", "adapt: no"), 2) == "x failed 2.0 s adapt: no"


def test_a_report_that_cannot_be_made_costs_no_submission(place, go, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("a figure of nothing")

    monkeypatch.setattr(report, "write_report", fail)
    summary = go()
    assert (summary.ok, summary.failed) == (4, 0) and not (place / "run" / "report.html").exists()


def test_reselection_votes_again_without_a_model(place, go):
    pytest.importorskip("ttt_core.solve.vote")
    go({"c": "exit"})
    before = submission.read(place / "run" / "submission.json")
    (place / "moved.json").write_bytes((place / "challenges.json").read_bytes())
    (place / "challenges.json").unlink()
    with pytest.raises(InputError, match="challenges.json is gone; name it by --challenges"):
        reselect(place / "run", "majority")
    reselect(place / "run", "majority", place / "moved.json")
    after = submission.read(place / "run" / "submission.json")
    for task_id in ("a", "b", "d"):  # the second candidate was found in more views
        assert after[task_id][0] == dict(zip(submission.ATTEMPTS, list(before[task_id][0].values())[::-1]))
    assert after["c"] == before["c"] and receipt(place)["reselected"] == "majority"
    assert "<td>majority</td>" in (place / "run" / "report.html").read_text()
    (place / "run" / "tasks" / "d.json").unlink()  # a lost record: its answer stays
    reselect(place / "run", "sum_logprob", place / "moved.json")
    again = submission.read(place / "run" / "submission.json")
    assert again["d"] == after["d"] and [again[name] for name in "abc"] == [before[name] for name in "abc"]
    with pytest.raises(InputError, match="unknown selector majorty: the nearest is majority"):
        reselect(place / "run", "majorty", place / "moved.json")


@pytest.mark.parametrize("again", [lambda path: reselect(path, "majority"), write_report])
def test_without_its_records_a_run_is_neither_voted_on_nor_shown_anew(place, go, again):
    """What `--push` fetches, for example; a damaged record is told of."""
    go()
    record, *others = sorted((place / "run" / "tasks").iterdir())
    record.write_text("{")
    with pytest.warns(UserWarning, match=f"record .*{record.name}"):
        again(place / "run")
    before = (place / "run" / "submission.json").read_bytes()
    for file in (record, *others):
        file.unlink()
    with pytest.raises(InputError, match="tasks/ holds none of 4 records; give the --out folder of the `solve` itself"):
        again(place / "run")
    assert (place / "run" / "submission.json").read_bytes() == before


def test_a_note_beside_the_tasks_of_a_folder_changes_no_run(place, go):
    (place / "folder").mkdir()
    for task_id, task in json.loads((place / "challenges.json").read_text()).items():
        (place / "folder" / f"{task_id}.json").write_text(json.dumps(task))
    go(challenges="folder")
    (place / "folder" / "notes.txt").write_text("hi")
    assert go(challenges="folder").ok == 4
    (place / "folder" / "z.json").write_text("{}")
    with pytest.raises(InputError, match="challenges_sha256 was"):
        go(challenges="folder")


def test_a_reselection_stands_until_the_run_goes_on(place, go):
    path = go().submission
    before = path.read_bytes()
    reselected = reselect(place / "run", "majority").read_bytes()
    with pytest.raises(InputError, match="seed was 0, now it is 1"):
        go(seed=1)
    write_fallback(place / "challenges.json", place / "run")
    assert path.read_bytes() == reselected != before and receipt(place)["reselected"] == "majority"
    go()
    assert path.read_bytes() == before and "reselected" not in receipt(place)


TOLD = """
import json, os, time
from pathlib import Path
from ttt_core.arc.result import TaskResult

def load(model, device, config, adapters=None):
    def solve(tasks, config, seed, deadline, beat):
        told = [seed, deadline - time.monotonic(), adapters, os.environ.get("HF_TOKEN")]
        Path(os.environ["NOTES"]).write_text(json.dumps(told))
        return [TaskResult(task.id, "ok", attempts=tuple((p.input, p.input) for p in task.test)) for task in tasks]
    return solve
"""


def test_a_solver_is_told_seed_time_and_folder_and_no_secret(place, go):
    (place / "told.py").write_text(TOLD)
    config, limits = Config(adapt=AdaptConfig(save=True)), Limits(task_s=0.1, grace_s=50.0, pause_s=0.0)
    go(solver="told:load", seed=5, config=config, tasks="a", limits=limits)
    seed, left_s, adapters, token = json.loads((place / "notes").read_text())
    planned_s = json.loads((place / "run/tasks/a.json").read_text())["result"]["notes"]["planned_s"]
    assert seed == 5 and token is None and adapters == str((place / "run/adapters").resolve())
    assert 0.5 * planned_s < left_s <= planned_s + 0.001  # a record has three places
