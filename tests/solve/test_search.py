"""Drafting, batching and shared prefixes change the work of search and scoring, never what comes out."""

import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.solve.tiny import MODELS, SMALL, a_query, a_task, loaded, one_by_one, same, sure
from ttt_core.arc import augment
from ttt_core.arc.augment import Augmentation, apply, draw_views
from ttt_core.arc.encode import IGNORE, Sequence, answer_ids
from ttt_core.arc.grammar import Grammar, Prior
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import AdaptConfig, Config, DecodeConfig, RescoreConfig
from ttt_core.errors import InputError
from ttt_core.solve import prefix, trie
from ttt_core.solve import task as task_module
from ttt_core.solve.decode import decode, search
from ttt_core.solve.prefix import Query
from ttt_core.solve.rescore import rescore, score
from ttt_core.solve.task import solve_task, solve_tasks


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(MODELS)), st.booleans())
def test_drafts_right_and_wrong_leave_answers_and_logprobs_as_they_are(seed, name, is_right):
    model, rng = loaded(name, seed % 7), np.random.default_rng(seed)
    task, views = a_task(rng), draw_views(a_task(rng), 5, rng)
    queries = [a_query(model, task, augmentation) for augmentation in views]
    config = DecodeConfig(floor=1e-4, max_branches=10_000)
    plain = decode(model, queries, replace(config, drafts=0), float("inf"))

    def expected(i):  # what the view itself finds, or anything
        if i == 1 or (is_right and not plain[i]):
            return None
        return plain[i][-1][0] if is_right else answer_ids(SMALL, rng.integers(0, 10, (2, 1 + i % 2)).astype(np.uint8))

    drafted = dict(search(model, queries, config, float("inf"), expected=expected))
    assume(any(plain))  # some random models spread so thinly that nothing lies above the floor
    same(plain, [drafted[i] for i in range(len(queries))])


LARGE = Grammar(vocab_size=15, row_end=10, end=13, max_side=5)


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(sorted(MODELS)), st.sampled_from(["dfs", "greedy"]),
    st.sampled_from(["model", "renormalised"]), st.sampled_from([1, 60, 16384]), st.integers(1, 8),
)  # fmt: skip
def test_long_answers_too_are_what_they_are_without_drafts(seed, name, kind, logprobs, batch_tokens, branches):
    model, rng = sure(loaded(name, seed % 7, LARGE)), np.random.default_rng(seed)
    task, prior = a_task(rng), Prior(5, 5) if seed % 3 else Prior()
    queries = [a_query(model, task, seen, prior=prior) for seen in draw_views(task, 4, rng)]
    config = DecodeConfig(search=kind, floor=1e-3, logprobs=logprobs, max_branches=branches, batch_tokens=batch_tokens)
    plain = decode(model, queries, replace(config, drafts=0), float("inf"))
    drafts = [answer_ids(LARGE, rng.integers(0, 10, (5, 5)).astype(np.uint8)) for _ in queries]
    drafts = [own[0][0] if own and i % 2 else draft for i, (own, draft) in enumerate(zip(plain, drafts, strict=True))]
    drafted = dict(search(model, queries, config, float("inf"), expected=lambda i: drafts[i]))
    same(plain, [drafted[i] for i in range(len(queries))])


def test_a_right_draft_takes_few_passes_and_a_wrong_one_is_corrected(monkeypatch):
    model, passes, grow = sure(loaded("grid", grammar=LARGE)), [], prefix.grow
    monkeypatch.setattr(prefix, "grow", lambda *args, **named: passes.append(1) or grow(*args, **named))
    query = a_query(model, a_task(np.random.default_rng(0)), Augmentation(), prior=Prior(5, 5))

    def taken(draft) -> int:
        passes.clear()
        found = dict(search(model, [query], DecodeConfig(search="greedy"), float("inf"), expected=lambda i: draft))
        assert np.array_equal(found[0][0][0], answer)
        return len(passes)

    [[(answer, _)]] = decode(model, [query], DecodeConfig(search="greedy", drafts=0), float("inf"))
    assert len(passes) == len(answer) - 1 == 30
    wrong = answer.copy()
    wrong[[3, 20]] = (wrong[[3, 20]] + 1) % 10
    assert taken(answer) == 1 < taken(wrong) < taken(None) == 30


def test_a_draft_that_the_models_context_has_no_room_for_is_cut():
    model, ids = loaded("gpt2"), np.arange(508) % 10  # of 512 positions
    query = Query(Sequence(ids, np.full(508, IGNORE), np.arange(508)), 0)
    draft = answer_ids(SMALL, np.zeros((2, 2), np.uint8))
    found = dict(search(model, [query], DecodeConfig(floor=1e-3), float("inf"), expected=lambda i: draft))
    assert len(draft) > 4
    same(list(found.values()), decode(model, [query], DecodeConfig(floor=1e-3), float("inf")))


def test_search_and_scoring_read_no_prefix_after_their_deadline():
    model, rng, counts = loaded("grid"), np.random.default_rng(0), Counter()
    queries = [a_query(model, a_task(rng), Augmentation())] * 3
    answers = [[answer_ids(SMALL, np.zeros((1, 1), np.uint8))]] * 3
    late = time.monotonic() - 1
    assert np.isnan(np.concatenate(score(model, queries, answers, RescoreConfig(), late, counts=counts))).all()
    assert list(search(model, queries, DecodeConfig(), late, counts=counts)) == []
    assert counts["prefill"] == counts["score"] == 0


@pytest.mark.parametrize("name", ["llama", "gpt2", "eager"])
def test_prefixes_are_read_alike_with_a_mask_in_full(name, monkeypatch):
    model, rng = loaded(name), np.random.default_rng(0)
    queries = [a_query(model, a_task(rng), Augmentation()) for _ in range(3)]
    assert len({len(query.prefix) for query in queries}) > 1
    plain = prefix.read(model, queries, Counter())
    monkeypatch.setattr(prefix, "is_before_ampere", lambda device: True)
    full = prefix.read(model, queries, Counter())
    assert np.allclose(plain.logprobs, full.logprobs, atol=1e-4)
    same(*(decode(model, queries, DecodeConfig(floor=1e-3), float("inf")) for _ in range(2)))


@pytest.mark.parametrize(("name", "shares"), [("grid", True), ("llama", False)])
def test_views_that_look_alike_are_searched_and_scored_once(name, shares, monkeypatch):
    model = loaded(name)
    grids = [np.array([[c, d]], np.uint8) for c, d in ((1, 0), (0, 1), (2, 0), (0, 2))]
    pairs = (
        Pair(grids[0], grids[1]),
        Pair(grids[1], grids[2]),
    )  # an output has a colour that its input lacks: none is free
    task = Task("t", pairs, (Pair(grids[3]),))
    options = {"decode": DecodeConfig(views=16, floor=1e-3), "rescore": RescoreConfig(views=12)}
    config = Config(adapt=AdaptConfig(method="none"), **options)
    once = solve_task(model, task, config, seed=0)
    monkeypatch.setattr(task_module, "_alike", lambda views, has_order: [(0, (n,)) for n in range(len(views[0]))])
    every = solve_task(model, task, config, seed=0)
    assert len(once.candidates[0]) > 0
    for one, other in zip(once.candidates[0], every.candidates[0], strict=True):
        assert np.array_equal(one.grid, other.grid) and one.found_in == other.found_in
        assert np.allclose(one.logprobs, other.logprobs, atol=1e-4) and len(one.logprobs) == 12
    tokens = [record.notes["tokens"]["prefill"] for record in (once, every)]
    assert tokens[0] == tokens[1] // 2 if shares else tokens[0] > tokens[1] // 2  # the order of demonstrations differs


def test_where_scoring_is_cut_a_candidate_of_many_views_stays_before_one_of_a_single_view(monkeypatch):
    model, task = loaded("grid"), a_task(np.random.default_rng(0), tests=1)
    often, rare = (np.array([[n]], np.uint8) for n in (1, 2))

    def searched(model, queries, *args, **named):
        for i in range(len(queries)):
            yield i, [(answer_ids(SMALL, often), np.log(0.8))] if i else [(answer_ids(SMALL, rare), np.log(0.85))]

    monkeypatch.setattr(task_module, "search", searched)
    monkeypatch.setattr(augment, "free_colors", lambda pairs: ())
    config = Config(adapt=AdaptConfig(method="none"), decode=DecodeConfig(views=8), rescore=RescoreConfig(views=8))
    cut = solve_task(model, task, config, seed=0, deadline=time.monotonic() - 1)
    assert np.array_equal(cut.attempts[0][0], often[::-1]) and len(cut.candidates[0]) == 2
    assert all(np.isfinite(c.logprobs).all() for c in cut.candidates[0])


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(MODELS)), st.sampled_from([16, 512, 16384]))
def test_rescoring_equals_scoring_one_by_one(seed, name, batch_tokens):
    model, rng = loaded(name, seed % 7), np.random.default_rng(seed)
    task = a_task(rng)
    views = draw_views(task, 4, rng)
    grids = [rng.integers(0, 3, rng.integers(1, 3, size=2)).astype(np.uint8) for _ in range(6)]
    queries = [a_query(model, task, augmentation) for augmentation in views]
    scores = rescore(model, queries, grids, views, RescoreConfig(batch_tokens=batch_tokens), float("inf"))
    expected = [[one_by_one(model, q, answer_ids(SMALL, apply(v, g))) for q, v in zip(queries, views)] for g in grids]
    assert np.allclose(scores, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["grid", "gpt2"])
def test_a_task_has_the_same_candidates_with_and_without_drafts_and_takes_fewer_steps(name):
    model = loaded(name)
    task = a_task(np.random.default_rng(3))
    if name == "grid":
        model.net.set_tasks(model.net.task_vectors.weight)
    base = DecodeConfig(floor=1e-4, max_branches=10_000, same_shape=False, palette=False)
    plain, drafted, apart = (
        solve_task(model, task, Config(adapt=AdaptConfig(method="none"), decode=replace(base, **options)), seed=0)
        for options in ({"drafts": 0}, {}, {"batch_tokens": 1})
    )
    for other in (drafted, apart):
        for ours, theirs in zip(plain.candidates, other.candidates, strict=True):
            assert [c.found_in for c in ours] == [c.found_in for c in theirs] and ours
            assert all(np.array_equal(a.grid, b.grid) for a, b in zip(ours, theirs, strict=True))
            assert np.allclose([c.logprobs for c in ours], [c.logprobs for c in theirs], atol=1e-4)
    assert drafted.notes["tokens"]["draft"] > 0 and "draft" not in plain.notes["tokens"]
    assert drafted.notes["tokens"]["search"] < plain.notes["tokens"]["search"]
    assert drafted.notes["tokens"]["prefill"] < apart.notes["tokens"]["prefill"]  # read once where the prefixes fit


def test_tokens_are_counted_with_and_without_sharing():
    model, counts = loaded("gpt2"), Counter()
    task = a_task(np.random.default_rng(0))
    query = a_query(model, task, Augmentation(0, tuple(range(10)), (0, 1)))
    grids = [np.array([[1, 2]], np.uint8), np.array([[1, 3]], np.uint8)]  # 1 2 row end and 1 3 row end share the 1
    rescore(
        model, [query], grids, [Augmentation(0, tuple(range(10)), (0, 1))], RescoreConfig(), float("inf"), counts=counts
    )
    told = {"prefill": len(query.prefix), "score": 5, "score_unshared": 2 * (len(query.prefix) + 4), "unscored": 0}
    assert counts == told


def test_a_trie_holds_each_beginning_once_and_knows_its_ancestors():
    answers = [answer_ids(SMALL, np.array(g, np.uint8)) for g in ([[1, 2]], [[1, 3]], [[1, 2], [0, 0]])]
    tree = trie.build(answers, SMALL)
    assert len(tree) == 3 + 2 + 3 and [len(path) for path in tree.paths] == [3, 3, 6]
    for answer, path in zip(answers, tree.paths, strict=True):
        assert tree.tokens[list(path)].tolist() == answer[:-1].tolist()
        assert np.flatnonzero(tree.ancestry()[path[-1]]).tolist() == sorted(path)
        assert tree.depth[path].tolist() == list(range(len(path)))


@pytest.mark.parametrize("logprobs", ["model", "renormalised"])
def test_search_and_scoring_agree_and_the_record_says_what_it_holds(logprobs):
    model, rng = loaded("grid"), np.random.default_rng(5)
    task = a_task(rng)
    views = draw_views(task, 4, rng)
    queries = [a_query(model, task, seen, prior=Prior(colors=frozenset(range(8)))) for seen in views]
    config = DecodeConfig(floor=1e-4 if logprobs == "model" else 5e-3, max_branches=10_000, logprobs=logprobs)
    found = decode(model, queries, config, float("inf"))
    answers = [[ids for ids, _ in own] for own in found]
    scores = score(model, queries, answers, RescoreConfig(logprobs=logprobs), float("inf"))
    assert sum(map(len, answers)) > 5
    for own, again in zip(found, scores, strict=True):
        assert np.allclose([logprob for _, logprob in own], again, atol=1e-4)
    other = RescoreConfig(logprobs="model" if logprobs == "renormalised" else "renormalised")
    assert not np.allclose(np.concatenate(scores), np.concatenate(score(model, queries, answers, other, float("inf"))))
    config = Config(adapt=AdaptConfig(method="none"), decode=config, rescore=RescoreConfig(logprobs=logprobs))
    assert solve_task(model, task, config, seed=0).notes["logprobs"] == logprobs


@pytest.mark.parametrize("name", ["grid", "llama"])
@pytest.mark.parametrize("batch_tokens", [200, 16384])
def test_tasks_solved_together_have_the_records_they_have_alone(name, batch_tokens):
    model, rng = loaded(name), np.random.default_rng(7)
    tasks = [a_task(rng, f"t{i}", tests=1 + i % 2) for i in range(4)]
    if name == "grid":  # it knows two of them by vectors of their own
        model.net.config.task_ids = ["t0", "other", "t3"]
        model.net.set_tasks(torch.randn(3, 32, generator=torch.Generator().manual_seed(0)))
    decode = DecodeConfig(views=6, draft_views=2, floor=1e-3, batch_tokens=batch_tokens)
    config = Config(adapt=AdaptConfig(method="none"), decode=decode)
    vectors = getattr(model.net, "task_vectors", None)
    together = solve_tasks(model, tasks, config, seed=0)
    assert getattr(model.net, "task_vectors", None) is vectors
    for task, record in zip(tasks, together, strict=True):
        alone = solve_task(model, task, config, seed=0)
        assert record.task_id == task.id and record.views == alone.views and record.notes["together"] == 4
        for ours, theirs in zip(record.candidates, alone.candidates, strict=True):
            assert ours and [c.found_in for c in ours] == [c.found_in for c in theirs]
            assert all(np.array_equal(a.grid, b.grid) for a, b in zip(ours, theirs, strict=True))
            assert np.allclose([c.logprobs for c in ours], [c.logprobs for c in theirs], atol=1e-4)
        for ours, theirs in zip(record.attempts, alone.attempts, strict=True):
            assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])


def test_tasks_are_not_solved_together_where_each_is_to_be_adapted_to():
    with pytest.raises(InputError, match="adapt.method=lora"):
        solve_tasks(loaded("grid"), [a_task(np.random.default_rng(0))], Config(), seed=0)
