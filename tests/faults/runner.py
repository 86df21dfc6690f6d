"""A run of the stand-in in a process of its own, to be killed: runner.py CHALLENGES MODEL RUN_DIR [--naive] [--devices SPEC]."""

import os
import sys
from pathlib import Path

from ttt_core.config import Config
from ttt_core.run import store
from ttt_core.run.run import run
from ttt_core.run.supervise import Limits


def naive_write(path: Path, data: bytes) -> None:
    """What `json.dump` into an opened file comes to."""
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        file.write(data[len(data) // 2 :])


if __name__ == "__main__":
    if "--naive" in sys.argv:
        store.write_atomic = naive_write
    devices = sys.argv[sys.argv.index("--devices") + 1] if "--devices" in sys.argv else "cpu"
    done = run(
        *sys.argv[1:4],
        config=Config(),
        budget_s=float(os.environ.get("BUDGET_S", "1000")),
        solver="standin:load",
        progress=False,
        devices=devices,
        limits=Limits(task_s=2.0, grace_s=float(os.environ.get("GRACE_S", "4.5"))),
    )
    print(done.ok, done.failed, done.skipped, done.stopped)
