"""One run: a challenge file in, a valid submission.json out, whatever happens in between.

The submission is a pure function of challenges and records (`tasks/<id>.json`), replaced after every task; it exists,
with placeholders, before anything slow or dangerous begins. A task whose record was lost keeps the answer that the file
had. This process never imports torch: the model lives in workers, and one that crashes or hangs costs one task. Not
here: the loop (`dispatch.py`), scores, which need solutions.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ttt_core.arc.tasks import nearest, read_challenges, select_tasks
from ttt_core.config import Config, to_dict
from ttt_core.errors import InputError
from ttt_core.model.signals import caught_signals
from ttt_core.run import backends, keep, receipt, store, worker
from ttt_core.run.budget import Budget
from ttt_core.run.devices import cpu_workers
from ttt_core.run.dispatch import NoWorker, Work, solve_all
from ttt_core.run.environment import TASK_FILES, fingerprint, redact, versions
from ttt_core.run.supervise import Limits


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


def write_fallback(challenges_path: str | Path, run_dir: str | Path) -> Path:
    """Write a valid submission.json at once: placeholders, and the answers of records that `run_dir` already holds."""
    run_dir, challenges = _apart(run_dir, challenges_path), read_challenges(challenges_path)
    with store.locked(run_dir):
        receipt.require_same(run_dir, {"challenges_sha256": fingerprint(challenges_path, TASK_FILES)})
        records, _ = store.read_records(run_dir, challenges.n_test, set_aside=False)  # `run` sets aside, and tells
        with store.writable(run_dir):
            return keep.write_submission(
                run_dir, challenges, keep.attempts(records) | keep.standing(run_dir, challenges)
            )


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
    run_dir, challenges = _apart(run_dir, challenges_path), read_challenges(challenges_path)
    with caught_signals() as caught, store.locked(run_dir):
        challenges_sha256 = fingerprint(challenges_path, TASK_FILES)
        receipt.require_same(run_dir, {"challenges_sha256": challenges_sha256})
        records, complaints = store.read_records(run_dir, challenges.n_test)
        before = keep.standing(run_dir, challenges)
        with store.writable(run_dir):  # until the command is known to continue the run, its answers stand
            keep.write_submission(run_dir, challenges, keep.attempts(records) | before)
            store.reserve_space(run_dir, keep.ANSWER_BYTES * sum(challenges.n_test.values()))
        chosen = select_tasks(challenges, tasks)
        faults = challenges.faults if tasks is None else []
        if not chosen:
            raise InputError(f"{challenges_path}: no usable task; the first: {challenges.faults[0]}; give a challenge file")
        if not Path(model).is_dir():
            raise InputError(f"model {model}: is not a folder; give one, such as kaggle_dataset/model")
        if run_dir.resolve() == Path(model).resolve():
            raise InputError(f"run folder {run_dir}: is the folder of the model; give another")
        ids = tuple(task.id for task in chosen)
        identity = receipt.identity(challenges_sha256, fingerprint(model), config, seed, ids)
        receipt.require_same(run_dir, identity)
        setup = {"solver": solver, "model": str(Path(model).resolve()), "config": to_dict(config)}
        if config.adapt.save:
            setup["adapters"] = str(run_dir.resolve() / "adapters")
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
        plan = keep.Plan(run_dir, challenges, chosen, budget, before, header)
        with store.writable(run_dir):
            if records:
                keep.write_submission(run_dir, challenges, before | keep.attempts(records))
            keep.write_receipt(plan, records, keep.NOT_REACHED)
        with tqdm(total=len(chosen), unit="task", file=sys.stderr, disable=not progress) as bar:
            for complaint in (*complaints, *faults):
                keep.log(bar, complaint)
            by_id = {task.id: task for task in chosen}
            kept, say = keep.keeper(plan, records, bar), lambda line: keep.log(bar, line)
            work = Work(by_id, config, seed, budget, limits, records, caught, kept, say)
            stopped = _solved(work, devices, setup, run_dir, bar)
            table, stopped = keep.finish(plan, records, stopped, bar)
    n = receipt.counts(table)
    return RunSummary(
        n["ok"], n["failed"], n["skipped"], budget.used_s(time.monotonic()), stopped, run_dir / keep.SUBMISSION, table
    )


def _solved(work: Work, devices: str, setup: dict, run_dir: Path, bar: tqdm) -> str:
    """Solve on the `devices`, and on the CPU where `auto` finds GPUs of which none can be used; returns why tasks were left."""
    workers, has_stopped = cpu_workers(Path(setup["model"]), len(work.tasks)), lambda: bool(work.caught)
    with backends.opened(devices, setup, run_dir, has_stopped, bar.set_postfix_str, workers) as backend:
        try:
            return solve_all(work, backend)
        except NoWorker as error:
            stopped, is_gpu = str(error), backend.names[0].startswith("cuda")
        except Exception as error:  # whatever devices do: what is solved is kept, and the run ends as any other
            stopped = redact(f"the devices failed: {type(error).__name__}: {error}", os.environ)
            work.say(stopped)
            return stopped
    if devices == "auto" and is_gpu:
        work.say(f"{stopped}; the run goes on with the CPU")
        return _solved(work, "cpu", setup, run_dir, bar)
    return stopped


def _apart(run_dir: str | Path, challenges_path: str | Path) -> Path:
    """The run folder; InputError if it is the folder of challenges, whose files a run's own would join."""
    if Path(run_dir).resolve() == Path(challenges_path).resolve():
        raise InputError(f"run folder {run_dir}: is the folder of challenges; give another")
    return Path(run_dir)


def reselect(run_dir: str | Path, selector: str, challenges_path: str | Path | None = None) -> Path:
    """Vote again over the recorded candidates and rewrite submission.json; needs no model and no torch.

    A task without a record keeps the answer that the file had. Records keep their attempts, so continuing the run brings
    its own selector back. challenges_path: where the run's challenge file is now, if not where it was.
    """
    run_dir = Path(run_dir)
    from ttt_core.run import report
    from ttt_core.solve.vote import SELECTORS, select

    if selector not in SELECTORS:
        raise InputError(
            f"unknown selector {selector}: the nearest is {nearest(selector, SELECTORS)}; known: {', '.join(SELECTORS)}"
        )
    receipt.required(run_dir)  # before the lock, which makes a folder where there is none
    with store.locked(run_dir):
        told, challenges, records = receipt.read_run(run_dir, challenges_path)
        attempts = {
            task.id: [
                select(candidates, selector, pair.input, records[task.id].views)
                for candidates, pair in zip(records[task.id].candidates, task.test, strict=True)
            ]
            for task in challenges.tasks
            if task.id in records and records[task.id].status == "ok"
        }
        with store.writable(run_dir):
            path = keep.write_submission(run_dir, challenges, keep.standing(run_dir, challenges) | attempts)
            receipt.write(run_dir, told | {"reselected": selector})
        if (run_dir / report.NAME).exists():  # it would show the vote before
            report.write_report(run_dir, challenges_path=challenges_path)
    return path
