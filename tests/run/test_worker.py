"""The worker process: its protocol survives what solvers print, and no solver survives its limit."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from tests.processes import living
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import Config, preset, to_dict
from ttt_core.errors import ModelError
from ttt_core.run import faults, messages, process, store, worker
from ttt_core.run.environment import worker_environment

SOLVERS = """
import os, signal, sys, time
from ttt_core.arc.result import Candidate, TaskResult

def load(model, device, config):
    assert config.adapt.rank == 32
    print("loading", model, device)
    return solve

def broken(model, device, config):
    raise ValueError("no such\\nweights")

def solve(tasks, config, seed, deadline, beat):
    return [solve_one(task, seed, beat) for task in tasks]

def solve_one(task, seed, beat):
    assert all(pair.output is None for pair in task.test)
    beat("adapt")
    act = task.id
    if act == "junk":
        print('{"kind": "result"}')
        os.write(1, b'{"kind": "failed"}\\n')
        sys.stdin.read()
    if act == "raise":
        raise RuntimeError("went wrong\\n" * 100)
    if act == "exit":
        os._exit(3)
    if act == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if act == "sleep":
        time.sleep(60)
    if act == "busy":
        while True:
            pass
    if act == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if act == "child":
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    answers = tuple((pair.input, 9 - pair.input) for pair in task.test)
    return TaskResult(act, "ok", attempts=answers, notes={"seed": seed})
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Workers start in a folder from which ttt_core cannot be imported by chance."""
    (tmp_path / "standin.py").write_text(SOLVERS)
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def start(tmp_path, solver="standin:load"):
    setup = {"solver": solver, "model": "m", "device": "cpu", "config": to_dict(Config())}
    return process.start(setup, tmp_path / "worker.log", worker_environment(os.environ))


def wait(child, limit_s=20.0, stopped=lambda: False, beats=None):
    show = [].append if beats is None else beats.append
    return process.wait(child, "solve", limit_s, time.monotonic() + limit_s, stopped, show)


def ask(child, task_id, limit_s=20.0, **options):
    grid = np.array([[1, 2]], np.uint8)
    task = Task(task_id, (Pair(grid, grid),), (Pair(grid, grid),))
    request = {"tasks": [messages.task_to_dict(task)], "config": to_dict(Config()), "seed": 5, "seconds": limit_s}
    process.send(child, request)
    return wait(child, limit_s, **options)


@pytest.fixture
def child(tmp_path):
    child = start(tmp_path)
    assert wait(child).kind == "ready"
    yield child
    process.kill(child)
    deadline = time.monotonic() + 10
    while str(child.process.pid) in living("pgid") and time.monotonic() < deadline:
        time.sleep(0.05)  # a killed grandchild dies when it next gets the processor
    assert str(child.process.pid) not in living("pgid")


def test_task_after_task_with_heartbeats(child):
    beats = []
    for task_id in ("a", "b"):
        result = store.result_from_dict(ask(child, task_id, beats=beats).body["results"][0], task_id, 1)
        assert result.attempts[0][1].tolist() == [[8, 7]] and result.notes == {"seed": 5}
    assert beats == ["adapt", "adapt"]


def test_what_a_solver_prints_goes_to_the_log(child, elsewhere):
    assert ask(child, "junk").body["results"][0]["status"] == "ok"
    log = (elsewhere / "worker.log").read_text()
    assert "loading m cpu" in log and '{"kind": "failed"}' in log


def test_an_exception_is_one_line_with_its_stage_and_ends_the_worker(child):
    reply = ask(child, "raise")
    assert reply.kind == "failed" and reply.reason.startswith("adapt: RuntimeError: went wrong went wrong")
    assert len(reply.reason) < 350 and "\n" not in reply.reason and "Traceback" in reply.body["traceback"]
    assert child.process.wait(timeout=10) == 0


@pytest.mark.parametrize(("act", "told"), [("exit", "ended with exit code 3"), ("kill", "killed by signal 9")])
def test_a_death_is_noticed_and_named(child, act, told):
    began = time.monotonic()
    assert told in (reply := ask(child, act)).reason and reply.reason.startswith("adapt: ")
    assert reply.kind == "lost" and time.monotonic() - began < 5


def test_a_grandchild_does_not_hide_a_death(child):
    assert "ended with exit code 0" in ask(child, "child").reason


@pytest.mark.parametrize("act", ["sleep", "busy", "stop"])
def test_no_hang_outlives_its_limit(child, act):
    began = time.monotonic()
    reply = ask(child, act, 0.4)
    process.kill(child)
    assert time.monotonic() - began < 2.0 and "over its limit of 0.4 s" in reply.reason and reply.kind == "late"


def test_a_stopped_worker_does_not_block_a_large_request(child):
    os.kill(child.process.pid, 19)  # SIGSTOP
    began = time.monotonic()
    process.send(child, {"tasks": "x" * 2_000_000})
    assert time.monotonic() - began < 1.0


def test_a_signal_ends_the_wait(child):
    assert ask(child, "sleep", stopped=lambda: True).kind == "stopped"


def test_a_solver_that_cannot_load_says_why(tmp_path):
    for solver, told in [("standin:broken", "ValueError: no such weights"), ("nowhere:load", "ModuleNotFoundError")]:
        child = start(tmp_path, solver)
        reply = wait(child)
        process.kill(child)
        assert reply.kind == "failed" and reply.reason.startswith("load: ") and told in reply.reason


def test_the_worker_ends_with_its_parents_pipe_even_when_busy(child):
    assert ask(child, "busy", 0.3).kind == "late"
    child.process.stdin.close()
    assert child.process.wait(timeout=10) == 0


def test_a_task_loses_its_test_outputs_on_the_way():
    grid = np.array([[1]], np.uint8)
    task = Task("a", (Pair(grid, grid),), (Pair(grid, grid),))
    sent = messages.task_from_dict(messages.task_to_dict(task))
    assert sent.test[0].output is None and sent.train[0].output.dtype == np.uint8
    assert sent.id == "a"


@pytest.mark.parametrize(
    ("cause", "final"),
    [
        (None, True),
        (OSError("no such model"), True),
        (FileNotFoundError(errno.ENOENT, "missing"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), False),
        (RuntimeError("CUDA error: device busy"), False),
    ],
)
def test_only_what_another_start_would_meet_again_is_final(cause, final):
    error = ModelError("model m: transformers cannot load it")
    error.__cause__ = cause
    assert faults.is_final(error) is final and not faults.is_final(ValueError("a bug"))


def test_the_real_solver_keeps_adapters_where_it_is_told(monkeypatch):
    from ttt_core.model import speed
    from ttt_core.solve import task as solving

    monkeypatch.setattr(speed, "keep_memory", lambda: None)  # for good, it would be
    monkeypatch.setattr(solving, "solve_task", lambda *given, **named: named["adapters"])
    solve = worker.load_solver(
        str(Path(__file__).parents[2] / "kaggle_dataset/model"), "cpu", preset("grid"), adapters="kept"
    )
    assert solve(["a task"], preset("grid"), 0, float("inf"), lambda *_: None) == [Path("kept")]
