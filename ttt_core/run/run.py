"""One run: a challenge file in, a valid submission.json out, whatever happens in between.

The submission is a pure function of challenges and records (`tasks/<id>.json`), replaced after every task; it exists,
with placeholders, before anything slow or dangerous begins. A task whose record was lost keeps the answer that the file
had. This process never imports torch: the model lives in workers, and one that crashes or hangs costs one task. Not
here: the loop (`dispatch.py`), scores, which need solutions.
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
from ttt_core.arc.tasks import Challenges, Task, nearest, read_challenges, select_tasks
from ttt_core.config import Config, to_dict
from ttt_core.errors import InputError, TTTError
from ttt_core.run import devices as fleet
from ttt_core.run import receipt, store, worker
from ttt_core.run.budget import Budget
from ttt_core.run.dispatch import Work, solve_all
from ttt_core.run.environment import fingerprint, versions
from ttt_core.run.passes import mean_logprob
from ttt_core.run.supervise import Limits, caught_signals, redact_file

SUBMISSION = "submission.json"
NOT_REACHED = "not reached yet"
ANSWER_BYTES = 8192  # of one test input at most: two grids of 30 x 30 cells, two characters each, and names
FREE_WRITE_S = 0.5  # a build of submission and receipt that takes no longer follows every task
REPORT_S = 1.0  # a run that has less left ends without a report; `report` makes one at any time
WRITE_SHARE = 0.05  # of the time, at most, goes into longer ones


@dataclass(frozen=True, eq=False)
class RunSummary:
    """How a run ended. ok + failed + skipped is the number of `outcomes`: task id to status, reason and seconds.

    seconds: since the start of the run. stopped: why tasks were left, "" if none was. submission: path of the file.
    """

    ok: int
    failed: int
    skipped: int
    seconds: float
    stopped: str
    submission: Path
    outcomes: dict[str, dict]


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


def write_fallback(challenges_path: str | Path, run_dir: str | Path) -> Path:
    """Write a valid submission.json at once: placeholders, and the answers of records that `run_dir` already holds."""
    run_dir, challenges = Path(run_dir), read_challenges(challenges_path)
    with store.locked(run_dir):
        receipt.require_same(run_dir, {"challenges_sha256": fingerprint(challenges_path)})
        records, _ = store.read_records(run_dir, challenges.n_test)
        with store.writable(run_dir):
            return _write_submission(run_dir, challenges, _standing(run_dir, challenges) | _attempts(records))


def run(
    challenges_path: str | Path,
    model: str | Path,
    run_dir: str | Path,
    *,
    config: Config,
    budget_s: float,
    tasks: str | None = None,
    seed: int = 0,
    devices: str = "auto",
    started: float | None = None,
    model_note: str = "",
    progress: bool = True,
    solver: str = worker.SOLVER,
    limits: Limits = Limits(),
) -> RunSummary:
    """Solve the tasks that `tasks` selects (see `select_tasks`) within `budget_s` seconds of `started` (monotonic).

    model_note: for the receipt, how the model was come by. devices: see `run/devices.py`.

    A folder with the same receipt is continued: solved tasks stay, failed ones get another turn. InputError on
    arguments that cannot work; once the first task has begun the run ends with a summary and a valid file.
    """
    budget = Budget(time.monotonic() if started is None else started, budget_s)
    run_dir, challenges = Path(run_dir), read_challenges(challenges_path)
    with caught_signals() as caught, store.locked(run_dir):
        challenges_sha256 = fingerprint(challenges_path)
        receipt.require_same(run_dir, {"challenges_sha256": challenges_sha256})
        records, complaints = store.read_records(run_dir, challenges.n_test)
        standing = _standing(run_dir, challenges)
        with store.writable(run_dir):
            _write_submission(run_dir, challenges, standing | _attempts(records))
            store.reserve_space(run_dir, ANSWER_BYTES * sum(challenges.n_test.values()))
        chosen = select_tasks(challenges, tasks)
        if not Path(model).is_dir():
            raise InputError(f"model {model}: is not a folder; give one, such as kaggle_dataset/model")
        ids = tuple(task.id for task in chosen)
        identity = receipt.identity(challenges_sha256, fingerprint(model), config, seed, ids)
        receipt.require_same(run_dir, identity)
        setup = {"solver": solver, "model": str(Path(model).resolve()), "config": to_dict(config)}
        header = {
            "schema": store.SCHEMA,
            "challenges": str(Path(challenges_path).resolve()),
            "model": setup["model"],
            "model_note": model_note,
            "selection": tasks,
            "devices": devices,
            "versions": versions(),
            "set_aside": list(complaints),
            "disk_faults": [],
            "identity": identity,
        }
        plan = Plan(run_dir, challenges, chosen, budget, standing, header)
        with store.writable(run_dir):
            _write_receipt(plan, records, NOT_REACHED)
        with tqdm(total=len(chosen), unit="task", file=sys.stderr, disable=not progress) as bar:
            for complaint in complaints:
                _log(bar, complaint)
            by_id = {task.id: task for task in chosen}
            keep, say = _keeper(plan, records, bar), lambda line: _log(bar, line)
            work = Work(by_id, config, seed, budget, limits, records, caught, keep, say)
            with fleet.opened(devices, setup, run_dir, lambda: bool(caught), bar.set_postfix_str, say) as backend:
                stopped = solve_all(work, backend)
            table = _finish(plan, records, stopped, bar)
    n = receipt.counts(table)
    return RunSummary(
        n["ok"], n["failed"], n["skipped"], budget.used_s(time.monotonic()), stopped, run_dir / SUBMISSION, table
    )


def reselect(run_dir: str | Path, selector: str, challenges_path: str | Path | None = None) -> Path:
    """Vote again over the recorded candidates and rewrite submission.json; needs no model and no torch.

    Records keep their attempts, so continuing the run brings its own selector back. challenges_path: where the run's
    challenge file is now, if not where it was.
    """
    run_dir = Path(run_dir)
    if (told := receipt.read(run_dir)) is None:
        raise InputError(f"run folder {run_dir}: holds no {receipt.NAME}; give the --out folder of a `solve`")
    from ttt_core.solve.vote import SELECTORS, select

    if selector not in SELECTORS:
        raise InputError(f"unknown selector {selector}: the nearest is {nearest(selector, SELECTORS)}")
    challenges = read_challenges(challenges_path := challenges_path or told["challenges"])
    with store.locked(run_dir):
        receipt.require_same(run_dir, {"challenges_sha256": fingerprint(challenges_path)})
        records, _ = store.read_records(run_dir, challenges.n_test)
        attempts = {
            task.id: [
                select(candidates, selector, pair.input)
                for candidates, pair in zip(records[task.id].candidates, task.test, strict=True)
            ]
            for task in challenges.tasks
            if task.id in records and records[task.id].status == "ok"
        }
        path = _write_submission(run_dir, challenges, attempts)
        receipt.write(run_dir, told | {"reselected": selector})
    return path


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


def _keeper(plan: Plan, records: Mapping[str, TaskResult], bar: tqdm) -> Callable[[str, TaskResult, float], None]:
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
                _write_submission(plan.run_dir, plan.challenges, plan.standing | _attempts(records))
            with _tolerated(plan, bar, "receipt"):
                _write_receipt(plan, records, NOT_REACHED)
            took = time.monotonic() - began
            due = began + took / WRITE_SHARE if took > FREE_WRITE_S else 0.0
        bar.update(task_id not in done)
        done.add(task_id)
        _log(bar, f"[{bar.n}/{bar.total}] {describe(record, used_s)}")

    return keep


def _finish(plan: Plan, records: Mapping[str, TaskResult], stopped: str, bar: tqdm) -> dict:
    """The last build: submission, receipt, report, logs; returns the table of outcomes."""
    with store.writable(plan.run_dir):
        _write_submission(plan.run_dir, plan.challenges, plan.standing | _attempts(records))
    store.free_space(plan.run_dir)
    table: dict = {}
    with _tolerated(plan, bar, "receipt"):
        table = _write_receipt(plan, records, stopped)
    if plan.budget.used_s(time.monotonic()) + REPORT_S < plan.budget.seconds:
        from ttt_core.run.report import write_report

        with _tolerated(plan, bar, "report"):
            write_report(plan.run_dir)
    with _tolerated(plan, bar, "log"):
        for log in plan.run_dir.glob("worker*.log"):
            redact_file(log, os.environ)
    return table or _outcomes(plan, records, stopped)


@contextlib.contextmanager
def _tolerated(plan: Plan, bar: tqdm, what: str) -> Iterator[None]:
    """A disk that fails inside the context is told, once for each kind of file; the answers stay in memory."""
    try:
        yield
    except (OSError, TTTError) as error:
        told = f"run folder {plan.run_dir}: {what} not written ({getattr(error, 'strerror', None) or error})"
        plan.header["disk_faults"].append(told)
        _log(bar, f"{told}; the run goes on")


def _standing(run_dir: Path, challenges: Challenges) -> dict:
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


def _attempts(records: Mapping[str, TaskResult]) -> dict:
    return {task_id: record.attempts for task_id, record in records.items() if record.status == "ok"}


def _write_submission(run_dir: Path, challenges: Challenges, attempts: Mapping) -> Path:
    answers = submission.build(challenges, attempts)
    submission.check(answers, challenges)
    store.write_reserved(run_dir / SUBMISSION, submission.dumps(answers))
    return run_dir / SUBMISSION


def _outcomes(plan: Plan, records: Mapping[str, TaskResult], why_not: str) -> dict:
    """How each task ended. Tasks the file spoils belong to it where all were asked for."""
    reasons = {task.id: why_not for task in plan.tasks}
    return receipt.outcomes(records, reasons | (plan.challenges.bad if plan.header["selection"] is None else {}))


def _write_receipt(plan: Plan, records: Mapping[str, TaskResult], why_not: str) -> dict:
    """Write run.json; returns its table of outcomes."""
    table, budget = _outcomes(plan, records, why_not), plan.budget
    used_s = round(budget.used_s(time.monotonic()), 3)
    time_told = {"seconds": budget.seconds, "reserve_s": budget.reserve_s, "used_s": used_s}
    ended = {"budget": time_told, "stopped": why_not, "counts": receipt.counts(table), "tasks": table}
    receipt.write(plan.run_dir, plan.header | ended)
    return table


def _log(bar: tqdm, line: str) -> None:
    if not bar.disable:
        bar.write(line, file=sys.stderr)
