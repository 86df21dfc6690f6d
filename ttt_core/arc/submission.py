"""Submission files: built from attempts, checked against the challenges, written and read back.

In: per task and test input two grids (H, W). Out: `{id: [{"attempt_1": [[..]], "attempt_2": [[..]]}, ...]}`, plain
lists of ints, every id of the challenge file in its order. Not here: when a file is written (`run/`), how it
scores (`metric.py`). That the two attempts differ is the voter's duty, not a rule of the file.
"""

import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ttt_core.arc.tasks import Challenges, grid_fault, nearest, read_object
from ttt_core.errors import InputError

PLACEHOLDER = [[0, 0], [0, 0]]  # both attempts of Kaggle's sample submission; copy, never change
ATTEMPTS = ("attempt_1", "attempt_2")

_REMEDY = "write the file again with submission.build"


def build(challenges: Challenges, attempts: Mapping[str, Sequence]) -> dict:
    """The submission for `challenges`; placeholders wherever `attempts` has no entry, or None for a test input.

    attempts: task id to one (grid, grid) per test input. InputError if it names a task that the challenges do not
    hold, or has another number of test inputs.
    """
    for task_id, answers in attempts.items():
        if task_id not in challenges.n_test:
            raise InputError(f"attempts for unknown task {reprlib.repr(task_id)}: drop the record it comes from")
        if len(answers) != challenges.n_test[task_id]:
            count = f"{len(answers)} answers for {challenges.n_test[task_id]} test inputs"
            raise InputError(f"attempts for task {task_id}: {count}; drop the record it comes from")
    return {
        task_id: [_answer(pair) for pair in attempts.get(task_id, [None] * n)]
        for task_id, n in challenges.n_test.items()
    }


def check(submission: dict, challenges: Challenges) -> None:
    """InputError unless Kaggle would accept the submission for these challenges; it names task, test input, fault."""
    check_answers(submission)
    for task_id in submission:
        if task_id not in challenges.n_test:
            near = nearest(task_id, challenges.n_test)
            raise InputError(f"submission: unknown task {reprlib.repr(task_id)}, the nearest is {near}; {_REMEDY}")
    for task_id, n in challenges.n_test.items():
        found = len(submission.get(task_id, ()))
        if found != n:
            raise InputError(f"submission task {task_id}: {found} answers for {n} test inputs; {_REMEDY}")


def is_placeholder(answer: Mapping) -> bool:
    """Whether both attempts at a test input are Kaggle's sample."""
    return all(answer[name] == PLACEHOLDER for name in ATTEMPTS)


def check_answers(submission) -> None:
    """InputError unless every entry is a list of answers and every answer is exactly two attempts, both grids."""
    if not isinstance(submission, dict):
        raise InputError(f"submission: is {reprlib.repr(submission)}, not an object of task ids; {_REMEDY}")
    for task_id, answers in submission.items():
        if not isinstance(answers, list) or not answers:
            raise InputError(f"submission task {task_id}: is not a list of at least one answer; {_REMEDY}")
        for i, answer in enumerate(answers):
            where = f"submission task {task_id} test[{i}]"
            if not isinstance(answer, dict) or sorted(answer) != list(ATTEMPTS):
                raise InputError(f"{where}: an answer has exactly {' and '.join(ATTEMPTS)}; {_REMEDY}")
            for name in ATTEMPTS:
                if (reason := grid_fault(answer[name])) is not None:
                    raise InputError(f"{where} {name}: {reason}; {_REMEDY}")


def read(path: str | Path) -> dict:
    """A submission file with sound answers; whether it fits a challenge file, `check` says. InputError otherwise."""
    submission = read_object(path, "give a submission.json that `solve` wrote", faults_allowed=False)
    try:
        check_answers(submission)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return submission


def dumps(submission: dict) -> bytes:
    """The file's bytes: compact ASCII JSON, ids in the given order; equal submissions give equal bytes."""
    return json.dumps(submission, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _answer(pair) -> dict:
    grids = (PLACEHOLDER, PLACEHOLDER) if pair is None else pair
    return {name: np.asarray(grid).tolist() for name, grid in zip(ATTEMPTS, grids, strict=True)}
