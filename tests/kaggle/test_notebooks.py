"""The notebooks: thin, and each runs under papermill on a tiny model.

Not here: that source and notebook are paired (test_layout.py), and the submission's runs (test_notebook.py).
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import papermill
import pytest

from tests.kaggle.fake_kaggle import TOKEN, FakeKaggle
from ttt_core.errors import InputError
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.run import environment

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
QUICK = "adapt.steps=20 decode.views=2 rescore.views=2 second.passes=1"


def code(source: Path) -> list:
    return [cell for cell in jupytext.read(source).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebooks_are_thin_and_their_parameters_annotated(source):
    cells = code(source)
    assert len(cells) <= 12 and all(len(cell.source.splitlines()) <= 30 for cell in cells)
    assert not any(re.search(r"^\s*(def|class) ", cell.source, re.M) for cell in cells)
    (parameters,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert all(isinstance(node, ast.AnnAssign) for node in ast.parse(parameters.source).body)
    assert any("environment.check_parameters(In)" in cell.source for cell in cells)
    declared = [node.target.id for node in ast.parse(parameters.source).body]
    assert list(papermill.inspect_notebook(source.with_suffix(".ipynb"))) == declared  # what --help-notebook shows


def grid(k: int, transposed: bool = False) -> list:
    return [[0, k], [k, 0]] if transposed else [[k, 0], [0, k]]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """An edition in miniature: Kaggle-named files of training and evaluation tasks, and a tiny random GridLM."""
    folder = tmp_path_factory.mktemp("edition")
    for split, colors in {"training": (1, 2, 3), "evaluation": (4, 5, 6)}.items():
        pairs = [{"input": grid(k), "output": grid(k, True)} for k in colors[:2]]
        test = [{"input": grid(colors[2])}]
        write(folder / f"arc-agi_{split}_challenges.json", {f"{split}0": {"train": pairs, "test": test}})
        write(folder / f"arc-agi_{split}_solutions.json", {f"{split}0": [grid(colors[2], True)]})
    shape = GridLMConfig(width=32, layers=1, heads=2, hidden=32, task_ids=("training0",))
    GridLM(shape).save_pretrained(folder / "model")
    return folder


def write(path: Path, value):
    path.write_text(json.dumps(value))


def execute(name: str, folder: Path, environ=(), cwd: Path = ROOT, **parameters) -> str:
    """papermill over a notebook, in the folder `cwd`; the text of its outputs, or of its error."""
    plain, done = folder / f"{name}.ipynb", folder / f"{name}.done.ipynb"
    jupytext.write(jupytext.read(ROOT / f"notebooks/{name}.py"), plain)
    given = [part for key, value in parameters.items() for part in ("-p", key, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", str(plain), str(done), *given]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        **dict(environ),
    }
    ran = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    outputs = [o for cell in nbformat.read(done, as_version=4).cells for o in cell.get("outputs", ())]
    text = "\n".join(str(o.get("text", o.get("data", o.get("evalue", "")))) for o in outputs)
    return text if ran.returncode == 0 else f"FAILED {text} {ran.stderr[-2000:]}"


def test_evaluate_scores_and_compares_with_the_oracle(data, tmp_path):
    common = {"data": data, "model": data / "model", "run_dir": tmp_path / "run", "budget_s": 200, "settings": QUICK}
    text = execute("evaluate", tmp_path, **common)
    assert "FAILED" not in text, text
    for told in ("no leak", "outputs solved", "95 % interval", "(oracle)", "solved per hour", "| evaluation0 | 1 |"):
        assert told in text, told
    assert text.count("image/png") >= 1


def test_evaluate_counts_no_task_that_the_model_has_learnt(data, tmp_path):
    shape = GridLMConfig(width=32, layers=1, heads=2, hidden=32, task_ids=("evaluation0",))
    GridLM(shape).save_pretrained(tmp_path / "leaky")
    common = {"model": tmp_path / "leaky", "run_dir": tmp_path / "run", "budget_s": 200, "settings": QUICK}
    text = execute("evaluate", tmp_path, data=data, **common)
    assert text.startswith("FAILED") and "has learnt all of these tasks" in text
    assert not (tmp_path / "run").exists()
    for kind in ("challenges", "solutions"):
        [(_, task)] = json.loads((data / f"arc-agi_evaluation_{kind}.json").read_text()).items()
        write(tmp_path / f"arc-agi_evaluation_{kind}.json", {"evaluation0": task, "evaluation1": task})
        shutil.copy(data / f"arc-agi_training_{kind}.json", tmp_path)
    text = execute("evaluate", tmp_path, data=tmp_path, **common)
    assert "FAILED" not in text and "left out of the score: evaluation0" in text and "no leak: 1 tasks" in text
    assert "/1, of 2 in the solutions file" in text and "| evaluation1 | 1 |" in text and "| evaluation0 |" not in text


def test_inspect_task_draws_every_stage(data, tmp_path):
    files = {kind: data / f"arc-agi_evaluation_{kind}.json" for kind in ("challenges", "solutions")}
    text = execute("inspect_task", tmp_path, **files, model=data / "model", settings=QUICK, budget_s=200)
    assert "FAILED" not in text, text
    assert text.count("image/png") == 6 and "20 steps" in text and "<start>" in text and "candidates: " in text


def test_inspect_task_writes_the_edition_that_is_missing(data, tmp_path):
    (tmp_path / "ttt_core").symlink_to(ROOT / "ttt_core")
    text = execute("inspect_task", tmp_path, cwd=tmp_path, model=data / "model", settings=QUICK, budget_s=60)
    assert "FAILED" not in text and text.count("image/png") == 6, text
    assert (tmp_path / "build/arc-agi-1/arc-agi_evaluation_challenges.json").is_file()


COLAB = {  # modules of a Colab machine
    "google/colab/__init__.py": "",
    "google/colab/drive.py": "def mount(path): print('mounted', path)",
    "google/colab/userdata.py": f"""
class SecretNotFoundError(Exception): pass
class NotebookAccessError(Exception): pass
class TimeoutException(Exception): pass
def get(name):
    if name != "KAGGLE_API_TOKEN": raise SecretNotFoundError(name)
    return {TOKEN!r}
""",
}


def test_pretrain_colab_trains_and_goes_on_and_uploads_on_colab(data, tmp_path):
    for name, text in COLAB.items():
        (path := tmp_path / "colab" / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    server = FakeKaggle()
    environ = dict.fromkeys(("http_proxy", "https_proxy"), f"http://127.0.0.1:{server.server_port}")
    environ |= {"COLAB_RELEASE_TAG": "x", "PYTHONPATH": str(tmp_path / "colab"), "PIP_NO_INDEX": "1"}
    environ |= {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "TMPDIR": str(tmp_path)}
    small = {"width": 32, "layers": 1, "heads": 2, "budget_s": 9, "save_every_s": 1, "batch_tokens": 64}
    model, log = tmp_path / "drive/model", tmp_path / "drive/model/train_log.jsonl"
    try:
        first = execute("pretrain_colab", tmp_path, data=data, out=model, **small, piece_s=5)
        steps = json.loads(log.read_text().splitlines()[-1])["step"]
        options = {"data": data, "drive": tmp_path / "drive", "out": "model", "upload": "someone/my-arc-model"}
        second = execute("pretrain_colab", tmp_path, environ, **options, **small)
    finally:
        server.shutdown()
        server.server_close()
    assert "FAILED" not in first + second, first + second
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[-1]["step"] > steps and steps in [line["step"] for line in lines]  # it went on from there
    assert "mounted /content/drive" in second and "mounted" not in first
    assert server.blobs["model.safetensors"][1] == (model / "model.safetensors").read_bytes()
    assert server.versions == {"my-arc-model": 1} and not any("checkpoint" in name for name in server.blobs)
    assert "datasets/someone/my-arc-model" in second and TOKEN not in second and server.outside == []


def test_a_parameter_that_is_not_declared_stops_the_notebook(data, tmp_path):
    text = execute("evaluate", tmp_path, bugdet_s=1, data=data)
    assert text.startswith("FAILED") and "notebook parameter bugdet_s: unknown, the nearest is budget_s" in text


def test_parameters_are_checked_by_what_the_cells_declare():
    declared = "seed: int = 0\nname: str = ''"
    environment.check_parameters(["", declared, "# Parameters\nseed = 3\n", "%matplotlib inline", "other = 1"])
    with pytest.raises(InputError, match="sede: unknown, the nearest is seed"):
        environment.check_parameters([declared, "# Parameters\nsede = 3\n"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("tasks", "576224"), ("tasks", "2.0818e+20"), ("tasks", "float('inf')"), ("tasks", "None"), ("preset", "3")],
)
def test_an_id_that_papermill_makes_a_number_of_is_refused_and_a_count_of_tasks_is_not(name, value):
    declared = "tasks: str = ''\npreset: str = ''"
    environment.check_parameters([declared, "# Parameters\ntasks = 10\n"])
    with pytest.raises(
        InputError, match=rf"{name}: .* is no str; papermill's -p makes numbers of some ids: give it with -r"
    ):
        environment.check_parameters([declared, f"# Parameters\n{name} = {value}\n"])


@pytest.mark.parametrize(
    ("kind", "value"), [("int", "'5'"), ("float", "'1e3'"), ("bool", "'yes'"), ("int", "1.5"), ("int", "True")]
)
def test_a_parameter_of_another_kind_is_refused(kind, value):
    with pytest.raises(InputError, match=f"n: {value} is no {kind}; see the first cell"):
        environment.check_parameters([f"n: {kind} = 0", f"# Parameters\nn = {value}\n"])
    for number in ("-3", "float('inf')"):
        environment.check_parameters(["n: float = 0.0", f"# Parameters\nn = {number}\n"])
