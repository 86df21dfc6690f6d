"""Each bench runs to its end at toy size and writes its figures; the figures themselves are for tests/bench/."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_bench(name: str, out: Path, *options: str) -> dict:
    """The figures of a bench; its process runs on one thread."""
    command = [sys.executable, ROOT / f"tests/bench/{name}.py", "--json", out / "figures.json", *options]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, cwd=out, env=environ, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads((out / "figures.json").read_text())


def test_search(tmp_path):
    options = (
        "--tasks",
        "1",
        "--views",
        "2",
        "--train-s",
        "1",
        "--adapt-steps",
        "20",
        "--data",
        str(tmp_path / "data"),
    )
    figures = run_bench("search", tmp_path, *options)
    assert figures["candidates_equal"] is True
    assert {"speedup_vs_recursive", "speedup_vs_generate", "scoring_speedup"} <= figures.keys()
