"""How much of the machine pretraining uses: `python tests/bench/train.py --json FILE`.

Trains a fresh GridLM on ARC-AGI-1 training pairs for some steps, and over the same batches again, since memory that the
allocator takes for the first time costs page faults. Of the second time it prints, measured in the same run: tokens/s,
FLOP/s, `utilisation` (FLOP of real tokens per second over those of a matrix product in the dtype that it trains in,
measured before every step), `padding_share` and `data_wait_share` (of the time). Padding, Muon's own products and
waiting count as no work.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

from ttt_core.arc.editions import write_edition
from ttt_core.model.distributed import World
from ttt_core.model.load import dtype_on
from ttt_core.model.pretrain_config import PretrainConfig
from ttt_core.model.rows import callable_of
from ttt_core.model.sources import read_corpus
from ttt_core.model.speed import keep_memory, matmul_rate, training_flop
from ttt_core.model.start import make_net
from ttt_core.model.step import make_optimizers, train_step
from ttt_core.model.stream import ahead, on_device


def measure(config: PretrainConfig, steps: int) -> dict:
    """The figures of `steps` optimiser steps, done for the second time."""
    keep_memory()
    with tempfile.TemporaryDirectory() as folder:
        write_edition("arc-agi-1", Path(folder))
        corpus = read_corpus(Path(folder), max_tokens=config.max_tokens)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config.seed)
    net = make_net(corpus, config, None, None).to(device).train()
    alone = World(0, 1, device)
    model = callable_of(net, config, alone)
    optimizers = make_optimizers(net, config, alone)
    start = {"step": 0, "epoch": 0, "batch": 0}
    for _ in range(2):
        seconds, waited, flop, rates, tokens, padded = 0.0, 0.0, 0.0, [], 0, 0
        stream = ahead(corpus, config, alone, start)
        for _ in range(steps):
            rate = matmul_rate(device, dtype_on(device))
            began = time.perf_counter()
            *_, parts, lengths, answers = next(stream)
            got = time.perf_counter()
            parts = [(on_device(batch, device), weight) for batch, weight in parts]
            float(train_step(model, optimizers, parts, config.clip_norm))
            rates.append(rate)
            seconds, waited = seconds + time.perf_counter() - began, waited + got - began
            flop += training_flop(net.config, lengths, answers)
            tokens += int(lengths.sum())
            padded += sum(batch["input_ids"].numel() for batch, _ in parts)
    return {
        "parameters": sum(p.numel() for p in net.parameters()),
        "steps": steps,
        "tokens_per_s": tokens / seconds,
        "flop_per_s": flop / seconds,
        "matmul_flop_per_s": float(np.median(rates)),
        "utilisation": flop / seconds / float(np.median(rates)),
        "padding_share": 1 - tokens / padded,
        "data_wait_share": waited / seconds,
    }


def machine() -> dict:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    load = os.getloadavg()[0]
    return {"device": name, "threads": torch.get_num_threads(), "load": load, "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"width": 512, "layers": 8, "heads": 8, "batch-tokens": 16384, "max-tokens": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--packed", action=argparse.BooleanOptionalAction, help="rows without padding; else on a GPU alone"
    )
    parser.add_argument("--json", type=Path)
    options = vars(parser.parse_args())
    out, steps = options.pop("json"), options.pop("steps")
    figures = {**machine(), **options, **measure(PretrainConfig(1.0, **options), steps)}
    for name, value in figures.items():
        print(f"{name:20} {value:.4g}" if isinstance(value, float) else f"{name:20} {value}")
    if out:
        out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
