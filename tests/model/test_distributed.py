"""torchrun: two processes train as one does with the doubled batch, and go on where they stopped."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ttt_core.model.corpus import plan_epoch
from ttt_core.model.distributed import World
from ttt_core.model.pretrain_config import PretrainConfig
from ttt_core.model.sources import read_corpus
from ttt_core.model.stream import examples

ROOT = Path(__file__).parents[2]
PROGRESS = "checkpoint/progress.json"
SCRIPT = """
import json
import os
import socket
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from ttt_core.model import load, step
from ttt_core.model.pretrain import pretrain
from ttt_core.model.pretrain_config import PretrainConfig
load.compute_dtype = lambda device: torch.float32  # the processes' sums differ in rounding only

def work(out, batch_tokens, steps, options):
    if "forget" in options:  # what the naive twin does: each process keeps its momenta to itself
        step.SharedMuon.gather = lambda self: None
    if "apart" in options:  # machines that share no folder
        out += "-" + os.environ["RANK"]
    toy = dict(width=32, layers=1, heads=2, warmup_steps=2, save_every_s=0, flat_share=0.99)
    config = PretrainConfig(1e9, batch_tokens=batch_tokens, max_steps=steps, **toy)
    pretrain(Path(sys.argv[1]), Path(out), config)

for processes, *job in json.loads(sys.argv[2]):
    if "RANK" in os.environ:
        work(*job)
        continue
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(processes):  # as torchrun starts them, but what takes seconds to import is imported once
        started.append(os.fork())
        if not started[-1]:
            if processes > 1:
                os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            work(*job)
            sys.exit()
    if any([os.waitpid(process, 0)[1] for process in started]):
        sys.exit("a training failed")
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One task of 17 pairs of two sizes: steps have micro-batches of each, some odd, and rows unlike numbers of targets."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    grids = [rng.integers(0, 3, rng.permutation([4, 5] if i % 2 else [2, 3])).tolist() for i in range(17)]
    pairs = [{"input": g, "output": np.rot90(g).tolist()} for g in grids]
    (folder / "arc-agi_training_challenges.json").write_text(
        json.dumps({"t": {"train": pairs[:10], "test": pairs[10:]}})
    )
    (folder / "arc-agi_training_solutions.json").write_text(json.dumps({"t": [p["output"] for p in pairs[10:]]}))
    return folder


@pytest.fixture(scope="module")
def both(data):
    """The losses of torchrun's two processes, uninterrupted."""
    train(data, (2, 320), launch=TORCHRUN)
    return losses(data, 2, 320)


def train(data, *jobs, launch=()) -> str:
    """What trainings (see `job`), begun or continued one after the other, say on standard error; one with the option "fails" must fail."""
    (data / "train.py").write_text(SCRIPT)
    told = [
        (n, str(folder(data, n, tokens, name)), tokens, steps, options)
        for n, tokens, name, steps, options in map(job, jobs)
    ]
    line = [sys.executable, *launch, str(data / "train.py"), str(data), json.dumps(told)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(data)}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=120)
    assert bool(done.returncode) == any("fails" in options for *_, options in told), done.stderr[-2000:]
    return done.stderr


def job(given: tuple) -> tuple:
    """(processes, batch_tokens, name, steps, options) of a training, of which the last three may be left out."""
    return *given, *("out", 8, "")[len(given) - 2 :]


def folder(data, processes, batch_tokens, name="out") -> Path:
    return data / f"{name}-{processes}-{batch_tokens}"


def losses(data, *named):
    """Of all steps so far of a training."""
    return np.array([entry["loss"] for entry in log(folder(data, *named))])


def log(out):
    return [json.loads(text) for text in (out / "train_log.jsonl").read_text().splitlines()]


def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(data, both):
    parts = [len(step) for step in plan_epoch(read_corpus(data, max_tokens=512), 0, 0, 640, 512).steps]
    assert max(parts) > 1
    train(data, (1, 640), (1, 320))
    alone, half = losses(data, 1, 640), losses(data, 1, 320)
    assert len(alone) == len(both) == 8 and np.abs(alone - both).max() < 1e-3
    assert np.abs(alone - half).max() > 1e-2


def test_padding_is_that_of_both_processes(data, both):
    corpus, config = read_corpus(data, max_tokens=512), PretrainConfig(1e9, batch_tokens=320)
    start, told = {"step": 0, "epoch": 0, "batch": 0}, log(data / "out-2-320")
    steps = [examples(corpus, config, World(r, 2, torch.device("cpu")), start, packed=False) for r in range(2)]
    for entry, (one, other) in zip(told, zip(*steps, strict=True), strict=False):
        own, others = (sum(batch["input_ids"].numel() for batch, _ in parts) for _, _, parts, _, _ in (one, other))
        assert entry["padding_share"] == pytest.approx(1 - one[3].sum() / (own + others), abs=1e-4)
    assert own != others  # in the last step: twice the one's would be wrong


def test_momenta_of_both_processes_are_saved(data, both):
    ways = {"resumed": "", "forgotten": "forget"}
    train(data, *(given for name, way in ways.items() for given in ((2, 320, name, 4, way), (2, 320, name))))
    for name, way in ways.items():
        assert (np.abs(losses(data, 2, 320, name) - both).max() < 1e-6) == (not way)


def test_processes_that_do_not_find_the_same_checkpoint_all_refuse_to_go_on(data):
    told = train(data, (2, 320, "apart", 1, "apart"), (2, 320, "apart", 1, "apart fails"))
    assert '"processes": 2' in (data / "apart-2-320-0" / PROGRESS).read_text()
    refused = r"CheckpointError: checkpoint in \S+apart-2-320-(\d): not the same in all processes; give an --out"
    assert set(re.findall(refused, told)) == {"0", "1"}
