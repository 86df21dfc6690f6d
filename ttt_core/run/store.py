"""The files of a run: one record per task, whole or set aside, never half; one process per folder.

`run_dir/tasks/<id>.json` holds `{"schema", "sha256", "result"}`, the checksum over the canonical JSON of `result`.
Every write is atomic: temporary file in the same folder, fsync, rename, fsync of the folder. `run_dir/.space` holds
room for the submission, which is given up where the disk is full. Not here: what the
receipt must agree on (`receipt.py`), when records are written (`keep.py`). Only the holder of `locked` may write.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.arc.tasks import grid_fault, read_object, to_grid
from ttt_core.errors import CheckpointError, InputError

SCHEMA = 1
STATUSES = ("ok", "failed", "skipped")
SPACE = ".space"
TEMPORARY = re.compile(r"\..+\.[0-9]+\.tmp")  # names that `write_atomic` gives


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: whoever reads, whenever the machine stops, finds the old bytes or the new ones."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_reserved(path: Path, data: bytes) -> None:
    """`write_atomic`, on a full disk into the room that `reserve_space` keeps in the same folder."""
    try:
        write_atomic(path, data)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not (path.parent / SPACE).exists():
            raise
        free_space(path.parent)
        write_atomic(path, data)
        with contextlib.suppress(OSError):  # what the old file held is free now, mostly enough for the next time
            reserve_space(path.parent, len(data))


def reserve_space(run_dir: Path, size: int) -> None:
    """Keep `size` bytes of the disk for later; OSError if they are not there."""
    try:
        with (run_dir / SPACE).open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(1, size))
            else:  # macOS
                file.write(bytes(size))
    except OSError:
        free_space(run_dir)
        raise


def free_space(run_dir: Path) -> None:
    """Give the reserved room up."""
    (run_dir / SPACE).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold `run_dir`, made if missing and swept of stale temporaries; InputError naming the pid that holds it.

    What `reserve_space` kept is given up at the end.
    """
    with writable(run_dir):
        (run_dir / "tasks").mkdir(parents=True, exist_ok=True)
        file = (run_dir / "lock").open("ab+", buffering=0)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().decode(errors="replace").strip() or "unknown"
            raise InputError(f"run folder {run_dir}: in use by process {holder}; wait for it or give another folder")
        except OSError as error:
            raise InputError(f"run folder {run_dir}: cannot be locked ({error.strerror}); give one on another disk")
        with writable(run_dir):
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            for stale in (*run_dir.glob(".*.*.tmp"), *(run_dir / "tasks").glob(".*.*.tmp")):
                if TEMPORARY.fullmatch(stale.name) and stale.is_file():
                    stale.unlink()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                free_space(run_dir)


@contextlib.contextmanager
def writable(run_dir: Path) -> Iterator[None]:
    """A failing disk inside the context is an InputError about the run folder."""
    try:
        yield
    except OSError as error:
        remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "give a folder that can be written"
        raise InputError(f"run folder {run_dir}: {error.strerror or error}; {remedy}") from None


def write_record(run_dir: Path, result: TaskResult) -> None:
    """Write the record of one task."""
    payload = result_to_dict(result)
    record = {"schema": SCHEMA, "sha256": _checksum(payload), "result": payload}
    write_atomic(_path(run_dir, result.task_id), _canonical(record) + b"\n")


def read_record(path: Path, task_id: str, n_test: int) -> TaskResult:
    """The record in `path`; CheckpointError unless it is whole, of this schema, this task and this many tests."""
    remedy = "set it aside and solve the task again"
    try:
        record = read_object(path, remedy, faults_allowed=False)
    except InputError as error:
        raise CheckpointError(f"record {error}") from None
    if record.get("schema") != SCHEMA:
        raise CheckpointError(f"record {path}: schema {record.get('schema')!r} is not {SCHEMA}; {remedy}")
    if record.get("sha256") != _checksum(record.get("result")):
        raise CheckpointError(f"record {path}: its checksum does not match its contents; {remedy}")
    return result_from_dict(record["result"], task_id, n_test)


def read_records(
    run_dir: Path, n_test: Mapping[str, int], set_aside: bool = True
) -> tuple[dict[str, TaskResult], tuple[str, ...]]:
    """All sound records of tasks in `n_test`, and one sentence for each other file.

    set_aside: that file is renamed out of the way, which only the holder of `locked` may do; else it is left alone.
    """
    records, complaints = {}, []
    for path in sorted((run_dir / "tasks").glob("*.json")):
        try:
            if path.stem not in n_test:
                raise CheckpointError(f"record {path}: the challenges hold no such task; set it aside")
            records[path.stem] = read_record(path, path.stem, n_test[path.stem])
        except CheckpointError as error:
            if not set_aside:
                complaints.append(str(error))
                continue
            aside = next(a for i in range(1, 10**6) if not (a := path.with_name(f"{path.name}.corrupt-{i}")).exists())
            os.replace(path, aside)
            complaints.append(f"{error} (now {aside.name})")
    return records, tuple(complaints)


def result_to_dict(result: TaskResult) -> dict:
    """JSON of a result: grids as lists, NaN log-probabilities as null, infinite ones as "inf" or "-inf"."""
    return {
        "task_id": result.task_id,
        "status": result.status,
        "reason": result.reason,
        "attempts": [[np.asarray(grid).tolist() for grid in pair] for pair in result.attempts],
        "candidates": [[_candidate_to_dict(c) for c in found] for found in result.candidates],
        "views": list(result.views),
        "seconds": _plain(result.seconds),
        "peak_gib": _plain(result.peak_gib),
        "notes": _plain(result.notes),
    }


def result_from_dict(values: dict, task_id: str, n_test: int) -> TaskResult:
    """Inverse of `result_to_dict`; CheckpointError unless it is a result of `task_id` with `n_test` test inputs."""
    if not isinstance(values, dict) or values.get("task_id") != task_id:
        found = values.get("task_id") if isinstance(values, dict) else values
        raise CheckpointError(f"result of task {found!r} where {task_id} belongs; solve the task again")
    try:
        result = TaskResult(
            task_id,
            values["status"],
            values["reason"],
            tuple((_grid(first), _grid(second)) for first, second in values["attempts"]),
            tuple(tuple(map(_candidate_from_dict, found)) for found in values["candidates"]),
            tuple(values["views"]),
            dict(values["seconds"]),
            float(values["peak_gib"] or 0.0),
            dict(values["notes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"result of task {task_id}: malformed ({error!r}); solve the task again") from None
    if result.status not in STATUSES or (result.status == "ok" and len(result.attempts) != n_test):
        told = f"status {result.status!r} with {len(result.attempts)} attempts for {n_test} test inputs"
        raise CheckpointError(f"result of task {task_id}: {told}; solve the task again")
    return result


def _candidate_to_dict(candidate: Candidate) -> dict:
    logprobs = [float(x) for x in candidate.logprobs]
    return {
        "grid": np.asarray(candidate.grid).tolist(),
        "logprobs": [x if math.isfinite(x) else None if math.isnan(x) else str(x) for x in logprobs],
        "found_in": [int(i) for i in candidate.found_in],
    }


def _candidate_from_dict(values: dict) -> Candidate:
    logprobs = tuple(math.nan if x is None else float(x) for x in values["logprobs"])
    return Candidate(_grid(values["grid"]), logprobs, tuple(map(int, values["found_in"])))


def _grid(value) -> np.ndarray:
    if (reason := grid_fault(value)) is not None:
        raise ValueError(reason)
    return to_grid(value)


def _plain(value):
    """`value` in plain JSON types; numbers that JSON does not have become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _canonical(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _checksum(payload) -> str:
    return hashlib.sha256(_canonical(payload)).hexdigest()


def _path(run_dir: Path, task_id: str) -> Path:
    return run_dir / "tasks" / f"{task_id}.json"
