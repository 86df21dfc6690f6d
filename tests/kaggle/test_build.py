"""What build_submission.py stages, and that breaking any one thing in it is noticed under its name."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import build_submission as bundle
from ttt_core.errors import InputError
from ttt_core.run import environment

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "notebooks/kaggle.yaml"


def staged(out: Path, owner: str = "someone") -> Path:
    bundle.stage_dataset(out / "dataset", owner)
    bundle.stage_kernel(out / "kernel", owner, PROFILE)
    return out


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return staged(tmp_path_factory.mktemp("built"))


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_fresh_build_passes_its_check(tmp_path):
    ran = subprocess.run(
        [sys.executable, ROOT / "build_submission.py", "--check", "--out", tmp_path], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def test_two_builds_are_byte_identical(built, tmp_path):
    assert contents(staged(tmp_path)) == contents(built)


def test_the_dataset_holds_library_model_and_manifest_and_no_strays(built):
    names = set(contents(built / "dataset"))
    assert {"ttt_core/arc/tasks.py", "model/model.safetensors", "model/MODEL_CARD.md", "MANIFEST.json"} <= names
    assert not [name for name in names if "__pycache__" in name or "/." in name]
    listed = json.loads((built / "dataset/MANIFEST.json").read_text())
    assert set(listed) == names - {"MANIFEST.json", "dataset-metadata.json"}


def test_the_notebook_has_the_profile_baked_in(built):
    notebook = nbformat.read(built / "kernel/submission.ipynb", as_version=4)
    injected = next(c.source for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", []))
    values: dict = {}
    exec(injected, values)
    assert values["run_dir"] == "/kaggle/working" and values["challenges"] == "" and values["need_gpu"] is True


def test_a_parameter_that_the_notebook_does_not_declare_is_an_error(tmp_path):
    with pytest.raises(InputError, match="budget_seconds.*budget_s"):
        bundle.bake(ROOT / "notebooks/submission.py", {"budget_seconds": 1})


def test_options_reach_the_kernel_metadata(tmp_path):
    options = {
        "slug": "my-try",
        "competition": "c-2",
        "model": "a/b/transformers/c/1",
        "machine_shape": "NvidiaTeslaT4",
    }
    bundle.stage_kernel(tmp_path / "kernel", "me", PROFILE, **options)
    metadata = json.loads((tmp_path / "kernel/kernel-metadata.json").read_text())
    assert metadata["id"] == "me/my-try" and metadata["title"] == "my try"
    assert metadata["competition_sources"] == ["c-2"] and metadata["model_sources"] == ["a/b/transformers/c/1"]
    assert metadata["machine_shape"] == "NvidiaTeslaT4" and metadata["dataset_sources"] == ["me/arc-ttt-core"]
    assert bundle.kernel_faults(metadata, tmp_path / "kernel") == []


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("kernel", "title", "ARC"),
        ("kernel", "title", "x" * 51),
        ("kernel", "id", "someone/another-slug"),
        ("kernel", "enable_internet", True),
        ("kernel", "enable_internet", "false"),
        ("kernel", "enable_gpu", False),
        ("kernel", "machine_shape", "NvidiaTeslaP100"),
        ("kernel", "language", "r"),
        ("kernel", "kernel_type", "script"),
        ("kernel", "code_file", "other.ipynb"),
        ("kernel", "competition_sources", []),
        ("kernel", "dataset_sources", ["no-owner"]),
        ("kernel", "model_sources", ["a/b/transformers"]),
        ("dataset", "title", "ARC"),
        ("dataset", "id", "someone/x"),
        ("dataset", "licenses", []),
        ("dataset", "licenses", [{"name": "a"}, {"name": "b"}]),
    ],
)
def test_breaking_one_field_names_it(copy, file, field, value):
    path = copy / file / f"{file}-metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert any(field in fault.split(":")[0] for fault in bundle.find_faults(copy))


def test_changed_missing_secret_and_pickled_files_are_named(copy):
    (copy / "dataset/ttt_core/errors.py").write_text("TOKEN = 'hf_" + "a1B2" * 6 + "'")
    (copy / "dataset/model/config.json").unlink()
    (copy / "dataset/model/pytorch_model.bin").write_bytes(b"")
    faults = "\n".join(bundle.find_faults(copy))
    assert "errors.py: changed" in faults and "config.json: missing" in faults
    assert "errors.py: holds a secret" in faults and "pytorch_model.bin: may be a pickle" in faults


def test_a_notebook_that_cannot_find_its_data_fails_the_rehearsal(copy):
    path = copy / "kernel/submission.ipynb"
    path.write_text(path.read_text().replace("arc-agi_test_challenges.json", "elsewhere.json"))
    assert any("code_file: fails in the flat layout" in fault for fault in bundle.find_faults(copy))


def test_a_mounted_model_is_preferred_to_the_bundled_one_and_two_are_an_error(built, tmp_path):
    root = bundle.fake_kaggle(tmp_path, built / "dataset", "nested")
    library = root / "input/datasets/owner/arc-ttt-core"
    assert environment.find_model(root / "input", library) == (library / "model").resolve()
    mounted = root / "input/models/owner/qwen/transformers/small/1"
    shutil.copytree(built / "dataset/model", mounted)
    assert environment.find_model(root / "input", library) == mounted.resolve()
    shutil.copytree(mounted, mounted.with_name("2"))
    with pytest.raises(InputError, match="attach only one"):
        environment.find_model(root / "input", library)


@pytest.mark.parametrize(("printed", "faults"), [("NVIDIA L4, 8.9", 0), ("Tesla P100-PCIE-16GB, 6.0", 1), ("", 1)])
def test_gpu_faults_name_an_old_or_missing_gpu(tmp_path, printed, faults):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{printed}'\n")
    program.chmod(0o755)
    assert len(environment.gpu_faults(str(program))) == faults


def test_platforms_are_told_apart_by_their_own_variables():
    assert environment.platform_name({}) == "local"
    assert environment.platform_name({"COLAB_RELEASE_TAG": "x"}) == "colab"
    assert environment.is_rehearsal(bundle.kaggle_environ(rerun=False))
    assert not environment.is_rehearsal(bundle.kaggle_environ(rerun=True)) and not environment.is_rehearsal({})
