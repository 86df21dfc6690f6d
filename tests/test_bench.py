"""Each bench runs to its end at toy size and writes its figures; the figures themselves are for tests/bench/."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ttt_core.arc.editions import write_edition

ROOT = Path(__file__).parents[1]
FOUND = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # a bench finds the library itself
ENVIRON = FOUND | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run_bench(name: str, out: Path, *options: str) -> dict:
    """The figures of a bench; its process runs on one thread."""
    command = [sys.executable, ROOT / f"tests/bench/{name}.py", "--json", out / "figures.json", *options]
    ran = subprocess.run(command, cwd=out, env=ENVIRON, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads((out / "figures.json").read_text())


def test_search(tmp_path):
    options = "--tasks 1 --views 2 --train-s 1 --adapt-steps 20 --data".split()
    figures = run_bench("search", tmp_path, *options, str(tmp_path / "data"))
    assert figures["candidates_equal"] is True
    assert {"speedup_vs_recursive", "speedup_vs_generate", "scoring_speedup"} <= figures.keys()


def test_ablate_goes_on_where_it_was_stopped(tmp_path):
    write_edition("arc-agi-1", tmp_path / "data")
    few = "=adapt.steps=2 decode.views=2 rescore.views=2"
    command = [sys.executable, ROOT / "tests/bench/ablate.py", "--data", tmp_path / "data", "--json", tmp_path / "lines"]
    command += ["--model", ROOT / "kaggle_dataset/model", "--arm", "few" + few, "--arm", "none" + few + " adapt.method=none"]
    for tasks, done in (("00576224", 2), ("00576224,66e6c45b", 4)):
        ran = subprocess.run([*command, "--tasks", tasks], env=ENVIRON, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stderr[-3000:]
        lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
        assert len({(line["task"], line["arm"]) for line in lines}) == len(lines) == done
    rows = [dict(part.split(" ", 1) for part in line.split("  ")) for line in ran.stdout.splitlines()]
    assert [row["arm"] for row in rows] == ["few", "none"] and rows[0]["tasks"] == "2"
    assert float(rows[0]["nats_per_token"]) != float(rows[1]["nats_per_token"])


def test_ablate_base_asks_a_task_in_context(tmp_path):
    write_edition("arc-agi-1", tmp_path / "data")
    command = [sys.executable, ROOT / "tests/bench/ablate_base.py", "--data", tmp_path / "data", "--out", tmp_path / "out"]
    command += ["--arm", "in-context", "--tasks", "1", "--budget-s", "10", "--width", "32", "--layers", "1", "--steps", "2"]
    ran = subprocess.run(command, env=ENVIRON, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    figures = json.loads((tmp_path / "out/in-context.json").read_text())
    assert figures["outputs"] == 1 and figures["tokens"] > 0 and 0 < figures["nats_per_token"] < 20
