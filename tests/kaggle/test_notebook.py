"""The kernel's notebook as Kaggle runs it: baked, in a mounted tree, in commit and in rerun mode, without a network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import build_submission as bundle
from ttt_core.arc import submission
from ttt_core.arc.tasks import read_challenges
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.run import environment, kaggle_checks

ROOT = Path(__file__).parents[2]
OFFLINE = ["unshare", "-rn", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]


def grid(*rows):
    return [list(row) for row in rows]


def challenges(n: int) -> dict:
    pairs = [{"input": grid([k, 0], [0, k]), "output": grid([k])} for k in (1, 2, 3)]
    return {f"0000000{k}": {"train": pairs, "test": [{"input": grid([k, k])}] * (1 + k % 2)} for k in range(n)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """The staged dataset with a tiny random GridLM in place of the base."""
    folder = tmp_path_factory.mktemp("staged") / "dataset"
    bundle.stage_dataset(folder, "owner")
    shutil.rmtree(folder / "model")
    GridLM(GridLMConfig(width=32, layers=1, heads=2, hidden=32, task_ids=("a",))).save_pretrained(folder / "model")
    files = [
        file
        for file in folder.rglob("*")
        if file.is_file() and file.name not in ("MANIFEST.json", "dataset-metadata.json")
    ]
    manifest = {file.relative_to(folder).as_posix(): environment.fingerprint(file) for file in files}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    return folder


def execute(
    root: Path, dataset: Path, layout: str, rerun: bool, gpu: str = "", **parameters
) -> subprocess.CompletedProcess:
    """papermill over the baked notebook in a tree of `layout`, cut off from networks where the system allows it."""
    kaggle_checks.fake_kaggle(root, dataset, layout, challenges(4), gpu)
    settings = bundle.read_profile(ROOT / "notebooks/kaggle.yaml")
    settings |= {"inputs": str(root / "input"), "run_dir": str(root / "working"), "need_gpu": False, "budget_s": 200.0}
    settings |= {"settings": "adapt.steps=2 decode.views=2 rescore.views=2 second.passes=1"}
    nbformat.write(bundle.bake(ROOT / "notebooks/submission.py", settings | parameters), root / "kernel.ipynb")
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", "kernel.ipynb", "done.ipynb"]
    offline = shutil.which("unshare") and subprocess.run([*OFFLINE, "true"], capture_output=True).returncode == 0
    environ = {"PATH": f"{root / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "HOME": str(root / "home")}
    environ |= {**kaggle_checks.kaggle_environ(rerun)}
    environ |= {name: str(root / "home") for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR")}
    return subprocess.run(
        (OFFLINE if offline else []) + command, cwd=root, env=environ, capture_output=True, text=True, timeout=120
    )


def solved(root: Path) -> int:
    """Tasks with a record; the submission is checked against the challenges."""
    asked = read_challenges(next((root / "input").glob("**/arc-agi_test_challenges.json")))
    submission.check(submission.read(root / "working/submission.json"), asked)
    return len(list((root / "working/tasks").glob("*.json")))


@pytest.mark.parametrize("layout", kaggle_checks.LAYOUTS)
@pytest.mark.parametrize(("rerun", "records"), [(False, 1), (True, 4)])
def test_the_kernel_runs_to_the_end_offline(tmp_path, dataset, layout, rerun, records):
    ran = execute(tmp_path, dataset, layout, rerun, rehearsal_tasks="1")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert solved(tmp_path) == records  # a commit run rehearses on one task, the rerun solves all
    assert (tmp_path / "working/tasks.png").exists() is not rerun  # of which nobody would see a picture


@pytest.mark.parametrize(
    ("printed", "fault"),
    [("0, Tesla P100-PCIE-16GB, 6.0", "P100-PCIE-16GB: compute capability 6.0"), ("", "GPU: none found")],
)
def test_a_rehearsal_without_a_usable_gpu_fails_loudly_with_the_fallback_in_place(tmp_path, dataset, printed, fault):
    ran = execute(tmp_path, dataset, "flat", False, gpu=printed, need_gpu=True)
    assert ran.returncode != 0 and fault in (tmp_path / "done.ipynb").read_text()
    assert solved(tmp_path) == 0


def test_a_rehearsal_that_solves_nothing_fails_and_says_why(tmp_path, dataset):
    ran = execute(tmp_path, dataset, "flat", False, preset="nvarc")  # for other models
    told = (tmp_path / "done.ipynb").read_text()
    assert ran.returncode != 0 and "preset nvarc: is for text models" in told and "take preset grid" in told
    assert solved(tmp_path) == 0


def test_a_rerun_whose_model_is_missing_has_the_bundled_one_with_its_own_settings(tmp_path, dataset):
    ran = execute(tmp_path, dataset, "flat", True, preset="nvarc", budget_s=30.0)
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads((tmp_path / "working/run.json").read_text())
    assert "take preset grid, which is done" in told["model_note"] and told["counts"]["ok"] > 0


def test_a_damaged_dataset_is_named_in_a_rehearsal(tmp_path, dataset):
    damaged = Path(shutil.copytree(dataset, tmp_path / "damaged"))
    (damaged / "ttt_core/arc/draw.py").write_text("# cut off")
    (root := tmp_path / "root").mkdir()
    ran = execute(root, damaged, "flat", False)
    assert ran.returncode != 0 and "draw.py: changed since the build" in (root / "done.ipynb").read_text()


def begin(root: Path, build: str) -> subprocess.CompletedProcess:
    """The notebook's first cell in the tree below `root`."""
    values = {"challenges": "", "inputs": str(root / "input"), "run_dir": str(root / "working"), "build": build}
    cells = [c.source for c in bundle.bake(ROOT / "notebooks/submission.py", values).cells if c.cell_type == "code"]
    code = "\n".join([*cells[:3], "print('took', library.name)"])
    return subprocess.run([sys.executable, "-c", code], cwd=root, env={}, capture_output=True, text=True, timeout=60)


def test_of_two_bundles_the_notebooks_own_is_taken(tmp_path, dataset):
    kaggle_checks.fake_kaggle(tmp_path, dataset, "flat", challenges(1))
    other = tmp_path / "input/an-older-bundle"
    (other / "ttt_core").mkdir(parents=True)
    (other / "ttt_core/__init__.py").write_text("raise SystemExit('the other one')")
    assert "the other one" in begin(tmp_path, "").stderr
    ran = begin(tmp_path, environment.fingerprint(dataset / "MANIFEST.json"))
    assert "took arc-ttt-core" in ran.stdout, ran.stderr


def test_a_dataset_that_is_not_attached_is_named(tmp_path, dataset):
    root = kaggle_checks.fake_kaggle(tmp_path, dataset, "flat", challenges(1))
    shutil.rmtree(root / "input/arc-ttt-core")
    assert "attach the dataset arc-ttt-core" in begin(root, "").stderr
