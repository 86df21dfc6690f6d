"""What build_submission.py stages, and that breaking any one thing in it is noticed under its name."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

import build_submission as bundle
from ttt_core.errors import InputError
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.run import environment, kaggle_checks

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "notebooks/kaggle.yaml"


def staged(out: Path, owner: str = "someone") -> Path:
    bundle.stage_dataset(out / "dataset", owner)
    bundle.stage_kernel(out / "kernel", owner, PROFILE, build=environment.fingerprint(out / "dataset/MANIFEST.json"))
    return out


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return staged(tmp_path_factory.mktemp("built"))


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def build(out: Path, *arguments):
    """What the command tells (`output`) and its `exit_code`, with what it stages in `out`."""
    return CliRunner().invoke(bundle.app, ["--out", str(out), *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_fresh_build_passes_its_check(tmp_path):
    command = [sys.executable, ROOT / "build_submission.py", "--check", "--out", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_two_builds_are_byte_identical(built, tmp_path):
    assert contents(staged(tmp_path)) == contents(built)


def test_the_dataset_holds_library_model_and_manifest_and_no_strays(built):
    names = set(contents(built / "dataset"))
    assert {
        "ttt_core/arc/tasks.py",
        "model/model-00001-of-00002.safetensors",
        "model/MODEL_CARD.md",
        "MANIFEST.json",
    } <= names
    assert not [name for name in names if "__pycache__" in name or "/." in name]
    listed = json.loads((built / "dataset/MANIFEST.json").read_text())
    assert set(listed) == names - {"MANIFEST.json", "dataset-metadata.json"}


def injected(out: Path) -> dict:
    """The parameters baked into the notebook staged in `out`."""
    notebook = nbformat.read(out / "kernel/submission.ipynb", as_version=4)
    values: dict = {}
    exec(next(c.source for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])), values)
    return values


def test_the_notebook_has_the_profile_baked_in(built):
    values = injected(built)
    assert values["build"] == environment.fingerprint(built / "dataset/MANIFEST.json") and not values["need_model"]
    assert values["run_dir"] == "/kaggle/working" and values["challenges"] == "" and values["need_gpu"] is True


def test_a_model_folder_is_shipped_in_place_of_the_base_and_another_kind_wants_its_preset(tmp_path):
    model, profile = tmp_path / "mine", tmp_path / "profile.yaml"
    (model / "checkpoint").mkdir(parents=True)
    (model / "checkpoint/progress.json").touch()
    profile.write_text(PROFILE.read_text())
    sizes = {"vocab_size": 15, "n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 2}
    for net, preset, fault in (
        (None, "", "no config.json"),
        (GridLM(GridLMConfig(width=32, layers=1, heads=2)), "", ""),
        (GPT2LMHeadModel(GPT2Config(**sizes)), "", "is a gpt2 and no GridLM; take its preset, such as marc, in "),
        (GPT2LMHeadModel(GPT2Config(**sizes)), "preset: marc\n", ""),
    ):
        if net:
            net.save_pretrained(model)
        profile.write_text(PROFILE.read_text() + preset)
        ran = build(tmp_path / "out", "--model", model, "--profile", profile)
        assert ran.exit_code == bool(fault) and fault in ran.output, ran.output
    assert {file.name for file in (tmp_path / "out/dataset/model").iterdir()} >= {"config.json", "model.safetensors"}
    assert not (tmp_path / "out/dataset/model/checkpoint").exists()
    assert json.loads((tmp_path / "out/kernel/kernel-metadata.json").read_text())["model_sources"] == []


def test_a_model_on_kaggle_is_not_judged_by_the_bundled_one_and_must_be_mounted(tmp_path):
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE.read_text() + "preset: nvarc\n")
    ran = build(tmp_path, "--model", "a/b/transformers/c/1", "--profile", profile)
    assert ran.exit_code == 0, ran.output
    assert json.loads((tmp_path / "kernel/kernel-metadata.json").read_text())["model_sources"] == [
        "a/b/transformers/c/1"
    ]
    assert injected(tmp_path)["need_model"] is True
    ran = build(tmp_path, "--profile", profile)
    assert ran.exit_code == 1 and "is for text models" in ran.output
    profile.write_text(profile.read_text().replace('model: ""', "model: /kaggle/input/my-qwen"))
    assert build(tmp_path, "--profile", profile).exit_code == 0


def test_what_the_system_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    ran = build(tmp_path / "file")
    assert ran.exit_code == 1 and ran.output.startswith("error: ") and len(ran.output.splitlines()) == 1


def test_options_reach_the_kernel_metadata(tmp_path):
    options = {
        "slug": "my-try",
        "competition": "c-2",
        "model": "qwen-lm/qwen2.5/tensorflow-2/0.5b-instruct/1",
        "machine_shape": "NvidiaTeslaT4",
    }
    bundle.stage_kernel(tmp_path / "kernel", "me", PROFILE, **options)
    metadata = json.loads((tmp_path / "kernel/kernel-metadata.json").read_text())
    assert metadata["id"] == "me/my-try" and metadata["title"] == "my try"
    assert metadata["competition_sources"] == ["c-2"] and metadata["model_sources"] == [options["model"]]
    assert metadata["machine_shape"] == "NvidiaTeslaT4" and metadata["dataset_sources"] == ["me/arc-ttt-core"]
    assert kaggle_checks.kernel_faults(metadata, tmp_path / "kernel") == []


@pytest.mark.parametrize(
    ("pattern", "instead", "fault"),
    [
        ('"title":', "title:", r"kernel-metadata.json: cannot be read \(.*line 3 .*\); mend it"),
        ("(?s)^.+", "[]", "kernel-metadata.json: holds list; write an object"),
        ('"dataset_sources": .*', "", "dataset_sources None: give a list"),
        ('"dataset_sources": .*', '"dataset_sources": 3,', "dataset_sources 3: give a list"),
        (r',\s*"model_sources": .*', "", "model_sources None: give a list"),
        ('"code_file": .*', "", "code_file None: give a bare file name, such as submission.ipynb"),
        ("submission.ipynb", "notebooks/x.ipynb", "code_file 'notebooks/x.ipynb': give a bare file name"),
    ],
)
def test_a_mistake_in_kernel_metadata_json_is_told_with_its_remedy(tmp_path, monkeypatch, pattern, instead, fault):
    for name in ("ttt_core", "notebooks", "kaggle_dataset"):
        (tmp_path / name).symlink_to(ROOT / name)
    metadata = (ROOT / "kernel-metadata.json").read_text()
    (tmp_path / "kernel-metadata.json").write_text(re.sub(pattern, instead, metadata))
    monkeypatch.setattr(bundle, "ROOT", tmp_path)
    ran = build(tmp_path / "out", "--check")
    assert ran.exit_code == 1 and re.search(fault, ran.output), ran.output or ran.exception


BROKEN = {  # values with which Kaggle refuses the field, or a run fails; every field is also taken away
    "kernel": {
        "id": ["someone/another-slug", "no-owner", 7],
        "title": ["ARC", "x" * 51, None],
        "code_file": ["other.ipynb", None],
        "language": ["r"],
        "kernel_type": ["script"],
        "is_private": ["yes"],
        "enable_gpu": [False, "true"],
        "enable_tpu": [True],
        "enable_internet": [True, "false"],
        "machine_shape": ["NvidiaTeslaP100", None],
        "dataset_sources": [[], ["no-owner"], ["someone/another"], "someone/arc-ttt-core"],
        "competition_sources": [[], ["owner/competition"], None],
        "kernel_sources": [["no-owner"], [3]],
        "model_sources": [["a/b/transformers"], ["a/b/transformers/c/latest"]],
    },
    "dataset": {
        "id": ["someone/x", "someone/" + "x" * 51, "arc-ttt-core"],
        "title": ["ARC", "x" * 51],
        "licenses": [[], [{"name": "a"}, {"name": "b"}], [{}], "apache-2.0"],
    },
}


def named(folder: Path, file: str, change) -> str:
    """The fields named by the faults once `change` has been made to the metadata of `file`."""
    path = folder / file / f"{file}-metadata.json"
    content = json.loads(before := path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    faults = kaggle_checks.find_faults(folder)
    path.write_text(before)
    return "\n".join(
        fault.split(" ")[1] if fault.startswith("dataset ") else fault.split(" ")[0].rstrip(":") for fault in faults
    )


@pytest.mark.parametrize("file", BROKEN)
def test_breaking_or_dropping_any_one_field_names_it(copy, file):
    fields = json.loads((copy / file / f"{file}-metadata.json").read_text())
    assert set(fields) == set(BROKEN[file])
    for field, values in BROKEN[file].items():
        assert field in named(copy, file, lambda content: content.pop(field)).split(), f"dropped {field}"
        for value in values:
            assert field in named(copy, file, lambda content: content.update({field: value})).split(), (field, value)


def test_torn_metadata_and_a_large_notebook_are_named(copy):
    (copy / "kernel/kernel-metadata.json").write_text("{")
    assert any(fault.startswith("title None") for fault in kaggle_checks.find_faults(copy))
    notebook = copy / "kernel/submission.ipynb"
    notebook.write_bytes(notebook.read_bytes() + b" " * 1_100_000)
    assert any(
        "Kaggle takes 1" in f for f in kaggle_checks.kernel_faults({"code_file": notebook.name}, copy / "kernel")
    )


def test_changed_missing_secret_and_pickled_files_are_named(copy):
    (copy / "dataset/ttt_core/errors.py").write_text("TOKEN = 'hf_" + "a1B2" * 6 + "'")
    (copy / "dataset/ttt_core/config.py").write_text("KEY = 'KGAT_" + "0a" * 16 + "'")
    (copy / "dataset/model/config.json").unlink()
    (copy / "dataset/model/pytorch_model.bin").write_bytes(b"")
    faults = "\n".join(kaggle_checks.find_faults(copy))
    assert "errors.py: changed" in faults and "config.json: missing" in faults
    assert "errors.py: holds a secret" in faults and "config.py: holds a secret" in faults
    assert "pytorch_model.bin: may be a pickle" in faults


def test_a_notebook_with_outputs_or_without_a_fallback_is_named(copy):
    path = copy / "kernel/submission.ipynb"
    plain = path.read_text()
    notebook = nbformat.reads(plain, as_version=4)
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs = [nbformat.v4.new_output("stream", text="x")]
    nbformat.write(notebook, path)
    assert any("holds outputs" in fault for fault in kaggle_checks.find_faults(copy))
    path.write_text(plain.replace("write_fallback(", "write_nothing("))
    assert any("no cell calls write_fallback" in fault for fault in kaggle_checks.find_faults(copy))


def test_a_notebook_that_cannot_find_its_data_fails_the_rehearsal(copy):
    path = copy / "kernel/submission.ipynb"
    path.write_text(path.read_text().replace("arc-agi_test_challenges.json", "elsewhere.json"))
    faults = kaggle_checks.find_faults(copy)
    assert any("flat layout, commit run" in fault and "left no valid submission.json" in fault for fault in faults)


@pytest.mark.parametrize(
    ("baked", "instead", "fault"),
    [
        ("need_gpu = True", "need_gpu = False", "flat layout, commit run, GPU none: goes on; set need_gpu: true"),
        (
            "budget_s = 41400.0",
            "tasks = '5'",
            "scored rerun, GPU 0, NVIDIA L4, 8.9: solves not all tasks but '5'; leave `tasks`",
        ),
        ("budget_s = 41400.0", "rehearsal_tasks = ''", "commit run, GPU 0, NVIDIA L4, 8.9: solves all tasks"),
        (
            "assert not faults",
            "assert rehearsal and False",
            "commit run, GPU 0, NVIDIA L4, 8.9: stops (AssertionError: []); mend",
        ),
    ],
)
def test_a_notebook_that_takes_commit_run_and_rerun_for_each_other_is_named(copy, baked, instead, fault):
    path = copy / "kernel/submission.ipynb"
    assert baked in (text := path.read_text())
    path.write_text(text.replace(baked, instead))
    assert any(fault in told for told in kaggle_checks.find_faults(copy))


def test_a_mounted_model_is_preferred_to_the_bundled_one_and_two_are_an_error(built, tmp_path):
    root = kaggle_checks.fake_kaggle(tmp_path, built / "dataset", "nested", {})
    library = root / "input/datasets/owner/arc-ttt-core"
    assert environment.find_model(root / "input", library) == (library / "model").resolve()
    mounted = root / "input/models/owner/qwen/transformers/small/1"
    shutil.copytree(built / "dataset/model", mounted)
    assert environment.find_model(root / "input", library) == mounted.resolve()
    shutil.copytree(mounted, mounted.with_name("2"))
    with pytest.raises(InputError, match="attach only one"):
        environment.find_model(root / "input", library)


def model_below(folder: Path, weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", weights):
        (folder / name).touch()
    return folder.resolve()


def test_a_mounted_model_in_a_folder_of_its_own_is_found_and_another_bundles_is_not(tmp_path):
    library = tmp_path / "datasets/owner/arc-ttt-core"
    ours, _ = (model_below(tmp_path / f"datasets/owner/{name}/model") for name in ("arc-ttt-core", "older-bundle"))
    for name in ("arc-ttt-core", "older-bundle"):
        (tmp_path / f"datasets/owner/{name}/ttt_core").mkdir()
    assert environment.find_model(tmp_path, library) == ours
    with pytest.raises(InputError, match="one was to be attached"):
        environment.find_model(tmp_path, library, need=True)
    deep = model_below(tmp_path / "models/owner/qwen/transformers/4b/1/qwen3_4b")
    assert environment.find_model(tmp_path, library, need=True) == deep


def test_a_mounted_model_without_safetensors_is_no_bundled_one(tmp_path):
    model_below(tmp_path / "models/owner/gpt/transformers/small/1", weights="pytorch_model.bin")
    with pytest.raises(InputError, match=r"small/1: has config.json and no \*.safetensors"):
        environment.find_model(tmp_path, None)


def test_without_mounts_and_library_the_model_is_the_bundled_one(tmp_path):
    assert environment.find_model(tmp_path / "nowhere", None) == ROOT / "kaggle_dataset/model"
    with pytest.raises(InputError, match="none is beside the library"):
        environment.find_model(tmp_path, tmp_path)


def test_a_dataset_of_another_build_than_the_notebook_is_a_fault(copy):
    values, dataset = injected(copy), copy / "dataset"
    assert environment.manifest_faults(dataset, values["build"]) == []
    (dataset / "MANIFEST.json").write_text("{}")
    assert "another build than this notebook; push both" in environment.manifest_faults(dataset, values["build"])[0]
    faults = "\n".join(kaggle_checks.find_faults(copy))
    assert "another build" in faults and "need_gpu" not in faults


def make_wheel(folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", needs: str = ""):
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "brought = True\n")
        needed = f"Requires-Dist: {needs}\n" if needs else ""
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_wheels_are_the_newest_that_the_image_takes_and_without_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    make_wheel(tmp_path / "index", "with_code")
    make_wheel(tmp_path / "index", "with_code", "2.0", "cp312-cp312-manylinux_2_24_x86_64", needs="torch")
    make_wheel(tmp_path / "index", "with_code", "3.0", "cp312-cp312-manylinux_2_38_x86_64")
    bundle.collect_wheels(tmp_path / "wheels", ["with_code"])
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    assert wheel.name.startswith("with_code-2.0")


def test_wheels_are_collected_and_installed_without_an_index(tmp_path, monkeypatch):
    make_wheel(tmp_path / "index", "brought_along")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    bundle.stage_dataset(tmp_path / "dataset", "someone", ["brought_along"])
    listed = json.loads((tmp_path / "dataset/MANIFEST.json").read_text())
    assert {"wheels/brought_along-1.0-py3-none-any.whl", "wheels/wanted.txt"} <= set(listed)
    assert (
        kaggle_checks.dataset_faults(
            json.loads((tmp_path / "dataset/dataset-metadata.json").read_text()), tmp_path / "dataset"
        )
        == []
    )
    with pytest.raises(InputError, match="wheels nowhere_to_be_found: ERROR"):
        bundle.collect_wheels(tmp_path / "none", ["nowhere_to_be_found"])
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "site"))
    assert environment.install_wheels(tmp_path / "dataset") == []
    assert (tmp_path / "site/brought_along.py").is_file()
    next((tmp_path / "dataset/wheels").glob("*.whl")).unlink()
    assert "collect them again" in environment.install_wheels(tmp_path / "dataset")[0]
    assert environment.install_wheels(tmp_path) == []


@pytest.mark.parametrize(
    ("printed", "instead", "faults"),
    [
        ("0, NVIDIA L4, 8.9", "", 0),
        ("0, Tesla P100-PCIE-16GB, 6.0", "cpu", 1),
        ("0, Tesla P100-PCIE-16GB, 6.0\\n1, NVIDIA L4, 8.9", "cuda:1", 1),
        ("", "", 1),
        ("No devices were found", "", 1),
        ("0, NVIDIA L4, [N/A]", "", 1),
        ("0, NVIDIA L4, 8.9\\nUnable to determine the device handle for GPU1\\n2, NVIDIA L4, 8.9", "cuda:0,2", 1),
    ],
)
@pytest.mark.parametrize("code", [0, 15])
def test_faults_name_gpus_of_no_use_and_only_what_was_found_changes_the_devices(
    tmp_path, printed, instead, faults, code
):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%b' '{printed}'\nexit {code}\n")
    program.chmod(0o755)
    found = environment.gpus(str(program))
    assert found[0] == instead and len(found[1]) == faults


def build_with(line, folder, *options):
    """The build with one more line in the profile."""
    (folder / "profile.yaml").write_text(PROFILE.read_text() + line + "\n")
    return build(folder / "out", *options, "--profile", folder / "profile.yaml")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("rehearsal-tasks: 5", "parameter rehearsal-tasks: unknown, the nearest is rehearsal_tasks"),
        ("preset:", "preset has no value; give one"),
        ("preset: 3", "preset 3: is int and no str; write it as one text in quotation marks"),
        ("preset: no", "preset False: is bool and no str; write it as one text"),
        ("preset: [nvarc]", "preset ['nvarc']: is list and no str"),
        ("preset: 2026-01-31", "is date and no str"),
        ("settings: [adapt.rank=64]", "settings ['adapt.rank=64']: is list and no str"),
        ("rehearsal_tasks: 00576224", "rehearsal_tasks 195732: is int and no str; write it as one text"),
        ("rehearsal_budget_s: 1e3", "rehearsal_budget_s '1e3': is str and no float; write it like 600.0, without"),
        ("need_gpu: 'yes'", "need_gpu 'yes': is str and no bool; write it like false, without any marks"),
        ("seed: yes", "seed True: is bool and no int; write it like 0"),
        ("seed: {", "line 8, column 1: ^); give a YAML file of notebook parameters"),
        ("seed: 2026-13-01", "cannot be read (month must be in 1..12)"),
        ("build: abc", "build 'abc': is set by build_submission.py, to the dataset's fingerprint; leave it out"),
    ],
)
def test_a_profile_of_unknown_names_or_of_values_of_another_kind_is_refused(line, fault, tmp_path):
    ran = build_with(line, tmp_path)
    assert ran.exit_code == 1 and ran.output.startswith("error: ") and fault in ran.output


def test_a_profile_that_would_fail_in_the_rerun_alone_is_told():
    sound = bundle.read_profile(bundle.ROOT / "notebooks/kaggle.yaml")
    assert kaggle_checks.profile_faults(sound) == []
    for name, value in {
        "preset": "marcc", "settings": "adapt.rnk=64", "budget_s": 11.5, "rehearsal_budget_s": -1, "devices": "gpu", "run_dir": "results",
        "model": "kaggle_dataset/model", "challenges": "build/data/c.json",
    }.items():  # fmt: skip
        (fault,) = kaggle_checks.profile_faults(sound | {name: value})
        assert str(value).split("=")[0] in fault
    (fault,) = kaggle_checks.profile_faults(sound | {"settings": "adapt.save=true"})
    assert "adapters fill the 20 GB" in fault


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("need_model: true", "profile need_model True: the kernel attaches no model; .* write need_model: false"),
        ("model: /kaggle/input/foo", "profile model '/kaggle/input/foo': the kernel attaches no model; .* model: \"\""),
        ("tasks: 10", "profile tasks 10: the scored rerun must solve all, .* rehearsal_tasks; leave it out"),
    ],
)
def test_a_profile_that_would_fail_in_the_rehearsal_is_told_in_its_own_terms(line, fault, tmp_path):
    ran = build_with(line, tmp_path, "--check")
    assert ran.exit_code == 1 and re.fullmatch(fault, ran.output.strip()), ran.output


def test_a_model_may_come_from_any_source_but_the_competition_and_the_bundles_dataset():
    wants, ours = {"need_model": True}, {"dataset_sources": ["a/arc-ttt-core"], "competition_sources": ["c"]}
    assert kaggle_checks.model_faults(wants, ours)
    for more in (
        (["a/arc-ttt-core", "a/mine"], "dataset_sources"),
        (["a/b/c/d/1"], "model_sources"),
        (["a/k"], "kernel_sources"),
    ):
        assert kaggle_checks.model_faults(wants, ours | {more[1]: more[0]}) == []


def test_what_the_profile_leaves_to_the_notebooks_defaults_is_checked_too(tmp_path):
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE.read_text().replace('model: ""\n', ""))
    ran = build(tmp_path, "--check", "--profile", profile)
    assert ran.exit_code == 1 and "profile model 'kaggle_dataset/model': is not there in the rerun" in ran.output


def test_two_challenge_files_mounted_are_told_instead_of_one_taken(tmp_path):
    for year in ("2025", "2026"):
        (tmp_path / f"arc-prize-{year}").mkdir()
        (tmp_path / f"arc-prize-{year}/challenges.json").write_text("{}")
    with pytest.raises(InputError, match="arc-prize-2025.* and .*arc-prize-2026.*attach only one"):
        environment.find_input(tmp_path, "challenges.json")


@pytest.mark.parametrize(
    "told",
    ["hf-internal-testing/tiny-random-gpt2", "hf_internal_testing_tiny_random", "sk-learn-random-forests", "risk-" * 9],
)
def test_names_that_only_begin_like_a_token_are_no_secrets(told):
    assert environment.redact(told, {}) == told


@pytest.mark.parametrize("start", ["hf_", "ghp_", "github_pat_", "glpat-", "sk-proj-", "KGAT_"])
def test_what_has_the_shape_of_a_token_is_a_secret(start):
    assert environment.redact(f"'{start}{'a1B2' * 6}'", {}) == "'***'"


def test_a_manifest_that_cannot_be_read_is_a_fault(tmp_path):
    (tmp_path / "MANIFEST.json").write_text('{"a')
    assert "cannot be read" in environment.manifest_faults(tmp_path)[0]


def test_platforms_are_told_apart_by_their_own_variables():
    assert environment.platform_name({}) == "local"
    assert environment.platform_name({"COLAB_RELEASE_TAG": "x"}) == "colab"
    assert environment.is_rehearsal(kaggle_checks.kaggle_environ(rerun=False))
    assert not environment.is_rehearsal(kaggle_checks.kaggle_environ(rerun=True)) and not environment.is_rehearsal({})
