"""Test-time training: a model made to fit one task's demonstrations, under a deadline.

What is trained: GridLM's fresh task vectors, and LoRA or all weights. Training views are drawn anew each step. The base
weights come back untouched when the `adapted` context ends. The net stays in eval mode: no dropout. Not here: search and scoring.
"""

import contextlib
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ttt_core.arc import augment
from ttt_core.arc.augment import Augmentation
from ttt_core.arc.encode import Sequence
from ttt_core.arc.tasks import Task
from ttt_core.config import AdaptConfig
from ttt_core.model import lora
from ttt_core.model.load import LoadedModel
from ttt_core.solve.feed import batch_of, target_logits

SNAPSHOT_STEPS = 16  # a good state is kept every so many steps, to fall back to when the loss stops being finite


@dataclass(frozen=True)
class Adaptation:
    """What one adaptation did: steps taken, losses in nats per target token, whether it fell back to an earlier state."""

    steps: int
    losses: tuple[float, ...]
    rolled_back: bool = False


@contextlib.contextmanager
def adapted(model: LoadedModel, task: Task, config: AdaptConfig, rng: np.random.Generator, deadline: float):
    """Within the context `model.net` is adapted to `task`; yields an Adaptation. deadline: monotonic seconds."""
    is_grid = model.format.name == "grid"
    vectors = model.net.task_vectors if is_grid else None
    originals: dict[nn.Parameter, torch.Tensor] = {}
    if is_grid:
        model.net.set_tasks(start_vectors(model.net, task.id))
    model.net.requires_grad_(False)
    try:
        groups = []
        if config.method == "lora":
            lora.inject(
                model.net, rank=config.rank, alpha=config.alpha, rslora=config.rslora, seed=int(rng.integers(2**31))
            )
            groups.append({"params": lora.adapter_parameters(model.net), "lr": config.lr, "layers": True})
            if config.embedding_lr:
                ends = (model.net.get_input_embeddings(), model.net.get_output_embeddings())
                weights = list({id(p): p for end in ends for p in end.parameters()}.values())  # tied: one
                groups.append({"params": unfrozen(weights, originals), "lr": config.embedding_lr})
        elif config.method == "full":
            weights = [p for name, p in model.net.named_parameters() if not name.startswith("task_vectors.")]
            groups.append({"params": unfrozen(weights, originals), "lr": config.lr, "layers": True})
        if is_grid and config.method != "none":
            groups.append({"params": [model.net.task_vectors.weight], "lr": config.vector_lr})
        yield fit(model, task, config, groups, rng, deadline) if groups and config.steps else Adaptation(0, ())
    finally:
        if config.method == "lora":
            lora.remove(model.net)
        for parameter, original in originals.items():
            parameter.data = original
        if is_grid:
            model.net.task_vectors = vectors
        model.net.requires_grad_(False)


def unfrozen(weights: list[nn.Parameter], originals: dict) -> list[nn.Parameter]:
    """`weights` as copies to be trained in float32, whatever they are stored in; their data goes into `originals`."""
    for weight in weights:  # the forward computes in model.dtype
        originals[weight] = weight.data
        weight.data = weight.data.float().clone()
    return weights


def start_vectors(net, task_id: str) -> torch.Tensor:
    """(8, D), one a dihedral: the task's trained vector if the model knows the task, else the mean of all."""
    trained = net.task_vectors.weight
    ids = list(net.config.task_ids)
    vector = trained[ids.index(task_id)] if task_id in ids else trained.mean(dim=0)
    return vector.expand(8, -1)


def fit(model: LoadedModel, task: Task, config: AdaptConfig, groups: list[dict], rng, deadline: float) -> Adaptation:
    """Train the parameters of `groups`; stops at the deadline, and goes back to the last good state on a bad loss."""
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    parameters = [p for group in groups for p in group["params"]]
    optimizers = make_optimizers(groups, config)
    peaks = [[group["lr"] for group in o.param_groups] for o in optimizers]
    losses, good, good_step = [], [p.detach().clone() for p in parameters], 0
    started = time.monotonic()
    for step in range(config.steps):
        share = max(step / config.steps, (time.monotonic() - started) / max(deadline - started, 1e-9))
        if share >= 1:
            break
        for optimizer, lrs in zip(optimizers, peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = peak * rate(config, step, share)
        loss = train_step(model, draw_batch(model, task, config, rng), parameters, optimizers, config.clip_norm)
        if not math.isfinite(loss):
            with torch.no_grad():
                for parameter, value in zip(parameters, good, strict=True):
                    parameter.copy_(value)
            return Adaptation(good_step, tuple(losses[:good_step]), rolled_back=True)
        losses.append(loss)
        if len(losses) % SNAPSHOT_STEPS == 0:
            good, good_step = [p.detach().clone() for p in parameters], len(losses)
    return Adaptation(len(losses), tuple(losses))


def train_step(model: LoadedModel, batch: dict, parameters, optimizers, clip_norm: float) -> float:
    """One optimiser step; the loss, or NaN with the parameters untouched when loss or gradient are not finite."""
    logits, targets = target_logits(model, batch)
    loss = nn.functional.cross_entropy(logits, targets)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(parameters, clip_norm or math.inf)
    value = float(loss.detach()) if torch.isfinite(norm) else math.nan
    for optimizer in optimizers:
        if math.isfinite(value):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return value


def make_optimizers(groups: list[dict], config: AdaptConfig) -> list[torch.optim.Optimizer]:
    """AdamW, or for groups of layers Muon for the matrices with AdamW, at a tenth of the rate, for the rest."""
    rest, matrices = [], []
    for group in groups:
        is_muon = config.optimizer == "muon" and group.get("layers", False)
        for parameter in group["params"]:
            into_muon = is_muon and parameter.ndim == 2 and min(parameter.shape) > 16
            lr = group["lr"] * (0.1 if is_muon and not into_muon else 1)
            (matrices if into_muon else rest).append({"params": [parameter], "lr": lr})
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        optimizers.append(torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=config.weight_decay))
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=config.lr, weight_decay=config.weight_decay))
    return optimizers


def rate(config: AdaptConfig, step: int, share: float) -> float:
    """Factor of the peak rates at `share` of the adaptation: linear warm-up, then the decay."""
    warm = min(1.0, (step + 1) / max(1, round(config.warmup * config.steps)))
    fall = {"linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2, "constant": 1.0}[config.decay]
    return warm * fall


def draw_batch(model: LoadedModel, task: Task, config: AdaptConfig, rng: np.random.Generator) -> dict:
    """Sequences of random views of the demonstrations, up to batch_tokens padded tokens, at least one."""
    rows: list[Sequence] = []
    dihedrals: list[int] = []
    free = augment.free_colors(task.train) if config.color_permutations else ()
    while True:
        order = tuple(int(i) for i in rng.permutation(len(task.train)))
        seen = Augmentation(int(rng.integers(8)), augment.permute_colors(free, rng), order)
        for row in model.format.training(augment.view(seen, task), config.targets):
            longest = max([len(row), *map(len, rows)])
            if rows and longest * (len(rows) + 1) > config.batch_tokens:
                return batch_of(model, rows, dihedrals)
            rows.append(row)
            dihedrals.append(seen.dihedral)
