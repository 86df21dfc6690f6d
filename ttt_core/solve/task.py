"""One task from its demonstrations to two attempts per test input: adapt, decode, rescore, vote.

Not here: files, processes, many tasks. Time is a deadline in time.monotonic() seconds, checked inside every stage.
"""

import dataclasses
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ttt_core.arc import augment
from ttt_core.arc.encode import answer_grid, answer_ids
from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.arc.tasks import Task
from ttt_core.config import Config
from ttt_core.model.load import LoadedModel
from ttt_core.solve.adapt import adapted
from ttt_core.solve.decode import search
from ttt_core.solve.feed import context_tokens
from ttt_core.solve.prefix import Query
from ttt_core.solve.rescore import rescore
from ttt_core.solve.stop import trial, with_steps
from ttt_core.solve.vote import select

ANSWER_ROOM = 2  # times the longest demonstrated output: what a query leaves free of a model's context


def solve_task(
    model: LoadedModel,
    task: Task,
    config: Config,
    *,
    seed: int,
    deadline: float = float("inf"),
    beat: Callable[[str], None] = lambda stage: None,
    adapters: Path | None = None,
) -> TaskResult:
    """The record of `task`: candidates found in all views, scored under all views, and two attempts per test input.

    The same (model, task, config, seed) gives the same record wherever the deadline does not cut in. `beat` is called
    with the name of each stage as it begins. adapters: the folder in which each task's adaptation has its own.
    """
    views = augment.draw_views(task, config.decode.views, augment.task_rng(seed, task.id, "views"))
    clock, seconds = time.monotonic(), {}
    beat("adapt")
    until, chosen = share_of(deadline, config.adapt.time_share), None
    if config.adapt.early_stop:
        chosen = trial(model, task, config.adapt, augment.task_rng(seed, task.id, "trial"), until)
    folder = adapters / task.id if adapters and config.adapt.save else None
    rng = augment.task_rng(seed, task.id, "adapt")
    with adapted(model, task, with_steps(config.adapt, chosen), rng, until, folder=folder) as adaptation:
        clock = _lap(seconds, "adapt", clock)
        beat("decode")
        kept: list = []  # the views' prefixes, where they fit: scoring starts from what the search has read
        counts: Counter = Counter()
        found = _decode(model, task, views, config, share_of(deadline, 0.6), kept, counts)
        clock = _lap(seconds, "decode", clock)
        beat("rescore")
        scoring = views[: config.rescore.views]
        candidates = tuple(
            _rescored(
                model, task, index, per_test, scoring, config, deadline, _kept_of(kept, index, task, scoring), counts
            )
            for index, per_test in enumerate(found)
        )
        clock = _lap(seconds, "rescore", clock)
    attempts = tuple(select(c, config.vote.selector, pair.input) for c, pair in zip(candidates, task.test, strict=True))
    losses = adaptation.losses
    return TaskResult(
        task.id,
        "ok",
        attempts=attempts,
        candidates=candidates,
        views=tuple(map(str, views)),
        seconds=seconds,
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        notes={
            "steps": adaptation.steps,
            "first_loss": losses[0] if losses else None,
            "last_loss": float(np.mean(losses[-8:])) if losses else None,
            "rolled_back": adaptation.rolled_back,
            "ended": adaptation.note,
            "trial": dataclasses.asdict(chosen) if chosen else None,
            "tokens": dict(counts),
        },
    )


def share_of(deadline: float, share: float) -> float:
    """The moment at which `share` of the time from now to the deadline has passed."""
    now = time.monotonic()
    return now + share * (deadline - now)


def _decode(
    model, task: Task, views, config: Config, deadline: float, kept: list, counts: Counter
) -> list[dict[bytes, tuple[np.ndarray, list[int]]]]:
    """Per test input: answers in the task's own orientation, with the views that found them; keyed by shape and cells.

    The first views are searched from nothing, what they find is drafted in the others. A test input for which no view
    has an answer above the floor gets every view's greedy answer instead.
    """
    found: list[dict] = [{} for _ in task.test]
    for options in (config.decode, dataclasses.replace(config.decode, search="greedy")):
        empty = [index for index in range(len(task.test)) if not found[index]]
        places = [(v, index) for v in range(len(views)) for index in empty]
        queries = [_query(model, task, views[v], index) for v, index in places]

        def drafts(i: int, places=places) -> list[np.ndarray]:
            v, index = places[i]
            grids = [grid for _, (grid, _) in _most_found(found[index])[: config.decode.drafts]]
            return [answer_ids(model.format.grammar, augment.apply(views[v], grid)) for grid in grids]

        asked = search(
            model, queries, options, deadline, drafts=drafts, first=config.decode.draft_views * len(empty),
            kept=kept if options is config.decode else None, counts=counts,
        )  # fmt: skip
        for i, answers in asked:
            v, index = places[i]
            for ids, _ in answers:
                grid = augment.invert(views[v], answer_grid(model.format.grammar, ids))
                key = bytes(grid.shape) + grid.tobytes()
                found[index].setdefault(key, (np.ascontiguousarray(grid), []))[1].append(v)
    return found


def _rescored(
    model, task: Task, index: int, found: dict, views, config: Config, deadline: float, kept: list, counts: Counter
) -> tuple[Candidate, ...]:
    """The candidates of one test input, the ones found in most views first, at most rescore.max_candidates."""
    best = _most_found(found)[: config.rescore.max_candidates]
    grids = [grid for _, (grid, _) in best]
    queries = [_query(model, task, view, index) for view in views]
    scores = rescore(model, queries, grids, views, config.rescore, deadline, kept=kept, counts=counts)
    return tuple(
        Candidate(grid, tuple(float(s) for s in row), tuple(sorted(views_found)))
        for (_, (grid, views_found)), row in zip(best, scores, strict=True)
    )


def _query(model: LoadedModel, task: Task, view, index: int) -> Query:
    longest = max((len(answer_ids(model.format.grammar, pair.output)) for pair in task.train), default=0)
    room = context_tokens(model) - ANSWER_ROOM * longest
    return Query(model.format.query(augment.view(view, task), index, room), view.dihedral)


def _most_found(found: dict) -> list:
    return sorted(found.items(), key=lambda item: (-len(item[1][1]), item[0]))


def _kept_of(kept: list, index: int, task: Task, views) -> list:
    """Of the search's prefixes (numbered view by view over all test inputs) those of one test input, numbered by view.

    Empty unless every view is there: the search may have been cut short.
    """
    n, chosen = len(task.test), []
    for part, prefixes in kept:
        rows = [row for row, i in enumerate(part) if i % n == index and i // n < len(views)]
        if rows:
            chosen.append(([part[row] // n for row in rows], prefixes.take(rows)))
    return chosen if sum(len(part) for part, _ in chosen) == len(views) else []


def _lap(seconds: dict, stage: str, since: float) -> float:
    now = time.monotonic()
    seconds[stage] = round(now - since, 3)
    return now
