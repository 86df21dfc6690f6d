"""A run of the stand-in in a process of its own, to be killed: runner.py CHALLENGES MODEL RUN_DIR [--naive] [--devices SPEC]; or --serve."""

import ctypes
import json
import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

from ttt_core.config import Config
from ttt_core.run import process, store, worker
from ttt_core.run.run import run
from ttt_core.run.supervise import Limits


def naive_write(path: Path, data: bytes) -> None:
    """What `json.dump` into an opened file comes to."""
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        file.write(data[len(data) // 2 :])


def main(arguments: list[str]) -> None:
    if "--naive" in arguments:
        store.write_atomic = naive_write
    devices = arguments[arguments.index("--devices") + 1] if "--devices" in arguments else "cpu"
    done = run(
        *arguments[:3],
        config=Config(),
        budget_s=float(os.environ.get("BUDGET_S", "1000")),
        solver="standin:load",
        progress=False,
        devices=devices,
        limits=Limits(task_s=2.0, grace_s=float(os.environ.get("GRACE_S", "4.5"))),
    )
    print(done.ok, done.failed, done.skipped, done.stopped)


def serve() -> None:
    """One run after the other, each a fork of this process, which has imported all; a line of JSON asks for one.

    Answers with the process's number when it has begun, and with its exit code when it has ended.
    """
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            try:
                forked(**json.loads(line))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def forked(arguments: list[str], environ: dict[str, str], log: str, is_traced: bool) -> None:
    """A run, whose workers are forks too. log: what it prints. is_traced: it begins when it has a tracer."""
    os.environ.update(environ)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    process.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": Fork})
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))  # PR_SET_PTRACER: strace is no parent of this process
    until = time.monotonic() + 30
    while is_traced and "TracerPid:\t0" in Path("/proc/self/status").read_text():
        if time.monotonic() > until:
            raise TimeoutError("strace may not attach to this process")
        time.sleep(0.001)
    time.sleep(0.01 * is_traced)  # it has attached, and not yet begun
    main(arguments)


class Fork:
    """What a worker's parent asks of subprocess.Popen, of a fork."""

    def __init__(self, command, stdin, stdout, stderr, bufsize, env, start_new_session):
        (asked, ask), (told, tell) = os.pipe(), os.pipe()
        start = multiprocessing.get_context("fork").Process
        self.process = start(target=self.child, args=(asked, tell, stderr.fileno(), env))
        self.process.start()
        os.close(asked), os.close(tell)
        self.pid, self.stdin, self.stdout = self.process.pid, os.fdopen(ask, "wb", 0), os.fdopen(told, "rb", 0)

    @staticmethod
    def child(asked: int, tell: int, log: int, environ: dict[str, str]) -> None:
        os.setsid()
        for own, number in ((asked, 0), (tell, 1), (log, 2)):
            os.dup2(own, number)
        os.closerange(3, 1024)
        os.environ.update(environ)
        worker.main()

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("worker", timeout)
        return self.process.exitcode


if __name__ == "__main__":
    serve() if "--serve" in sys.argv else main(sys.argv[1:])
