"""Search: equal to enumerating every answer the grammar allows, within its caps whatever the model does."""

import time
from collections import Counter
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.solve.tiny import MODELS, SMALL, a_query, a_task, ahead, as_dict, enumerated, flat, loaded, same
from ttt_core.arc.augment import draw_views, task_rng
from ttt_core.arc.encode import answer_grid, answer_ids
from ttt_core.arc.grammar import Grammar, Prior, limits
from ttt_core.config import DecodeConfig
from ttt_core.solve import advance, frontier, prefix
from ttt_core.solve.decode import decode, search

EVERYTHING = DecodeConfig(floor=5e-5, max_branches=10_000, max_tokens=100_000)


def queries(model, rng, n, **options):
    task = a_task(rng)
    return [a_query(model, task, seen, i % 2, **options) for i, seen in enumerate(draw_views(task, n, rng))]


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(sorted(MODELS)), st.booleans(), st.integers(1, 3), st.integers(5, 16),
    st.sampled_from(["model", "renormalised"]),
    st.sampled_from([Prior(), Prior(0, 1), Prior(1, 0, frozenset({0, 1, 2}))]),
)  # fmt: skip
def test_search_equals_brute_force(seed, name, terminated, max_side, tokens, logprobs, prior):
    grammar = Grammar(15, 10, 13, terminated or name == "grid", max_side)  # GridLM's rows have ends
    model, rng = loaded(name, seed % 11, grammar), np.random.default_rng(seed)
    asked = queries(model, rng, 2, prior=prior)
    floor = 2e-4 if logprobs == "model" else 1e-2  # renormalised, nothing is lost to what the grammar forbids
    config = replace(EVERYTHING, floor=floor, answer_tokens=tokens, logprobs=logprobs)
    bounds = limits([tokens], [prior])
    expected = [enumerated(model, query, config.floor, bounds, logprobs == "renormalised") for query in asked]
    for found, brute in zip(as_dict(decode(model, asked, config, float("inf"))), expected, strict=True):
        assert set(found) == set(brute)
        assert all(found[ids] == pytest.approx(brute[ids], abs=1e-4) for ids in brute)
        for ids in found:
            height, width = answer_grid(grammar, np.array(ids)).shape
            assert max(height, width) <= max_side and len(ids) <= tokens


@pytest.mark.parametrize("name", sorted(MODELS))
def test_answers_do_not_depend_on_batch_size_or_order(name):
    model = loaded(name)
    asked = queries(model, np.random.default_rng(1), 6)
    whole = decode(model, asked, EVERYTHING, float("inf"))
    assert sum(map(len, whole)) > 8
    for batch_tokens in (1, 60):
        same(whole, decode(model, asked, replace(EVERYTHING, batch_tokens=batch_tokens), float("inf")))
    same(whole, decode(model, asked[::-1], EVERYTHING, float("inf"))[::-1])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(MODELS)), st.integers(1, 400))
def test_batching_and_compaction_change_no_answer_of_any_model(seed, name, batch_tokens):
    model, config = loaded(name, seed % 11), replace(EVERYTHING, batch_tokens=batch_tokens)
    asked = queries(model, np.random.default_rng(seed), 4)
    whole = decode(model, asked, EVERYTHING, float("inf"))
    with mock.patch.object(frontier, "_look_at", lambda *sizes: 0):  # compacted before every token
        same(whole, decode(model, asked, config, float("inf")))


@pytest.mark.parametrize("name", ["grid", "llama"])
def test_answers_do_not_depend_on_when_the_cache_is_compacted(name, monkeypatch):
    model = loaded(name)
    asked = queries(model, np.random.default_rng(1), 6)
    whole, parts, real = decode(model, asked, EVERYTHING, float("inf")), [], frontier._part
    monkeypatch.setattr(frontier, "_part", lambda *args: parts.append(1) or real(*args))
    monkeypatch.setattr(frontier, "_look_at", lambda *sizes: 0)  # before every token
    same(whole, decode(model, asked, EVERYTHING, float("inf")))
    assert len(parts) >= SMALL.max_tokens() - 2


@pytest.mark.parametrize("name", ["grid", "llama"])
def test_answers_do_not_depend_on_how_a_step_is_cut_into_passes(name, monkeypatch):
    model, passes, real = loaded(name), [], prefix.grow
    asked = queries(model, np.random.default_rng(1), 6)
    monkeypatch.setattr(prefix, "grow", lambda *args: passes.append(args[4].size) or real(*args))
    answers, padded = [], []
    for padding in (1, 10**6):
        monkeypatch.setattr(advance, "PADDING", padding)
        answers.append(decode(model, asked, EVERYTHING, float("inf")))
        padded.append(sum(passes))
        passes.clear()
    same(*answers)
    assert padded[0] < padded[1]  # tokens that went through the model, padding included


@pytest.mark.parametrize("name", sorted(MODELS))
def test_answers_do_not_depend_on_whether_a_pass_copies_its_rows_or_reads_all(name, monkeypatch):
    model, answers, spread, real = loaded(name), [], [], prefix._spread
    asked = queries(model, np.random.default_rng(1), 6)
    draft = answer_ids(SMALL, np.full((2, 2), 7, np.uint8))
    monkeypatch.setattr(prefix, "_spread", lambda *args: spread.append(1) or real(*args))
    monkeypatch.setattr(prefix, "FEW", 10**6)
    for share in (0.0, 2.0):
        monkeypatch.setattr(prefix, "WHOLE", share)
        drafted = search(model, asked, EVERYTHING, float("inf"), expected=lambda i: draft if i % 2 else None)
        answers.append([found for _, found in sorted(drafted, key=lambda item: item[0])])
        assert bool(spread) == (share == 0)
        spread.clear()
    same(*answers)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 40), st.sampled_from(sorted(MODELS)))
def test_under_caps_too_answers_do_not_depend_on_batch_order_or_drafts(seed, branches, tokens, name):
    model = loaded(name, seed % 7)
    asked = queries(model, np.random.default_rng(seed), 4)
    free = as_dict(decode(model, asked, EVERYTHING, float("inf")))
    config = replace(EVERYTHING, max_branches=branches, max_tokens=tokens)
    capped = decode(model, asked, config, float("inf"))
    same(capped, decode(model, asked[::-1], replace(config, batch_tokens=1), float("inf"))[::-1])
    drafts = [np.array(next(iter(own))) if own else None for own in free]
    drafted = dict(search(model, asked, config, float("inf"), expected=lambda i: drafts[i]))
    same(capped, [drafted[i] for i in range(len(asked))])
    for found, every in zip(as_dict(capped), free, strict=True):
        assert found.keys() <= every.keys()


def test_greedy_takes_the_likeliest_token_and_finds_one_answer_a_view():
    model = loaded("grid")
    asked = queries(model, np.random.default_rng(0), 3)
    for query, found in zip(asked, decode(model, asked, DecodeConfig(search="greedy"), float("inf")), strict=True):
        [(ids, _)] = found
        state = SMALL.start(1)
        for depth, token in enumerate(ids):
            logprobs = np.where(SMALL.allowed(state)[0], ahead(model, query, ids[:depth])[-1], -np.inf)
            assert token == logprobs.argmax()
            state = SMALL.advance(state, np.array([token]))


@pytest.mark.parametrize("name", ["grid", "llama"])
def test_a_rambling_model_ends_at_the_caps_with_valid_partial_results(name):
    grammar = Grammar(15, 10, 13, max_side=6)
    model, counts = flat(name, grammar), Counter()
    task = a_task(np.random.default_rng(0))
    asked = [a_query(model, task, seen) for seen in draw_views(task, 4, task_rng(0, "t", "views"))]
    config = DecodeConfig(floor=1e-300, max_branches=8, max_tokens=100, batch_tokens=256)
    found = list(search(model, asked, config, float("inf"), counts=counts))
    assert all(len(answers) > 3 for _, answers in found)  # the short ones, before the tokens were spent
    assert all(answer_grid(grammar, ids).ndim == 2 for _, answers in found for ids, _ in answers)
    assert counts["search"] <= 4 * (100 + 8 + grammar.max_tokens())  # then one branch, to the longest answer at most
    naive = Counter()
    longer = replace(config, max_tokens=100_000)
    list(search(model, asked, longer, float("inf"), counts=naive))
    assert naive["search"] > 2 * counts["search"]  # without the cap on tokens the same model goes on


def test_a_ramble_does_not_outgrow_the_batchs_tokens(monkeypatch):
    grammar = Grammar(15, 10, 13, max_side=6)
    model = flat("grid", grammar)
    task = a_task(np.random.default_rng(0))
    asked = [a_query(model, task, seen) for seen in draw_views(task, 8, task_rng(0, "t", "views"))]
    most, real = [], prefix.grow

    def measured(model, prefixes, *args, **options):
        logits = real(model, prefixes, *args, **options)
        rows, _, columns, _ = prefixes.cache.kv.layers[0].keys.shape
        most.append((rows, prefixes.cache.place[0].end * rows, columns))
        return logits

    monkeypatch.setattr(prefix, "grow", measured)
    config = DecodeConfig(floor=1e-300, max_branches=30, max_tokens=1500, batch_tokens=1000)
    decode(model, asked, config, float("inf"))
    assert max(cells for rows, cells, _ in most if rows > 1) <= 2 * 1000 + 8 * 64
    assert max(columns for *_, columns in most) <= 2 * (1500 + 30 * 2 + grammar.max_tokens())
    monkeypatch.setattr(frontier, "_look_at", lambda *sizes: 10**9)  # never looked at: all views grow together
    most.clear()
    decode(model, asked, config, float("inf"))
    assert max(cells for rows, cells, _ in most if rows > 1) > 3 * 2000


def test_what_is_found_by_the_deadline_is_kept(monkeypatch):
    model = flat("grid", Grammar(15, 10, 13, max_side=20))
    task = a_task(np.random.default_rng(0))
    asked = [a_query(model, task, seen) for seen in draw_views(task, 2, task_rng(0, "t", "views"))]
    config = DecodeConfig(floor=1e-300, max_branches=64, max_tokens=10**6)
    began = time.monotonic()
    answers = decode(model, asked, config, began + 1.0)
    assert time.monotonic() - began < 4 and all(answers)  # hundreds of steps were left
    assert decode(model, asked, config, 0.0) == [[], []]


def test_a_prefix_without_room_in_the_models_context_has_no_answers_and_harms_no_other():
    model = loaded("gpt2")
    asked = queries(model, np.random.default_rng(2), 2)
    long = replace(asked[0], prefix=replace(asked[0].prefix, ids=np.zeros(512, int), positions=np.arange(512)))
    tight_ids = np.concatenate([np.zeros(512 - 4 - len(asked[0].prefix), int), asked[0].prefix.ids])
    tight = replace(asked[0], prefix=replace(asked[0].prefix, ids=tight_ids, positions=np.arange(508)))
    found = decode(model, [asked[0], long, tight, asked[1]], EVERYTHING, float("inf"))
    same([found[0], found[3]], decode(model, asked, EVERYTHING, float("inf")))
    assert found[1] == [] and all(len(ids) <= 4 for ids, _ in found[2])
    with torch.no_grad(), pytest.raises(IndexError):  # what it is kept from
        model.net(torch.zeros(1, 513, dtype=torch.long))
