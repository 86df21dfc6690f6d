"""The training loop of one task: micro-batches under a memory limit, a deadline, and what to do when memory or numbers fail.

Gradients are those of one batch without padding, however it is cut into micro-batches. Out of memory, the step is taken
again with less: half the micro-batch, then checkpointed activations, then shorter sequences; then the task stays
unadapted. Not here: which parameters are trained (`adapt.py`), or on what sequences (`feed.py`).
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from ttt_core.arc.result import OUT_OF_TIME
from ttt_core.config import AdaptConfig
from ttt_core.errors import is_out_of_memory
from ttt_core.model.load import LoadedModel
from ttt_core.model.optim import make_optimizers, rate
from ttt_core.model.packing import packed, target_loss
from ttt_core.solve.clock import fits, timed
from ttt_core.solve.feed import Row, autocast, micro_batches, packed_of

SNAPSHOT_STEPS = 16  # a good state is kept every so many steps, to fall back to when the loss stops being finite
MIN_TOKENS = 128  # of a sequence: a context is not shortened below
MAX_SKIPPED = 8  # steps in a row that float16's loss scaling may leave out


@dataclass(frozen=True)
class Plan:
    """How a step is cut: tokens of a micro-batch at most, whether activations are checkpointed, tokens of a sequence at most."""

    micro_tokens: int
    checkpoint: bool
    max_tokens: int


@dataclass(frozen=True)
class Adaptation:
    """What one adaptation did: steps taken, losses in nats per target token, whether it fell back to an earlier state.

    plan: how its last step was cut. note: why it ended early, if it did.
    """

    steps: int
    losses: tuple[float, ...]
    rolled_back: bool = False
    plan: Plan | None = None
    note: str = ""


@dataclass
class _State:
    """What changes from step to step."""

    parameters: list[nn.Parameter]
    optimizers: list[torch.optim.Optimizer]
    peaks: list[list[float]]
    scaler: torch.amp.GradScaler
    first: int
    losses: list[float] = field(default_factory=list)
    good: list[torch.Tensor] = field(default_factory=list)
    good_step: int = 0
    skipped: int = 0


def fit(
    model: LoadedModel,
    draw: Callable[[int], Iterator[list[Row]]],
    groups: list[dict],
    config: AdaptConfig,
    plan: Plan,
    deadline: float,
    watch: Callable[[int, float], bool] = lambda step, loss: False,
    first: int = 0,
) -> Adaptation:
    """Train the parameters of `groups` until the steps, the deadline (monotonic seconds), or `watch(step, loss)` end it.

    draw: the rows of step after step, sequences of at most so many tokens. first: steps that were taken before. On a
    loss that is not finite it goes back to the last good state.
    """
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    parameters = [p for group in groups for p in group["params"]]
    optimizers = make_optimizers(groups, config)
    peaks = [[group["lr"] for group in o.param_groups] for o in optimizers]
    state = _State(parameters, optimizers, peaks, _scaler(model, 2.0**12), first)
    _keep(state)
    started, steps, shortened = time.monotonic(), draw(plan.max_tokens), False
    while True:
        with packed(model.net, model.dtype, plan.checkpoint):
            note, rows = _steps(model, steps, state, config, plan, (started, deadline), watch)
            if note not in (OUT_OF_MEMORY, DIVERGED) and state.losses and rows and not _is_finite(model, rows):
                note = DIVERGED
        if note != OUT_OF_MEMORY:
            break
        _free(model, state)
        if not state.losses:  # the optimisers may have begun their states, and moved something
            _copy(parameters, state.good)
            state.optimizers = make_optimizers(groups, config)
        smaller = less(plan, rows)
        if smaller is None:  # what the steps before this one have learnt stays; without any, the model is unadapted
            break
        is_shorter = smaller.max_tokens < plan.max_tokens
        steps = draw(smaller.max_tokens) if is_shorter else itertools.chain([rows], steps)  # the failed one again
        plan, shortened = smaller, shortened or is_shorter
    if note == NO_ROWS and shortened:
        note = OUT_OF_MEMORY
    rolled_back = note == DIVERGED
    if rolled_back:
        _copy(parameters, state.good)
        state.losses = state.losses[: state.good_step]
    return Adaptation(first + len(state.losses), tuple(state.losses), rolled_back, plan, note)


OUT_OF_MEMORY, DIVERGED, NO_ROWS = "out of memory", "the loss was not finite", "no sequence is short enough"


def _steps(model, draw, state: _State, config: AdaptConfig, plan: Plan, times: tuple[float, float], watch):
    """Steps until one of the ends; the note of it, and the rows of the last step."""
    started, deadline = times
    rows: list[Row] = []
    for rows in draw:
        step = state.first + len(state.losses)
        share, clock = step / config.steps, (time.monotonic() - started) / max(deadline - started, 1e-9)
        if clock > (step + 1) / config.steps:  # the clock counts where time is short, and else changes no digit
            share = clock
        if step < config.steps and (share >= 1 or not fits(model, "train", tokens_of(rows), deadline)):
            return OUT_OF_TIME, rows
        if share >= 1:
            return "", rows
        for optimizer, lrs in zip(state.optimizers, state.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = peak * rate(config, step, share)
        try:
            with timed(model, "train", tokens_of(rows)):
                loss = train_step(model, rows, state, config.clip_norm, plan.micro_tokens)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            loss = None
        if loss is None:  # out of the except block, whose traceback holds the tensors of the failed step
            return OUT_OF_MEMORY, rows
        if not math.isfinite(loss):
            return DIVERGED, rows
        state.losses.append(loss)
        if watch(step + 1, loss):
            return "stopped early", rows
    return ("" if rows else NO_ROWS), rows


def train_step(model: LoadedModel, rows: list[Row], state: _State, clip_norm: float, micro_tokens: int) -> float:
    """One optimiser step; the loss in nats per target, or NaN with the parameters untouched if loss or gradient are not finite.

    Before every SNAPSHOT_STEPS-th update what the loss was finite with is kept. In float16 a step whose scaled gradient overflows is left out and the scale halved; only MAX_SKIPPED in a row are NaN.
    """
    batches = [packed_of(model, part) for part in micro_batches(rows, micro_tokens)]
    count = sum(len(batch.targets) for batch in batches)
    total = 0.0
    for batch in batches:
        with autocast(model):
            loss = target_loss(model.net, batch) / count
        state.scaler.scale(loss).backward()
        total += float(loss.detach())
    for optimizer in state.optimizers:
        state.scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(state.parameters, clip_norm or math.inf)
    is_good = bool(torch.isfinite(norm)) and math.isfinite(total)
    if is_good and state.losses and len(state.losses) % SNAPSHOT_STEPS == 0:  # a loss has seen what is kept
        _keep(state)
    for optimizer in state.optimizers:
        if is_good:  # all of them or none
            state.scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=True)
    state.scaler.update()
    state.skipped = 0 if is_good else state.skipped + 1
    overflowed = state.scaler.is_enabled() and math.isfinite(total) and state.skipped < MAX_SKIPPED
    return total if is_good or overflowed else math.nan


def tokens_of(rows: list[Row]) -> int:
    """Of all sequences together."""
    return sum(len(row) for row, _ in rows)


def less(plan: Plan, rows: list[Row]) -> Plan | None:
    """The plan to try after `plan` ran out of memory on `rows`; None where nothing is left to give up."""
    parts = micro_batches(rows, plan.micro_tokens)
    if max(map(len, parts)) > 1:
        largest = max(map(tokens_of, parts))
        return dataclasses.replace(plan, micro_tokens=max(1, largest // 2))
    if not plan.checkpoint:
        return dataclasses.replace(plan, checkpoint=True)
    longest = max(len(row) for row, _ in rows)
    return dataclasses.replace(plan, max_tokens=longest // 2) if longest >= 2 * MIN_TOKENS else None


@torch.no_grad()
def _is_finite(model: LoadedModel, rows: list[Row]) -> bool:
    """Whether the last update, which no loss has seen yet, left a model that computes: on the shortest row."""
    batch = packed_of(model, [min(rows, key=lambda row: len(row[0]))])
    with autocast(model):
        return bool(torch.isfinite(target_loss(model.net, batch)))


@torch.no_grad()
def _keep(state: _State) -> None:
    state.good = state.good or [torch.empty_like(p) for p in state.parameters]  # taken once: later there may be no room
    _copy(state.good, state.parameters)
    state.good_step = len(state.losses)


@torch.no_grad()
def _copy(into: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for target, value in zip(into, values, strict=True):
        target.copy_(value)


def _free(model: LoadedModel, state: _State) -> None:
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    state.scaler = _scaler(model, state.scaler.get_scale())  # the old one may stand in the middle of a step
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


def _scaler(model: LoadedModel, scale: float) -> torch.amp.GradScaler:
    return torch.amp.GradScaler(model.device.type, enabled=model.dtype == torch.float16, init_scale=scale)
