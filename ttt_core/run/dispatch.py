"""The loop of a run: whatever device is free gets the next turn, whatever ends is kept, until all is done or time is up.

In: a plan, the records so far, an opened backend (`backends.py`). Out: new records, and why tasks were left. A device
whose worker cannot be started pauses, longer each time, and is retired after seven times in a row, or where it will
never start; one that fails at its tasks pauses while others work. Tasks that the model is not adapted to share
turns; if such a turn fails, each of them gets one of its own. Not here: what comes next (`schedule.py`), files (`keep.py`).
"""

import dataclasses
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ttt_core.arc.result import OUT_OF_TIME, TaskResult
from ttt_core.arc.tasks import Task
from ttt_core.config import Config
from ttt_core.run import passes
from ttt_core.run.budget import Budget
from ttt_core.run.environment import redact
from ttt_core.run.schedule import Schedule, Turn, cost
from ttt_core.run.supervise import Job, Limits, Outcome, public

FAILED_STARTS = 7  # in a row, then a device is retired
SICK = 3  # tasks in a row that a device's own failures ended, then it pauses
MOST_PAUSE_S = 600.0
POLL_S = 0.1
TOGETHER, SHARES = 16, 4  # tasks of a shared turn at most; shared turns a device at least, so that all end together
UNHEARD_S = 10.0  # after its kill was due a supervisor has so long to say so


class NoWorker(Exception):
    """On no device a worker could be started, and on none it will be tried again."""

    def __init__(self, why_not: str):
        super().__init__(f"no worker could be started: {why_not}")


@dataclass(frozen=True, eq=False)
class Work:
    """What a run does. tasks: those asked for, by id. records: task id to the record so far, changed in place. keep: called with each id that changed.

    say: one line for people. caught: names of the signals that came.
    """

    tasks: Mapping[str, Task]
    config: Config
    seed: int
    budget: Budget
    limits: Limits
    records: dict[str, TaskResult]
    caught: list[str]
    keep: Callable[[str, TaskResult, float], None]
    say: Callable[[str], None]


@dataclass(eq=False)
class _State:
    """What changes while devices work."""

    schedule: Schedule
    together: dict[str, tuple[str, ...]]  # the tasks of shared turns, by the name that the turn has in the schedule
    ready: set = field(default_factory=set)  # devices whose worker has its model loaded
    busy: dict = field(default_factory=dict)  # device to (its turn, or None while it starts; when it began)
    failed_starts: Counter = field(default_factory=Counter)  # in a row
    sick: Counter = field(default_factory=Counter)  # turns in a row that the device's own failures ended
    paused: dict = field(default_factory=dict)  # device to when it is free again
    given_again: set = field(default_factory=set)  # ids that failed, and get one more turn when all have had theirs
    retired: set = field(default_factory=set)
    why_not: str = ""


def solve_all(work: Work, backend) -> str:
    """Give every task without an ok record its turn, then those in doubt further ones; returns why tasks were left.

    NoWorker once every device is retired.
    """
    state = _State(*scheduled(work, len(backend.names)))
    while True:
        left_s = work.budget.left_s(time.monotonic())
        if work.caught:
            return f"stopped by {work.caught[0]}"
        unavailable = {*state.busy, *state.retired, *_paused(state)}
        for name in backend.names:
            if name not in unavailable and state.schedule.has_turn(left_s):
                _begin(work, state, backend, name, left_s)
        if not state.busy:
            if len(state.retired) == len(backend.names):
                raise NoWorker(state.why_not)
            if state.schedule.has_turn(left_s):  # all devices that are left pause
                time.sleep(POLL_S)
                continue
            why_not = f"; {NoWorker(state.why_not)}" if state.why_not else ""
            left = state.schedule.unbegun()
            return f"the budget of {work.budget.seconds:g} s was used up{why_not}" if left else ""
        for name, outcome in backend.ended():
            turn, began = state.busy.pop(name)
            if outcome.kind == "stopped":
                continue
            if turn is None:
                _started(work, state, name, outcome)
            else:
                _ended(work, state, name, turn, outcome, time.monotonic() - began)
                _judged(work, state, name, outcome, set(backend.names) - state.retired)


def _paused(state: _State) -> set[str]:
    now = time.monotonic()
    return {name for name, until in state.paused.items() if now < until}


def _pause(work: Work, state: _State, name: str, failures: int) -> None:
    pause_s = min(work.limits.pause_s * 2 ** (failures - 1), MOST_PAUSE_S)
    state.paused[name] = time.monotonic() + pause_s
    work.say(f"{name}: tried again after {pause_s:g} s")


def _judged(work: Work, state: _State, name: str, outcome: Outcome, working: set[str]) -> None:
    """Let a device that fails at one task after the other pause, where another does not: it would empty the queue."""
    state.sick[name] = state.sick[name] + 1 if outcome.is_system else 0
    if state.sick[name] >= SICK and any(not state.sick[other] for other in working - {name}):
        _pause(work, state, name, state.sick[name] - SICK + 1)


def scheduled(work: Work, devices: int) -> tuple[Schedule, dict[str, tuple[str, ...]]]:
    """The schedule at the start of a run, what the records leave to do, and which tasks share a turn."""
    wide = passes.wider(work.config)
    costs = {task_id: cost(task, work.config) for task_id, task in work.tasks.items()}
    further_costs = {task_id: cost(task, wide) for task_id, task in work.tasks.items()}
    status = {task_id: _status(work.records.get(task_id)) for task_id in work.tasks}
    fresh = [task_id for task_id, ended in status.items() if not ended]
    together = shared_turns(fresh, costs, devices) if work.config.adapt.method == "none" else {}
    costs |= {name: sum(costs[task_id] for task_id in ids) for name, ids in together.items()}
    schedule = Schedule(costs, further_costs, work.limits.task_s)
    schedule.add(list(together) or fresh, [task_id for task_id, ended in status.items() if ended and ended != "ok"])
    for task_id, ended in status.items():
        if ended == "ok":
            _doubt(work, schedule, work.records[task_id])
    return schedule, together


def _status(record: TaskResult | None) -> str:
    """Of a record at the start of a run; one without a candidate is as good as failed, "" is none."""
    return "" if record is None else "failed" if record.is_empty else record.status


def shared_turns(ids: list[str], costs: Mapping[str, float], devices: int) -> dict[str, tuple[str, ...]]:
    """Tasks of like cost that are solved together, by a name for each group; a group of one is named as its task."""
    size = max(1, min(TOGETHER, len(ids) // (SHARES * devices)))
    ordered = sorted(ids, key=lambda task_id: (costs[task_id], task_id))
    groups = [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]
    return {first + (f" and {len(rest)} more" if rest else ""): (first, *rest) for first, *rest in groups}


def _begin(work: Work, state: _State, backend, name: str, left_s: float) -> None:
    now = time.monotonic()
    last_s = work.budget.last_word - now
    if name not in state.ready:
        within_s = min(work.limits.start_s, left_s)
        backend.begin(name, "start", within_s, min(within_s + UNHEARD_S, last_s))
        state.busy[name] = (None, now)
        return
    turn = state.schedule.turn(name, now, left_s, len(backend.names) - len(state.retired))
    config, seed = work.config, work.seed
    is_smaller = turn.smaller
    if turn.number > 1:
        config, seed = passes.wider(config), seed + turn.number - 1  # other views, another adaptation
        is_smaller = bool(work.records[turn.task_id].notes.get("smaller"))
    if is_smaller:
        config = passes.smaller(config)
    kill_s = min(turn.seconds + work.limits.grace_s, work.budget.hard_stop - now)
    tasks = tuple(work.tasks[task_id] for task_id in state.together.get(turn.task_id, (turn.task_id,)))
    job = Job(tasks, config, seed, turn.seconds, kill_s)
    backend.begin(name, "solve", job, min(kill_s + UNHEARD_S, last_s))
    state.busy[name] = (turn, now)


def _started(work: Work, state: _State, name: str, outcome: Outcome) -> None:
    if outcome.kind == "ready":
        state.ready.add(name)
        state.failed_starts[name], state.why_not = 0, ""
        return
    state.why_not = redact(outcome.reason, os.environ)
    state.failed_starts[name] += 1
    work.say(f"{name}: worker start failed: {state.why_not}")
    if outcome.is_final or state.failed_starts[name] == FAILED_STARTS:
        state.retired.add(name)
        work.say(f"{name}: retired after {state.failed_starts[name]} failed starts")
    else:
        _pause(work, state, name, state.failed_starts[name])


def _ended(work: Work, state: _State, name: str, turn: Turn, outcome: Outcome, used_s: float) -> None:
    results = [public(result, functools.partial(redact, environ=dict(os.environ))) for result in outcome.results]
    if not outcome.is_alive:
        state.ready.discard(name)
    is_ok, was_cut = results[0].status == "ok", any(result.was_cut for result in results)
    state.schedule.ended(name, used_s, measured=is_ok, was_cut=was_cut)
    if len(results) > 1 and not is_ok:
        work.say(f"{turn.task_id}: {results[0].reason}; each once more by itself")
        state.schedule.add([result.task_id for result in results])
        return
    told = {"planned_s": turn.seconds / len(results), "used_s": used_s / len(results)}
    told = {key: round(seconds, 3) for key, seconds in told.items()} | {"device": name, "passes": turn.number}
    for result in results:
        _ended_task(work, state, turn, result, told, outcome.is_system)


def _ended_task(work: Work, state: _State, turn: Turn, result: TaskResult, told: dict, is_system: bool) -> None:
    """Keep what a turn brought for a task, or give the task the turn that follows from it. told: notes on the turn."""
    used_s = told["used_s"]
    if "lost" in result.notes:
        work.say(f"{result.task_id}: {result.notes['lost']}; what it had found until then counts")
    if (ended := result.notes.get("ended")) and not result.notes.get("steps") and OUT_OF_TIME not in ended:
        work.say(f"{result.task_id}: not adapted, {ended}")
    if turn.number > 1:
        if is_system:
            told["smaller"] = True  # what follows
        record = _further(work, work.records[result.task_id], result, told)
        _doubt(work, state.schedule, record)
    else:
        record = dataclasses.replace(result, notes=result.notes | told | ({"smaller": True} if turn.smaller else {}))
        if is_system and record.status != "ok" and not turn.smaller:
            work.say(f"{turn.task_id}: {result.reason}; once more with a smaller profile")
            state.schedule.retry(turn, told["device"])
            return
        if record.status == "ok":
            _doubt(work, state.schedule, record)
        elif record.task_id not in state.given_again:
            state.given_again.add(record.task_id)
            state.schedule.add([], [record.task_id])
    work.records[record.task_id] = record
    work.keep(record.task_id, record, used_s)


def _further(work: Work, before: TaskResult, result: TaskResult, told: dict) -> TaskResult:
    """The record after a further pass: merged, or the one before where the pass failed; seconds are those of all.

    So too where the clock cut the pass's scoring and not that of those before: what a view had no time to score counts as
    little below its floor, which is far more than most candidates have. Of the other way round, the new scores alone count.
    """
    told |= {name: round(told[name] + before.notes.get(name, 0.0), 3) for name in ("planned_s", "used_s")}
    told |= {"smaller": True} if before.notes.get("smaller") else {}
    is_whole = not before.notes.get("cut_views") and all(len(found) > 1 for found in before.candidates)
    if result.status != "ok" or (is_whole and result.notes.get("cut_views")):
        return dataclasses.replace(before, notes=before.notes | told | {"second": result.reason or "cut by the clock"})
    if before.notes.get("cut_views") and not result.notes.get("cut_views"):
        before = passes.unscored(before)
    record = passes.merged(before, result, work.tasks[before.task_id], work.config.vote.selector)
    return dataclasses.replace(record, notes=result.notes | told)


def _doubt(work: Work, schedule: Schedule, record: TaskResult) -> None:
    number = record.notes.get("passes", 1) + 1
    if number <= work.config.second.passes:
        doubt = passes.doubt(record, work.config.second)
        if doubt is not None:
            schedule.doubt(record.task_id, doubt, record.notes.get("used_s", 0.0) / (number - 1), number)
