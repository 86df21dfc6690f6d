"""Search: equal to enumerating every answer the grammar allows, on a tiny model."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ttt_core.arc.encode import GridFormat, answer_grid
from ttt_core.arc.grammar import Grammar
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import DecodeConfig
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve.decode import Query, decode

FORMAT = GridFormat(grammar=Grammar(vocab_size=15, row_end=10, end=13, max_side=2))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = GridLM(GridLMConfig(width=32, layers=2, heads=2, task_ids=["a"] * 8)).eval()
    with torch.no_grad():
        for layer in net.layers:
            torch.nn.init.normal_(layer.attn.o_proj.weight, std=0.3)
            torch.nn.init.normal_(layer.mlp.down_proj.weight, std=0.3)
        net.lm_head.weight *= 0.5  # flat enough that many answers lie above the floor
    values = {"net": net, "format": FORMAT, "device": torch.device("cpu"), "dtype": torch.float32}
    fields = {f.name for f in dataclasses.fields(LoadedModel)}
    return SimpleNamespace(**values) if fields - set(values) else LoadedModel(**values)


def queries(inputs):
    task = Task("t", (), tuple(Pair(np.array(grid, np.uint8)) for grid in inputs))
    return [Query(FORMAT.query(task, i), i % 8) for i in range(len(inputs))]


@torch.no_grad()
def brute_force(model, query, floor):
    """Every answer of the grammar with its log-prob, by a full pass for each prefix, no cache, no batch."""
    found, stack = {}, [((), 0.0, FORMAT.grammar.start(1), [])]
    while stack:
        tokens, total, state, places = stack.pop()
        positions = np.concatenate([query.prefix.positions, np.array(places, np.int64).reshape(-1, 3)])
        ids = torch.tensor([[*query.prefix.ids, *tokens]])
        dihedral = torch.tensor([query.dihedral])
        logits = model.net(ids, torch.from_numpy(positions)[None], dihedral, dihedral).logits[0, -1]
        logprobs = torch.log_softmax(logits.double(), -1).numpy()
        for token in np.nonzero(FORMAT.grammar.allowed(state)[0])[0]:
            score = total + logprobs[token]
            if score < np.log(floor):
                continue
            if token == FORMAT.grammar.end:
                found[(*tokens, int(token))] = score
            else:
                place = [1, int(state.rows[0]) + 1, int(state.cols[0]) + 1]
                after = FORMAT.grammar.advance(state, np.array([token]))
                stack.append(((*tokens, int(token)), score, after, [*places, place]))
    return found


def test_search_equals_brute_force_in_a_batch_of_views_of_different_length(model):
    asked = queries([[[1]], [[1, 2], [0, 3]], [[1, 2, 2, 1, 0]], [[5], [5], [1]]])
    floor = 1e-5
    answers = decode(model, asked, DecodeConfig(floor=floor, max_branches=100_000), float("inf"))
    for query, found in zip(asked, answers, strict=True):
        expected = brute_force(model, query, floor)
        assert len(expected) > 5
        assert {tuple(map(int, ids)) for ids, _ in found} == set(expected)
        for ids, logprob in found:
            assert logprob == pytest.approx(expected[tuple(map(int, ids))], abs=1e-4)


def test_every_answer_is_a_rectangular_grid(model):
    for found in decode(model, queries([[[1]], [[4, 4]]]), DecodeConfig(floor=1e-5, max_branches=500), float("inf")):
        for ids, _ in found:
            grid = answer_grid(FORMAT.grammar, ids)
            assert grid.ndim == 2 and 1 <= grid.shape[0] <= 2 and 1 <= grid.shape[1] <= 2


def test_greedy_finds_one_answer_a_view(model):
    assert [len(a) for a in decode(model, queries([[[1]], [[2]]]), DecodeConfig(search="greedy"), float("inf"))] == [
        1,
        1,
    ]


def test_a_deadline_in_the_past_finds_nothing(model):
    assert decode(model, queries([[[1]]]), DecodeConfig(), 0.0) == [[]]
