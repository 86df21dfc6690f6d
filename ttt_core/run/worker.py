"""The one child process that holds the model: its own side, and the side of the parent that watches it.

Protocol: JSON, one message a line. To the child: first `{"solver", "model", "device", "config"}`, then one
`{"tasks", "config", "seed", "seconds"}` per turn: one task, or several that need no adaptation. From it:
`{"kind": "ready" | "beat" | "result" | "failed", ...}`, where a failure says whether it was the machine's (`system`), and
whether it will happen again (`final`). The child keeps the protocol on a descriptor of its own; whatever a library prints
goes to the log file. It ends when its parent does, and after a failed turn, for a model that failed half-way is not to
be trusted with the next one.

Not here: budgets, order, records (`run.py`). No torch at import: the solver loads it, in the child alone.
"""

import contextlib
import ctypes
import errno
import importlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ttt_core.arc.result import TaskResult
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import Config, from_dict
from ttt_core.errors import MEMORY_WORDS, TTTError
from ttt_core.run.store import result_to_dict

SOLVER = "ttt_core.run.worker:load_solver"
POLL_S = 0.1

# (tasks, config, seed, deadline, beat) -> the records of the tasks
Solver = Callable[[list[Task], Config, int, float, Callable[[str], None]], list[TaskResult]]

_SYSTEM_ERRORS = {"MemoryError", "OutOfMemoryError", "AcceleratorError"}  # by name: torch is not imported here
PASSING = {
    errno.EIO,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EMFILE,
    errno.ENFILE,
}
_SYSTEM_WORDS = ("CUDA error", "CUBLAS_STATUS", "cuDNN error", *MEMORY_WORDS)


def load_solver(model: str, device: str, config: Config, adapters: str | None = None) -> Solver:
    """The real solver: loads the model directory once, then solves turn after turn. Imports torch.

    adapters: folder in which each task's adaptation is kept.
    """
    from ttt_core.model.load import load_model
    from ttt_core.model.packing import refuse_unequal
    from ttt_core.model.speed import keep_memory
    from ttt_core.solve.adapt import refuse_adaptation
    from ttt_core.solve.prefix import refuse_windows
    from ttt_core.solve.task import solve_task, solve_tasks

    form = None if config.model.format == "auto" else config.model.format
    loaded = load_model(model, device=device, dtype=config.model.dtype, format=form)
    refuse_windows(loaded)
    if config.adapt.method != "none":
        refuse_unequal(loaded.net, loaded.dtype)
        refuse_adaptation(loaded, config.adapt)
    if loaded.device.type == "cpu":  # a GPU's worker gives back what loading took
        keep_memory()
    kept = Path(adapters) if adapters else None

    def solve(tasks, config, seed, deadline, beat):
        options = {"seed": seed, "deadline": deadline, "beat": beat}
        if len(tasks) > 1:
            return solve_tasks(loaded, tasks, config, **options)
        return [solve_task(loaded, tasks[0], config, adapters=kept, **options)]

    return solve


# The parent's side


@dataclass(frozen=True)
class Reply:
    """kind: "ready", "result" or "failed" as the child said; "lost" if it died, "late" past its limit; "stopped" by a signal."""

    kind: str
    reason: str = ""
    body: dict = field(default_factory=dict)

    @property
    def is_system(self) -> bool:
        """Whether the machine failed, so that another try may go better."""
        return self.kind == "lost" or bool(self.body.get("system"))


@dataclass(frozen=True, eq=False)
class Worker:
    """A running child. received: bytes that came after the last whole line."""

    process: subprocess.Popen
    received: bytearray


def start(setup: Mapping, log: Path, environ: Mapping[str, str]) -> Worker:
    """Start a child in a process group of its own and hand it `setup`; `wait` for its "ready" next."""
    with log.open("ab") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ttt_core.run.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            bufsize=0,
            env=dict(environ),
            start_new_session=True,
        )
    worker = Worker(process, bytearray())
    send(worker, setup)
    return worker


def send(worker: Worker, message: Mapping) -> None:
    """Write one message without ever waiting for the child, which may be stopped or dead: then `wait` tells."""
    own = os.dup(worker.process.stdin.fileno())  # the number of a closed descriptor may soon be another file's
    threading.Thread(target=_send_all, args=(own, _line(message)), daemon=True).start()


def wait(worker: Worker, stage: str, limit_s: float, kill_at: float, stopped: Callable[[], bool], beat) -> Reply:
    """The child's next message that is not a heartbeat; "lost" if it dies, "late" if `kill_at` (monotonic) passes first.

    stage: what it is at, as a reason will name it. beat: called with the name of each stage that begins.
    The caller kills a worker whose reply is neither "ready" nor "result".
    """
    poll = select.poll()
    poll.register(worker.process.stdout, select.POLLIN)
    while True:
        line = _take_line(worker.received)
        if line is None:
            if stopped():
                return Reply("stopped")
            if time.monotonic() >= kill_at:
                return Reply("late", f"{stage}: over its limit of {limit_s:.3g} s; the worker was killed")
            ended = worker.process.poll() is not None  # asked before reading: what it wrote last still counts
            chunk = os.read(worker.process.stdout.fileno(), 1 << 16) if poll.poll(POLL_S * 1000) else None
            worker.received.extend(chunk or b"")
            if chunk == b"" or (ended and not chunk):
                return Reply("lost", f"{stage}: {_how_it_ended(worker.process)}")
            continue
        try:
            message = json.loads(line)
            if message["kind"] != "beat":
                return Reply(message["kind"], message.get("reason", ""), message)
            stage = str(message["stage"])
        except (ValueError, KeyError, TypeError):
            return Reply("lost", f"{stage}: the worker sent {line[:40]!r}, which is no message; it was killed")
        beat(stage)


def kill(worker: Worker) -> None:
    """End the child and everything it started, at once, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    worker.process.stdin.close()
    worker.process.stdout.close()


def task_to_dict(task: Task) -> dict:
    """JSON of a task. Test outputs, which a training file may hold, stay behind: a solver never sees them."""
    train = [{"input": p.input.tolist(), "output": p.output.tolist()} for p in task.train]
    return {"id": task.id, "train": train, "test": [{"input": p.input.tolist()} for p in task.test]}


def task_from_dict(values: dict) -> Task:
    """Inverse of `task_to_dict`."""
    train = tuple(Pair(np.array(p["input"], np.uint8), np.array(p["output"], np.uint8)) for p in values["train"])
    return Task(values["id"], train, tuple(Pair(np.array(p["input"], np.uint8)) for p in values["test"]))


def _send_all(descriptor: int, data: bytes) -> None:
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    with contextlib.suppress(OSError):  # the other side is gone; who waits for it finds out
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def _take_line(received: bytearray) -> bytes | None:
    line, newline, rest = received.partition(b"\n")
    if not newline:
        return None
    received[:] = rest
    return bytes(line)


def _how_it_ended(process: subprocess.Popen) -> str:
    try:
        code = process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return "the worker closed its pipe; it was killed"
    return f"the worker was killed by signal {-code}" if code < 0 else f"the worker ended with exit code {code}"


def _line(message: Mapping) -> bytes:
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


# The child's side


def main() -> None:
    """Load the solver, then answer one request after the other until one fails or the parent is gone."""
    _die_with_parent()
    requests, reply = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    inbox = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests, inbox), daemon=True).start()
    serving = True
    solve = None
    while serving:
        request, stage = inbox.get(), ["load" if solve is None else "solve"]

        def beat(name: str, stage=stage):
            stage[0] = name
            _write_all(reply, _line({"kind": "beat", "stage": name}))

        try:
            if solve is None:
                solve, answer = _load(request), {"kind": "ready"}
            else:
                answer = {"kind": "result", "results": _solve(solve, request, beat)}
            data = _line(answer)
        except Exception as error:  # the one place: whatever a task does wrong becomes its recorded reason
            told = {"reason": f"{stage[0]}: {_one_line(error)}", "traceback": traceback.format_exc()[-4000:]}
            data = _line({"kind": "failed", "system": is_system(error), "final": is_final(error), **told})
            serving = False
        _write_all(reply, data)
    os._exit(0)  # past the exit handlers of libraries, which may hang


def _load(setup: dict) -> Solver:
    module, _, function = setup["solver"].partition(":")
    load = getattr(importlib.import_module(module), function)
    kept = {"adapters": setup["adapters"]} if "adapters" in setup else {}
    return load(setup["model"], setup["device"], from_dict(setup["config"]), **kept)


def _solve(solve: Solver, request: dict, beat: Callable[[str], None]) -> list[dict]:
    deadline = time.monotonic() + request["seconds"]
    tasks, config = [task_from_dict(task) for task in request["tasks"]], from_dict(request["config"])
    return [result_to_dict(result) for result in solve(tasks, config, request["seed"], deadline, beat)]


def is_system(error: Exception) -> bool:
    """Whether memory or the GPU failed, and not the task."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & _SYSTEM_ERRORS) or any(words in str(error) for words in _SYSTEM_WORDS)


def is_final(error: Exception) -> bool:
    """Whether another start would meet the error again: of this library's those that no passing trouble caused."""
    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__:
        chain.append(cause)
    passing = any(is_system(e) or isinstance(e, OSError) and e.errno in PASSING for e in chain)
    return isinstance(error, TTTError) and not passing


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _read_requests(descriptor: int, inbox: queue.SimpleQueue) -> None:
    with os.fdopen(descriptor, "rb") as lines:
        for line in lines:
            inbox.put(json.loads(line))
    os._exit(0)  # end of file: the parent is gone, whatever the main thread is doing


def _die_with_parent() -> None:
    if sys.platform == "linux":  # elsewhere the end of standard input does it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


if __name__ == "__main__":
    main()
