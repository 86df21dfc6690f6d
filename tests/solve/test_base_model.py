"""Test-time training of the shipped base model on real tasks: a demonstration it did not see becomes more likely."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ttt_core.arc.augment import task_rng
from ttt_core.arc.editions import write_edition
from ttt_core.arc.tasks import Task, read_challenges, select_tasks
from ttt_core.config import preset
from ttt_core.model.load import load_model
from ttt_core.solve.adapt import adapted
from ttt_core.solve.feed import batch_of, target_logits

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model():
    return load_model(ROOT / "kaggle_dataset/model", device="cpu")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_edition("arc-agi-1", folder)
    smallest = select_tasks(read_challenges(folder / "arc-agi_evaluation_challenges.json"), "3")
    return [Task(task.id, task.train[:-1], task.train[-1:]) for task in smallest]


def held_out_nll(model, task, steps, rate=1.0):
    """Nats per token of the demonstration left out, after adaptation to the others at `rate` times the preset's rates."""
    config = preset("grid", [f"adapt.steps={steps}"]).adapt
    config = dataclasses.replace(config, lr=rate * config.lr, vector_lr=rate * config.vector_lr)
    with adapted(model, task, config, task_rng(0, "a"), float("inf")), torch.no_grad():
        batch = batch_of(model, [model.format.pair(task.test[0])], [0])
        return float(F.cross_entropy(*target_logits(model, batch)))


def test_adaptation_lowers_the_nll_of_held_out_demonstrations_and_a_rate_of_zero_does_not(model, tasks):
    before, after, twin = (np.mean([held_out_nll(model, t, *how) for t in tasks]) for how in ((0,), (15,), (1, 0.0)))
    assert after < before - 0.1
    assert not twin < before - 0.1


def test_the_shipped_model_knows_what_it_was_trained_on(model, tmp_path):
    """Positions, vectors and weights belong together: under each task's own vector its demonstrations are no surprise."""
    write_edition("arc-agi-1", tmp_path)
    known = select_tasks(read_challenges(tmp_path / "arc-agi_training_challenges.json"), "3")
    nats = [held_out_nll(model, Task(task.id, task.train, task.train[:1]), 0) for task in known]
    assert max(nats) < 0.1, nats
