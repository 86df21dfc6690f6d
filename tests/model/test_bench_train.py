"""The training bench runs at toy size and writes its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def bench(tmp_path, *options):
    line = [sys.executable, "tests/bench/train.py", *options, "--json", str(tmp_path / "figures.json")]
    subprocess.run(line, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=600)
    return json.loads((tmp_path / "figures.json").read_text())


def test_the_bench_writes_shares_that_are_shares(tmp_path):
    toy = "--width 32 --layers 1 --heads 2 --batch-tokens 2048 --max-tokens 128 --steps 3"
    figures = bench(tmp_path, *toy.split())
    assert (
        0 < figures["utilisation"] < 1 and 0 <= figures["padding_share"] < 0.05 and 0 <= figures["data_wait_share"] < 1
    )
    assert figures["flop_per_s"] > 6 * 10_000 * figures["tokens_per_s"]  # 4 * 32**2 + 3 * 32 * 64 weights in a layer


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_neither_starved_nor_idle(tmp_path):
    figures = bench(tmp_path, *"--compile --batch-tokens 65536 --max-tokens 1863 --steps 20".split())
    assert figures["data_wait_share"] < 0.05 and figures["padding_share"] < 0.05 and figures["utilisation"] > 0.3
