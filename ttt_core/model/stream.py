"""The batches of a training, one after the other without end: each process's part of them, made ahead of the step.

From (seed, epoch, step) alone, so that a resumed training sees what an uninterrupted one does. Not here: views and
packing (`corpus.py`).
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from ttt_core.arc.augment import task_rng
from ttt_core.model.corpus import Corpus, Epoch, make_batch, plan_epoch
from ttt_core.model.distributed import World

AHEAD = 4  # batches made ahead of the step that takes them


def examples(corpus: Corpus, config, place: World, progress: dict) -> Iterator[tuple]:
    """From where `progress` stands (epoch, batch number, this process's batch, its loss's weight, lengths (N,)) without end.

    config: a PretrainConfig. lengths: of all N sequences of the batch, those of other processes included.
    """
    step, number, part = progress["step"], progress["batch"], slice(place.rank, None, place.size)
    shares = config.scale_share, config.translate_share
    for epoch in range(progress["epoch"], 2**31):
        plan = plan_epoch(corpus, config.seed, epoch, config.batch_tokens * place.size, config.max_tokens, *shares)
        for number in range(number, len(plan.batches)):
            rng = task_rng(config.seed, f"step {step}")
            batch, weight = share_of_batch(corpus, plan, number, rng, part, place)
            yield epoch, number, batch, weight, plan.lengths[plan.batches[number]]
            step += 1
        number = 0


def share_of_batch(corpus: Corpus, plan: Epoch, number: int, rng, part: slice, place: World) -> tuple[dict, float]:
    """A process's rows, and the weight that makes the processes' mean of means the mean over the whole batch's targets."""
    answers = plan.answers[plan.batches[number]]
    if len(answers[part]) == 0:  # fewer rows than processes: a row that counts nothing
        return make_batch(corpus, plan, number, rng, slice(0, 1)), 0.0
    batch = make_batch(corpus, plan, number, rng, part)
    if place.device.type == "cuda":
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return batch, float(answers[part].sum() * place.size / answers.sum())


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
