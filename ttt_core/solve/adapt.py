"""Test-time training: a model made to fit one task's demonstrations, under a deadline and a memory limit.

What is trained: GridLM's fresh task vectors, and LoRA or all weights. Training views are drawn anew each step. The base
weights come back untouched when the `adapted` context ends. The net stays in eval mode: no dropout. Not here: the
loop (`fit.py`), when to stop it (`stop.py`), search and scoring.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Set
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ttt_core.arc.tasks import Task
from ttt_core.config import AdaptConfig
from ttt_core.errors import ModelError, is_out_of_memory
from ttt_core.model import lora, memory
from ttt_core.model.gridlm import GridLM
from ttt_core.model.load import LoadedModel
from ttt_core.model.optim import make_optimizers
from ttt_core.solve import saved
from ttt_core.solve.feed import context_tokens, lengths_of, step_rows, stream
from ttt_core.solve.fit import MIN_TOKENS, OUT_OF_MEMORY, Adaptation, Plan, fit
from ttt_core.solve.saved import Watch

CPU_MICRO_TOKENS = 2048  # more at once are not faster on CPU


@contextlib.contextmanager
def adapted(
    model: LoadedModel,
    task: Task,
    config: AdaptConfig,
    rng: np.random.Generator,
    deadline: float,
    watch: Watch = lambda step, loss: False,
    folder: Path | None = None,
):
    """Within the context `model.net` is adapted to `task`; yields an Adaptation. deadline: monotonic seconds.

    watch: called after each step with its number and loss; true ends the adaptation. folder: in which the adaptation
    has a folder of its own, where it is kept, and looked for first (see `saved.py`).
    """
    note = ""
    with contextlib.ExitStack() as stack:
        done = None
        if config.method != "none" and config.steps:
            lengths = lengths_of(model, task, config)
            config = dataclasses.replace(config, steps=config.steps_at(float(np.mean(lengths))))
            try:
                plan, seed = plan_of(model, config, max(lengths)), int(rng.integers(2**31))
                groups = stack.enter_context(trainable(model, task.id, config, seed))
                done = _fitted(model, task, config, plan, rng, deadline, watch, folder, groups, seed)
            except (RuntimeError, MemoryError) as error:  # outside of a step, whose own back-off is in `fit.py`
                if not is_out_of_memory(error):
                    raise
                note = f"{OUT_OF_MEMORY}: {' '.join(str(error).split())[:200]}"
        if done is not None:
            yield done
            return
    with trainable(model, task.id, dataclasses.replace(config, method="none"), 0):
        yield Adaptation(0, (), note=note)


def _fitted(model, task, config, plan: Plan, rng, deadline, watch: Watch, folder: Path | None, groups, seed: int):
    """Train `groups`, from and into `folder` where there is one."""
    net, parameters = model.net, [p for group in groups for p in group["params"]]
    first, note, own, unkept = 0, "", "", ""
    if folder is not None:
        own = saved.identity(model, task, config, seed)
        folder = folder / own[:8]
        start, note = saved.resume(folder, net, parameters, own)
        first = start.step if start else 0
        watch = saved.keeping(folder, net, parameters, own, watch)

    def draw(max_tokens: int):
        rows = stream(model, task, config, rng, max_tokens)
        if config.sequences:
            rows = itertools.cycle(itertools.islice(rows, config.sequences))
        steps = step_rows(rows, config.batch_tokens, config.batch_sequences)
        return itertools.islice(steps, first, None)  # what was trained on before the stop

    done = fit(model, draw, groups, config, plan, deadline, watch, first)
    if folder is not None and done.losses:
        loss = float(np.mean(done.losses[-saved.RECENT :]))
        unkept = saved.keep(folder, net, parameters, saved.Saved(done.steps, loss), own)
    return dataclasses.replace(done, note="; ".join(filter(None, (note, unkept, done.note))))


@contextlib.contextmanager
def for_inference(model: LoadedModel):
    """Within the context, for search and scoring, adapters are part of their matrices, and these have the dtype of computation.

    A pass of few tokens else spends half of its time on casts and on the adapters' own products. In models stored in fewer
    bits than float32 they are only cast: rounding the sums would lose what a short adaptation adds to the matrices.
    """
    # Norms or biases, not always both, keep the dtype in which the model is stored, but where all are trained.
    kept = [p for p in model.net.parameters() if p.ndim == 1] or [model.net.get_input_embeddings().weight]
    if any(p.dtype != torch.float32 for p in kept):
        with held_as(model.dtype, lora.adapter_parameters(model.net)):
            yield
        return
    adapters = lora.adapter_layers(model.net)
    try:
        lora.merge(model.net)
        for path, layer in adapters.items():
            model.net.set_submodule(path, layer.base)
        with narrowed(model):
            yield
    finally:
        for path, layer in adapters.items():
            model.net.set_submodule(path, layer)
        lora.unmerge(model.net)


@contextlib.contextmanager
def trainable(model: LoadedModel, task_id: str, config: AdaptConfig, seed: int):
    """Within the context `model.net` has fresh parameters to be trained; yields them as optimiser groups."""
    is_grid = model.format.name == "grid"
    vectors = model.net.task_vectors if is_grid else None
    originals: dict[nn.Parameter, torch.Tensor] = {}
    if is_grid:
        model.net.set_tasks(start_vectors(model.net, task_id))
    model.net.requires_grad_(False)
    try:
        groups = make_trainable(model.net, config, seed, originals)
        with narrowed(model, except_for={p for group in groups for p in group["params"]}):
            yield groups
    finally:
        lora.remove(model.net)
        for parameter, original in originals.items():
            parameter.data = original
        if is_grid:
            model.net.task_vectors = vectors
        model.net.requires_grad_(False)


def make_trainable(net: nn.Module, config: AdaptConfig, seed: int, originals: dict) -> list[dict]:
    """The parameters to be trained, as optimiser groups; LoRA is injected. What they replace goes into `originals`."""
    groups = []
    if config.method == "lora":
        lora.inject(net, rank=config.rank, alpha=config.alpha, rslora=config.rslora, seed=seed)
        groups.append({"params": lora.adapter_parameters(net), "lr": config.lr, "layers": True})
        if config.embedding_lr:
            ends = (net.get_input_embeddings(), net.get_output_embeddings())
            weights = list({id(p): p for end in ends for p in end.parameters()}.values())  # tied: one
            if next(net.parameters()).device.type == "cpu":  # where LayerNorm takes no float32 beside narrower weights
                unfrozen([p for m in net.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()], originals)
            groups.append({"params": unfrozen(weights, originals), "lr": config.embedding_lr})
    elif config.method == "full":
        weights = [p for name, p in net.named_parameters() if not name.startswith("task_vectors.")]
        groups.append({"params": unfrozen(weights, originals), "lr": config.lr, "layers": True})
    if config.method != "none" and isinstance(net, GridLM):
        groups.append({"params": [net.task_vectors.weight], "lr": config.vector_lr})
    if not groups and config.method != "none":
        raise ModelError(
            f"adapt.method={config.method}: a {type(net).__name__} has no task vectors; set it to lora or full"
        )
    return groups


def refuse_adaptation(model: LoadedModel, config: AdaptConfig) -> None:
    """ModelError if the model cannot be adapted so: it lacks what is to be trained, or its optimiser is not installed."""
    if config.method in ("lora", "vectors"):
        with trainable(model, "", config, 0) as groups:
            make_optimizers(groups, config)
    elif config.method == "full":  # of all weights a copy would be made
        make_optimizers([{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.0}], config)


@contextlib.contextmanager
def narrowed(model: LoadedModel, except_for: Set[nn.Parameter] = frozenset()):
    """Within the context the matrices of linear layers have the dtype of computation, to which autocast else casts them in every pass.

    An embedding stays, and a head that is tied to it.
    """
    left = except_for | {model.net.get_input_embeddings().weight}
    weights = {layer.weight for layer in lora.linear_layers(model.net).values()} - left
    with held_as(model.dtype, [weight for weight in weights if weight.dtype == torch.float32]):
        yield


@contextlib.contextmanager
def held_as(dtype: torch.dtype, weights: Iterable[nn.Parameter]):
    """Within the context `weights` have `dtype`; then they are again what they were, bit for bit."""
    wide = {}
    try:
        for weight in weights:
            wide[weight] = weight.data
            weight.data = weight.data.to(dtype)
        yield
    finally:
        for weight, data in wide.items():
            weight.data = data


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


def plan_of(model: LoadedModel, config: AdaptConfig, longest: int) -> Plan:
    """Micro-batch, checkpointing and context by the memory estimate, for sequences of up to `longest` tokens.

    Plain if one of these fits, else checkpointed, else shorter; MemoryError if there is no room for MIN_TOKENS.
    """
    most = max(longest, CPU_MICRO_TOKENS if model.device.type == "cpu" else config.batch_tokens)
    for checkpoint in (False, True):
        guess = estimate_of(model, weighed(config), checkpoint)
        limit = config.max_memory_gib * 2**30 or guess.weights + config.memory_share * memory.free_bytes(model.device)
        tokens = guess.tokens(limit)
        if tokens >= longest:
            break
    if tokens < min(longest, MIN_TOKENS):
        taken, room = guess.total(0) / 2**30, limit / 2**30
        raise MemoryError(
            f"weights, what is trained and its optimiser alone take {taken:.3g} of {room:.3g} GiB; "
            + {"lora": "lower adapt.rank", "full": "set adapt.method=lora"}.get(config.method, "take a smaller model")
        )
    return Plan(int(max(1, min(most, tokens))), checkpoint, int(max(1, min(context_tokens(model), tokens))))


def weighed(config: AdaptConfig) -> AdaptConfig:
    """The options that memory depends on, all else as it always is: what a task's further passes are, too."""
    names = ("method", "rank", "optimizer", "embedding_lr")
    return AdaptConfig(**{name: getattr(config, name) for name in names})


@functools.lru_cache(maxsize=4)
def estimate_of(model: LoadedModel, config: AdaptConfig, checkpoint: bool) -> memory.Estimate:
    """Made once for a model and its options; see `model/memory.py`."""
    before = {p: p.nbytes for p in model.net.parameters()}
    with trainable(model, "", config, 0) as groups:
        narrow = sum(p.nbytes for p, size in before.items() if p.nbytes < size)  # beside the originals
        return memory.estimate(model.net, model.dtype, sum(before.values()) + narrow, groups, config, checkpoint)
