"""A solver of known answers for the fault tests, and what may go wrong in it, by task, in the variable ACTS (JSON).

Answers are a function of task, seed and profile, so that runs can be compared byte for byte. NOTES: a file that gets a
line for every start and every turn. TOGETHER: so many workers wait for each other before the first is ready. Tasks whose id ends in "doubt" have two candidates that are as good as each other.
"""

import json
import os
import resource
import signal
import sys
import time

import numpy as np

from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.config import Config
from ttt_core.errors import ModelError


def load(model, device, config):
    note(f"start {os.getpid()}")
    until = time.monotonic() + 60
    while "TOGETHER" in os.environ and starts() < int(os.environ["TOGETHER"]) and time.monotonic() < until:
        time.sleep(0.01)
    act = acts().get("load")
    if act == "raise":
        raise ValueError("weights missing")
    if act == f"refuse {device}":
        raise ModelError(f"device {device}: 0 CUDA devices here")
    if act in ("kill", f"kill {device}"):
        os.kill(os.getpid(), signal.SIGKILL)
    return solve


def acts() -> dict:
    return json.loads(os.environ.get("ACTS", "{}"))


def note(line: str) -> None:
    if "NOTES" in os.environ:
        with open(os.environ["NOTES"], "a") as file:
            file.write(line + "\n")


def starts() -> int:
    with open(os.environ["NOTES"]) as file:
        return sum(line.startswith("start ") for line in file)


def solve(tasks, config, seed, deadline, beat):
    return [solve_one(task, config, seed, beat) for task in tasks]


def solve_one(task, config, seed, beat):
    note(f"{task.id} {config.decode.views}")
    beat("adapt")
    usual = Config().decode.views
    act = acts().get(task.id, "")
    skipped = ("once " in act and config.decode.views < usual) or (" when wide" in act and config.decode.views <= usual)
    if act and not skipped:
        if act.endswith(" in scoring"):
            beat("rescore", [answer(task, seed, config.decode.views)])
        ACTIONS[act.removeprefix("once ").removesuffix(" when wide").removesuffix(" in scoring")](task)
    time.sleep(float(os.environ.get("TASK_S", "0")))
    return answer(task, seed, config.decode.views)


def answer(task, seed, views):
    found = []
    for pair in task.test:
        right, wrong = (pair.input + seed) % 10, (9 - pair.input + seed) % 10
        logprobs = ((-0.5,) * 2, (-0.6,) * 2) if task.id.endswith("doubt") else ((-0.1,) * 2, (-9.0,) * 2)
        found.append((Candidate(right, logprobs[0], (0,)), Candidate(wrong, logprobs[1], (0, 1))))
    attempts = tuple((first.grid, second.grid) for first, second in found)
    return TaskResult(task.id, "ok", attempts=attempts, candidates=tuple(found), views=("",) * views)


def raise_(error):
    raise error


def raise_torch(task):
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def exceed_limit(task):
    """A real limit of the address space, and a real allocation over it."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, limits[1]))
    try:
        np.ones(2**30, np.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def busy(task):
    while True:
        pass


def leave_a_child(task):
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)


def in_actor() -> bool:
    """Whether the parent of this worker is a Ray actor, and not the run itself."""
    with open(f"/proc/{os.getppid()}/cmdline") as file:
        return file.read().startswith("ray::")


def connect(task):
    import socket

    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()


ACTIONS = {
    "raise": lambda task: raise_(ValueError("went wrong with " + os.environ.get("LEAK", ""))),
    "memory": lambda task: raise_(MemoryError("no room")),
    "cuda": lambda task: raise_(RuntimeError("CUDA error: an illegal memory access was encountered")),
    "torch memory": raise_torch,
    "rlimit": exceed_limit,
    "recursion": lambda task: raise_(RecursionError("too deep")),
    "interrupt": lambda task: raise_(KeyboardInterrupt()),
    "system exit": lambda task: sys.exit(3),
    "exit": lambda task: os._exit(3),
    "kill": lambda task: os.kill(os.getpid(), signal.SIGKILL),
    "orphan": lambda task: (
        os.kill(os.getppid(), signal.SIGKILL) if in_actor() else os.kill(os.getpid(), signal.SIGKILL)
    ),
    "abort": lambda task: os.abort(),
    "sleep": lambda task: time.sleep(60),
    "busy": busy,
    "stop": lambda task: os.kill(os.getpid(), signal.SIGSTOP),
    "child": leave_a_child,
    "connect": connect,
    "print": lambda task: print("log of", os.environ.get("LEAK", ""), flush=True),
    "junk": lambda task: os.write(1, b'{"kind": "result"}\n'),
}
