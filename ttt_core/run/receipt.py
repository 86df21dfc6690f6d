"""run.json: what a run was made from, what it may be continued with, and how each task ended.

The receipt's `identity` holds all that determines results, flat: `challenges_sha256`, `model_sha256`,
`config.adapt.lr`, ..., `seed`, `tasks`. A folder continues only under the same identity; budget and device may
change. Not here: when the receipt is written (`keep.py`).
"""

import json
import reprlib
import warnings
from collections.abc import Mapping
from pathlib import Path

from ttt_core.arc.result import TaskResult
from ttt_core.arc.tasks import Challenges, read_challenges, read_object
from ttt_core.config import Config, to_dict
from ttt_core.errors import InputError
from ttt_core.run.environment import TASK_FILES, fingerprint
from ttt_core.run.store import STATUSES, read_records, write_atomic

NAME = "run.json"


def identity(challenges_sha256: str, model_sha256: str, config: Config, seed: int, tasks: tuple[str, ...]) -> dict:
    """The fields that determine a run's results, in the order in which differences are told."""
    options = {
        f"config.{stage}.{option}": value
        for stage, options in to_dict(config).items()
        for option, value in options.items()
    }
    hashes = {"challenges_sha256": challenges_sha256, "model_sha256": model_sha256}
    return hashes | options | {"seed": seed, "tasks": sorted(tasks)}


def read(run_dir: Path) -> dict | None:
    """The receipt in `run_dir`; None if there is none; InputError if it is no receipt."""
    path = run_dir / NAME
    if not path.exists():
        return None
    receipt = read_object(path, "give another run folder", faults_allowed=False)
    if not isinstance(receipt.get("identity"), dict) or not isinstance(receipt.get("tasks"), dict):
        raise InputError(f"{path}: holds no receipt of a run; give another run folder")
    return receipt


def required(run_dir: Path) -> dict:
    """The receipt in `run_dir`; InputError if there is none, or not a whole one."""
    if (told := read(run_dir)) is None:
        raise InputError(f"run folder {run_dir}: holds no {NAME}; give the --out folder of a `solve`")
    if missing := [
        name for name in ("challenges", "model", "versions", "budget", "counts", "stopped") if name not in told
    ]:
        raise InputError(f"{run_dir / NAME}: lacks {', '.join(missing)}; run the same `solve` again")
    return told


def read_run(run_dir: Path, challenges_path: str | Path | None = None) -> tuple[dict, Challenges, dict]:
    """Receipt, challenges and sound records, by task id, of a run; nothing is written, other records are warned of.

    challenges_path: where the run's challenge file is now, if not where it was. InputError if there is no run, if that
    file is no longer the run's, or if all records are gone.
    """
    told = required(run_dir)
    if challenges_path is None and not Path(told["challenges"]).exists():
        raise InputError(
            f"run folder {run_dir}: its challenge file {told['challenges']} is gone; name it by --challenges"
        )
    challenges_path = challenges_path or told["challenges"]
    if fingerprint(challenges_path, TASK_FILES) != told["identity"].get("challenges_sha256"):
        raise InputError(f"{challenges_path}: is not what {run_dir} was made from; name that file by --challenges")
    challenges = read_challenges(challenges_path)
    records, complaints = read_records(run_dir, challenges.n_test, set_aside=False)
    for complaint in complaints:
        warnings.warn(complaint, stacklevel=3)
    if (n := told["counts"]["ok"]) and not records:
        raise InputError(
            f"run folder {run_dir}: tasks/ holds none of {n} records; give the --out folder of the `solve` itself"
        )
    return told, challenges, records


def write(run_dir: Path, receipt: Mapping) -> None:
    """Replace run.json."""
    write_atomic(run_dir / NAME, json.dumps(receipt, indent=1, allow_nan=False).encode("ascii") + b"\n")


def require_same(run_dir: Path, wanted: Mapping) -> None:
    """InputError if `run_dir` belongs to a run that differs in a field of `wanted`; it names the first, both values.

    A folder without records belongs to its challenge file alone.
    """
    receipt, has_records = read(run_dir), any((run_dir / "tasks").glob("*.json"))
    if receipt is None:
        if has_records:
            raise InputError(f"run folder {run_dir}: holds records but no {NAME}; give another folder")
        return
    for name, here in wanted.items():
        there = receipt["identity"].get(name)
        if here != there and (has_records or name == "challenges_sha256"):
            told = f"{name} was {_short(there, here)}, now it is {_short(here, there)}"
            raise InputError(f"run folder {run_dir}: {told}; give the same or another folder")


def outcomes(records: Mapping[str, TaskResult], reasons: Mapping[str, str]) -> dict:
    """Per task of `reasons`: status, reason, seconds planned and used, device, passes; why not, for tasks without record."""
    table = {}
    for task_id, why_not in reasons.items():
        record = records.get(task_id)
        if record is None:
            table[task_id] = {"status": "skipped", "reason": why_not, "planned_s": 0.0, "used_s": 0.0}
        else:
            told = {"planned_s": 0.0, "used_s": 0.0, "device": "", "passes": 1}
            told |= {name: record.notes[name] for name in told if name in record.notes}
            table[task_id] = {"status": record.status, "reason": record.reason, **told}
    return table


def counts(table: Mapping[str, Mapping]) -> dict[str, int]:
    """How many tasks ended in each status; the statuses add up to "selected"."""
    ended = [row["status"] for row in table.values()]
    return {status: ended.count(status) for status in STATUSES} | {"selected": len(ended)}


def _short(value, other) -> str:
    """A hash's beginning; of a list of ids how many, and the first that the other lacks."""
    if isinstance(value, list) and isinstance(other, list):
        return ", ".join([f"{len(value)} ids", *sorted(set(value) - set(other))[:1]])
    return value[:12] if isinstance(value, str) and len(value) == 64 else reprlib.repr(value)
