"""One worker watched: started until it is ready, given one task until it answers, and signals caught meanwhile.

In: a task, its limit in seconds and the monotonic time of its kill. Out: a TaskResult in any case, but for a signal.
Secrets are struck out of every reason here, before anything is written. Not here: which task, how long (`run.py`).
"""

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ttt_core.arc.result import TaskResult
from ttt_core.arc.tasks import Task
from ttt_core.errors import CheckpointError
from ttt_core.run import worker
from ttt_core.run.environment import redact, worker_environment
from ttt_core.run.store import result_from_dict


@dataclass(frozen=True)
class Limits:
    """Seconds. task_s: a task gets at least so much, as less solves nothing. grace_s: between limit and kill."""

    task_s: float = 20.0
    grace_s: float = 5.0
    start_s: float = 600.0


def start_ready(
    setup: Mapping, log: Path, limits: Limits, kill_at: float, caught: list[str], show: Callable[[str], None]
) -> tuple[worker.Worker | None, str]:
    """A worker whose model is loaded, or None and the reason, which is "" if a signal came."""
    child = worker.start(setup, log, worker_environment(os.environ))
    show("load")
    reply = worker.wait(child, "load", limits.start_s, kill_at, lambda: bool(caught), show)
    if reply.kind == "ready":
        return child, ""
    worker.kill(child)
    return None, "" if reply.kind == "stopped" else _public(reply.reason)


def solve_one(
    child: worker.Worker,
    task: Task,
    seed: int,
    limit_s: float,
    kill_at: float,
    caught: list[str],
    show: Callable[[str], None],
) -> tuple[TaskResult | None, bool]:
    """(result, whether the worker may go on); the result is None if a signal came."""
    worker.send(child, {"task": worker.task_to_dict(task), "seed": seed, "seconds": limit_s})
    reply = worker.wait(child, "solve", limit_s, kill_at, lambda: bool(caught), show)
    if reply.kind == "stopped":
        return None, False
    if reply.kind == "result":
        try:
            result = result_from_dict(reply.body.get("result"), task.id, len(task.test))
            return dataclasses.replace(result, reason=_public(result.reason)), True
        except CheckpointError as error:
            return TaskResult(task.id, "failed", f"worker: {error}"), False
    trace = {"traceback": _public(reply.body["traceback"])} if "traceback" in reply.body else {}
    return TaskResult(task.id, "failed", _public(reply.reason), notes=trace), False


@contextlib.contextmanager
def caught_signals() -> Iterator[list[str]]:
    """SIGTERM and SIGINT put their name in the list instead of ending the process; handlers restored at the end."""
    caught: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught  # only the main thread may set handlers; elsewhere a signal does what it did
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {n: signal.signal(n, lambda number, frame: caught.append(signal.Signals(number).name)) for n in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _public(text: str) -> str:
    return redact(text, os.environ)
