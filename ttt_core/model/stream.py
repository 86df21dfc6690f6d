"""The steps of a training, one after the other without end: each process's part of them, made ahead.

From (seed, epoch, step) alone, so that a resumed training sees what an uninterrupted one does. Not here: views and
how steps are cut (`corpus.py`).
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ttt_core.arc.augment import task_rng
from ttt_core.model.corpus import Corpus, Epoch, make_batch, plan_epoch
from ttt_core.model.distributed import World

AHEAD = 4  # steps' batches made ahead

Part = tuple[dict, float]  # a micro-batch's inputs, this process's rows alone, and the weight of its mean loss


def examples(corpus: Corpus, config, place: World, progress: dict) -> Iterator[tuple]:
    """From where `progress` stands, without end: (epoch, number of the step in it, this process's parts, lengths, answers).

    config: a PretrainConfig. lengths and answers (N,): tokens of the step's sequences, other processes' included.
    """
    step, number = progress["step"], progress["batch"]
    shares = config.scale_share, config.translate_share
    for epoch in range(progress["epoch"], 2**31):
        plan = plan_epoch(corpus, config.seed, epoch, config.batch_tokens * place.size, config.max_tokens, *shares)
        for number in range(number, len(plan.steps)):
            parts = share_of_step(corpus, plan, number, task_rng(config.seed, f"step {step}"), place)
            every = np.concatenate(plan.steps[number])
            yield epoch, number, parts, plan.lengths[every], plan.answers[every]
            step += 1
        number = 0


def share_of_step(corpus: Corpus, plan: Epoch, number: int, rng: np.random.Generator, place: World) -> list[Part]:
    """A process's rows of each micro-batch, weighted so that the processes' mean is the mean over the step's targets."""
    rows, parts = slice(place.rank, None, place.size), []
    targets = sum(int(plan.answers[indices].sum()) for indices in plan.steps[number])
    for indices in plan.steps[number]:
        own = int(plan.answers[indices][rows].sum())
        few = slice(0, 1)  # fewer rows than processes: one that counts nothing
        batch = make_batch(corpus, plan, indices, rng, rows if own else few)
        if place.device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        parts.append((batch, own * place.size / targets))
    return parts


def ahead(items: Iterator) -> Iterator:
    """`items`, made by a thread while the taker works."""
    pool = ThreadPoolExecutor(1)
    try:
        pending = deque(pool.submit(next, items) for _ in range(AHEAD))
        while True:
            pending.append(pool.submit(next, items))
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
