"""What a task gets beside its first pass: a smaller profile after a system failure, a wider one where it is in doubt.

Pure functions of configs and records; no torch. Not here: when a further pass is worth its time (`schedule.py`).
"""

import dataclasses
import math

from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.arc.tasks import Task
from ttt_core.config import Config, SecondConfig


def smaller(config: Config) -> Config:
    """A profile of half of the memory at most, and less of the time, for a retry after a system failure."""

    def part(value: int, divisor: int) -> int:
        return max(1, value // divisor)

    adapt, decode, rescore = config.adapt, config.decode, config.rescore
    return dataclasses.replace(
        config,
        adapt=dataclasses.replace(
            adapt,
            batch_tokens=part(adapt.batch_tokens, 4),
            max_memory_gib=adapt.max_memory_gib / 2,
            memory_share=adapt.memory_share / 2,
        ),
        decode=dataclasses.replace(
            decode,
            views=part(decode.views, 2),
            max_branches=part(decode.max_branches, 2),
            batch_tokens=part(decode.batch_tokens, 8),
        ),
        rescore=dataclasses.replace(
            rescore,
            views=part(rescore.views, 2),
            max_candidates=part(rescore.max_candidates, 2),
            batch_tokens=part(rescore.batch_tokens, 8),
        ),
    )


def wider(config: Config) -> Config:
    """The profile of further passes: more views, more steps, a lower floor.

    The layers' rate falls as the steps rise: their product decides how far the weights move, and further only learns the
    demonstrations by heart (kaggle_dataset/model/ABLATIONS.md). Rates of vectors and embeddings stay, as they were measured.
    """
    second, adapt, decode = config.second, config.adapt, config.decode
    return dataclasses.replace(
        config,
        adapt=dataclasses.replace(
            adapt,
            steps=second.steps * adapt.steps,
            long_steps=second.steps * adapt.long_steps,
            lr=adapt.lr / second.steps,
        ),
        decode=dataclasses.replace(decode, views=second.views * decode.views, floor=second.floor * decode.floor),
        rescore=dataclasses.replace(config.rescore, views=second.views * config.rescore.views),
    )


def doubt(record: TaskResult, second: SecondConfig) -> float | None:
    """1 - the probability of the least probable of a record's first choices; None where there is no doubt.

    In doubt is a test input with fewer than two candidates, or whose best one leads by less than `second.margin` nats or
    has a probability of less than `second.probability`; and every one of a record that the clock cut.
    """
    doubts = []
    for candidates in record.candidates:
        means = sorted(map(mean_logprob, candidates), reverse=True)
        probability = math.exp(means[0]) if means else 0.0
        is_clear = len(means) > 1 and means[0] - means[1] >= second.margin and probability >= second.probability
        if record.was_cut or not is_clear:
            doubts.append(1 - probability)
    return max(doubts, default=None)


def merged(first: TaskResult, second: TaskResult, task: Task, selector: str) -> TaskResult:
    """One record of a task's passes so far and a further one: the candidates of both, each under the views of both, and a new vote.

    A candidate that a pass did not find was not scored under its views, which is a log-prob of NaN.
    """
    from ttt_core.solve.vote import select

    candidates = tuple(
        _united(found, found_again, len(first.views))
        for found, found_again in zip(first.candidates, second.candidates, strict=True)
    )
    views = first.views + second.views
    return dataclasses.replace(
        second,
        attempts=tuple(select(c, selector, pair.input, views) for c, pair in zip(candidates, task.test, strict=True)),
        candidates=candidates,
        views=views,
        seconds={
            name: round(first.seconds.get(name, 0.0) + second.seconds.get(name, 0.0), 3)
            for name in first.seconds | second.seconds
        },
        peak_gib=max(first.peak_gib, second.peak_gib),
    )


def unscored(record: TaskResult) -> TaskResult:
    """`record` without its log-probs: where the clock cut its scoring, some of them stand for what was not scored."""
    candidates = tuple(
        tuple(dataclasses.replace(c, logprobs=(math.nan,) * len(c.logprobs)) for c in found)
        for found in record.candidates
    )
    return dataclasses.replace(record, candidates=candidates)


def mean_logprob(candidate: Candidate) -> float:
    """Mean over the views that scored it; minus infinity if none did, or one found it impossible."""
    scored = [value for value in candidate.logprobs if not math.isnan(value)]
    return sum(scored) / len(scored) if scored else -math.inf


def _united(found: tuple[Candidate, ...], found_again: tuple[Candidate, ...], n_views: int) -> tuple[Candidate, ...]:
    before = {candidate.grid.tobytes() + bytes(candidate.grid.shape): candidate for candidate in found}
    after = {candidate.grid.tobytes() + bytes(candidate.grid.shape): candidate for candidate in found_again}
    unscored = [(math.nan,) * max([len(c.logprobs) for c in side], default=0) for side in (found, found_again)]
    united = []
    for key in before | after:
        one, two = before.get(key), after.get(key)
        logprobs = (one.logprobs if one else unscored[0]) + (two.logprobs if two else unscored[1])
        found_in = (one.found_in if one else ()) + tuple(n_views + view for view in (two.found_in if two else ()))
        united.append(Candidate((one or two).grid, logprobs, found_in))
    return tuple(united)
