"""One device and its worker watched: started until it is ready, given a turn until it answers, killed where it is late.

In: jobs with their limits in seconds. Out: an Outcome in any case. The same object serves in this process and, on other
machines, in a Ray actor; so times are durations, never moments of one machine's clock. Not here: which task, how long
(`schedule.py`), which devices there are (`devices.py`).
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ttt_core.arc.result import TaskResult
from ttt_core.arc.tasks import Task
from ttt_core.config import Config, to_dict
from ttt_core.errors import CheckpointError
from ttt_core.run import messages, process
from ttt_core.run.environment import redact, worker_environment
from ttt_core.run.store import result_from_dict


@dataclass(frozen=True)
class Limits:
    """Seconds. task_s: a task gets at least so much, as less solves nothing. grace_s: between limit and kill."""

    task_s: float = 20.0
    grace_s: float = 4.5  # half a second less than the 5 s after which a hung task must be gone
    start_s: float = 600.0
    pause_s: float = 2.0  # before a device that failed is tried again; twice as long after every further failure


@dataclass(frozen=True, eq=False)
class Job:
    """One try at one task, or at several together. seconds: until its deadline. kill_s: until its worker is killed."""

    tasks: tuple[Task, ...]
    config: Config
    seed: int
    seconds: float
    kill_s: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """kind: "ready" or "dead" after a start, "result" after a job, "stopped" by a signal.

    results: one a task of the job. reason: why a start failed. is_final: another start would fail too. is_system: the
    results are a failure of the machine's. is_alive: the worker may go on.
    """

    kind: str
    reason: str = ""
    results: tuple[TaskResult, ...] = ()
    is_final: bool = False
    is_system: bool = False
    is_alive: bool = False

    @classmethod
    def failed(cls, tasks: tuple[Task, ...], reason: str, is_system: bool, notes: Mapping | None = None) -> "Outcome":
        """Of a job that did not end well: each of its tasks failed."""
        results = tuple(TaskResult(task.id, "failed", reason, notes=dict(notes or {})) for task in tasks)
        return cls("result", results=results, is_system=is_system)

    @classmethod
    def unheard(cls, method: str, argument: "float | Job", why: str) -> "Outcome":
        """Of a `start` or `solve` whose supervisor will not answer."""
        told = f"{method}: the device's supervisor {why}"
        return cls("dead", told) if method == "start" else cls.failed(argument.tasks, told, is_system=True)


class Device:
    """A device with its worker. setup: what the worker is made from; environ: variables of this device alone."""

    def __init__(self, setup: Mapping, log: str, environ: Mapping[str, str]):
        self.setup, self.environ = dict(setup), dict(environ)
        self.log = Path(log) if Path(log).parent.is_dir() else Path(os.devnull)  # another machine's folder
        self.child: process.Worker | None = None
        self.stopped: Callable[[], bool] = lambda: False
        self.show: Callable[[str], None] = lambda stage: None

    def start(self, within_s: float) -> Outcome:
        """Start a worker and wait until its model is loaded."""
        self.end()
        kill_at = time.monotonic() + within_s
        try:
            self.child = process.start(self.setup, self.log, worker_environment(os.environ) | self.environ)
        except OSError as error:  # no process, memory or room for another
            return Outcome("dead", str(error))
        self.show("load")
        reply = process.wait(self.child, "load", within_s, kill_at, self.stopped, self.show)
        if reply.kind == "ready":
            return Outcome("ready", is_alive=True)
        self.end()
        kind = "stopped" if reply.kind == "stopped" else "dead"
        return Outcome(kind, reply.reason, is_final=bool(reply.body.get("final")))

    def solve(self, job: Job) -> Outcome:
        """Give the worker a job; whatever happens to it becomes a result."""
        kill_at = time.monotonic() + job.kill_s
        tasks = [messages.task_to_dict(task) for task in job.tasks]
        request = {"tasks": tasks, "config": to_dict(job.config), "seed": job.seed}
        process.send(self.child, request | {"seconds": job.seconds})
        reply = process.wait(self.child, "solve", job.seconds, kill_at, self.stopped, self.show)
        outcome = _outcome(reply, job.tasks)
        if not outcome.is_alive:
            self.end()
        return outcome

    def end(self) -> None:
        """Kill the worker, if there is one."""
        if self.child is not None:
            process.kill(self.child)
            self.child = None


def _outcome(reply: process.Reply, tasks: tuple[Task, ...]) -> Outcome:
    """What a reply says of each task; where the worker did not end well, what it had found until then is the result."""
    if reply.kind == "stopped":
        return Outcome("stopped")
    is_alive = reply.kind == "result"
    if is_alive or "results" in reply.body:
        try:
            told = zip(reply.body.get("results", ()), tasks, strict=True)
            results = tuple(result_from_dict(values, task.id, len(task.test)) for values, task in told)
        except (CheckpointError, TypeError, ValueError) as error:  # the last two: not a list, or not as long
            return Outcome.failed(tasks, f"worker: {error}", is_system=False)
        if not is_alive:
            results = tuple(
                dataclasses.replace(result, notes=result.notes | {"lost": reply.reason}) for result in results
            )
        return Outcome("result", results=results, is_system=reply.is_system, is_alive=is_alive)
    trace = {"traceback": reply.body["traceback"]} if "traceback" in reply.body else {}
    return Outcome.failed(tasks, reply.reason, reply.is_system, trace)


def public(result: TaskResult, redact: Callable[[str], str]) -> TaskResult:
    """`result` with all its text struck of secrets."""

    def clean(value):
        if isinstance(value, str):
            return redact(value)
        if isinstance(value, Mapping):
            return {clean(key): clean(inner) for key, inner in value.items()}
        return [clean(inner) for inner in value] if isinstance(value, list | tuple) else value

    views, notes = tuple(map(clean, result.views)), clean(result.notes)
    return dataclasses.replace(result, reason=clean(result.reason), views=views, notes=notes)


def redact_file(path: Path, environ: Mapping[str, str]) -> None:
    """Strike the secrets out of a file in place."""
    text = path.read_bytes().decode(errors="surrogateescape")
    if (clean := redact(text, environ)) != text:
        path.write_bytes(clean.encode(errors="surrogateescape"))
