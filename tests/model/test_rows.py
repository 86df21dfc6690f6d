"""Packed rows: GridLM computes on them what it computes on padded batches, wherever sequences stand in the row."""

import dataclasses

import numpy as np
import pytest
import torch

from ttt_core.arc.augment import task_rng
from ttt_core.arc.encode import IGNORE
from ttt_core.arc.tasks import Pair
from ttt_core.model.batches import FILLER, make_batch, make_row
from ttt_core.model.corpus import Corpus, plan_epoch
from ttt_core.model.distributed import World
from ttt_core.model.pretrain_config import PretrainConfig
from ttt_core.model.rows import PackedGridLM
from ttt_core.model.start import make_net
from ttt_core.model.stream import row_of_step

SIZE = 1024


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    sides = rng.integers(1, 9, (60, 4))
    pairs = [
        (i % 3, Pair(*(rng.integers(0, 10, s).astype(np.uint8) for s in (s[:2], s[2:])))) for i, s in enumerate(sides)
    ]
    return Corpus(("a", "b", "c"), ((1, 2, 3), (), ()), tuple(pairs), ())


@pytest.fixture(scope="module")
def net(corpus):
    torch.manual_seed(0)
    net = make_net(corpus, PretrainConfig(1.0, width=64, layers=2, heads=2), None, None)
    for name, p in net.named_parameters():
        if "o_proj" in name or "down_proj" in name:  # zero in a fresh model
            torch.nn.init.normal_(p, std=0.1)
    return net


def loss_and_gradients(net, model, batch):
    net.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in net.parameters())]


def test_a_row_gives_the_loss_and_gradients_of_a_padded_batch(corpus, net):
    plan = plan_epoch(corpus, 0, 0, SIZE, 512, rows=1)
    indices = plan.steps[0][0]
    row = make_row(corpus, plan, indices, task_rng(0, "s"), SIZE)
    assert (
        len(row["input_ids"])
        == SIZE
        == sum(run.count * run.length for run in row["runs"])
        > plan.lengths[indices].sum()
    )
    ours = loss_and_gradients(net, PackedGridLM(net), row)
    theirs = loss_and_gradients(net, net, make_batch(corpus, plan, indices, task_rng(0, "s")))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_what_a_row_has_left_is_no_long_sequence(corpus):
    plan = plan_epoch(corpus, 0, 0, SIZE, 512, rows=1)
    [index] = plan.steps[0][0][:1]
    for size in (int(plan.lengths[index]), 3000, 65536):
        runs = make_row(corpus, plan, np.array([index]), task_rng(0, "s"), size)["runs"]
        assert sum(run.count * run.length for run in runs) == size
        assert max(run.length for run in runs) <= max(FILLER, plan.lengths[index]) and all(run.length for run in runs)


def test_rows_hold_every_pair_once_and_leave_little_empty(corpus):
    plan = plan_epoch(corpus, 0, 0, SIZE, 512, rows=2)
    assert sorted(np.concatenate(sum(plan.steps, []))) == list(range(len(corpus.pairs)))
    filled = [plan.lengths[row].sum() for step in plan.steps for row in step]
    assert max(filled) <= SIZE and np.mean(filled[:-1]) > 0.85 * SIZE
    assert {len(step) for step in plan.steps[:-1]} == {2}


def test_the_rows_of_two_processes_make_one_step_and_one_without_a_row_counts_nothing(corpus):
    plan = plan_epoch(corpus, 0, 0, SIZE, 512, rows=2)
    plan = dataclasses.replace(plan, steps=[plan.steps[0], plan.steps[0][:1]])
    for number in (0, 1):
        parts = []
        for rank in range(2):
            place = World(rank, 2, torch.device("cpu"))
            parts += row_of_step(corpus, plan, number, task_rng(0, "s"), place, SIZE)
        targets = [int((batch["labels"] != IGNORE).sum()) for batch, _ in parts]
        weights = [weight for _, weight in parts]
        if number == 0:
            assert weights == pytest.approx([2 * n / sum(targets) for n in targets])
            assert targets == [int(plan.answers[row].sum()) for row in plan.steps[0]]
        else:
            assert weights == [2.0, 0.0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_computes_compiled_what_the_cpu_computes(corpus, net):
    plan = plan_epoch(corpus, 0, 0, SIZE, 512, rows=1)
    row = make_row(corpus, plan, plan.steps[0][0], task_rng(0, "s"), SIZE)
    theirs = loss_and_gradients(net, PackedGridLM(net), row)
    try:
        net.cuda()
        row = {name: x.cuda() if torch.is_tensor(x) else x for name, x in row.items()}
        with torch.autocast("cuda", torch.bfloat16):
            ours = loss_and_gradients(net, PackedGridLM(net, compile=True), row)
    finally:
        net.cpu()
    for a, b in zip(ours, theirs, strict=True):
        assert (a.cpu() - b).norm() < 0.05 * b.norm()
