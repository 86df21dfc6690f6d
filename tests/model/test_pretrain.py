"""Pretraining: the loss falls, a resumed training equals an uninterrupted one, a planted leak is refused."""

import json

import numpy as np
import pytest
import torch

from ttt_core.errors import CheckpointError, InputError
from ttt_core.model.pretrain import PretrainConfig, pretrain


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    challenges, solutions = {}, {}
    for task in range(4):
        grids = [rng.integers(0, 3, (3, 3)) for _ in range(5)]
        pairs = [{"input": g.tolist(), "output": np.rot90(g, task).tolist()} for g in grids]
        challenges[f"t{task}"] = {"train": pairs[:4], "test": [{"input": pairs[4]["input"]}]}
        solutions[f"t{task}"] = [pairs[4]["output"]]
    (folder / "arc-agi_training_challenges.json").write_text(json.dumps(challenges))
    (folder / "arc-agi_training_solutions.json").write_text(json.dumps(solutions))
    return folder


def config(steps):
    return PretrainConfig(1e9, width=32, layers=1, heads=2, batch_tokens=128, max_steps=steps, warmup_steps=2, save_every_s=0)


def losses(out):
    return [json.loads(line)["loss"] for line in (out / "train_log.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_a_model_stands(data, tmp_path):
    pretrain(data, tmp_path, config(60), hold_out=frozenset(["t1"]))
    assert np.mean(losses(tmp_path)[-5:]) < losses(tmp_path)[0] - 0.3
    assert (tmp_path / "model.safetensors").exists() and not list(tmp_path.glob("**/*.bin"))


def test_a_resumed_training_has_the_losses_of_an_uninterrupted_one(data, tmp_path, monkeypatch):
    from ttt_core.model import pretrain as module

    torch.use_deterministic_algorithms(True)
    pretrain(data, tmp_path / "whole", config(8))
    real, calls = module.train_step, []

    def killed(*args):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(data, tmp_path / "parts", config(8))
    monkeypatch.setattr(module, "train_step", real)
    pretrain(data, tmp_path / "parts", config(8))
    torch.use_deterministic_algorithms(False)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_planted_leak_is_refused_and_can_be_left_out(data, tmp_path):
    shown = json.loads((data / "arc-agi_training_challenges.json").read_text())["t2"]
    guard = tmp_path / "guard.json"
    guard.write_text(json.dumps({"other": shown}))
    with pytest.raises(InputError, match="leak: training task t2 .* --exclude t2"):
        pretrain(data, tmp_path / "out", config(1), guard=guard)
    pretrain(data, tmp_path / "out", config(1), guard=guard, exclude=frozenset(["t2"]))


def test_a_torn_checkpoint_is_named(data, tmp_path):
    pretrain(data, tmp_path, config(1))
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="remove the folder"):
        pretrain(data, tmp_path, config(2))
