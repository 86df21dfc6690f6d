"""Adaptations on disk: resumed from, set aside when torn, never taken for another's."""

import json

import pytest
import torch

from tests.solve.test_adapt import a_task, loaded
from ttt_core.arc.augment import task_rng
from ttt_core.config import AdaptConfig
from ttt_core.model import adapter_files, lora
from ttt_core.solve import saved
from ttt_core.solve.adapt import adapted

LORA = AdaptConfig(method="lora", rank=4, steps=6, batch_tokens=200, lr=1e-2, embedding_lr=1e-3)


def state(model):
    return {name: p.detach().clone() for name, p in model.net.named_parameters()}


def train(model, folder, config=LORA, stop_at=None, seed=0):
    """The adaptation, and the parameters it left."""
    watch = (lambda step, loss: step == stop_at) if stop_at else lambda step, loss: False
    with adapted(model, a_task(), config, task_rng(seed, "a"), 1e18, watch, folder) as done:
        return done, state(model)


def folder_in(folder):
    """Where the only adaptation in `folder` is kept."""
    (own,) = folder.iterdir()
    return own


@pytest.mark.parametrize(
    ("kind", "method"), [("conv1d", "lora"), ("grid", "lora"), ("grid", "full"), ("grid", "vectors")]
)
def test_a_stopped_adaptation_goes_on_and_a_whole_one_is_not_repeated(kind, method, tmp_path):
    from dataclasses import replace

    model, config = loaded(kind), replace(LORA, method=method, embedding_lr=0.0)
    done, left = train(model, tmp_path, config, stop_at=4)
    assert done.steps == 4
    again, went_on = train(model, tmp_path, config)
    assert again.steps == 6 and len(again.losses) == 2
    once_more, same = train(model, tmp_path, config)
    assert once_more.steps == 6 and not once_more.losses
    assert all(torch.equal(went_on[name], same[name]) for name in same)
    assert any(not torch.equal(left[name], same[name]) for name in same)
    if method == "lora":
        lora.inject(model.net, rank=4, alpha=16)  # the files are a PEFT adapter directory
        loaded_layers = adapter_files.load_adapter(model.net, folder_in(tmp_path) / "last")
        assert loaded_layers == len(lora.adapter_layers(model.net))
        assert torch.equal(state(model)[lora_name(model)], same[lora_name(model)])
        lora.remove(model.net)


def test_a_trials_verdict_does_not_begin_an_adaptation_anew(tmp_path):
    from dataclasses import replace

    model, early = loaded("conv1d"), replace(LORA, early_stop=True)
    done, _ = train(model, tmp_path, replace(early, steps=4))
    again, _ = train(model, tmp_path, replace(early, steps=6))
    assert (done.steps, again.steps, len(again.losses)) == (4, 6, 2)


def test_an_adaptation_that_has_diverged_is_set_aside(tmp_path):
    from dataclasses import replace

    model = loaded("conv1d")
    with adapted(model, a_task(), LORA, task_rng(0, "a"), 1e18, lambda step, loss: step == 2, tmp_path):
        parameters = [p for p in model.net.parameters() if p.requires_grad]
        own = json.loads((folder_in(tmp_path) / "last" / "state.json").read_text())["identity"]
        with torch.no_grad():
            parameters[0].fill_(float("nan"))
        for name in ("last", "best"):
            saved.save(folder_in(tmp_path), name, model.net, parameters, saved.Saved(4, 0.1), own)
    again, left = train(model, tmp_path, replace(LORA))
    assert "has diverged; set aside as last.broken-1" in again.note and again.steps == 6 == len(again.losses)


def lora_name(model):
    return next(name for name, _ in model.net.named_parameters() if name.endswith("lora_B"))


def flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def edit(file, old, new):
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def state_of(place):
    return json.loads((place / "state.json").read_text())


DAMAGES = {
    "flipped bit": lambda place: flip(place / "adapter_model.safetensors"),
    "flipped bit beside": lambda place: flip(place / "trained.safetensors"),
    "cut": lambda place: (place / "adapter_model.safetensors").write_bytes(b"\x10"),
    "missing": lambda place: (place / "adapter_config.json").unlink(),
    "no state": lambda place: (place / "state.json").unlink(),
    "another step": lambda place: edit(place / "state.json", '"step": 6', '"step": 4'),
    "a step that is none": lambda place: edit(place / "state.json", '"step": 6', '"step": -3'),
    "no files": lambda place: (place / "state.json").write_text(json.dumps(state_of(place) | {"files": {}})),
    "nested deep": lambda place: (place / "state.json").write_text("[" * 100_000),
    "state of another kind": lambda place: (place / "state.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_adaptation_is_set_aside_and_trained_anew(damage, tmp_path):
    model = loaded("conv1d")
    _, whole = train(model, tmp_path)
    for name in ("last", "best"):
        DAMAGES[damage](folder_in(tmp_path) / name)
    done, anew = train(model, tmp_path)
    assert len(done.losses) == 6 and "set aside" in done.note
    assert {"last.broken-1", "best.broken-1", "last", "best"} == {p.name for p in folder_in(tmp_path).iterdir()}
    assert all(torch.equal(whole[name], anew[name]) for name in whole)


def test_a_damaged_last_leaves_the_best(tmp_path):
    model = loaded("conv1d")
    train(model, tmp_path, stop_at=4)
    flip(folder_in(tmp_path) / "last" / "adapter_model.safetensors")
    done, _ = train(model, tmp_path)
    assert done.steps == 6 and len(done.losses) == 2 and "last" in done.note


def test_another_seed_or_configuration_is_neither_loaded_nor_lost(tmp_path):
    from dataclasses import replace

    model = loaded("conv1d")
    train(model, tmp_path)
    for config, seed in ((LORA, 1), (replace(LORA, lr=2e-2), 0)):
        done, _ = train(model, tmp_path, config, seed=seed)
        assert len(done.losses) == 6 and "broken" not in done.note
    assert len(list(tmp_path.iterdir())) == 3
    done, _ = train(model, tmp_path)
    assert done.steps == 6 and not done.losses, "what was kept first is still there"


def test_the_best_stays_when_the_last_is_worse_and_both_are_kept_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "SAVE_S", 0.0)
    monkeypatch.setattr(saved, "RECENT", 1)
    model, told = loaded("conv1d"), []
    real = saved.keep
    monkeypatch.setattr(saved, "keep", lambda *args: [told.append(args[3]), real(*args)][1])
    train(model, tmp_path)
    own = folder_in(tmp_path)
    best, last = (json.loads((own / name / "state.json").read_text()) for name in ("best", "last"))
    lowest = min(told, key=lambda one: one.loss)
    assert len(told) > 2 and last["step"] == 6 and (best["step"], best["loss"]) == (lowest.step, lowest.loss)
    keep = [saved.Saved(step, loss) for step, loss in ((7, 9.0), (8, -1.0))]
    lora.inject(model.net, rank=4, alpha=16)
    for one, at in zip(keep, (best["step"], 8), strict=True):
        real(own, model.net, lora.adapter_parameters(model.net), one, best["identity"])
        assert json.loads((own / "last/state.json").read_text())["step"] == one.step
        assert json.loads((own / "best/state.json").read_text())["step"] == at
    lora.remove(model.net)


def test_a_full_disk_ends_no_adaptation(tmp_path, monkeypatch):
    def full(*args, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved.adapter_files, "save_adapter", full)
    done, _ = train(loaded("conv1d"), tmp_path)
    assert done.steps == 6 and "not kept" in done.note and "No space left" in done.note
    assert not list(folder_in(tmp_path).iterdir())
