"""The child process that holds the model: it loads a solver, then answers one request after the other.

It keeps the protocol (`messages.py`) on a descriptor of its own; whatever a library prints goes to the log file. It ends
when its parent does, and after a failed turn, for a model that failed half-way is not to be trusted with the next one.

Not here: the parent's side (`process.py`); budgets and order (`dispatch.py`), records (`keep.py`). No torch at import: the solver loads it.
"""

import ctypes
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from ttt_core.arc.result import TaskResult
from ttt_core.arc.tasks import Task
from ttt_core.config import Config, from_dict
from ttt_core.run.faults import is_final, is_system
from ttt_core.run.messages import line, task_from_dict, write_all
from ttt_core.run.store import result_to_dict

SOLVER = "ttt_core.run.worker:load_solver"

# Called as each stage begins, with its name and the records that stand if it does not end: none, or one a task.
Beat = Callable[..., None]
# (tasks, config, seed, deadline, beat) -> the records of the tasks
Solver = Callable[[list[Task], Config, int, float, Beat], list[TaskResult]]


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

        def beat(name: str, so_far: Sequence[TaskResult] = (), stage=stage):
            stage[0] = name
            write_all(reply, line({"kind": "beat", "stage": name, "results": list(map(result_to_dict, so_far))}))

        try:
            if solve is None:
                solve, answer = _load(request), {"kind": "ready"}
            else:
                answer = {"kind": "result", "results": _solve(solve, request, beat)}
            data = line(answer)
        except Exception as error:  # the one place: whatever a task does wrong becomes its recorded reason
            told = {"reason": f"{stage[0]}: {_one_line(error)}", "traceback": traceback.format_exc()[-4000:]}
            data = line({"kind": "failed", "system": is_system(error), "final": is_final(error), **told})
            serving = False
        write_all(reply, data)
    os._exit(0)  # past the exit handlers of libraries, which may hang


def _load(setup: dict) -> Solver:
    module, _, function = setup["solver"].partition(":")
    load = getattr(importlib.import_module(module), function)
    kept = {"adapters": setup["adapters"]} if "adapters" in setup else {}
    return load(setup["model"], setup["device"], from_dict(setup["config"]), **kept)


def _solve(solve: Solver, request: dict, beat: Beat) -> list[dict]:
    deadline = time.monotonic() + request["seconds"]
    tasks, config = [task_from_dict(task) for task in request["tasks"]], from_dict(request["config"])
    return [result_to_dict(result) for result in solve(tasks, config, request["seed"], deadline, beat)]


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
