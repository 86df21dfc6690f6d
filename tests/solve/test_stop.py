"""Early stopping: the step it chooses, and that what it watches is what greedy decoding would do."""

import dataclasses
import time

import pytest
import torch

from tests.solve.test_adapt import a_task, loaded
from ttt_core.arc.augment import task_rng
from ttt_core.arc.encode import answer_grid
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import AdaptConfig, DecodeConfig
from ttt_core.model.packing import packed
from ttt_core.solve import stop
from ttt_core.solve.decode import decode
from ttt_core.solve.prefix import Query
from ttt_core.solve.stop import Check, verdict


def seen(nlls, right=()):
    return [Check(10 * (i + 1), nll, 10 * (i + 1) in right) for i, nll in enumerate(nlls)]


def first_verdict(checks, rule=verdict):
    """What the rule says, check by check, until it stops the trial; the last step if it never does."""
    for n in range(1, len(checks) + 1):
        if rule(checks[:n]) is not None:
            return rule(checks[:n])
    return checks[-1].step


def first_right(checks):
    """The naive twin: the first time the demonstration is answered right, or the end."""
    return checks[-1].step if checks[-1].is_right else None


CASES = {
    # right at 30 by luck; right and stays right from 60
    "luck": (seen([3, 2, 1.4, 1.3, 1.2, 0.8, 0.6, 0.5, 0.4, 0.3], {30, 60, 70, 80, 90, 100}), 80),
    # best at 40, overfits from there
    "overfits": (seen([3, 2, 1.5, 1.0, 1.2, 1.5, 1.9, 2.5, 3.0, 3.1]), 40),
    # still improving at the end
    "improves": (seen([3, 2.8, 2.6, 2.4, 2.2, 2.0, 1.8, 1.6, 1.4, 1.2]), 100),
}


@pytest.mark.parametrize("case", CASES)
def test_the_step_is_where_it_stays_right_or_stops_improving(case):
    checks, step = CASES[case]
    assert first_verdict(checks) == step
    if case != "improves":
        assert first_verdict(checks, first_right) != step


@pytest.mark.parametrize("kind", ["linear", "grid"])
def test_right_means_what_greedy_decoding_answers(kind):
    model, task = loaded(kind), a_task(sides=(2, 2, 2, 2))
    small = dataclasses.replace(model.format.grammar, max_side=3)
    model = dataclasses.replace(model, format=dataclasses.replace(model.format, grammar=small))
    if kind == "grid":
        model.net.set_tasks(torch.zeros(8, 32))
    others, held = task.train[:-1], task.train[-1]
    query = model.format.query(Task("t", others, (held,)), 0)
    [[(ids, _)]] = decode(model, [Query(query, 0)], DecodeConfig(search="greedy"), float("inf"))
    answer = answer_grid(small, ids)
    wrong = answer.copy()
    wrong[-1, -1] = (wrong[-1, -1] + 1) % 10
    with packed(model.net, torch.float32):
        for output, is_right in ((answer, True), (wrong, False)):
            asked = stop.questions(model, Task("t", others, (Pair(held.input, output),)), task_rng(0, "views"))
            assert stop.check(model, asked[:1], 0).is_right is is_right
            assert not stop.check(model, asked, 0).is_right, "an untrained model answers otherwise in the other view"


def test_a_trial_trains_on_all_but_a_drawn_demonstration_and_asks_that_in_two_views(monkeypatch):
    model, task, held_out = loaded("grid"), a_task(sides=(2, 3, 4)), set()
    config = AdaptConfig(method="full", steps=2, batch_tokens=100, lr=1e-3)
    real, seen = stop.adapted, []

    def watched(model, others, config, rng, deadline, watch):
        seen.append((others, deadline - time.monotonic()))
        return real(model, others, config, rng, deadline, watch)

    def asked_for(model, asked, step):
        assert len(asked) == 2 and [question.row[1] for question in asked][0] == 0 != asked[1].row[1]
        return Check(step, 1.0, False)

    monkeypatch.setattr(stop, "adapted", watched)
    monkeypatch.setattr(stop, "check", asked_for)
    for seed in range(8):
        assert stop.trial(model, task, config, task_rng(seed, "t"), time.monotonic() + 1000).checks
        others, left_s = seen[-1]
        [held] = [pair for pair in task.train if pair not in others.train]
        assert len(others.train) == 2 and others.test == (held,) and left_s < 0.8 * 1000
        held_out.add(held)
    assert len(held_out) == 3


def test_a_trial_without_room_for_its_questions_is_none(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(stop, "check", full)
    config = AdaptConfig(method="full", steps=8, batch_tokens=100, lr=1e-3)
    assert stop.trial(loaded("grid"), a_task(), config, task_rng(0, "t"), float("inf")) is None


def test_a_trial_counts_steps_and_too_few_demonstrations_have_none(monkeypatch):
    model, config = loaded("grid"), AdaptConfig(method="full", steps=32, batch_tokens=100, lr=1e-3)
    monkeypatch.setattr(stop, "check", lambda model, asked, step: Check(step, 1.0, step >= 8))
    found = stop.trial(model, a_task(), config, task_rng(0, "t"), float("inf"))
    assert found.steps == 12 and [c.step for c in found.checks] == [2, 4, 6, 8, 10, 12]
    assert stop.with_steps(config, found).steps == 12 and stop.with_steps(config, None).steps == 32
    assert stop.trial(model, a_task(sides=(2, 3)), config, task_rng(0, "t"), float("inf")) is None
    known = dataclasses.replace(a_task(), id=model.net.config.task_ids[0])  # its vector has learnt the one held out too
    assert stop.trial(model, known, config, task_rng(0, "t"), float("inf")) is None


@pytest.mark.parametrize(("seconds", "steps"), [(0.6, 100_000), (600.0, 4)])
def test_a_trial_that_the_clock_ends_says_nothing_of_the_steps(seconds, steps, monkeypatch):
    monkeypatch.setattr(stop, "check", lambda model, asked, step: Check(step, 1 / step, False))
    config = AdaptConfig(method="full", steps=steps, batch_tokens=100, lr=1e-4)
    found = stop.trial(loaded("grid"), a_task(), config, task_rng(0, "t"), time.monotonic() + seconds)
    assert found.steps == steps


def test_the_trial_permutes_colours_where_the_adaptation_does():
    pairs = tuple(Pair(pair.input, pair.input) for pair in a_task().train)
    others = Task("t", pairs, pairs[:1])
    rows = [
        [
            question.row[0].ids.tolist()
            for question in stop.questions(loaded("linear"), others, task_rng(0, "t"), permutes)
        ]
        for permutes in (True, False)
    ]
    assert rows[0][0] == rows[1][0] and rows[0][1] != rows[1][1]
    assert sorted(rows[1][0]) == sorted(rows[1][1]), "the same cells, elsewhere"


def test_a_check_that_is_not_a_number_is_not_the_best():
    assert first_verdict(seen([float("nan"), 3, 2, 1, 0.5, 0.4, 0.3, 0.2])) == 80
