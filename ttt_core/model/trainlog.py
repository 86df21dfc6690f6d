"""What a training notes of itself: a line of figures each stretch between two saves, and what it is bound to.

A line of `train_log.jsonl`: totals so far (step, epoch, tokens, flop, seconds), and of the stretch loss (nats per output
token), seconds_per_step, tokens_per_s, flop_per_s, utilisation (of matmul_flop_per_s), padding_share and data_wait_share. Not here: the loop.
"""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import torch

from ttt_core.errors import CheckpointError
from ttt_core.model.corpus import Corpus

NAMED = {  # what is compared by its hash
    "base_sha256": "the weights of --base",
    "corpus": "what is learnt (--data, --extra, --transductive, --hold-out, --exclude, --max-tokens, --colors)",
}


def fresh_stretch() -> dict:
    """Counters of a stretch that begins."""
    return {"loss": 0.0, "steps": 0, "waited_s": 0.0, "tokens": 0, "padded": 0, "flop": 0.0}


def note(stretch: dict, loss: torch.Tensor, lengths: np.ndarray, padded: int, flop: float) -> None:
    """Count one step in: its loss stays on its device until the stretch ends."""
    stretch["loss"] = stretch["loss"] + loss
    stretch["steps"] += 1
    stretch["tokens"] += int(lengths.sum())
    stretch["padded"] += padded
    stretch["flop"] += flop


def log_entry(progress: dict, stretch: dict, seconds: float, matmul_rate: float) -> dict:
    """The log line of a stretch of `seconds`, its loss and padded tokens those of all processes; matmul_rate in FLOP/s of all devices together."""
    rate = stretch["flop"] / seconds
    return {
        "step": progress["step"],
        "epoch": progress["epoch"],
        "tokens": progress["tokens"],
        "flop": round(progress["flop"]),
        "seconds": round(progress["seconds"], 1),
        "loss": round(float(stretch["loss"]) / stretch["steps"], 4),
        "seconds_per_step": round(seconds / stretch["steps"], 4),
        "tokens_per_s": round(stretch["tokens"] / seconds),
        "flop_per_s": round(rate),
        "matmul_flop_per_s": round(matmul_rate),
        "utilisation": round(rate / matmul_rate, 4),
        "padding_share": round(1 - stretch["tokens"] / stretch["padded"], 4),
        "data_wait_share": round(stretch["waited_s"] / seconds, 4),
    }


def trim_log(log: Path, step: int) -> None:
    """Drop the lines after `step`, and what is no line, as a kill or a power cut leaves: the training goes on from there."""
    if log.exists():
        lines = log.read_text(errors="replace").splitlines(keepends=True)
        temporary = log.with_suffix(".tmp")
        temporary.write_text("".join(line for line in lines if _step_of(line) <= step))
        os.replace(temporary, log)


def _step_of(line: str) -> float:
    """The step of a line of the log; infinity where it is damaged or cut short."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def fingerprint(corpus: Corpus) -> str:
    """A hash of all that is learnt: ids and pairs in order, and the colours left free."""
    told = hashlib.blake2b(repr((corpus.task_ids, corpus.free)).encode(), digest_size=16)
    for index, pair in corpus.pairs:
        told.update(repr((index, pair.input.shape)).encode() + pair.input.tobytes() + pair.output.tobytes())
    return told.hexdigest()


def refuse_other(out: Path, stored: dict, asked: dict, may_change: set[str]) -> None:
    """CheckpointError naming the first option in which the training that left `out` differs from the one asked for.

    An option that a checkpoint of an older version does not tell is not compared.
    """
    for name, value in asked.items():
        if name not in may_change and stored.get(name, value) != value:
            was, now, option = stored[name], value, NAMED.get(name, name)
            if name in NAMED:
                was, now = (told[:8] if told else "none" for told in (was, now))
            raise CheckpointError(
                f"checkpoint in {out}: {option} was {was}, now {now}; "
                "give the same, or another --out and this one as --base"
            )
