"""The submission notebook, executed with a token in the environment, which no file then holds; `make faults`."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CANARY = "canary-51f0c2-token"


def test_the_executed_notebook_and_its_run_hold_no_token(place):
    done, run_dir = place.root / "done.ipynb", place.root / "run"
    source = place.root / "submission.ipynb"
    jupytext = [sys.executable, "-m", "jupytext", "-q", "--to", "ipynb", "--output", str(source)]
    subprocess.run([*jupytext, str(ROOT / "notebooks/submission.py")], check=True)
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3", str(source), str(done)]
    for name, value in {
        "challenges": place.root / "challenges.json",
        "model": ROOT / "kaggle_dataset/model",
        "run_dir": run_dir,
        "budget_s": 30,
        "tasks": 1,
    }.items():
        command += ["-p", name, str(value)]
    environ = {**os.environ, "HF_TOKEN": CANARY, "KAGGLE_KEY": CANARY, "PYTHONPATH": str(ROOT)}
    environ |= {name: str(place.root / "home") for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR")}
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    files = [done, *(path for path in run_dir.rglob("*") if path.is_file())]
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == [] and len(files) > 4
    assert json.loads((run_dir / "run.json").read_text())["counts"]["selected"] == 1
