"""The submission notebook, executed with a token in the environment, which no file then holds; `make faults`."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CANARY = "canary-51f0c2-token"


def execute(place, source: Path, done: Path, **parameters) -> list[Path]:
    """Run a jupytext source by papermill with tokens in the environment; the files that hold one afterwards."""
    notebook = done.with_suffix(".source.ipynb")
    jupytext = [sys.executable, "-m", "jupytext", "-q", "--to", "ipynb", "--output", str(notebook)]
    subprocess.run([*jupytext, str(source)], check=True)
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", str(notebook), str(done)]
    for name, value in parameters.items():
        command += ["-p", name, str(value)]
    environ = {**os.environ, "HF_TOKEN": CANARY, "KAGGLE_KEY": CANARY, "PYTHONPATH": str(ROOT)}
    environ |= {name: str(place.root / "home") for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR")}
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    files = [done, *(path for path in (place.root / "run").rglob("*") if path.is_file())]
    return [path for path in files if CANARY.encode() in path.read_bytes()]


def test_the_executed_notebook_and_its_run_hold_no_token(place):
    run_dir = place.root / "run"
    parameters = {"challenges": place.root / "challenges.json", "run_dir": run_dir, "budget_s": 30, "tasks": 1}
    source, model = ROOT / "notebooks/submission.py", ROOT / "kaggle_dataset/model"
    assert execute(place, source, place.root / "done.ipynb", model=model, **parameters) == []
    assert json.loads((run_dir / "run.json").read_text())["counts"]["selected"] == 1


def test_a_naive_notebook_that_shows_its_environment_holds_the_token(place):
    naive, done = place.root / "naive.py", place.root / "done.ipynb"
    naive.write_text("# %%\nimport os\n\ndict(os.environ)\n")
    assert execute(place, naive, done) == [done]
