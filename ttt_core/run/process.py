"""The parent's side of a worker: started in a process group of its own, asked, waited for, killed.

Not here: what the child does (`worker.py`), what is said (`messages.py`), which device and limit (`supervise.py`).
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ttt_core.run.messages import line, take_line, write_all

POLL_S = 0.1
REAP_S = 10.0  # a killed child that has not ended by then hangs in the kernel, and is left to it


@dataclass(frozen=True)
class Reply:
    """kind: "ready", "result" or "failed" as the child said; "lost" if it died, "late" past its limit; "stopped" by a signal.

    body: what it said; where it failed, died or was late, `results` are those of its last beat that had any.
    """

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
    threading.Thread(target=_send_all, args=(own, line(message)), daemon=True).start()


def wait(worker: Worker, stage: str, limit_s: float, kill_at: float, stopped: Callable[[], bool], beat) -> Reply:
    """The child's next message that is not a heartbeat; "lost" if it dies, "late" if `kill_at` (monotonic) passes first.

    stage: what it is at, as a reason will name it. beat: called with the name of each stage that begins.
    The caller kills a worker whose reply is neither "ready" nor "result".
    """
    poll = select.poll()
    poll.register(worker.process.stdout, select.POLLIN)
    so_far: dict = {}
    while True:
        told = take_line(worker.received)
        if told is None:
            if stopped():
                return Reply("stopped")
            if time.monotonic() >= kill_at:
                return Reply("late", f"{stage}: over its limit of {limit_s:.3g} s; the worker was killed", so_far)
            ended = worker.process.poll() is not None  # asked before reading: what it wrote last still counts
            chunk = os.read(worker.process.stdout.fileno(), 1 << 16) if poll.poll(POLL_S * 1000) else None
            worker.received.extend(chunk or b"")
            if chunk == b"" or (ended and not chunk):
                return Reply("lost", f"{stage}: {_how_it_ended(worker.process)}", so_far)
            continue
        try:
            message = json.loads(told)
            if message["kind"] != "beat":
                return Reply(message["kind"], message.get("reason", ""), so_far | message)
            stage = str(message["stage"])
            so_far = {"results": message["results"]} if message.get("results") else so_far
        except (ValueError, KeyError, TypeError):
            return Reply("lost", f"{stage}: the worker sent {told[:40]!r}, which is no message; it was killed")
        beat(stage)


def kill(worker: Worker) -> None:
    """End the child and everything it started, at once, and reap it, if it lets itself be."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(worker.process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.process.wait(REAP_S)
    worker.process.stdin.close()
    worker.process.stdout.close()


def _send_all(descriptor: int, data: bytes) -> None:
    try:
        write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _how_it_ended(process: subprocess.Popen) -> str:
    try:
        code = process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return "the worker closed its pipe; it was killed"
    return f"the worker was killed by signal {-code}" if code < 0 else f"the worker ended with exit code {code}"
