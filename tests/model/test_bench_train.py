"""The training bench runs at toy size and writes its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ttt_core.model.gridlm import GridLMConfig
from ttt_core.model.speed import training_flop

ROOT = Path(__file__).parents[2]


def bench(tmp_path, *options):
    line = [sys.executable, "tests/bench/train.py", *options, "--json", str(tmp_path / "figures.json")]
    subprocess.run(line, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=600)
    return json.loads((tmp_path / "figures.json").read_text())


def test_the_bench_writes_shares_that_are_shares(tmp_path):
    toy = "--width 32 --layers 2 --heads 2 --batch-tokens 2048 --max-tokens 128 --steps 3"
    figures = bench(tmp_path, *toy.split())
    assert (
        0 < figures["utilisation"] < 1 and 0 <= figures["padding_share"] < 0.05 and 0 <= figures["data_wait_share"] < 1
    )
    assert figures["flop_per_s"] > 6 * 10_000 * figures["tokens_per_s"]  # 4 * 32**2 + 3 * 32 * 64 weights in a layer


def test_flop_are_those_of_the_products_a_step_needs():
    config = GridLMConfig(width=2, layers=3, heads=1, hidden=5)
    layer, kept = 4 * 2 * 2 + 3 * 2 * 5, 2 * 2 * 2  # weights; those of keys and values
    tokens, answers = np.array([7, 4]), np.array([3, 1])
    weights = 6 * (2 * layer * 11 + kept * 11 + (layer - kept) * 4)
    pairs = 12 * 2 * (2 * (49 + 16) + 3 * 7 + 1 * 4)
    assert training_flop(config, tokens, answers) == weights + pairs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_neither_starved_nor_idle(tmp_path):
    figures = bench(tmp_path, *"--compile --batch-tokens 65536 --max-tokens 1863 --steps 20".split())
    assert figures["data_wait_share"] < 0.05 and figures["padding_share"] < 0.05 and figures["utilisation"] > 0.3
