"""Pretraining GridLM from nothing: one pair per sequence, a vector per task, loss on output tokens.

Muon for the layers' matrices, AdamW for the rest; warm-up, flat, then a linear fall that ends with the budget. Writes
a model directory (bf16 safetensors), `checkpoint/` to resume from, and `train_log.jsonl`. Not here: which pairs there
are and how they are batched (`corpus.py`).
"""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from ttt_core.arc.augment import task_rng
from ttt_core.errors import CheckpointError, InputError, NonFiniteError
from ttt_core.model.corpus import Corpus, batches, held_out_batches, make_batch, read_corpus
from ttt_core.model.gridlm import GridLM, GridLMConfig


@dataclass(frozen=True)
class PretrainConfig:
    """Options of one training; the ones that shape the model or its data must not change on resuming."""

    budget_s: float  # seconds of training in all, earlier parts included
    width: int = 256
    layers: int = 4
    heads: int = 4
    seed: int = 0
    batch_tokens: int = 4096  # padded tokens of a step
    max_tokens: int = 512  # longer pairs are left out
    muon_lr: float = 0.02
    lr: float = 2e-3  # AdamW: embeddings, norms, head
    vector_lr: float = 1e-2  # AdamW: task and dihedral vectors
    warmup_steps: int = 100
    flat_share: float = 0.4  # of the budget, before the rate falls to zero
    clip_norm: float = 1.0
    save_every_s: float = 120.0
    max_steps: int = 0  # 0: the budget alone ends it; else the schedule too counts steps instead of seconds


def pretrain(
    data: Path,
    out: Path,
    config: PretrainConfig,
    *,
    extra: Path | None = None,
    hold_out: frozenset[str] = frozenset(),
    exclude: frozenset[str] = frozenset(),
    guard: Path | None = None,
) -> Path:
    """Train, or go on training where `out/checkpoint` stands; returns `out`, a model directory at all later times."""
    if config.budget_s <= 0:
        raise InputError(f"budget {config.budget_s} s: give a positive number of seconds")
    corpus = read_corpus(
        data, extra, max_tokens=config.max_tokens, hold_out=hold_out, exclude=exclude, guard=guard
    )
    torch.manual_seed(config.seed)
    net = GridLM(
        GridLMConfig(width=config.width, layers=config.layers, heads=config.heads, task_ids=corpus.task_ids)
    )
    optimizers = make_optimizers(net, config)
    progress = {"step": 0, "epoch": 0, "batch": 0, "tokens": 0, "seconds": 0.0}
    checkpoint = out / "checkpoint"
    if checkpoint.exists():
        progress = load_checkpoint(checkpoint, net, optimizers)
    out.mkdir(parents=True, exist_ok=True)
    train(net, optimizers, corpus, config, progress, out)
    return out


def train(net: GridLM, optimizers, corpus: Corpus, config: PretrainConfig, progress: dict, out: Path) -> None:
    """The loop: from `progress` to the end of the budget; saves model, checkpoint and log as it goes."""
    started, saved = time.monotonic() - progress["seconds"], time.monotonic()
    rates = [[group["lr"] for group in o.param_groups] for o in optimizers]
    recent: list[float] = []
    bar = tqdm(total=int(config.budget_s), initial=int(progress["seconds"]), unit="s", desc="pretrain", mininterval=5)
    plan = batches(corpus, config.seed, progress["epoch"], config.batch_tokens)
    net.train()
    while (share := spent(config, progress)) < 1:
        if progress["batch"] == len(plan):
            progress["epoch"], progress["batch"] = progress["epoch"] + 1, 0
            plan = batches(corpus, config.seed, progress["epoch"], config.batch_tokens)
        rng = task_rng(config.seed, f"step {progress['step']}")
        batch = make_batch(corpus, plan[progress["batch"]], rng)
        for optimizer, peaks in zip(optimizers, rates, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * schedule(config, progress["step"], share)
        recent.append(train_step(net, optimizers, batch, config.clip_norm))
        progress["step"] += 1
        progress["batch"] += 1
        progress["tokens"] += int(batch["attention_mask"].sum())
        progress["seconds"] = time.monotonic() - started
        bar.update(int(progress["seconds"]) - bar.n)
        if time.monotonic() - saved > config.save_every_s or spent(config, progress) >= 1:
            entry = log_entry(net, corpus, config, progress, recent)
            save(net, optimizers, progress, out, entry)
            tqdm.write(json.dumps(entry))
            recent, saved = [], time.monotonic()
    bar.close()


def train_step(net: GridLM, optimizers, batch: dict, clip_norm: float) -> float:
    """One optimiser step; the loss in nats per output token. NonFiniteError leaves the weights as they were."""
    with torch.autocast(net.device.type, torch.bfloat16):
        loss = net(**batch).loss
    loss.backward()
    norm = nn.utils.clip_grad_norm_(net.parameters(), clip_norm)
    if not torch.isfinite(norm):
        raise NonFiniteError(f"gradient norm {float(norm)}: lower the learning rate and resume from the checkpoint")
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def make_optimizers(net: nn.Module, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else."""
    named = list(net.named_parameters())
    matrices = [p for name, p in named if name.startswith("layers.") and p.ndim == 2]
    vectors = [p for name, p in named if "_vectors." in name]
    taken = {id(p) for p in (*matrices, *vectors)}
    rest = [p for _, p in named if id(p) not in taken]
    groups = [{"params": vectors, "lr": config.vector_lr}, {"params": rest, "lr": config.lr}]
    return [
        torch.optim.Muon(matrices, lr=config.muon_lr, weight_decay=0.0),
        torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def spent(config: PretrainConfig, progress: dict) -> float:
    """The share of the training that lies behind, by seconds or, with max_steps, by steps."""
    return progress["step"] / config.max_steps if config.max_steps else progress["seconds"] / config.budget_s


def schedule(config: PretrainConfig, step: int, share: float) -> float:
    """Factor of the peak rates: warm-up by steps, then flat, then linear to zero at share 1."""
    return min(1.0, (step + 1) / config.warmup_steps) * min(1.0, (1 - share) / (1 - config.flat_share))


@torch.no_grad()
def held_out_nll(net: GridLM, corpus: Corpus, batch_tokens: int) -> float:
    """Nats per output token on the held-out pairs, each under its task's trained vector; NaN if there are none."""
    net.eval()
    total, count = 0.0, 0
    for batch in held_out_batches(corpus, batch_tokens):
        with torch.autocast(net.device.type, torch.bfloat16):
            output = net(**batch)
        total, count = total + float(output.loss) * len(output.logits), count + len(output.logits)
    net.train()
    return total / count if count else float("nan")


def log_entry(net: GridLM, corpus: Corpus, config: PretrainConfig, progress: dict, recent: list[float]) -> dict:
    """What the training log holds of the last stretch: losses in nats per output token, speed, work done so far."""
    weights = sum(p.numel() for name, p in net.named_parameters() if name.startswith("layers."))
    return {
        "step": progress["step"],
        "epoch": progress["epoch"],
        "tokens": progress["tokens"],
        "seconds": round(progress["seconds"], 1),
        "tokens_per_s": round(progress["tokens"] / progress["seconds"]),
        "flop": 6 * weights * progress["tokens"],
        "loss": round(sum(recent) / len(recent), 4),
        "held_out_nll": round(held_out_nll(net, corpus, config.batch_tokens), 4),
    }


def save(net: GridLM, optimizers, progress: dict, out: Path, entry: dict) -> None:
    """Model directory, checkpoint and log line; the checkpoint is replaced as a whole."""
    save_bf16(net, out)
    temporary = out / "checkpoint.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, temporary / "model.safetensors")
    for i, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()["state"]
        tensors = {f"{p}.{key}": torch.as_tensor(v) for p, values in state.items() for key, v in values.items()}
        save_file(tensors, temporary / f"optimizer-{i}.safetensors")
    (temporary / "progress.json").write_text(json.dumps(progress))
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    os.replace(temporary, out / "checkpoint")
    with open(out / "train_log.jsonl", "a") as log:
        log.write(json.dumps(entry) + "\n")


def save_bf16(net: GridLM, out: Path) -> None:
    """The weights in bf16 as a transformers directory, shards of at most 16 MB."""
    state = {name: tensor.to(torch.bfloat16) for name, tensor in net.state_dict().items()}
    net.save_pretrained(out, state_dict=state, max_shard_size="16MB")


def load_checkpoint(folder: Path, net: GridLM, optimizers) -> dict:
    """Put weights and optimiser states back; returns the progress. CheckpointError if it is not of this model."""
    try:
        net.load_state_dict(load_file(folder / "model.safetensors"))
        for i, optimizer in enumerate(optimizers):
            tensors = load_file(folder / f"optimizer-{i}.safetensors")
            state: dict = {}
            for key, tensor in tensors.items():
                index, _, name = key.partition(".")
                state.setdefault(int(index), {})[name] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return json.loads((folder / "progress.json").read_text())
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder}: {error}; remove the folder to start anew") from None
