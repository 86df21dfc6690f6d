"""report.html: a run for people. Score where solutions are given, every task's demonstrations, attempts, candidates, time.

In: a run folder. Out: one self-contained file, images inline, no script. Reads records only: no model, no torch.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from ttt_core.arc import metric, submission
from ttt_core.arc.draw import COLORS
from ttt_core.arc.result import TaskResult
from ttt_core.arc.tasks import Task
from ttt_core.errors import InputError
from ttt_core.run import receipt, store
from ttt_core.run.passes import mean_logprob

NAME = "report.html"
STAGES = {"adapt": "#0074D9", "decode": "#FF851B", "rescore": "#870C25"}
CELL = 10  # pixels a cell, fewer where a grid would become larger than LARGEST
LARGEST = 160
SHOWN = 8  # candidates of a test input at most
PALETTE = [int(color[i : i + 2], 16) for color in COLORS for i in (1, 3, 5)]


def write_report(
    run_dir: str | Path, solutions: str | Path | None = None, challenges_path: str | Path | None = None
) -> Path:
    """Write report.html into `run_dir`. solutions: a Kaggle solutions file; without it nothing is called right.

    challenges_path: where the run's challenge file is now, if not where it was.
    """
    run_dir = Path(run_dir)
    told, challenges, records = receipt.read_run(run_dir, challenges_path)
    answers = submission.read(run_dir / "submission.json")
    submission.check(answers, challenges)
    truths = metric.read_solutions(solutions) if solutions else {}
    tasks = [task for task in challenges.tasks if task.id in told["tasks"]]
    if solutions and not truths.keys() & told["tasks"].keys():
        raise InputError(f"solutions {solutions}: hold none of this run's tasks; give those of {told['challenges']}")
    longest = max([sum(r.seconds.values()) for r in records.values()] + [1e-9])
    table = {task.id: told["tasks"][task.id] for task in tasks}
    page = {
        "title": f"Run {run_dir.resolve().name}",
        "score": _score(answers, truths, list(told["tasks"])),
        "judged": bool(truths),
        "facts": _facts(told),
        "unusable": [row["reason"] for task_id, row in told["tasks"].items() if task_id in challenges.bad],
        "stages": list(STAGES.items()),
        "devices": _devices(table),
        "tasks": [
            _task(task, table[task.id], records.get(task.id), answers[task.id], truths.get(task.id), longest)
            for task in tasks
        ],
    }
    template = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    html = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template).render(page)
    with store.writable(run_dir):
        store.write_atomic(run_dir / NAME, html.encode())
    return run_dir / NAME


def _devices(table: Mapping) -> list[dict]:
    """A bar per device: how long each of its tasks took, in the receipt's order; the busiest device has the full width."""
    used: dict[str, list] = {}
    for task_id, row in table.items():
        if row.get("device"):
            used.setdefault(row["device"], []).append((task_id, row["status"], row["used_s"]))
    busiest = max([sum(seconds for *_, seconds in parts) for parts in used.values()] + [1e-9])
    return [
        {
            "name": name,
            "told": f"{len(parts)} tasks, {sum(seconds for *_, seconds in parts):.0f} s",
            "parts": [(task_id, state, f"{s:.1f}", f"{100 * s / busiest:.3f}") for task_id, state, s in parts],
        }
        for name, parts in sorted(used.items())
    ]


def _score(answers: dict, truths: Mapping, ids: Sequence[str]) -> list[str]:
    known = [task_id for task_id in ids if task_id in truths]
    unknown = [f"not counted     {len(ids) - len(known)} tasks that the solutions file lacks"] * (len(known) < len(ids))
    return metric.format_score(metric.score(answers, truths, known)).splitlines() + unknown if known else []


def _facts(told: dict) -> list[tuple[str, str]]:
    """What a reader asks first about a run."""
    n, budget, identity = told["counts"], told["budget"], told["identity"]
    method = identity["config.adapt.method"]
    return [
        ("tasks", f"{n['selected']} selected: {n['ok']} ok, {n['failed']} failed, {n['skipped']} skipped"),
        (
            "time",
            f"{budget['used_s']:.0f} s of {budget['seconds']:.0f} s in the last call; {told['stopped'] or 'done'}",
        ),
        ("model", f"{Path(told['model']).name}, sha256 {identity['model_sha256'][:12]} {told['model_note']}"),
        (
            "adaptation",
            "none" if method == "none" else f"{method}, at most {identity['config.adapt.steps']} steps in a first pass",
        ),
        ("seed", f"{identity['seed']}"),
        ("vote", told.get("reselected") or identity["config.vote.selector"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in told["versions"].items())),
    ]


def _task(task: Task, row: Mapping, record: TaskResult | None, answers: list, truth, longest: float) -> dict:
    """One task for the template."""
    right = [_right(answer, truth, i) for i, answer in enumerate(answers)]
    state, told = row["status"], row["status"]
    if state == "ok" and truth is not None:
        state = "solved" if all(map(any, right)) else "missed"
        told = f"{sum(map(any, right))} of {len(right)} solved"
    seconds = record.seconds if record else {}
    return {
        "id": task.id,
        "state": state,
        "told": told,
        "reason": row["reason"] or (_how(record) if record else ""),
        "seconds": f"{sum(seconds.values()):.1f} s" if seconds else "",
        "bar": [(f"{100 * seconds.get(name, 0) / longest:.2f}", color) for name, color in STAGES.items()],
        "train": [(_picture(pair.input), _picture(pair.output)) for pair in task.train],
        "tests": [
            {
                "input": _picture(pair.input),
                "attempts": [(_picture(answers[i][name]), right[i][k]) for k, name in enumerate(submission.ATTEMPTS)]
                if not submission.is_placeholder(answers[i])
                else [],
                "truth": _picture(truth[i]) if truth is not None else None,
                "candidates": _candidates(record, truth, i) if record and record.candidates else [],
            }
            for i, pair in enumerate(task.test)
        ],
    }


def _how(record: TaskResult) -> str:
    """What an ok record alone does not say: how far the last pass was adapted, how many there were, and what was not found."""
    notes = record.notes
    told = [f"{notes['steps']} steps"] if notes.get("steps") is not None else []
    told += [notes["ended"]] if notes.get("ended") else []
    told += [f"{notes['passes']} passes"] if notes.get("passes", 1) > 1 else []
    return ", ".join(told + (["no candidate found"] if not all(record.candidates) else []))


def _right(answer: Mapping, truth, index: int) -> list[bool]:
    return [truth is not None and metric.grids_equal(answer[name], truth[index]) for name in submission.ATTEMPTS]


def _candidates(record: TaskResult, truth, index: int) -> list[dict]:
    """The most probable ones, by the mean over the views in which they were scored."""
    return [
        {
            "grid": _picture(c.grid),
            "right": truth is not None and metric.grids_equal(c.grid, truth[index]),
            "probability": f"{math.exp(mean_logprob(c)):.2g}",
            "views": f"{len(c.found_in)} of {len(record.views)} views",
        }
        for c in sorted(record.candidates[index], key=mean_logprob, reverse=True)[:SHOWN]
    ]


def _picture(grid) -> dict:
    """A grid as an inline PNG with one pixel a cell, and the size at which it is shown."""
    grid = np.asarray(grid, np.uint8)
    image = Image.frombytes("P", grid.shape[::-1], grid.tobytes())
    image.putpalette(PALETTE)
    image.save(file := io.BytesIO(), "PNG")
    height, width = grid.shape
    cell = min(CELL, LARGEST / max(grid.shape))
    src = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"src": src, "width": round(width * cell), "height": round(height * cell), "sides": f"{height} x {width}"}
