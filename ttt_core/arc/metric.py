"""The score: how many hidden outputs one of the two attempts hits exactly. The only reader of solutions.

In: a closed submission (plain dict) and solutions, id to uint8 grids (H, W). Out: counts, the Kaggle score and its
interval. Not here: how a submission came about; nothing on the solving path imports this module.
"""

import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttt_core.arc.submission import ATTEMPTS, check_answers, is_placeholder
from ttt_core.arc.tasks import grid_fault, nearest, read_object, to_grid
from ttt_core.errors import InputError

_Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution
_LAYOUT = "give the edition's solutions file {id: [grid, ...]}"


@dataclass(frozen=True)
class Score:
    """solved: per scored task, per test output, whether an attempt equals it. tasks_in_file: of the solutions."""

    solved: dict[str, list[bool]]
    tasks_in_file: int

    @property
    def outputs(self) -> int:
        return sum(map(len, self.solved.values()))

    @property
    def outputs_solved(self) -> int:
        return sum(map(sum, self.solved.values()))

    @property
    def tasks(self) -> int:
        return len(self.solved)

    @property
    def tasks_solved(self) -> int:
        """Tasks of which every output is solved."""
        return sum(map(all, self.solved.values()))

    @property
    def kaggle_score(self) -> float:
        """Solved outputs over all outputs: each counts alike, however many its task has (ARC Prize 2024, 2025)."""
        return self.outputs_solved / self.outputs

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the Kaggle score for tasks like these, outputs taken as independent."""
        return wilson(self.outputs_solved, self.outputs)


def score(submission: dict, solutions: Mapping[str, tuple], tasks: Iterable[str] | None = None) -> Score:
    """Score `submission` on all of `solutions`, or on the ids `tasks` alone; a task it lacks counts as unsolved.

    So does one with a single answer, a placeholder: its challenges could not be read. InputError on a malformed submission,
    an id without a solution, or else another number of outputs than the solution.
    """
    check_answers(submission)
    ids = list(dict.fromkeys(solutions if tasks is None else tasks))
    if not ids:
        raise InputError("score: no task to score; give at least one id")
    solved = {}
    for task_id in ids:
        if task_id not in solutions:
            near = nearest(task_id, solutions)
            raise InputError(f"score: no solution for task {reprlib.repr(task_id)}, the nearest is {near}; {_LAYOUT}")
        answers, truths = submission.get(task_id), solutions[task_id]
        if answers is None or (len(answers) == 1 and is_placeholder(answers[0])):
            solved[task_id] = [False] * len(truths)
        elif len(answers) != len(truths):
            counts = f"{len(answers)} answers, the solution {len(truths)} outputs"
            raise InputError(f"score: task {task_id} has {counts}; {_LAYOUT}")
        else:
            solved[task_id] = [
                any(grids_equal(answer[name], truth) for name in ATTEMPTS)
                for answer, truth in zip(answers, truths, strict=True)
            ]
    return Score(solved, len(solutions))


def grids_equal(attempt, truth: np.ndarray) -> bool:
    """Whether an attempt (lists or array) equals an output in shape and in every cell."""
    return np.array_equal(np.asarray(attempt), truth)


def read_solutions(path: str | Path) -> dict[str, tuple[np.ndarray, ...]]:
    """A Kaggle solutions file as read-only grids; InputError on anything that is not one."""
    solutions = read_object(path, _LAYOUT, faults_allowed=False)
    if not solutions:
        raise InputError(f"{path}: holds no tasks; {_LAYOUT}")
    for task_id, grids in solutions.items():
        where = f"{path}: task {reprlib.repr(task_id)}"
        if not isinstance(grids, list) or not grids:
            raise InputError(f"{where} is not a list of at least one grid; {_LAYOUT}")
        for i, grid in enumerate(grids):
            if (reason := grid_fault(grid)) is not None:
                raise InputError(f"{where} output[{i}]: {reason}; {_LAYOUT}")
    return {task_id: tuple(map(to_grid, grids)) for task_id, grids in solutions.items()}


def wilson(hit: int, n: int) -> tuple[float, float]:
    """95 % score interval of a share hit / n. Wilson 1927, doi 10.1080/01621459.1927.10502953; sound at 0 and at n."""
    centre = (hit + _Z95**2 / 2) / (n + _Z95**2)
    half = _Z95 / (n + _Z95**2) * math.sqrt(hit * (n - hit) / n + _Z95**2 / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def format_score(result: Score) -> str:
    """Three lines for people."""
    low, high = result.interval
    scope = "" if result.tasks == result.tasks_in_file else f", of {result.tasks_in_file} in the solutions file"
    return "\n".join(
        [
            f"outputs solved  {result.outputs_solved}/{result.outputs}",
            f"tasks solved    {result.tasks_solved}/{result.tasks}{scope}",
            f"Kaggle score    {result.kaggle_score:.3f} (95 % interval {low:.3f} to {high:.3f}, Wilson)",
        ]
    )
