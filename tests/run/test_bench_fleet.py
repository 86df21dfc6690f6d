"""The benches of fleet and soak run to their end at toy size and write their figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def figures_of(name: str, out: Path, *options: str) -> dict:
    command = [sys.executable, ROOT / f"tests/bench/{name}.py", "--json", out / "figures.json", *options]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=out, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads((out / "figures.json").read_text())


def test_a_fleet_meets_its_bound_and_loses_no_task(tmp_path):
    figures = figures_of("fleet", tmp_path, "--most-tasks", "240")
    assert 0 <= round(figures["makespan_over_bound"], 9) < 0.03 and figures["scheduler_ms_per_task"] < 1
    assert all(row["done"] == row["tasks"] for row in figures["rows"])
    assert any(row["lost_share"] > 0 for row in figures["rows"])


def test_the_same_bound_is_missed_by_a_static_split():
    """The naive twin: every device the same number of tasks, as a split of the file makes it."""
    import numpy as np

    needs = np.random.default_rng(0).lognormal(0, 0.5, 240)
    split = needs.reshape(4, 60).sum(axis=1).max()
    assert split / max(needs.max(), needs.sum() / 4) > 1.03
