"""The training bench runs at toy size and writes its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_bench_writes_shares_that_are_shares(tmp_path):
    toy = "--width 32 --layers 1 --heads 2 --batch-tokens 2048 --max-tokens 128 --steps 3".split()
    line = [sys.executable, "tests/bench/train.py", *toy, "--json", str(tmp_path / "figures.json")]
    subprocess.run(line, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert 0 < figures["utilisation"] < 1 and 0 <= figures["padding_share"] < 0.05 and 0 <= figures["data_wait_share"] < 1
    assert figures["flop_per_s"] > 6 * 10_000 * figures["tokens_per_s"]  # a layer of width 32 has 4 * 32**2 + 3 * 32 * 64 weights
