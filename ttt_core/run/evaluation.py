"""What a run on tasks with known answers says of the solver: outputs, the oracle beside the selection, leaks.

In: a finished run folder and a solutions file. Out: plain records, Markdown tables. Reads records only. Not here: the
score (`arc/metric.py`), figures (`figures.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttt_core.arc import metric, submission
from ttt_core.run import receipt


@dataclass(frozen=True, eq=False)
class Outcome:
    """One test output. solved: an attempt is right. found: a candidate is right, chosen or not (the oracle).

    best: the attempt with the most right cells, uint8 (H, W). near: that share, 0 where no attempt has the right shape.
    seconds: of the whole task.
    """

    task_id: str
    index: int
    status: str
    solved: bool
    found: bool
    best: np.ndarray
    near: float
    candidates: int
    seconds: float


def outcomes(run_dir: str | Path, truths: Mapping[str, Sequence[np.ndarray]]) -> list[Outcome]:
    """One Outcome for every output of the run's tasks that `truths` (see `metric.read_solutions`) knows."""
    run_dir = Path(run_dir)
    told, challenges, records = receipt.read_run(run_dir)
    answers = submission.read(run_dir / "submission.json")
    submission.check(answers, challenges)
    found = []
    for task_id in (task for task in told["tasks"] if task in truths):
        record = records.get(task_id)
        for index, truth in enumerate(truths[task_id]):
            # A task that cannot be read has one answer, a placeholder.
            answer = (answers[task_id] * len(truths[task_id]))[index]
            grids = [np.array(answer[name], np.uint8) for name in submission.ATTEMPTS]
            best = max(grids, key=lambda grid: share_right(grid, truth))
            candidates = record.candidates[index] if record and record.candidates else ()
            solved = any(metric.grids_equal(grid, truth) for grid in grids)
            is_found = solved or any(metric.grids_equal(c.grid, truth) for c in candidates)
            seconds = told["tasks"][task_id].get("used_s") or 0.0
            status = told["tasks"][task_id]["status"]
            near = share_right(best, truth)
            found.append(Outcome(task_id, index, status, solved, is_found, best, near, len(candidates), seconds))
    return found


def share_right(grid: np.ndarray, truth: np.ndarray) -> float:
    """Share of the cells that are right; 0 for another shape."""
    return float((grid == truth).mean()) if grid.shape == truth.shape else 0.0


def summary(rows: Sequence[Outcome]) -> str:
    """Markdown: what was selected beside what was found, and the yield of the tasks' time, earlier calls of the run's included."""
    seconds = max(sum({row.task_id: row.seconds for row in rows}.values()), 1e-9)
    n, solved, found = len(rows), sum(row.solved for row in rows), sum(row.found for row in rows)
    low, high = metric.wilson(solved, n)
    lines = [
        ("outputs", f"{n}"),
        ("solved by the two attempts", f"{solved} = {solved / n:.1%} (95 % interval {low:.1%} to {high:.1%})"),
        ("found by the search (oracle)", f"{found} = {found / n:.1%}; {found - solved} lost in the selection"),
        (
            "solved per hour of a device",
            f"{3600 * solved / seconds:.1f} ({solved / seconds:.4f} per second, {seconds:.0f} s of all tasks together)",
        ),
    ]
    return _markdown(("", ""), lines)


def table(rows: Sequence[Outcome]) -> str:
    """Markdown, one line an output: solved ones first, then by how near the better attempt came."""
    ordered = sorted(rows, key=lambda row: (not row.solved, not row.found, -row.near, row.task_id))
    told = [
        (
            row.task_id,
            str(row.index + 1),
            "solved"
            if row.solved
            else "found, not chosen"
            if row.found
            else row.status
            if row.status != "ok"
            else "missed",
            f"{row.near:.1%}",
            str(row.candidates),
            f"{row.seconds:.1f}",
        )
        for row in ordered
    ]
    return _markdown(("task", "output", "result", "cells right", "candidates", "task's seconds"), told)


def near_misses(rows: Sequence[Outcome], most: int = 6) -> list[Outcome]:
    """The unsolved outputs that were answered, whose better attempt has the right shape and the most right cells."""
    near = (row for row in rows if row.candidates and not row.solved and row.near > 0)
    return sorted(near, key=lambda row: -row.near)[:most]


def known_tasks(model: str | Path, challenges: str | Path, data: str | Path | None = None) -> dict[str, str] | None:
    """Tasks of `challenges` that a score may not count for this model, each with the task that has taught it, itself or one that shows the same.

    Tasks that only a base of it has learnt count too. data: folder of the edition it was trained on; the training tasks
    that the model knows are compared pair by pair. None where a model, as text models do, does not say what it has learnt.
    InputError for a file that cannot be read.
    """
    from ttt_core.model.leakage import base_leaks  # these import torch
    from ttt_core.model.load import check_directory

    config = check_directory(Path(model))
    if config.get("model_type") != "gridlm":
        return None
    ids = {task for told in ("task_ids", "learnt_ids", "shown_ids") for task in config.get(told, ())}
    told = base_leaks(ids, Path(challenges), Path(data) if data else None)
    return {task_id: source for source, asked in sorted(told.items()) for task_id in asked}


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
