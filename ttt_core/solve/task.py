"""Tasks from their demonstrations to two attempts per test input: adapt, decode, rescore, vote.

One task at a time where the model is adapted to it; any number together where it is not. Not here: files, processes.
Time is a deadline in time.monotonic() seconds, checked inside every stage.
"""

import contextlib
import dataclasses
import math
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ttt_core.arc import augment
from ttt_core.arc.augment import Augmentation
from ttt_core.arc.encode import answer_grid, answer_ids
from ttt_core.arc.prior import prior_of
from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.arc.tasks import Task
from ttt_core.config import AdaptConfig, Config, DecodeConfig
from ttt_core.errors import InputError
from ttt_core.model.load import LoadedModel
from ttt_core.solve.adapt import adapted, for_inference, start_vectors
from ttt_core.solve.decode import search
from ttt_core.solve.feed import context_tokens
from ttt_core.solve.prefix import Query
from ttt_core.solve.rescore import score
from ttt_core.solve.stop import trial, with_steps
from ttt_core.solve.vote import select

# By shape and cells: a grid, and its log-prob by view that found it.
Found = dict[bytes, tuple[np.ndarray, dict[int, float]]]
# Called as each stage begins, with its name and, once there are any, the records that stand if it does not end.
Beat = Callable[..., None]

ANSWER_ROOM = 2  # times the longest demonstrated output: what a query leaves free of a model's context, if its answer's shape is open


def solve_task(
    model: LoadedModel,
    task: Task,
    config: Config,
    *,
    seed: int,
    deadline: float = float("inf"),
    beat: Beat = lambda stage, so_far=(): None,
    adapters: Path | None = None,
) -> TaskResult:
    """The record of `task`: candidates found in all views, scored under all views, and two attempts per test input.

    The same (model, task, config, seed) gives the same record wherever the deadline does not cut in.
    adapters: the folder in which each task's adaptation has its own.
    """
    clock = time.monotonic()
    beat("adapt")
    with adapted_to(model, task, config.adapt, seed, deadline, adapters) as notes:
        adapt_s = round(time.monotonic() - clock, 3)

        def whole(result: TaskResult) -> TaskResult:
            return dataclasses.replace(result, seconds={"adapt": adapt_s, **result.seconds}, notes=notes | result.notes)

        def answers_beat(stage: str, so_far: Sequence[TaskResult] = ()) -> None:
            beat(stage, list(map(whole, so_far)))

        [result] = answer_tasks(model, [task], config, seed, deadline, answers_beat)
        return whole(result)


@contextlib.contextmanager
def adapted_to(
    model: LoadedModel, task: Task, config: AdaptConfig, seed: int, deadline: float, adapters: Path | None = None
):
    """Within the context the model is adapted to `task`, by as many steps as a trial says; yields a record's notes on it."""
    until, chosen = share_of(deadline, config.time_share), None
    if config.early_stop:
        chosen = trial(model, task, config, augment.task_rng(seed, task.id, "trial"), until)
    folder = adapters / task.id if adapters and config.save else None
    rng = augment.task_rng(seed, task.id, "adapt")
    with adapted(model, task, with_steps(config, chosen), rng, until, folder=folder) as adaptation:
        losses = adaptation.losses
        yield {
            "steps": adaptation.steps,
            "first_loss": losses[0] if losses else None,
            "last_loss": float(np.mean(losses[-8:])) if losses else None,
            "rolled_back": adaptation.rolled_back,
            "ended": adaptation.note,
            "trial": dataclasses.asdict(chosen) if chosen else None,
        }


def solve_tasks(
    model: LoadedModel,
    tasks: Sequence[Task],
    config: Config,
    *,
    seed: int,
    deadline: float = float("inf"),
    beat: Beat = lambda stage, so_far=(): None,
) -> list[TaskResult]:
    """The records of `tasks`, whose views go through the model together, in batches of config.decode.batch_tokens.

    The candidates are those of `solve_task`. seconds: each task's share; notes: the tokens of all `together`.
    InputError if config.adapt is to adapt the model to each.
    """
    if config.adapt.method != "none":
        raise InputError(f"adapt.method={config.adapt.method}: tasks solved together share the model; set it to none")
    vectors = getattr(model.net, "task_vectors", None)
    if vectors is not None:
        model.net.set_tasks(torch.cat([start_vectors(model.net, task.id) for task in tasks]))
    try:
        return answer_tasks(model, tasks, config, seed, deadline, beat)
    finally:
        if vectors is not None:
            model.net.task_vectors = vectors


def share_of(deadline: float, share: float) -> float:
    """The moment at which `share` of the time from now to the deadline has passed."""
    now = time.monotonic()
    return now + share * (deadline - now)


@dataclasses.dataclass(frozen=True)
class Place:
    """A view of a test input: the task's number, the test input's, the view, and the numbers of the views that look like it."""

    task: int
    index: int
    view: Augmentation
    numbers: tuple[int, ...]


def answer_tasks(
    model: LoadedModel, tasks: Sequence[Task], config: Config, seed: int, deadline: float, beat: Beat
) -> list[TaskResult]:
    """The records of tasks that the model is ready for: GridLM's task vectors are eight of each, one a dihedral."""
    views = [augment.draw_views(t, config.decode.views, augment.task_rng(seed, t.id, "views")) for t in tasks]
    places = [
        Place(n, index, views[n][alike[0]], alike)
        for n, alike in _alike(views, has_order=model.format.name != "grid") for index in range(len(tasks[n].test))
    ]  # fmt: skip
    queries = [_query(model, tasks[place.task], place, config.decode) for place in places]
    clock, counts = time.monotonic(), Counter()
    beat("decode")
    kept: list = []  # the views' prefixes, where they fit: scoring starts from what the search has read
    with for_inference(model):
        found = _decode(model, places, queries, config, deadline, kept, counts)
        decoded = time.monotonic()
        seconds = {"decode": decoded - clock}
        unscored = _rescored(model, places, queries, found, config, -math.inf, [], Counter())
        beat("rescore", _records(tasks, views, config, *unscored, seconds, counts))
        scored = _rescored(model, places, queries, found, config, deadline, kept, counts)
    seconds |= {"rescore": time.monotonic() - decoded}
    return _records(tasks, views, config, *scored, seconds, counts)


def _records(
    tasks: Sequence[Task], views: list, config: Config, candidates: dict, cut: int, seconds: dict, counts: Counter
) -> list[TaskResult]:
    """candidates, cut: what `_rescored` gives. views: of each task. seconds: of all tasks together."""
    seconds = {stage: round(took / len(tasks), 3) for stage, took in seconds.items()}
    notes = {"logprobs": config.rescore.logprobs, "tokens": dict(counts)} | ({"cut_views": cut} if cut else {})
    if len(tasks) > 1:
        notes["together"] = len(tasks)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (30 if sys.platform == "darwin" else 20)
    records = []
    for n, task in enumerate(tasks):
        own = tuple(candidates[n, index] for index in range(len(task.test)))
        names, selector = tuple(map(str, views[n])), config.vote.selector
        attempts = tuple(select(c, selector, pair.input, names) for c, pair in zip(own, task.test, strict=True))
        options = {"attempts": attempts, "candidates": own, "views": names, "seconds": seconds}
        records.append(TaskResult(task.id, "ok", **options, peak_gib=peak_gib, notes=notes))
    return records


def _alike(views: Sequence[Sequence[Augmentation]], has_order: bool) -> list[tuple[int, tuple[int, ...]]]:
    """(task, numbers of views in which it looks the same), each task's first views first. has_order: of demonstrations."""
    alike: dict[tuple, tuple[int, ...]] = {}
    for number in range(len(views[0])):
        for n, own in enumerate(views):
            view = own[number]
            key = (n, view.dihedral, view.colors, view.order if has_order else ())
            alike[key] = (*alike.get(key, ()), number)
    return [(key[0], numbers) for key, numbers in alike.items()]


def _decode(
    model, places: list[Place], queries: list[Query], config: Config, deadline: float, kept: list, counts: Counter
) -> dict[tuple[int, int], Found]:
    """Per task and test input: answers in the task's own orientation, with the views that found them.

    The first views are searched before the others, what they find is expected in the others. This ends by 0.6 of the time, or
    with the first answer after it. A test input for which no view has an answer above the floor gets every view's greedy
    answer as well.
    """
    found: dict[tuple[int, int], Found] = {(place.task, place.index): {} for place in places}
    greedy = dataclasses.replace(config.decode, search="greedy")
    floor = -math.inf if config.decode.search == "greedy" else math.log(config.decode.floor)
    last = share_of(deadline, 0.95)  # a lone answer needs no scoring
    first = sum(place.numbers[0] < config.decode.draft_views for place in places)

    def expected(i: int) -> np.ndarray | None:
        best = _most_found(found[places[i].task, places[i].index])[:1]
        return answer_ids(model.format.grammar, augment.apply(places[i].view, best[0][0])) if best else None

    for options, until in ((config.decode, share_of(deadline, 0.6)), (greedy, share_of(deadline, 0.8))):
        keys = {key for key, own in found.items() if not _has(own, floor)}
        answered = search(
            model, queries, options, until, expected=expected, first=first, kept=kept, counts=counts,
            only=[i for i, place in enumerate(places) if (place.task, place.index) in keys],
            last=-math.inf if all(found[key] for key in keys) else last,
        )  # fmt: skip
        for i, answers in answered:
            place = places[i]
            for ids, logprob in answers:
                grid = np.ascontiguousarray(augment.invert(place.view, answer_grid(model.format.grammar, ids)))
                key = bytes(grid.shape) + grid.tobytes()
                by_view = found[place.task, place.index].setdefault(key, (grid, {}))[1]
                by_view.update(dict.fromkeys(place.numbers, logprob))
    return found


def _has(found: Found, floor: float) -> bool:
    """Whether a view has found an answer above the floor, nats."""
    return any(max(by_view.values()) >= floor for _, by_view in found.values())


def _rescored(
    model, places: list[Place], queries: list[Query], found: dict, config: Config, deadline: float, kept, counts
) -> tuple[dict[tuple[int, int], tuple[Candidate, ...]], int]:
    """Per task and test input its candidates, at most rescore.max_candidates, scored under the first rescore.views.

    And how many views had no time to score them.
    """
    best = {key: _most_found(own)[: config.rescore.max_candidates] for key, own in found.items()}
    n_views = min(config.rescore.views, config.decode.views)
    same_kind = config.decode.logprobs == config.rescore.logprobs
    answers, known, found_with = [], [], []
    for place in places:
        own = best[place.task, place.index] if place.numbers[0] < n_views else []
        answers.append([answer_ids(model.format.grammar, augment.apply(place.view, grid)) for grid, _ in own])
        found_with.append([by_view.get(place.numbers[0], np.nan) if same_kind else np.nan for _, by_view in own])
        known.append({ids.tobytes(): logprob for ids, logprob in zip(answers[-1], found_with[-1], strict=True)})
    scores = {key: np.full((len(own), n_views), np.nan) for key, own in best.items()}
    given = score(model, queries, answers, config.rescore, deadline, kept=kept, known=known, counts=counts)
    is_cut, cut = counts["unscored"] > 0, 0
    for place, values, own in zip(places, given, found_with, strict=True):
        if is_cut and np.isnan(values).any():  # a view scores all or none: what it did not find is below what it found
            floor, least = np.log(config.decode.floor), np.nanmin([*own, 0.0])
            values, cut = np.where(np.isnan(own), floor + (least if least < floor else 0.0), own), cut + 1
        for number in place.numbers:
            if number < n_views:
                scores[place.task, place.index][:, number] = values
    scored = {
        key: tuple(
            Candidate(grid, tuple(map(float, row)), tuple(sorted(by_view)))
            for (grid, by_view), row in zip(own, scores[key], strict=True)
        )
        for key, own in best.items()
    }
    return scored, cut


def _query(model: LoadedModel, task: Task, place: Place, config: DecodeConfig) -> Query:
    seen, dihedral = augment.view(place.view, task), place.view.dihedral
    kinds = {kind: getattr(config, kind) for kind in ("same_shape", "constant_shape", "palette")}
    prior = prior_of(seen, place.index, **kinds)
    longest = max((len(answer_ids(model.format.grammar, pair.output)) for pair in task.train), default=0)
    test_input = seen.test[place.index].input
    draft = answer_ids(model.format.grammar, test_input) if (prior.height, prior.width) == test_input.shape else None
    expected = len(answer_ids(model.format.grammar, np.zeros((prior.height, prior.width)))) if prior.height else longest
    room = context_tokens(model) - (expected if prior.height else ANSWER_ROOM * longest)
    query = model.format.query(seen, place.index, room)
    options = {"expected": expected, "draft": draft, "answer_tokens": config.answer_tokens}
    return Query(query, dihedral, prior, vector=8 * place.task + dihedral, **options)


def _most_found(found: Found) -> list[tuple[np.ndarray, dict[int, float]]]:
    """Those found in most views first, then the most probable; rounded, so that no rounding error decides."""

    def order(key: bytes) -> tuple:
        by_view = found[key][1]
        return -len(by_view), -round(max(by_view.values()), 4), key

    return [found[key] for key in sorted(found, key=order)]
