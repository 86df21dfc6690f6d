"""One task from its demonstrations to two attempts per test input: adapt, decode, rescore, vote.

Not here: files, processes, many tasks. Time is a deadline in time.monotonic() seconds, checked inside every stage.
"""

import dataclasses
import resource
import time
from collections.abc import Callable

import numpy as np

from ttt_core.arc import augment
from ttt_core.arc.encode import answer_grid
from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.arc.tasks import Task
from ttt_core.config import Config
from ttt_core.model.load import LoadedModel
from ttt_core.solve.adapt import adapted
from ttt_core.solve.decode import Query, decode
from ttt_core.solve.rescore import rescore
from ttt_core.solve.vote import select


def solve_task(
    model: LoadedModel,
    task: Task,
    config: Config,
    *,
    seed: int,
    deadline: float = float("inf"),
    beat: Callable[[str], None] = lambda stage: None,
) -> TaskResult:
    """The record of `task`: candidates found in all views, scored under all views, and two attempts per test input.

    The same (model, task, config, seed) gives the same record wherever the deadline does not cut in. `beat` is called
    with the name of each stage as it begins.
    """
    views = augment.draw_views(task, config.decode.views, augment.task_rng(seed, task.id, "views"))
    clock, seconds = time.monotonic(), {}
    beat("adapt")
    with adapted(
        model, task, config.adapt, augment.task_rng(seed, task.id, "adapt"), share_of(deadline, config.adapt.time_share)
    ) as adaptation:
        clock = _lap(seconds, "adapt", clock)
        beat("decode")
        found = _decode(model, task, views, config, share_of(deadline, 0.6))
        clock = _lap(seconds, "decode", clock)
        beat("rescore")
        candidates = tuple(
            _rescored(model, task, index, per_test, views[: config.rescore.views], config, deadline)
            for index, per_test in enumerate(found)
        )
        clock = _lap(seconds, "rescore", clock)
    attempts = tuple(
        select(c, config.vote.selector, pair.input) for c, pair in zip(candidates, task.test, strict=True)
    )
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
        },
    )


def share_of(deadline: float, share: float) -> float:
    """The moment at which `share` of the time from now to the deadline has passed."""
    now = time.monotonic()
    return now + share * (deadline - now)


def _decode(model, task: Task, views, config: Config, deadline: float) -> list[dict[bytes, tuple[np.ndarray, list[int]]]]:
    """Per test input: answers in the task's own orientation, with the views that found them; keyed by shape and cells.

    A test input for which no view has an answer above the floor gets every view's greedy answer instead.
    """
    found: list[dict] = [{} for _ in task.test]
    for search in (config.decode, dataclasses.replace(config.decode, search="greedy")):
        empty = [index for index in range(len(task.test)) if not found[index]]
        places = [(index, v) for v in range(len(views)) for index in empty]
        seen = [augment.view(augmentation, task) for augmentation in views]
        queries = [Query(model.format.query(seen[v], index), views[v].dihedral) for index, v in places]
        for (index, v), answers in zip(places, decode(model, queries, search, deadline), strict=True):
            for ids, _ in answers:
                grid = augment.invert(views[v], answer_grid(model.format.grammar, ids))
                key = bytes(grid.shape) + grid.tobytes()
                found[index].setdefault(key, (np.ascontiguousarray(grid), []))[1].append(v)
    return found


def _rescored(model, task: Task, index: int, found: dict, views, config: Config, deadline: float) -> tuple[Candidate, ...]:
    """The candidates of one test input, the ones found in most views first, at most rescore.max_candidates."""
    kept = sorted(found.items(), key=lambda item: (-len(item[1][1]), item[0]))[: config.rescore.max_candidates]
    grids = [grid for _, (grid, _) in kept]
    scores = rescore(model, task, index, grids, views, config.rescore, deadline)
    return tuple(
        Candidate(grid, tuple(float(s) for s in row), tuple(views_found))
        for (_, (grid, views_found)), row in zip(kept, scores, strict=True)
    )


def _lap(seconds: dict, stage: str, since: float) -> float:
    now = time.monotonic()
    seconds[stage] = round(now - since, 3)
    return now
