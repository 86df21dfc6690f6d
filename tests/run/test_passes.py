"""Smaller and wider profiles, doubt, and records of two passes."""

import dataclasses
import math

import numpy as np
import pytest

from ttt_core.arc.result import OUT_OF_TIME, Candidate, TaskResult
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import PRESETS, SecondConfig
from ttt_core.run import passes, store

A, B, C = (np.array([[v]], np.uint8) for v in (1, 2, 3))


@pytest.mark.parametrize("name", PRESETS)
def test_profiles_change_the_work_and_not_the_method(name):
    config = PRESETS[name]
    wide, small = passes.wider(config), passes.smaller(config)
    assert wide.decode.views > config.decode.views > small.decode.views
    assert wide.rescore.views > config.rescore.views > small.rescore.views
    assert wide.adapt.steps > config.adapt.steps == small.adapt.steps
    assert wide.adapt.long_steps == config.second.steps * config.adapt.long_steps
    assert wide.adapt.lr * wide.adapt.steps == pytest.approx(config.adapt.lr * config.adapt.steps)
    assert wide.decode.floor < config.decode.floor and small.decode.batch_tokens < config.decode.batch_tokens
    assert {c.adapt.method for c in (wide, small)} == {config.adapt.method}
    assert small.adapt.memory_share == config.adapt.memory_share / 2
    assert small.rescore.max_candidates == config.rescore.max_candidates // 2
    assert small.rescore.batch_tokens < config.rescore.batch_tokens


def record(*candidates, **changes):
    return TaskResult("a", "ok", attempts=((A, B),), candidates=(candidates,), views=("v0", "v1"), **changes)


@pytest.mark.parametrize(
    ("candidates", "doubt"),
    [
        ((), 1.0),
        ((Candidate(A, (-0.5, -0.5)),), 1 - math.exp(-0.5)),
        ((Candidate(A, (-0.5, -0.5)), Candidate(B, (-0.7, -0.7))), 1 - math.exp(-0.5)),
        ((Candidate(A, (-0.1, -0.1)), Candidate(B, (-4.0, math.nan))), None),
        ((Candidate(A, (-0.9, -0.9)), Candidate(B, (-9.0, -9.0))), 1 - math.exp(-0.9)),
        ((Candidate(A, (math.nan,)), Candidate(B, (-math.inf,))), 1.0),
    ],
)
def test_doubt(candidates, doubt):
    assert passes.doubt(record(*candidates), SecondConfig()) == (doubt if doubt is None else pytest.approx(doubt))


def test_what_the_clock_cut_is_in_doubt_however_clear_it_looks():
    clear = (Candidate(A, (-0.1, -0.1)), Candidate(B, (-4.0, -4.0)))
    for notes in ({"ended": OUT_OF_TIME}, {"ended": f"set aside; {OUT_OF_TIME}"}, {"cut_views": 2}):
        assert passes.doubt(record(*clear, notes=notes), SecondConfig()) == pytest.approx(1 - math.exp(-0.1))
    assert passes.doubt(record(*clear, notes={"ended": "", "cut_views": 0}), SecondConfig()) is None


def test_two_passes_vote_together():
    task = Task("a", (Pair(A, A),), (Pair(C),))
    first = record(Candidate(A, (-1.0, -1.0), (0,)), Candidate(B, (-1.2, -1.2), (1,)), seconds={"adapt": 2.0})
    second = record(Candidate(B, (-0.1, -0.3, -0.2), (0, 2)), Candidate(C, (-3.0,) * 3, (1,)), seconds={"adapt": 3.0})
    second = dataclasses.replace(second, views=("w0", "w1", "w2"))
    both = passes.merged(first, second, task, "sum_logprob")
    by_cell = {int(c.grid[0, 0]): c for c in both.candidates[0]}
    assert by_cell[2].logprobs == (-1.2, -1.2, -0.1, -0.3, -0.2) and by_cell[2].found_in == (1, 2, 4)
    np.testing.assert_array_equal(by_cell[1].logprobs, (-1.0, -1.0, math.nan, math.nan, math.nan))
    assert by_cell[3].found_in == (3,) and len(both.views) == 5 and both.seconds == {"adapt": 5.0}
    assert [int(grid[0, 0]) for grid in both.attempts[0]] == [2, 1]
    again = store.result_from_dict(store.result_to_dict(both), "a", 1)
    assert store.result_to_dict(again) == store.result_to_dict(both)


def test_an_empty_second_pass_loses_nothing():
    task = Task("a", (Pair(A, A),), (Pair(C),))
    both = passes.merged(record(Candidate(A, (-1.0,), (0,))), record(), task, "sum_logprob")
    assert int(both.attempts[0][0][0, 0]) == 1 and both.candidates[0][0].logprobs == (-1.0,)
