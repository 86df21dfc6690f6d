"""Pretraining GridLM, from nothing or from a base: one pair per sequence, a vector per task, loss on output tokens.

Muon for the layers' matrices, AdamW for the rest; warm-up, flat, then a linear fall that ends with the budget. Writes
a model directory (bf16 safetensors), `checkpoint/` to resume from, and `train_log.jsonl`. Not here: which pairs there
are (`sources.py`), how they are viewed and batched (`corpus.py`, `batches.py`, `stream.py`), the net at the start
(`start.py`), one step and its optimisers (`step.py`).
"""

import collections
import contextlib
import dataclasses
import json
import math
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ttt_core.errors import CheckpointError, InputError, TTTError, is_out_of_memory
from ttt_core.model import checkpoint
from ttt_core.model.batches import held_out_batches
from ttt_core.model.corpus import Corpus
from ttt_core.model.distributed import World, world
from ttt_core.model.gridlm import GridLM
from ttt_core.model.load import autocast, dtype_on, sha256_of_weights
from ttt_core.model.material import uncollected
from ttt_core.model.pretrain_config import MAY_CHANGE, PretrainConfig, schedule
from ttt_core.model.rows import callable_of, compiler_missed
from ttt_core.model.signals import deferred_signals
from ttt_core.model.sources import read_corpus
from ttt_core.model.speed import keep_memory, matmul_rate, training_flop
from ttt_core.model.start import make_net
from ttt_core.model.step import make_optimizers, train_step, update_ema, weights_of
from ttt_core.model.stream import Part, ahead, death_told, on_device
from ttt_core.model.trainlog import fingerprint, fresh_stretch, log_entry, note, refuse_other, trim_log

MARGIN = 1.25  # on the time that the last save may take
NO_STEP = "reading and saving leave no time for a step; give more seconds"
RECENT = 9  # steps whose median tells what the next one takes


def pretrain(
    data: Path | None,
    out: Path,
    config: PretrainConfig,
    *,
    extra: Path | None = None,
    transductive: Path | None = None,
    base: Path | None = None,
    hold_out: frozenset[str] = frozenset(),
    exclude: frozenset[str] = frozenset(),
    guard: Path | None = None,
    began: float | None = None,
) -> Path:
    """Train, or go on training where `out/checkpoint` stands; returns `out`, a model directory but for the moment of a save.

    transductive: challenge file whose demonstrations are learnt too. base: model directory to start from, each task it
    knows from its vector. guard: challenge file of which nothing else may be learnt, InputError on a leak; if none is given,
    `transductive`, or the evaluation challenges in `data`. began: when the command did (monotonic seconds), if not now.
    """
    began, guard = time.monotonic() if began is None else began, guard or transductive
    if guard is None and data and (beside := data / "arc-agi_evaluation_challenges.json").exists():
        guard = beside
    if not checkpoint.exists(out) and any(out.glob("*.safetensors")):
        raise CheckpointError(f"{out}: holds a model without checkpoint; give another --out, and this one as --base")
    keep_memory()
    with uncollected():
        corpus = read_corpus(
            data,
            extra,
            max_tokens=config.max_tokens,
            transductive=transductive,
            colors=config.colors,
            original_views=config.original_views,
            hold_out=hold_out,
            exclude=exclude,
            guard=guard,
        )
    if guard is None:
        warnings.warn(f"{data}: has no evaluation challenges, so no leak can be found; give --challenges", stacklevel=2)
    with (
        world() as place,
        checkpoint.held(out) if place.rank == 0 else contextlib.nullcontext(),
        memory_told(out, config.batch_tokens),
    ):
        torch.manual_seed(config.seed)
        net = make_net(corpus, config, base, guard, data, transductive, exclude).to(place.device)
        optimizers = make_optimizers(net, config, place)
        ema = {k: v.detach().float().clone() for k, v in net.state_dict().items()} if config.ema else None
        progress = {"step": 0, "epoch": 0, "batch": 0, "tokens": 0, "flop": 0.0, "seconds": 0.0}
        progress |= {"save_s": 0.0, "ahead_s": 0.0}  # what the next save and one more step may take
        settled = {
            "base_sha256": sha256_of_weights(base) if base else "",
            **dataclasses.asdict(config),
            **{name: getattr(net.config, name) for name in ("width", "layers", "heads")},
            "corpus": fingerprint(corpus),
            "processes": place.size,
        }
        if checkpoint.exists(out):

            def check(stored: dict) -> None:
                refuse_other(out, stored.pop("config"), settled, MAY_CHANGE)

            progress |= checkpoint.load_checkpoint(out, net, optimizers, ema, check)
        follow_packing(out, progress, config.is_packed(place.device))
        if place.differs(progress["step"]):
            raise CheckpointError(f"checkpoint in {out}: not the same in all processes; give an --out that they share")
        with deferred_signals() as caught, death_told(), compiler_missed():
            train(Training(net, optimizers, ema, corpus, config, out, place, settled), progress, began, caught)
    return out


@contextlib.contextmanager
def memory_told(out: Path, batch_tokens: int):
    """Within the context it is an InputError if memory ends; a model in `out` is then what to go on from."""
    try:
        yield
    except Exception as error:
        if isinstance(error, TTTError) or not is_out_of_memory(error):
            raise
        way = ", with another --out and this one as --base" if any(out.glob("*.safetensors")) else ""
        told = f"{out}: memory has ended with batch_tokens {batch_tokens}"
        raise InputError(f"{told}; lower --batch-tokens{way}") from None


def follow_packing(out: Path, progress: dict, is_packed: bool) -> None:
    """Note in `progress` what epochs are cut into; one that was cut otherwise is left for the next."""
    if progress.setdefault("packed", is_packed) != is_packed:
        was, now = ("rows" if packed else "padded batches" for packed in (not is_packed, is_packed))
        progress |= {"packed": is_packed, "epoch": progress["epoch"] + 1, "batch": 0}
        told = f"{out}: steps were {was}, on this machine they are {now}"
        warnings.warn(f"{told}; the rest of the epoch is left out, epoch {progress['epoch']} begins", stacklevel=3)


@dataclass(frozen=True, eq=False)
class Training:
    """What stays the same throughout a training."""

    net: GridLM
    optimizers: list[torch.optim.Optimizer]
    ema: dict[str, torch.Tensor] | None
    corpus: Corpus
    config: PretrainConfig
    out: Path
    place: World
    settled: dict  # the options a checkpoint is bound to


def train(run: Training, progress: dict, began: float, caught: Sequence[str] = ()) -> None:
    """The loop: from `progress` to the end of the budget or piece, or until a signal is `caught`.

    Saves model, checkpoint and log as it goes.
    """
    config, place, out = run.config, run.place, run.out
    started = began - progress["seconds"]
    model = callable_of(run.net, config, place)
    rates = [[group["lr"] for group in o.param_groups] for o in run.optimizers]
    peak_rate = matmul_rate(place.device, dtype_on(place.device)) * place.size
    if progress["step"]:  # before the first one nothing is counted
        progress["seconds"] = time.monotonic() - started
    if place.rank == 0:
        progress["save_s"] = first_save(run, progress) * (1 if progress["step"] else 2)  # later with momenta
        trim_log(out / "train_log.jsonl", progress["step"])
    stretch, saved = fresh_stretch(), time.monotonic()
    progress["seconds"] = saved - started
    whole = dataclasses.replace(config, piece_s=math.inf)
    over = place.agree(spent(whole, progress, began))
    share = max(over, place.agree(spent(config, {**progress, "ahead_s": 0.0}, began)))  # a piece has time for a step
    if share >= 1 > over:
        raise InputError(f"piece {config.piece_s:g} s: {NO_STEP}")
    if share >= 1 and progress["step"] == 0:
        raise InputError(f"budget {config.budget_s:g} s: {NO_STEP}; {out} holds the model as it was at the start")
    shown = {"unit": "s", "desc": "pretrain", "mininterval": 5, "disable": place.rank != 0}
    bar = tqdm(total=int(config.budget_s), initial=int(progress["seconds"]), **shown)
    run.net.train()
    first, recent_s = progress["step"], collections.deque(maxlen=RECENT)
    stream = ahead(run.corpus, config, place, progress)
    while share < 1:
        waited = time.perf_counter()
        epoch, number, parts, lengths, answers = next(stream)
        stretch["waited_s"] += time.perf_counter() - waited
        set_rates(run.optimizers, rates, schedule(config, progress["step"], share))
        loss = step(run, model, parts, progress["step"])
        flop = training_flop(run.net.config, lengths, answers)
        padded = sum(batch["input_ids"].numel() for batch, _ in parts)
        note(stretch, loss, lengths, padded, flop)
        progress |= {
            "step": progress["step"] + 1,
            "epoch": epoch,
            "batch": number + 1,
            "flop": progress["flop"] + flop,
        }
        progress |= {"tokens": progress["tokens"] + int(lengths.sum()), "seconds": time.monotonic() - started}
        bar.update(int(progress["seconds"]) - bar.n)
        if progress["step"] > first + 1 or not config.compile:  # the first one compiles
            recent_s.append(time.perf_counter() - waited)
            progress["ahead_s"] = 2 * statistics.median(recent_s)
        share = place.agree(1.0 if caught else spent(config, progress, began))
        if place.agree(time.monotonic() - saved > config.save_every_s) or share >= 1:
            stretch["loss"] = place.total(stretch["loss"]) / place.size
            stretch["padded"] = int(place.total(torch.tensor(stretch["padded"], device=place.device)))
            muon, _ = run.optimizers
            muon.gather()
            if place.rank == 0:
                entry = log_entry(progress, stretch, time.monotonic() - saved, peak_rate)
                progress["save_s"] = save(run, progress, entry)
            stretch, saved = fresh_stretch(), time.monotonic()
            progress["seconds"] = saved - started
            share = max(share, place.agree(spent(config, progress, began)))
    bar.close()
    if place.rank == 0:
        is_over = spent(whole, progress, began) >= 1
        told = "the budget is used up" if is_over else "the same command goes on"
        tqdm.write(f"step {progress['step']}, {progress['seconds']:.0f} of {config.budget_s:g} s: {told}")


def step(run: Training, model: nn.Module, parts: list[Part], number: int) -> torch.Tensor:
    """Optimiser step `number` with `model`, run.net as it is called; its loss."""
    if run.config.dropout:  # the same when resumed
        torch.manual_seed(((run.config.seed * 2**40 + number) * 1024 + run.place.rank) % 2**63)
    parts = [(on_device(batch, run.place.device), weight) for batch, weight in parts]
    loss = train_step(model, run.optimizers, parts, run.config.clip_norm)
    if run.ema is not None:
        update_ema(run.ema, run.net, run.config.ema, number)
    return loss


def set_rates(optimizers, peaks: list[list[float]], factor: float) -> None:
    for optimizer, rates in zip(optimizers, peaks, strict=True):
        for group, peak in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = peak * factor


def spent(config: PretrainConfig, progress: dict, began: float) -> float:
    """The share of the training that lies behind, by seconds or, with max_steps, by steps; 1 also when the piece is over."""
    reserve_s = progress["save_s"] * MARGIN + progress["ahead_s"]
    if time.monotonic() - began + reserve_s >= config.piece_s:
        return 1.0
    if config.max_steps:
        return progress["step"] / config.max_steps
    return progress["seconds"] / max(config.budget_s - reserve_s, 1e-9)


@torch.no_grad()
def held_out_nll(run: Training) -> float | None:
    """Nats per output token on the held-out pairs, each under its task's trained vector; None if there are none."""
    run.net.eval()
    total, count = 0.0, 0
    with weights_of(run.net, run.ema):
        for batch in held_out_batches(run.corpus, run.config.batch_tokens):
            with autocast(run.place.device, dtype_on(run.place.device)):
                output = run.net(**{name: tensor.to(run.place.device) for name, tensor in batch.items()})
            total, count = total + float(output.loss) * len(output.logits), count + len(output.logits)
    run.net.train()
    return total / count if count else None


def first_save(run: Training, progress: dict) -> float:
    """A usable model before the first step, and the seconds that saving takes."""
    started = time.monotonic()
    held_out_nll(run)
    save_all(run, progress)
    return time.monotonic() - started


def save(run: Training, progress: dict, entry: dict) -> float:
    """Held-out loss, model, checkpoint and log line; returns the seconds it took."""
    started = time.monotonic()
    nll = held_out_nll(run)
    entry["held_out_nll"] = None if nll is None else round(nll, 4)
    save_all(run, progress)
    with open(run.out / "train_log.jsonl", "a") as log:
        log.write(json.dumps(entry) + "\n")
    tqdm.write(json.dumps(entry))
    return time.monotonic() - started


def save_all(run: Training, progress: dict) -> None:
    """The checkpoint first: a model without one is taken for a finished one, which no training replaces. It counts the save in."""
    told = {**progress, "seconds": progress["seconds"] + progress["save_s"], "config": run.settled}
    with checkpoint.writable(run.out, "make room; the same command then goes on from the last checkpoint"):
        checkpoint.save_checkpoint(run.out, run.net, run.optimizers, run.ema, told)
        checkpoint.save_model(run.net, run.out, run.ema)
