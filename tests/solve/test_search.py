"""Drafting, batching and shared prefixes change the work of search and scoring, never what comes out."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ttt_core.arc.augment import Augmentation, apply, draw_views, task_rng, view
from ttt_core.arc.encode import DIGITS, GridFormat, answer_grid, answer_ids
from ttt_core.arc.grammar import Grammar
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import AdaptConfig, Config, DecodeConfig, RescoreConfig
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve import trie
from ttt_core.solve.decode import decode, search
from ttt_core.solve.prefix import Query
from ttt_core.solve.rescore import rescore
from ttt_core.solve.task import solve_task

SMALL = Grammar(vocab_size=15, row_end=10, end=13, max_side=2)
SIZES = {"vocab_size": 15, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}


def grid_model(format):
    return GridLM(GridLMConfig(width=32, layers=2, heads=2, hidden=48, task_ids=["a"] * 8))


def gpt2_model(format):
    return GPT2LMHeadModel(GPT2Config(vocab_size=15, n_positions=512, n_embd=32, n_layer=2, n_head=2))


def llama_model(format):
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_attention_heads=2, num_key_value_heads=1))


def eager_model(format):
    return LlamaForCausalLM._from_config(LlamaConfig(**SIZES, num_attention_heads=2), attn_implementation="eager")


MODELS = {
    "grid": (grid_model, GridFormat(grammar=SMALL)),
    "gpt2": (gpt2_model, replace(DIGITS, grammar=SMALL)),
    "llama": (llama_model, replace(DIGITS, grammar=SMALL)),
    "eager": (eager_model, replace(DIGITS, grammar=SMALL)),
}


def loaded(name: str, seed: int = 0) -> LoadedModel:
    """A random model whose answers are neither certain nor flat."""
    torch.manual_seed(seed)
    build, format = MODELS[name]
    net = build(format).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.25)
    cpu = torch.device("cpu")
    return LoadedModel(net, format, cpu, torch.float32, adapter_dtype=torch.float32, path=None, sha256="")


def a_task(rng) -> Task:
    def grid():
        return rng.integers(0, 10, rng.integers(1, 3, size=2)).astype(np.uint8)

    return Task("t", tuple(Pair(grid(), grid()) for _ in range(2)), (Pair(grid(), None), Pair(grid(), None)))


def a_query(model, task, augmentation, index=0):
    return Query(model.format.query(view(augmentation, task), index), augmentation.dihedral)


def as_dict(answers):
    return [{tuple(map(int, ids)): logprob for ids, logprob in found} for found in answers]


def same(left, right, tolerance=1e-4):
    for a, b in zip(as_dict(left), as_dict(right), strict=True):
        assert set(a) == set(b)
        assert all(abs(a[key] - b[key]) < tolerance for key in a)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(MODELS)), st.integers(0, 6))
def test_drafts_right_and_wrong_leave_answers_and_logprobs_as_they_are(seed, name, n_drafts):
    model, rng = loaded(name, seed % 7), np.random.default_rng(seed)
    task, views = a_task(rng), draw_views(a_task(rng), 5, rng)
    queries = [a_query(model, task, augmentation) for augmentation in views]
    config = DecodeConfig(floor=1e-4, max_branches=10_000)
    plain = decode(model, queries, config, float("inf"))

    def drafts(i):  # some found by the view itself, some at random
        own = [ids for ids, _ in plain[i][: n_drafts // 2]]
        return own + [
            answer_ids(SMALL, rng.integers(0, 10, (2, 1 + k % 2)).astype(np.uint8)) for k in range(n_drafts // 2)
        ]

    drafted = [[] for _ in queries]
    for i, found in search(model, queries, config, float("inf"), drafts=lambda i: drafts(i) if i != 1 else []):
        drafted[i] = found
    assert sum(map(len, plain)) > 0
    same(plain, drafted)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_answers_do_not_depend_on_batch_size_or_order(name):
    model, rng = loaded(name), np.random.default_rng(1)
    task = a_task(rng)
    queries = [a_query(model, task, augmentation, i % 2) for i, augmentation in enumerate(draw_views(task, 6, rng))]
    config = DecodeConfig(floor=1e-4, max_branches=10_000)
    whole = decode(model, queries, config, float("inf"))
    assert sum(map(len, whole)) > 0
    same(whole, decode(model, queries, DecodeConfig(floor=1e-4, max_branches=10_000, batch_tokens=1), float("inf")))
    same(whole, decode(model, queries[::-1], config, float("inf"))[::-1])


def one_by_one(model, query, answer):
    """Log-prob of an answer by a plain pass over prefix and answer, no cache, no batch."""
    ids, positions = list(query.prefix.ids), list(query.prefix.positions)
    state = model.format.grammar.start(1)
    for step, token in enumerate(answer):
        positions.append(model.format.positions(np.array([len(query.prefix)]), step, state.rows, state.cols)[0])
        ids.append(token)
        state = model.format.grammar.advance(state, np.array([token]))
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": torch.from_numpy(np.array(positions))[None]}
    if model.format.name == "grid":
        inputs["task_ids"] = inputs["dihedral_ids"] = torch.tensor([query.dihedral])
    with torch.no_grad():
        logprobs = torch.log_softmax(model.net(**inputs).logits.double()[0], -1).numpy()
    return sum(logprobs[len(query.prefix) - 1 + t, token] for t, token in enumerate(answer))


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
    base = DecodeConfig(floor=1e-4, max_branches=10_000)
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
    assert counts == {"prefill": len(query.prefix), "score": 5, "score_unshared": 2 * (len(query.prefix) + 4)}


def test_a_trie_holds_each_beginning_once_and_knows_its_ancestors():
    answers = [answer_ids(SMALL, np.array(g, np.uint8)) for g in ([[1, 2]], [[1, 3]], [[1, 2], [0, 0]])]
    tree = trie.build(answers, SMALL)
    assert len(tree) == 3 + 2 + 3 and [len(path) for path in tree.paths] == [3, 3, 6]
    for answer, path in zip(answers, tree.paths, strict=True):
        assert tree.tokens[list(path)].tolist() == answer[:-1].tolist()
        assert np.flatnonzero(tree.ancestry()[path[-1]]).tolist() == sorted(path) and tree.path(path[-1]) == list(path)


@pytest.mark.parametrize("name", ["grid", "llama"])
def test_a_rambling_model_ends_at_the_cap_with_valid_partial_results(name):
    model = loaded(name)
    with torch.no_grad():  # a flat distribution: nothing is ever certain
        for parameter in model.net.get_output_embeddings().parameters():
            parameter.zero_()
    task = a_task(np.random.default_rng(0))
    queries = [a_query(model, task, v) for v in draw_views(task, 4, task_rng(0, "t", "views"))]
    counts = Counter()
    config = DecodeConfig(floor=1e-12, max_branches=8)
    for _, found in search(model, queries, config, float("inf"), counts=counts):
        assert all(answer_grid(SMALL, ids).ndim == 2 for ids, _ in found)
    assert counts["search"] <= 4 * 8 * SMALL.max_tokens()
