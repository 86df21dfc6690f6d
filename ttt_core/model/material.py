"""The files that pretraining learns from, as they are read: training tasks, demonstrations, generated pairs.

Kaggle-named files and RE-ARC-like extra pairs. Of a challenge file only the demonstrations are taken, whatever else stands
in it. Not here: what is learnt of them (`sources.py`), and what must not be (`leakage.py`).
"""

import contextlib
import gc
import gzip
import json
import reprlib
import warnings
import zlib
from pathlib import Path

from ttt_core.arc.metric import read_solutions
from ttt_core.arc.tasks import Challenges, Pair, Task, grid_fault, read_challenges, to_grid
from ttt_core.errors import InputError

EXTRA_LAYOUT = "give a JSON file {id: [pair, ...]}, or RE-ARC's folder of <id>.json files, each a list of pairs"


@contextlib.contextmanager
def uncollected():
    """Within the context no garbage is looked for: among millions of lists that are still in use that takes 0.4 of the time of reading."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_training_tasks(data: Path) -> list[Task]:
    """The training tasks of a Kaggle-named folder, with the outputs of their test pairs."""
    if not data.is_dir():
        raise InputError(
            f"data {data}: no such folder; write it with `python -m ttt_core data --edition arc-agi-1 --out {data}`"
        )
    solutions = read_solutions(data / "arc-agi_training_solutions.json")
    tasks = usable(data / "arc-agi_training_challenges.json").tasks
    for task in tasks:
        if (n := len(solutions.get(task.id, ()))) != len(task.test):
            told = f"task {task.id} has {len(task.test)} test inputs and {n} solutions"
            raise InputError(f"{data}: {told}; write the edition anew with `python -m ttt_core data`")
    return [
        Task(t.id, t.train, tuple(Pair(p.input, o) for p, o in zip(t.test, solutions[t.id], strict=True)))
        for t in tasks
    ]


def read_demonstrations(challenges: Path) -> list[Task]:
    """The usable tasks of a challenge file without their test pairs: nothing of those is ever learnt. InputError if there are none."""
    return [Task(task.id, task.train, ()) for task in usable(challenges).tasks]


def usable(challenges: Path, others: str = "are left out") -> Challenges:
    """A challenge file, and a warning that names one of its tasks that is not usable. InputError if none is."""
    read = read_challenges(challenges)
    if not read.tasks:
        raise InputError(f"{challenges}: no usable task: {read.faults[0]}; give a challenge file")
    if read.bad:
        told = f"{len(read.bad)} of {len(read.n_test)} tasks {others}: {read.faults[0]}"
        warnings.warn(f"{challenges}: {told}", stacklevel=4)
    return read


def read_extra(path: Path, tasks: dict[str, Task]) -> dict[str, list[Pair]]:
    """Generated pairs {task id: [pair, ...]} for `tasks` only.

    From one JSON file {id: [pair, ...]}, gzipped or not, or as RE-ARC is published: a folder of <id>.json, each a list
    of pairs, given itself or by the folder that holds it as `tasks`. InputError on another layout.
    """
    if path.is_dir():
        folder = path / "tasks" if (path / "tasks").is_dir() else path
        raw = {key: _read_json(file) for key in tasks if (file := folder / f"{key}.json").exists()}
        if not raw:
            raise InputError(f"extra pairs {folder}: no <id>.json of a training task; {EXTRA_LAYOUT}")
    else:
        raw = _read_json(path)
        if not isinstance(raw, dict):
            raise InputError(f"extra pairs {path}: the root is a JSON {type(raw).__name__}, no object; {EXTRA_LAYOUT}")
    if not tasks.keys() & raw.keys():
        warnings.warn(f"extra pairs {path}: none is of a training task, so none is learnt", stacklevel=4)
    for key in tasks.keys() & raw.keys():
        if not isinstance(raw[key], list):
            raise InputError(f"extra pairs {path} task {key}: {reprlib.repr(raw[key])} is no list; {EXTRA_LAYOUT}")
    return {key: [_extra_pair(path, key, pair) for pair in raw[key]] for key in tasks if key in raw}


def _read_json(path: Path):
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return json.load(file)
    except (OSError, ValueError, EOFError, RecursionError, zlib.error) as error:
        raise InputError(f"extra pairs {path}: {error}; {EXTRA_LAYOUT}") from None


def _extra_pair(path: Path, task_id: str, pair) -> Pair:
    fault = "no pair" if not isinstance(pair, dict) else grid_fault(pair.get("input")) or grid_fault(pair.get("output"))
    if fault:
        raise InputError(f"extra pairs {path} task {task_id}: {fault}; give {{'input': grid, 'output': grid}} for each")
    return Pair(to_grid(pair["input"]), to_grid(pair["output"]))
