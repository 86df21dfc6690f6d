"""What a run writes: records, submission, receipt, report; and what becomes of them where the disk fails.

Every answer goes into its record first, then into the submission, which is a pure function of challenges and records,
but that a task whose record was lost keeps the answer that the file had. A write that fails costs no answer: they stay in
memory, and the submission has room reserved for it. Not here: one file (`store.py`), the loop (`dispatch.py`).
"""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ttt_core.arc import submission
from ttt_core.arc.result import TaskResult
from ttt_core.arc.tasks import Challenges, Task
from ttt_core.errors import InputError, TTTError
from ttt_core.run import receipt, store
from ttt_core.run.budget import Budget
from ttt_core.run.passes import mean_logprob
from ttt_core.run.supervise import redact_file

SUBMISSION = "submission.json"
NOT_REACHED = "not reached yet"
ANSWER_BYTES = 8192  # of one test input at most: two grids of 30 x 30 cells, two characters each, and names
FREE_WRITE_S = 0.5  # a build of submission and receipt that takes no longer follows every task
REPORT_S = 1.0  # a run that has less left ends without a report; `report` makes one at any time
WRITE_SHARE = 0.05  # of the time, at most, goes into longer ones


@dataclass(frozen=True, eq=False)
class Plan:
    """What stays the same while a run lasts. standing: the answers the submission had at the start, for tasks without a
    record. header: the part of run.json that is known at the start."""

    run_dir: Path
    challenges: Challenges
    tasks: tuple[Task, ...]
    budget: Budget
    standing: dict
    header: dict


def keeper(plan: Plan, records: Mapping[str, TaskResult], bar: tqdm) -> Callable[[str, TaskResult, float], None]:
    """Writes a record at once, and submission and receipt unless that would take more than WRITE_SHARE of the time."""
    first = [task.id for task in plan.tasks if task.id in records and records[task.id].status == "ok"]
    bar.update(len(first))
    done, due = set(first), 0.0

    def keep(task_id: str, record: TaskResult, used_s: float) -> None:
        nonlocal due
        with _tolerated(plan, bar, f"record of task {task_id}"):
            store.write_record(plan.run_dir, record)
        began = time.monotonic()
        if began >= due:
            with _tolerated(plan, bar, "submission"):
                write_submission(plan.run_dir, plan.challenges, plan.standing | attempts(records))
            with _tolerated(plan, bar, "receipt"):
                write_receipt(plan, records, NOT_REACHED)
            took = time.monotonic() - began
            due = began + took / WRITE_SHARE if took > FREE_WRITE_S else 0.0
        bar.update(task_id not in done)
        done.add(task_id)
        log(bar, f"[{bar.n}/{bar.total}] {describe(record, used_s)}")

    return keep


def finish(plan: Plan, records: Mapping[str, TaskResult], stopped: str, bar: tqdm) -> tuple[dict, str]:
    """The last build: submission, receipt, report, logs; returns the table of outcomes, and `stopped`, or that the disk failed."""
    told = len(plan.header["disk_faults"])
    with _tolerated(plan, bar, "submission"):
        write_submission(plan.run_dir, plan.challenges, plan.standing | attempts(records))
    if faults := plan.header["disk_faults"][told:]:
        stopped = f"{faults[0]}; it holds the answers of before: make room and run again"
    with contextlib.suppress(OSError):
        store.free_space(plan.run_dir)
    table: dict = {}
    with _tolerated(plan, bar, "receipt"):
        table = write_receipt(plan, records, stopped)
    if plan.budget.used_s(time.monotonic()) + REPORT_S < plan.budget.seconds:
        with _tolerated(plan, bar, "report", Exception):  # nothing about a report is worth a submission
            from ttt_core.run.report import write_report

            write_report(plan.run_dir)
    with _tolerated(plan, bar, "log"):
        for path in plan.run_dir.glob("worker*.log"):
            redact_file(path, os.environ)
    return table or _outcomes(plan, records, stopped), stopped


@contextlib.contextmanager
def _tolerated(plan: Plan, bar: tqdm, what: str, kinds=(OSError, TTTError)) -> Iterator[None]:
    """A disk that fails inside the context, or another of the `kinds`, is told, here and in the receipt; the answers stay in memory."""
    try:
        yield
    except kinds as error:
        told = f"run folder {plan.run_dir}: {what} not written ({getattr(error, 'strerror', None) or error})"
        plan.header["disk_faults"].append(told)
        log(bar, f"{told}; the run goes on")


def standing(run_dir: Path, challenges: Challenges) -> dict:
    """The answers of the submission that stands in a run's folder; none where there is no sound one of this run."""
    if receipt.read(run_dir) is None:
        return {}
    try:
        answers = submission.read(run_dir / SUBMISSION)
        submission.check(answers, challenges)
    except InputError:
        return {}
    pairs = {
        task_id: [tuple(answer[name] for name in submission.ATTEMPTS) for answer in told]
        for task_id, told in answers.items()
    }
    empty = (submission.PLACEHOLDER, submission.PLACEHOLDER)
    return {task_id: told for task_id, told in pairs.items() if any(pair != empty for pair in told)}


def attempts(records: Mapping[str, TaskResult]) -> dict:
    """Task id to its pairs of grids, of the records that have some."""
    return {task_id: record.attempts for task_id, record in records.items() if record.status == "ok"}


def write_submission(run_dir: Path, challenges: Challenges, attempts: Mapping) -> Path:
    """Replace submission.json by a checked one; placeholders where `attempts` has nothing."""
    answers = submission.build(challenges, attempts)
    submission.check(answers, challenges)
    store.write_reserved(run_dir / SUBMISSION, submission.dumps(answers))
    return run_dir / SUBMISSION


def _outcomes(plan: Plan, records: Mapping[str, TaskResult], why_not: str) -> dict:
    """How each task ended. Tasks the file spoils belong to it where all were asked for."""
    reasons = {task.id: why_not for task in plan.tasks}
    return receipt.outcomes(records, reasons | (plan.challenges.bad if plan.header["selection"] is None else {}))


def write_receipt(plan: Plan, records: Mapping[str, TaskResult], why_not: str) -> dict:
    """Write run.json; returns its table of outcomes."""
    table, budget = _outcomes(plan, records, why_not), plan.budget
    used_s = round(budget.used_s(time.monotonic()), 3)
    time_told = {"seconds": budget.seconds, "reserve_s": budget.reserve_s, "used_s": used_s}
    ended = {"budget": time_told, "stopped": why_not, "counts": receipt.counts(table), "tasks": table}
    receipt.write(plan.run_dir, plan.header | ended)
    return table


def log(bar: tqdm, line: str) -> None:
    """A line for people, above the progress bar."""
    if not bar.disable:
        with contextlib.suppress(OSError):  # whoever was to read it is gone, or its disk is full
            bar.write(line, file=sys.stderr)


def describe(result: TaskResult, seconds: float) -> str:
    """One line: task, status, seconds, then candidates and the probability of the first attempt, or the reason."""
    head = f"{result.task_id} {result.status} {seconds:.1f} s"
    if result.status != "ok":
        return f"{head} {result.reason}"
    n = sum(map(len, result.candidates))
    chances = [_chance(*pair) for pair in zip(result.attempts, result.candidates)]
    told = "" if not chances or None in chances else f" p={math.exp(min(chances)):.2f}"
    return f"{head} {n} candidate{'' if n == 1 else 's'}{told}"


def _chance(attempts, candidates) -> float | None:
    """Mean log-probability, over the views that scored it, of the candidate that is the first attempt."""
    for candidate in candidates:
        mean = mean_logprob(candidate)
        if math.isfinite(mean) and np.array_equal(candidate.grid, attempts[0]):
            return mean
    return None
