"""The doctor finds what would break a run, names it with a remedy, and passes where a run works."""

import json
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ttt_core.__main__ import app
from ttt_core.errors import InputError, ModelError
from ttt_core.run import doctor, environment, suited

ROOT = Path(__file__).parents[2]


@pytest.fixture
def unasked(monkeypatch):
    """Without the process that asks torch, which is another test's."""
    monkeypatch.setattr(doctor, "_asked", lambda model: [])


def faults(checks) -> dict[str, str]:
    return {check.name: check.fault for check in checks if check.fault}


def test_a_sound_machine_passes_and_the_self_test_solves_its_task(monkeypatch):
    monkeypatch.chdir(ROOT)
    ran = CliRunner().invoke(app, ["doctor", "--json"])
    checks = json.loads(ran.stdout)
    assert ran.exit_code == 0 and checks[-1]["name"] == "self-test" and "1 of 1 task" in checks[-1]["found"]


@pytest.mark.parametrize(
    ("package", "version", "fault"),
    [
        ("torch", "2.9.1", "torch>=2.10"),
        ("transformers", "6.0.0", "<6.0"),
        ("numpy", "1.26.4", "numpy>=2.0"),
        ("safetensors", "absent", "not installed"),
    ],
)
def test_a_version_that_does_not_fit_is_named_with_the_remedy(monkeypatch, package, version, fault):
    monkeypatch.setattr(
        environment, "version", lambda name: version if name == package else "99.0" if name != "transformers" else "5.0"
    )
    assert fault in doctor._package(package).fault


def test_a_release_candidate_counts_as_its_release(monkeypatch):
    monkeypatch.setattr(
        environment, "version", lambda name: "5.1rc1" if name == "transformers" else "2.14.0.dev20261101"
    )
    assert not doctor._package("transformers").fault and not doctor._package("torch").fault


def test_a_missing_model_and_a_bad_challenge_file_fail_and_skip_the_self_test(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "c.json").write_text("[]")
    checks = doctor.examine(tmp_path / "nowhere", tmp_path / "c.json")
    assert {"model", "challenges"} <= faults(checks).keys() and checks[-1].name != "self-test"
    assert "no such directory" in faults(checks)["model"] and "FAIL" in doctor.table(checks)


def test_the_self_test_has_the_settings_that_the_model_wants(monkeypatch, unasked):
    asked = []

    def refuse(*given, config, **options):
        asked.append(config)
        raise ModelError("enough")

    monkeypatch.setattr(doctor, "run", refuse)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(suited, "json", types.SimpleNamespace(loads=lambda text: {"model_type": "llama"}))
    ran = CliRunner().invoke(app, ["doctor", "--preset", "nvarc"])
    assert ran.exit_code == 1 and "self-test: enough" in ran.stdout
    assert asked[0].model.format == "qwen-chat" and asked[0].adapt.rank == 256 and asked[0].adapt.steps == 3
    ran = CliRunner().invoke(app, ["doctor"])
    assert ran.exit_code == 1 and "is a llama and no GridLM; take its preset, such as marc" in ran.stdout
    with pytest.raises(InputError, match="preset"):
        doctor.examine(ROOT / "kaggle_dataset/model", preset="nvarcc")


def test_a_model_that_has_yet_to_come_is_not_tested_by_another_ones_settings(monkeypatch, unasked):
    asked = []
    monkeypatch.setattr(doctor.access, "examine", lambda *_: "public, to be downloaded")
    monkeypatch.setattr(doctor.access, "cached", lambda *_: None)
    monkeypatch.setattr(doctor, "run", lambda path, model, *_, config, **__: asked.append((model, config)) or refuse())

    def refuse():
        raise ModelError("enough")

    checks = doctor.examine("Qwen/Qwen3-0.6B", preset="nvarc")
    assert checks[-1].name == "self-test (bundled model)" and asked[0][0] == doctor.access.bundled()
    assert asked[0][1].model.format == "auto"


def test_what_torch_dies_of_is_shown_and_told_from_its_silence(monkeypatch):
    monkeypatch.setattr(doctor, "ASK_TORCH", "raise ImportError('libcudart.so.13: cannot open')")
    (check,) = doctor._asked("kaggle_dataset/model")
    assert "ImportError: libcudart.so.13: cannot open" in check.fault
    monkeypatch.setattr(doctor, "ASK_S", 0.1)
    monkeypatch.setattr(doctor, "ASK_TORCH", "import time; time.sleep(9)")
    (check,) = doctor._asked("kaggle_dataset/model")
    assert "says nothing within 0.1 s" in check.fault


def test_little_disk_is_named(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("usage", (), {"free": 5e8}))
    assert "make room" in doctor._disk().fault


def test_on_kaggle_the_mounted_challenges_and_a_gpu_are_wanted(tmp_path, monkeypatch, unasked):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr(
        environment, "gpus", lambda: ("", ["GPU: none found; choose GPU L4 x4 or T4 x2 as accelerator"])
    )
    checks = doctor.examine(ROOT / "kaggle_dataset/model", inputs=str(tmp_path))
    assert "attach the data" in faults(checks)["challenges"] and "choose GPU" in faults(checks)["GPU"]
    assert "rehearsal" in checks[0].found


def test_access_to_a_model_by_id_is_told_and_its_refusal_fails(monkeypatch):
    monkeypatch.setattr(doctor.access, "examine", lambda model, token: "public")
    monkeypatch.setattr(doctor.access, "cached", lambda model: None)
    check, path = doctor._access("Qwen/Qwen3-0.6B")
    assert check.name == "model access" and check.found == "Qwen/Qwen3-0.6B: public" and path is None

    def gated(model, token):
        raise ModelError(f"model {model}: is gated; ask at its page")

    monkeypatch.setattr(doctor.access, "examine", gated)
    assert "is gated" in doctor._access("meta-llama/Llama-3.2-1B")[0].fault


@pytest.mark.parametrize(("version", "told"), [("0.10.0", "PEFT's LoRA fails"), ("0.16.0", ""), ("absent", "")])
def test_the_conflict_of_torchao_with_peft_is_told_and_is_no_fault(monkeypatch, version, told):
    monkeypatch.setattr(environment, "version", lambda name: version)
    assert told in doctor._torchao().found and not doctor._torchao().fault
    assert ("PEFT" in doctor._torchao().found) == bool(told)
