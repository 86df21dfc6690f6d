"""What a run and its workers tell each other: JSON, one message a line.

To the worker: first `{"solver", "model", "device", "config"}`, with "adapters" where these are kept, then one `{"tasks", "config", "seed", "seconds"}` per turn: one task,
or several that need no adaptation. From it: `{"kind": "ready" | "beat" | "result" | "failed", ...}`, where a beat has the records that
stand if no more comes (`results`), a failure says whether it was the machine's (`system`), and whether it will happen again
(`final`). Not here: processes (`worker.py`, `process.py`).
"""

import contextlib
import json
import os
from collections.abc import Mapping

import numpy as np

from ttt_core.arc.tasks import Pair, Task


def line(message: Mapping) -> bytes:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def take_line(received: bytearray) -> bytes | None:
    """The first whole line, taken out of what was received; None if there is none."""
    first, newline, rest = received.partition(b"\n")
    if not newline:
        return None
    received[:] = rest
    return bytes(first)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`, in as many turns as it takes; nothing more once the other side is gone."""
    rest = memoryview(data)
    with contextlib.suppress(OSError):  # the other side is gone; who waits for it finds out
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def task_to_dict(task: Task) -> dict:
    """JSON of a task. Test outputs, which a training file may hold, stay behind: a solver never sees them."""
    train = [{"input": p.input.tolist(), "output": p.output.tolist()} for p in task.train]
    return {"id": task.id, "train": train, "test": [{"input": p.input.tolist()} for p in task.test]}


def task_from_dict(values: dict) -> Task:
    """Inverse of `task_to_dict`."""
    train = tuple(Pair(np.array(p["input"], np.uint8), np.array(p["output"], np.uint8)) for p in values["train"])
    return Task(values["id"], train, tuple(Pair(np.array(p["input"], np.uint8)) for p in values["test"]))
