"""The steps of a training, one after the other without end: each process's part of them, made ahead by another process.

From (seed, epoch, step) alone, so that a resumed training sees what an uninterrupted one does. Not here: views and
how steps are cut (`corpus.py`).
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from ttt_core.arc.augment import task_rng
from ttt_core.errors import CheckpointError
from ttt_core.model.batches import make_batch, make_row
from ttt_core.model.corpus import Corpus, Epoch, plan_epoch
from ttt_core.model.distributed import World

AHEAD = 4  # steps' batches made ahead

Part = tuple[dict, float]  # a micro-batch's inputs, this process's rows alone, and the weight of its mean loss


def examples(corpus: Corpus, config, place: World, progress: dict, packed: bool) -> Iterator[tuple]:
    """From where `progress` stands, without end: (epoch, number of the step in it, this process's parts, lengths, answers).

    config: a PretrainConfig. packed: rows, not padded batches. lengths and answers (N,): tokens of the step's sequences,
    other processes' included.
    """
    step, number = progress["step"], progress["batch"]
    views = config.max_tokens, config.scale_share, config.translate_share
    for epoch in range(progress["epoch"], 2**31):
        if packed:
            plan = plan_epoch(corpus, config.seed, epoch, config.batch_tokens, *views, rows=place.size)
        else:
            plan = plan_epoch(corpus, config.seed, epoch, config.batch_tokens * place.size, *views)
        for number in range(number, len(plan.steps)):
            rng = task_rng(config.seed, f"step {step}")
            if packed:
                parts = row_of_step(corpus, plan, number, rng, place, config.batch_tokens)
            else:
                parts = share_of_step(corpus, plan, number, rng, place)
            every = np.concatenate(plan.steps[number])
            yield epoch, number, parts, plan.lengths[every], plan.answers[every]
            step += 1
        number = 0


def share_of_step(corpus: Corpus, plan: Epoch, number: int, rng: np.random.Generator, place: World) -> list[Part]:
    """A process's rows of each micro-batch, weighted so that the processes' mean is the mean over the step's targets."""
    parts = []
    targets = sum(int(plan.answers[indices].sum()) for indices in plan.steps[number])
    for turn, indices in enumerate(plan.steps[number]):
        rows = slice((place.rank + turn) % place.size, None, place.size)  # what is left over goes to another each time
        own = int(plan.answers[indices][rows].sum())
        few = slice(0, 1)  # fewer rows than processes: one that counts nothing
        batch = make_batch(corpus, plan, indices, rng, rows if own else few)
        parts.append((batch, own * place.size / targets))
    return parts


def row_of_step(
    corpus: Corpus, plan: Epoch, number: int, rng: np.random.Generator, place: World, size: int
) -> list[Part]:
    """A process's packed row, weighted likewise; where there are fewer rows than processes, one that counts nothing."""
    rows = plan.steps[number]
    drawn = rng.spawn(place.size)[place.rank]
    own = rows[place.rank] if place.rank < len(rows) else rows[0][:1]
    answers = int(plan.answers[own].sum()) if place.rank < len(rows) else 0
    weight = answers * place.size / sum(int(plan.answers[indices].sum()) for indices in rows)
    return [(make_row(corpus, plan, own, drawn, size), weight)]


def on_device(batch: dict, device: torch.device) -> dict:
    """The batch with its tensors on the device; a tuple that the way here made a list of, as some torch do, is one again."""
    moved = {name: x.to(device, non_blocking=True) for name, x in batch.items() if isinstance(x, torch.Tensor)}
    return {name: moved[name] if name in moved else tuple(x) for name, x in batch.items()}


class Steps(IterableDataset):
    """`examples` as another process makes them, which knows no GPU and no group of processes."""

    def __init__(self, corpus: Corpus, config, place: World, progress: dict):
        alone = dataclasses.replace(place, control=None)
        self.given = corpus, config, alone, dict(progress), config.is_packed(place.device)

    def __iter__(self) -> Iterator[tuple]:
        return examples(*self.given)


def heed_parent_alone(_: int) -> None:
    """In the process that makes the steps: SIGTERM ends it where the one that trains sends it, and no one else.

    `timeout`, Slurm and torchrun send it to both; the one that trains then saves, and ends the other. (macOS does not tell.)
    """
    parent = multiprocessing.parent_process().pid

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=wait, daemon=True).start()


def ahead(corpus: Corpus, config, place: World, progress: dict) -> Iterator[tuple]:
    """`examples`, made AHEAD steps ahead by a process of its own: a thread would hold up the one that trains.

    For a GPU they lie in memory from which it takes them without waiting.
    """
    options = {
        "num_workers": 1,
        "prefetch_factor": AHEAD,
        "pin_memory": place.device.type == "cuda",
        "collate_fn": tuple,
        "worker_init_fn": heed_parent_alone,
    }
    return iter(DataLoader(Steps(corpus, config, place, progress), batch_size=None, **options))


@contextlib.contextmanager
def death_told():
    """Within the context it is a CheckpointError if the process that makes the steps is killed."""
    try:
        yield
    except RuntimeError as error:  # torch has no class of its own for it
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        how = " ".join(str(error).split()).rstrip(".")
        told = f"the process that makes the batches died ({how}); free memory"
        raise CheckpointError(f"{told}; the same command goes on from the last checkpoint") from None
