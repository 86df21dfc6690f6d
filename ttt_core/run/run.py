"""One run: a challenge file in, a valid submission.json out, whatever happens in between.

The submission is a pure function of challenges and records (`tasks/<id>.json`), replaced after every task; it exists,
with placeholders, before anything slow or dangerous begins. This process never imports torch: the model lives in a
worker (`worker.py`), and a worker that crashes or hangs costs one task. Not here: scores, which need solutions.
"""

import dataclasses
import functools
import math
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ttt_core.arc import submission
from ttt_core.arc.result import TaskResult
from ttt_core.arc.tasks import Challenges, Task, nearest, read_challenges, select_tasks
from ttt_core.config import Config, to_dict
from ttt_core.errors import InputError
from ttt_core.run import receipt, schedule, store, worker
from ttt_core.run.budget import Budget, quota_s
from ttt_core.run.environment import fingerprint, versions
from ttt_core.run.supervise import Limits, caught_signals, solve_one, start_ready

SUBMISSION = "submission.json"
NOT_REACHED = "not reached yet"
FAILED_STARTS = 3  # in a row, then no further start is tried


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
    """What stays the same while a run lasts. header: the part of run.json that is known at the start."""

    run_dir: Path
    challenges: Challenges
    tasks: tuple[Task, ...]
    budget: Budget
    limits: Limits
    seed: int
    setup: dict
    header: dict


def write_fallback(challenges_path: str | Path, run_dir: str | Path) -> Path:
    """Write a valid submission.json at once: placeholders, and the answers of records that `run_dir` already holds."""
    run_dir, challenges = Path(run_dir), read_challenges(challenges_path)
    with store.locked(run_dir):
        receipt.require_same(run_dir, {"challenges_sha256": fingerprint(challenges_path)})
        return _write_submission(run_dir, challenges, _attempts(store.read_records(run_dir, challenges.n_test)[0]))


def run(
    challenges_path: str | Path,
    model: str | Path,
    run_dir: str | Path,
    *,
    config: Config,
    budget_s: float,
    tasks: str | None = None,
    seed: int = 0,
    device: str = "auto",
    started: float | None = None,
    model_note: str = "",
    progress: bool = True,
    solver: str = worker.SOLVER,
    limits: Limits = Limits(),
) -> RunSummary:
    """Solve the tasks that `tasks` selects (see `select_tasks`) within `budget_s` seconds of `started` (monotonic).

    model_note: for the receipt, how the model was come by.

    A folder with the same receipt is continued: solved tasks stay, failed ones get another turn. InputError on
    arguments that cannot work; once the first task has begun the run ends with a summary and a valid file.
    """
    budget = Budget(time.monotonic() if started is None else started, budget_s)
    run_dir, challenges = Path(run_dir), read_challenges(challenges_path)
    with caught_signals() as caught, store.locked(run_dir):
        challenges_sha256 = fingerprint(challenges_path)
        receipt.require_same(run_dir, {"challenges_sha256": challenges_sha256})
        records, complaints = store.read_records(run_dir, challenges.n_test)
        _write_submission(run_dir, challenges, _attempts(records))
        chosen = select_tasks(challenges, tasks)
        if not Path(model).is_dir():
            raise InputError(f"model {model}: is not a folder; give one, such as kaggle_dataset/model")
        ids = tuple(task.id for task in chosen)
        identity = receipt.identity(challenges_sha256, fingerprint(model), config, seed, ids)
        receipt.require_same(run_dir, identity)
        setup = {"solver": solver, "model": str(Path(model).resolve()), "device": device, "config": to_dict(config)}
        if config.adapt.save:
            setup["adapters"] = str(run_dir.resolve() / "adapters")
        header = {
            "schema": store.SCHEMA,
            "challenges": str(Path(challenges_path).resolve()),
            "model": setup["model"],
            "model_note": model_note,
            "selection": tasks,
            "device": device,
            "versions": versions(),
            "set_aside": list(complaints),
            "identity": identity,
        }
        plan = Plan(run_dir, challenges, chosen, budget, limits, seed, setup, header)
        _write_receipt(plan, records, NOT_REACHED)
        with tqdm(total=len(chosen), unit="task", file=sys.stderr, disable=not progress) as bar:
            for complaint in complaints:
                _log(bar, complaint)
            stopped = _solve_all(plan, records, caught, bar)
        table = _write_receipt(plan, records, stopped)
        path = _write_submission(run_dir, challenges, _attempts(records))
    n = receipt.counts(table)
    return RunSummary(n["ok"], n["failed"], n["skipped"], budget.used_s(time.monotonic()), stopped, path, table)


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


def _solve_all(plan: Plan, records: dict[str, TaskResult], caught: list[str], bar: tqdm) -> str:
    """Give every task without an ok record its turn; returns why the others were skipped, "" if none was."""
    solved_before = {task.id for task in plan.tasks if task.id in records and records[task.id].status == "ok"}
    pending = deque(schedule.order((task for task in plan.tasks if task.id not in solved_before), records))
    bar.update(len(solved_before))
    child, failed_starts = None, 0
    try:
        while pending:
            now = time.monotonic()
            left_s = plan.budget.left_s(now)
            if caught:
                return f"stopped by {caught[0]}"
            if left_s <= 0:
                return f"the budget of {plan.budget.seconds:g} s was used up"
            if child is None:
                kill_at = min(now + plan.limits.start_s, plan.budget.deadline)
                log_path = plan.run_dir / "worker.log"
                child, why_not = start_ready(plan.setup, log_path, plan.limits, kill_at, caught, bar.set_postfix_str)
                failed_starts = failed_starts + 1 if why_not else 0
                if why_not:
                    _log(bar, f"worker start failed: {why_not}")
                if failed_starts == FAILED_STARTS:
                    return f"no worker could be started: {why_not}"
                continue
            task = pending.popleft()
            cost = schedule.cost(task)
            limit_s = quota_s(left_s, cost, cost + sum(map(schedule.cost, pending)), plan.limits.task_s)
            kill_at = min(now + limit_s + plan.limits.grace_s, plan.budget.hard_stop)
            show = functools.partial(_show_stage, bar, task.id)
            result, usable = solve_one(child, task, plan.seed, limit_s, kill_at, caught, show)
            if not usable:
                worker.kill(child)
                child = None
            if result is not None:
                used_s = time.monotonic() - now
                notes = {**result.notes, "planned_s": round(limit_s, 3), "used_s": round(used_s, 3)}
                records[task.id] = dataclasses.replace(result, notes=notes)
                _keep(plan, records, task.id)
                bar.update()
                _log(bar, f"[{bar.n}/{bar.total}] {describe(result, used_s)}")
    finally:
        if child is not None:
            worker.kill(child)
    return ""


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
        scored = [x for x in candidate.logprobs if math.isfinite(x)]
        if scored and np.array_equal(candidate.grid, attempts[0]):
            return sum(scored) / len(scored)
    return None


def _keep(plan: Plan, records: Mapping[str, TaskResult], task_id: str) -> None:
    store.write_record(plan.run_dir, records[task_id])
    _write_submission(plan.run_dir, plan.challenges, _attempts(records))
    _write_receipt(plan, records, NOT_REACHED)


def _attempts(records: Mapping[str, TaskResult]) -> dict:
    return {task_id: record.attempts for task_id, record in records.items() if record.status == "ok"}


def _write_submission(run_dir: Path, challenges: Challenges, attempts: Mapping) -> Path:
    answers = submission.build(challenges, attempts)
    submission.check(answers, challenges)
    store.write_atomic(run_dir / SUBMISSION, submission.dumps(answers))
    return run_dir / SUBMISSION


def _write_receipt(plan: Plan, records: Mapping[str, TaskResult], why_not: str) -> dict:
    """Write run.json; returns its table of outcomes. Tasks the file spoils belong to it where all were asked for."""
    reasons = {task.id: why_not for task in plan.tasks}
    table = receipt.outcomes(records, reasons | (plan.challenges.bad if plan.header["selection"] is None else {}))
    budget = plan.budget
    used_s = round(budget.used_s(time.monotonic()), 3)
    time_told = {"seconds": budget.seconds, "reserve_s": budget.reserve_s, "used_s": used_s}
    ended = {"budget": time_told, "stopped": why_not, "counts": receipt.counts(table), "tasks": table}
    receipt.write(plan.run_dir, plan.header | ended)
    return table


def _show_stage(bar: tqdm, task_id: str, stage: str) -> None:
    bar.set_postfix_str(f"{task_id} {stage}")


def _log(bar: tqdm, line: str) -> None:
    if not bar.disable:
        bar.write(line, file=sys.stderr)
