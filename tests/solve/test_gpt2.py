"""Test-time training of a causal LM with Conv1D layers: a small GPT-2, trained here on synthetic tasks."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from ttt_core.arc.augment import task_rng
from ttt_core.arc.encode import format_named
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import preset
from ttt_core.model.load import load_model
from ttt_core.solve.adapt import adapted
from ttt_core.solve.feed import batch_of, target_logits
from ttt_core.solve.task import solve_task

DIGITS = format_named("digits")


def recolouring(rng, n=4):
    """A task that swaps colours by one random permutation of 0..9: seen in no training task alike."""
    colors = rng.permutation(10).astype(np.uint8)
    grids = [rng.integers(0, 10, (2, 2)).astype(np.uint8) for _ in range(n)]
    pairs = tuple(Pair(g, colors[g]) for g in grids)
    return Task("t", pairs[:-1], pairs[-1:])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("gpt2"), np.random.default_rng(0)
    torch.manual_seed(0)
    net = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=DIGITS.vocab_size,
            n_positions=256,
            n_embd=64,
            n_layer=2,
            n_head=2,
            bos_token_id=14,
            eos_token_id=14,
        )
    )
    net.save_pretrained(folder)
    model = load_model(folder, device="cpu", dtype="float32")
    model.net.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.net.parameters(), lr=3e-3)
    for _ in range(80):
        rows = [row for _ in range(8) for row in DIGITS.training(recolouring(rng), "all_outputs")]
        F.cross_entropy(*target_logits(model, batch_of(model, rows, [0] * len(rows)))).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.net.requires_grad_(False).save_pretrained(folder)
    return load_model(folder, device="cpu", dtype="float32")


def held_out_nll(model, task, lr):
    """NLL per token of a demonstration that adaptation did not see, given the others."""
    shown = Task(task.id, task.train[:-1], task.train[-1:])
    options = [f"adapt.lr={lr}", "adapt.method=lora", "adapt.optimizer=adamw", "adapt.steps=40", "adapt.rank=8"]
    with adapted(model, shown, preset("grid", options).adapt, task_rng(0, "a"), float("inf")), torch.no_grad():
        row = DIGITS.training(task, "leave_one_out")[-1]
        return float(F.cross_entropy(*target_logits(model, batch_of(model, [row], [0]))))


def test_adaptation_lowers_the_nll_of_held_out_demonstrations_and_a_rate_of_zero_does_not(model):
    rng = np.random.default_rng(1)
    tasks = [recolouring(rng, n=7) for _ in range(3)]
    before, after, twin = (np.mean([held_out_nll(model, task, lr) for task in tasks]) for lr in (0.0, 3e-3, 0.0))
    assert after < before - 0.05
    assert not twin < before - 0.05


def test_a_causal_lm_solves_a_task_from_end_to_end(model):
    options = ["adapt.method=lora", "adapt.optimizer=adamw", "adapt.steps=4", "decode.views=4", "decode.floor=0.5"]
    result = solve_task(model, recolouring(np.random.default_rng(2)), preset("grid", options), seed=0)
    assert result.status == "ok" and len(result.candidates[0]) > 0
    assert all(np.isfinite(c.logprobs).all() for c in result.candidates[0])


def test_lora_trains_embeddings_and_head_where_asked_and_gives_the_base_back(model):
    weight = model.net.get_input_embeddings().weight
    before, task = weight.detach().clone(), recolouring(np.random.default_rng(3))
    for rate, moves in ((0.0, False), (1e-3, True)):
        options = ["adapt.method=lora", "adapt.optimizer=adamw", "adapt.steps=2", f"adapt.embedding_lr={rate}"]
        with adapted(model, task, preset("grid", options).adapt, task_rng(0, "a"), float("inf")):
            assert torch.equal(model.net.get_output_embeddings().weight, before) is not moves
        assert torch.equal(weight, before) and not weight.requires_grad
