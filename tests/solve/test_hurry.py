"""Where time is short, the first views have answers, and these are the ones they have where it is not."""

import time
from collections import Counter
from weakref import WeakKeyDictionary

import numpy as np
import pytest

from tests.solve.tiny import a_query, a_task, flat, loaded, same
from ttt_core.arc import augment
from ttt_core.arc.augment import Augmentation, draw_views, task_rng
from ttt_core.arc.encode import answer_ids
from ttt_core.arc.grammar import Grammar, Prior
from ttt_core.arc.result import OUT_OF_TIME
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import AdaptConfig, Config, DecodeConfig, RescoreConfig
from ttt_core.solve import clock as clock_module
from ttt_core.solve import fit, levels, prefix
from ttt_core.solve import rescore as rescore_module
from ttt_core.solve import task as task_module
from ttt_core.solve.adapt import adapted
from ttt_core.solve.decode import decode, search
from ttt_core.solve.rescore import score
from ttt_core.solve.task import solve_task
from ttt_core.solve.vote import rank

GRAMMAR = Grammar(15, 10, 13, max_side=6)
SIDE = np.zeros((6, 6), np.uint8)
TOKENS = 43  # of an answer of six rows
SQUARE = Task("t", (Pair(SIDE, SIDE + 1),), (Pair(SIDE), Pair(SIDE + 1)))


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass by themselves only in levels of the search, one a branch."""
    now, real = [0.0], levels._level

    def level(batch, front, *rest):
        now[0] += len(front.owner)
        return real(batch, front, *rest)

    monkeypatch.setattr(levels, "_level", level)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def eight_queries(model, expected=TOKENS):
    views = [Augmentation(dihedral=n) for n in range(8)]
    return [a_query(model, SQUARE, view, prior=task_module.prior_of(SQUARE, 0, same_shape=True, constant_shape=False, palette=False), expected=expected) for view in views]  # fmt: skip


@pytest.mark.parametrize("name", ["grid", "llama"])
@pytest.mark.parametrize(("deadline", "least", "most"), [(10_000, 8, 8), (250, 2, 6), (110, 1, 2)])
def test_by_the_deadline_some_views_are_done_and_have_the_answers_they_have_without_it(
    clock, name, deadline, least, most
):
    model = loaded(name, grammar=GRAMMAR)
    asked, config = eight_queries(model), DecodeConfig(floor=1e-200, max_branches=1)
    free = decode(model, asked, config, float("inf"))
    assert all(free)
    clock[0] = 0.0
    hurried = decode(model, asked, config, deadline)
    done = [n for n, answers in enumerate(hurried) if answers]
    assert least <= len(done) <= most and done == list(range(len(done)))
    same([hurried[n] for n in done], [free[n] for n in done])


def test_a_view_that_is_late_by_itself_keeps_its_most_probable_branch_alone(clock):
    model, config = flat("grid", GRAMMAR), DecodeConfig(floor=1e-300, max_branches=64)
    [answers] = decode(model, eight_queries(model)[:1], config, 900.0)
    assert 0 < clock[0] < 900 and len(answers) == 1  # 43 levels of 64 branches would have been 2,700 seconds


def test_until_there_is_an_answer_the_best_branches_go_on_below_the_floor(clock):
    model, config = flat("grid", GRAMMAR), DecodeConfig(floor=1e-20, max_branches=1)
    assert decode(model, eight_queries(model), config, float("inf")) == [[]] * 8
    clock[0] = 0.0
    found = decode(model, eight_queries(model), config, 150.0)
    assert [len(answers) for answers in found] == [1, 1, *[0] * 6]  # two of the eight were in time, side by side
    assert found[0][0][1] < np.log(1e-20)


def test_a_batch_without_an_answer_by_the_deadline_has_time_until_the_last_moment(clock):
    model, config = loaded("grid", grammar=GRAMMAR), DecodeConfig(floor=1e-200, max_branches=1)
    [query] = eight_queries(model)[:1]
    for last, n in ((30.0, 0), (60.0, 1)):
        clock[0] = 0.0
        assert [len(answers) for _, answers in search(model, [query], config, 20.0, last=last)] == [n]


def test_views_that_die_below_the_floor_in_good_time_have_greedy_answers(clock):
    model = flat("grid", GRAMMAR)
    config = Config(adapt=AdaptConfig(method="none"), decode=DecodeConfig(views=2, floor=1e-9))
    candidates = solve_task(model, SQUARE, config, seed=0, deadline=10_000.0).candidates
    assert all(own and own[0].grid.shape == (6, 6) for own in candidates) and clock[0] > 2 * 2 * TOKENS


@pytest.mark.parametrize("scale", [1, 300])
def test_every_test_input_has_an_attempt_of_its_own_where_time_allows_one_view_each(clock, monkeypatch, scale):
    model, real = flat("grid", GRAMMAR), levels._level
    monkeypatch.setattr(levels, "_level", lambda *args: (clock.__setitem__(0, clock[0] + scale), real(*args))[1])
    config = Config(adapt=AdaptConfig(method="none"), decode=DecodeConfig(views=8, floor=1e-300, max_branches=8))
    candidates = solve_task(model, SQUARE, config, seed=0, deadline=4_000.0).candidates
    assert [len(own) > 0 for own in candidates] == [scale == 1] * 2
    assert all(candidate.grid.shape == (6, 6) for own in candidates for candidate in own)


def test_a_cpu_reads_few_views_at_once_and_keeps_what_it_has_read(monkeypatch):
    model, task = loaded("grid"), a_task(np.random.default_rng(0))
    queries = [a_query(model, task, view) for view in draw_views(task, 6, np.random.default_rng(0))]
    longest = max(len(query.prefix) for query in queries)
    whole = decode(model, queries, DecodeConfig(floor=1e-3), float("inf"))
    monkeypatch.setattr(prefix, "CPU_READ", 2 * longest)
    kept, counts = [], Counter()
    found = dict(search(model, queries, DecodeConfig(floor=1e-3), float("inf"), kept=kept, counts=counts))
    assert [len(part) for part, _ in kept] == [2, 2, 2] and all(part == sorted(part) for part, _ in kept)
    same([found[n] for n in range(6)], whole)


def test_what_is_read_is_kept_as_far_as_there_is_room(monkeypatch):
    model, task = loaded("grid"), a_task(np.random.default_rng(0))
    queries = [a_query(model, task, Augmentation(0))] * 8
    each, kept, counts = len(queries[0].prefix), [], Counter()
    monkeypatch.setattr(prefix, "CPU_READ", 2 * each)
    for read in (8 * each, 4 * each, 4 * each):  # room for five, which four fill
        assert sum(len(part) for part, _ in prefix.batches(model, queries, 5 * each, counts, kept=kept)) == 8
        assert counts.pop("prefill") == read and sum(len(part) for part, _ in kept) == 4


def test_a_view_whose_scoring_was_cut_scores_all_candidates_or_none(monkeypatch):
    model, task = loaded("grid"), a_task(np.random.default_rng(0), tests=1)
    config = Config(
        adapt=AdaptConfig(method="none"), decode=DecodeConfig(views=4, floor=1e-5), rescore=RescoreConfig(views=4)
    )
    whole = solve_task(model, task, config, seed=0).candidates[0]
    unfound = [v for v in range(4) if sum(v in c.found_in for c in whole) < len(whole) - 1]
    assert len(whole) > 3 and unfound
    real = task_module.score

    def score(*args, **named):  # all but the first candidate that each view had not found
        values = real(*args, **named)
        for own, known in zip(values, named["known"], strict=True):
            scored = np.flatnonzero(np.isnan(list(known.values())))
            own[scored[1:]] = np.nan
            named["counts"]["unscored"] += len(scored[1:])
        return values

    monkeypatch.setattr(task_module, "score", score)
    record = solve_task(model, task, config, seed=0)
    assert record.notes["cut_views"] > 0
    cut = record.candidates[0]
    for view in unfound:
        below = [c.logprobs[view] for c in cut if view not in c.found_in]
        assert len(below) > 1 and np.allclose(below, np.log(1e-5))


@pytest.mark.parametrize("side", [10, 15])
def test_views_whose_drafts_are_right_are_done_one_after_the_other_too(side, monkeypatch):
    model, now, grow = flat("grid", Grammar(15, 10, 13, max_side=side)), [0.0], prefix.grow

    def passed(model, prefixes, index, used, ids, *rest, **named):
        now[0] += ids.size
        return grow(model, prefixes, index, used, ids, *rest, **named)

    monkeypatch.setattr(prefix, "grow", passed)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    square = np.zeros((side, side), np.uint8)
    task, answer = Task("t", (Pair(square, square),), (Pair(square),)), answer_ids(model.format.grammar, square)
    views = [Augmentation(dihedral=n) for n in range(8)]
    asked = [a_query(model, task, v, prior=Prior(side, side), expected=len(answer), draft=answer) for v in views]
    decode(model, asked, DecodeConfig(search="greedy"), float("inf"))
    whole, done = now[0], []
    for share in (0.5, 0.75, 1.01):
        now[0] = 0.0
        found = [n for n, own in enumerate(decode(model, asked, DecodeConfig(search="greedy"), share * whole)) if own]
        assert found == list(range(len(found)))
        done.append(len(found))
    assert 0 <= done[0] <= done[1] < done[2] == 8 and done[1] > 0, done


@pytest.fixture
def slow(monkeypatch):
    """Seconds that pass only where `slow` is told to: "what" of a module takes so many."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(clock_module, "_paces", WeakKeyDictionary())

    def takes(module, what, seconds):
        real = getattr(module, what)

        def late(*args, **named):
            now[0] += seconds
            return real(*args, **named)

        monkeypatch.setattr(module, what, late)
        return now

    return takes


def test_what_would_not_be_read_in_time_is_not_begun(slow):
    model, task = loaded("grid"), a_task(np.random.default_rng(0))
    queries = [a_query(model, task, view) for view in draw_views(task, 6, np.random.default_rng(0))]
    now, counts = slow(prefix, "read", 10.0), Counter()
    size = max(len(query.prefix) for query in queries)
    assert len(list(prefix.batches(model, queries, size, counts, deadline=25.0))) == 2 and now[0] == 20.0
    assert list(prefix.batches(model, queries, size, counts, deadline=29.0)) == [] and now[0] == 20.0
    assert next(prefix.batches(model, queries, size, counts, deadline=29.0, last=31.0))[0] == [0]


def test_where_little_time_is_left_fewer_are_read_at_once_instead_of_none(slow):
    model, task = loaded("grid"), a_task(np.random.default_rng(0))
    queries = [a_query(model, task, Augmentation(0))] * 8
    now, real = slow(prefix, "read", 0.0), prefix.read

    def read(model, queries, counts):
        now[0] += len(queries)  # a second each
        return real(model, queries, counts)

    prefix.read, whole = read, 8 * len(queries[0].prefix)
    try:
        for _ in range(3):
            list(prefix.batches(model, queries, whole, Counter()))
        began = now[0]
        parts = [part for part, _ in prefix.batches(model, queries, whole, Counter(), deadline=began + 7.0)]
    finally:
        prefix.read = real
    assert parts[0] == [0] and 1 < len(parts) and now[0] <= began + 7.0  # all eight would have taken longer


def test_what_is_read_after_the_searchs_share_is_searched_where_there_is_no_answer_yet(slow):
    model, task = loaded("grid"), a_task(np.random.default_rng(0))
    slow(prefix, "read", 10.0)
    config = DecodeConfig(search="greedy")
    for last, n in ((5.0, 0), (20.0, 1)):
        began = time.monotonic()
        found = search(model, [a_query(model, task, Augmentation(0))], config, began + 5.0, last=began + last)
        assert len(list(found)) == n


def test_one_pass_that_stalls_does_not_keep_all_others_from_being_begun(slow):
    model, now = loaded("grid"), slow(clock_module, "fits", 0.0)
    for took in (1.0, 1.0, 1.0, 100.0):
        with clock_module.timed(model, "read", 10):
            now[0] += took
    assert clock_module.fits(model, "read", 10, now[0] + 2.0) and not clock_module.fits(model, "read", 10, now[0])
    for _ in range(3):
        with clock_module.timed(model, "read", 10):
            now[0] += 100.0
    assert not clock_module.fits(model, "read", 10, now[0] + 2.0)


def test_what_would_not_be_scored_in_time_is_not_begun_and_counted(slow):
    model, task = loaded("gpt2"), a_task(np.random.default_rng(0))
    queries = [a_query(model, task, view) for view in draw_views(task, 4, np.random.default_rng(0))]
    answers = [[np.array([1, 10, 13]), np.array([2, 10, 13])]] * 4
    now, counts = slow(prefix, "verify", 10.0), Counter()
    scores = score(model, queries, answers, RescoreConfig(batch_tokens=1), 25.0, counts=counts)
    assert now[0] == 20.0 and counts["unscored"] == 8 - np.isfinite(scores).sum() > 0


def test_scoring_that_the_clock_cuts_has_whole_views(slow, monkeypatch):
    """A view counts once all its tries are scored, so those of one view come together where not all will be in time."""
    model, task = loaded("grid"), a_task(np.random.default_rng(0))
    queries = [a_query(model, task, view) for view in draw_views(task, 8, np.random.default_rng(0))]
    answers = [[answer_ids(model.format.grammar, np.full((1 + i % 2,) * 2, i, np.uint8)) for i in range(6)]] * 8
    monkeypatch.setattr(rescore_module, "TRIE_TOKENS", 8)
    now, config, kept = slow(prefix, "verify", 1.0), RescoreConfig(batch_tokens=40), []
    list(prefix.batches(model, queries, 10_000, Counter(), kept=kept))
    began = now[0]
    score(model, queries, answers, config, float("inf"), kept=kept)
    deadline = now[0] + 0.5 * (now[0] - began)
    scores = score(model, queries, answers, config, deadline, kept=kept)
    whole = [np.isfinite(own).all() for own in scores]
    assert 2 <= sum(whole) < 8 and sum(np.isfinite(own).any() for own in scores) <= sum(whole) + 2


def test_the_pace_of_scoring_is_that_of_the_tokens_there_were(slow, monkeypatch):
    model, task, told = loaded("grid"), a_task(np.random.default_rng(0)), []
    query, real = a_query(model, task, Augmentation(0)), clock_module.timed
    monkeypatch.setattr(rescore_module, "timed", lambda m, kind, n: (told.append((kind, n)), real(m, kind, n))[1])
    answer = answer_ids(model.format.grammar, np.zeros((2, 2), np.uint8))
    score(model, [query], [[answer]], RescoreConfig(), float("inf"))
    assert [(kind, n <= len(answer)) for kind, n in told] == [("score", True)]


def test_a_hopeless_answer_found_in_a_hurry_does_not_stand_alone(monkeypatch):
    model, task = loaded("grid"), a_task(np.random.default_rng(0), tests=1)
    config = Config(adapt=AdaptConfig(method="none"), decode=DecodeConfig(views=4, floor=0.9))
    real, poor = task_module.search, answer_ids(model.format.grammar, np.array([[7]], np.uint8))

    def search(model, queries, options, *args, **named):
        return iter([(0, [(poor, -9.0)])]) if options.search == "dfs" else real(model, queries, options, *args, **named)

    monkeypatch.setattr(task_module, "search", search)
    [candidates] = solve_task(model, task, config, seed=0).candidates
    assert {c.grid.tobytes() for c in candidates} > {bytes([7])} and len(candidates) > 2


def test_of_what_the_clock_left_unscored_the_answer_of_most_views_comes_first(monkeypatch):
    """Below the floor too, where every view knows its own greedy answer alone."""
    model, views = loaded("grid"), 8
    config = Config(adapt=AdaptConfig(method="none"), decode=DecodeConfig(views=views, floor=0.999))
    grids = [np.array([[n]], np.uint8) for n in (1, 1, 1, 2, 3, 3, 4, 5)]

    def search(model, queries, options, *args, **named):
        if options.search == "dfs":
            return iter(())
        return iter([(i, [(answer_ids(model.format.grammar, grids[i]), -5.0 - i)]) for i in range(views)])

    monkeypatch.setattr(task_module, "search", search)
    monkeypatch.setattr(augment, "apply", lambda view, grid: grid)
    monkeypatch.setattr(augment, "invert", lambda view, grid: grid)
    told = []
    task = Task("t", (Pair(np.ones((1, 2), np.uint8), grids[0]),), (Pair(np.ones((1, 2), np.uint8)),))
    solve_task(model, task, config, seed=0, beat=lambda stage, so_far=(): told.extend(so_far))
    ranked = rank(told[0].candidates[0], "sum_logprob")
    assert [len(c.found_in) for c in ranked[:2]] == [3, 2] and ranked[0].grid == 1


def test_a_step_that_would_not_end_in_time_is_not_begun(slow):
    model, task = loaded("gpt2"), a_task(np.random.default_rng(0))
    now = slow(fit, "train_step", 10.0)
    config = AdaptConfig(rank=2, steps=100, batch_tokens=1)
    with adapted(model, task, config, task_rng(0, "t"), 35.0) as done:
        assert done.steps in (2, 3) and done.note == OUT_OF_TIME and now[0] <= 35.0


@pytest.mark.parametrize("side", [1, 2])
def test_a_query_keeps_the_demonstrations_that_fit_beside_the_answer(side, monkeypatch):
    model, grid = loaded("gpt2"), np.ones((side, side), np.uint8)
    task = Task("t", (Pair(grid, grid),) * 2, (Pair(grid),))
    answer = len(answer_ids(model.format.grammar, grid))
    whole = len(model.format.query(task, 0))
    place = task_module.Place(0, 0, Augmentation(0, order=(0, 1)), (0,))
    for room, shown in ((whole + answer, True), (whole + answer - 1, False)):
        monkeypatch.setattr(task_module, "context_tokens", lambda model, room=room: room)
        assert (len(task_module._query(model, task, place, DecodeConfig()).prefix) == whole) == shown


def test_renormalised_scores_are_those_of_the_search_where_answers_are_limited():
    model, task = loaded("gpt2"), a_task(np.random.default_rng(0))
    query = a_query(model, task, Augmentation(0, order=(0, 1)), answer_tokens=5)
    config = DecodeConfig(floor=1e-4, logprobs="renormalised", answer_tokens=5)
    [found] = decode(model, [query], config, float("inf"))
    given = score(model, [query], [[ids for ids, _ in found]], RescoreConfig(logprobs="renormalised"), float("inf"))
    assert found and np.allclose(given[0], [logprob for _, logprob in found], atol=1e-4)
