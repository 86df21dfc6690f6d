"""NaN loss, infinite logits, NaN, torn and swapped adapters, in one run of the real solver; `make faults`."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ttt_core.config import preset
from ttt_core.model import adapter_files, lora
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.load import load_model
from ttt_core.run.supervise import Limits

MODEL = Path(__file__).parents[2] / "kaggle_dataset/model"
REASONS = {
    "b-loss": "",  # rolled back to the base weights, and answered with them
    "d-logits": "NonFiniteError",
    "e-nan": "NonFiniteError",
    "f-torn": "CheckpointError",
    "g-swapped": "CheckpointError",
}


def write_adapter(net, folder: Path, value: float) -> None:
    lora.inject(net, rank=2, alpha=2.0, rslora=False, seed=0)
    with torch.no_grad():
        for parameter in lora.adapter_parameters(net):
            parameter.fill_(value)
    adapter_files.save_adapter(net, folder)
    lora.remove(net)


@pytest.fixture
def adapters(tmp_path):
    """Adapters: full of NaN; cut in half; of another model."""
    base = load_model(MODEL, device="cpu", dtype="float32").net
    write_adapter(base, tmp_path / "nan", math.nan)
    write_adapter(base, tmp_path / "torn", 0.5)
    weights = tmp_path / "torn" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    write_adapter(GridLM(GridLMConfig(width=32, layers=1, heads=2, hidden=32)), tmp_path / "swapped", 0.5)
    return tmp_path


def test_each_damage_is_a_reason_and_changes_no_other_record(place, adapters, monkeypatch):
    monkeypatch.setenv("ADAPTERS", str(adapters))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = preset("grid", ["adapt.steps=4", "decode.views=2", "rescore.views=2", "second.passes=1"])
    options = {"config": config, "solver": "damaged:load", "model": MODEL, "budget_s": 40_000.0}
    options["limits"] = Limits(task_s=3000.0)  # learning rates follow the clock where the time is short
    sound = {name: place.task(i) for i, name in enumerate(("a", "c", "h"))}
    place.write(sound)
    place.run(name="whole", **options)
    place.write({**sound, **{name: place.task(1) for name in REASONS}})
    summary = place.run(**options)
    for name, reason in REASONS.items():
        assert summary.outcomes[name]["status"] == ("failed" if reason else "ok"), (name, summary.outcomes[name])
        assert reason in summary.outcomes[name]["reason"]
    expected, records = place.records("whole"), place.records()
    assert {name: records[name] for name in sound} == expected and place.answered() == {*sound, "b-loss"}


def test_naive_code_takes_the_same_damage_for_an_answer(adapters):
    logits = torch.full((3, 16), math.nan)
    assert logits.argmax(-1).shape == (3,)  # of NaN, and no complaint
    base = load_model(MODEL, device="cpu", dtype="float32").net
    base.load_state_dict(load_file(adapters / "swapped" / "adapter_model.safetensors"), strict=False)
    tensors = load_file(adapters / "nan" / "adapter_model.safetensors")
    save_file(tensors, adapters / "again.safetensors")
    assert all(tensor.isnan().all() for tensor in tensors.values())
