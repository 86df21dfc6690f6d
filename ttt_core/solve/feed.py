"""Sequences of either model family: as training sequences drawn from a task, as one kind of batch, and the forward passes.

Knows that GridLM wants a task and a dihedral per sequence and that a causal LM does not; nothing else in `solve/` does.
At test time GridLM holds eight task vectors, one a dihedral, so a sequence's task id is its dihedral.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ttt_core.arc import augment
from ttt_core.arc.augment import Augmentation
from ttt_core.arc.encode import IGNORE, NO_LIMIT, Sequence
from ttt_core.arc.tasks import Task
from ttt_core.config import AdaptConfig
from ttt_core.model import load
from ttt_core.model.batches import collate
from ttt_core.model.load import LoadedModel
from ttt_core.model.packing import Packed, pack

Row = tuple[Sequence, int]  # a training sequence and the dihedral of its view


def stream(
    model: LoadedModel, task: Task, config: AdaptConfig, rng: np.random.Generator, max_tokens: int = NO_LIMIT
) -> Iterator[Row]:
    """Training sequences of random views of the demonstrations, without end; none if no view has one that short."""
    free = augment.free_colors(task.train) if config.color_permutations else ()
    empty = 0
    while empty < 64:  # views differ in length: where 64 in a row have no sequence short enough, none will
        order = tuple(int(i) for i in rng.permutation(len(task.train)))
        seen = Augmentation(int(rng.integers(8)), augment.permute_colors(free, rng), order)
        rows = model.format.training(augment.view(seen, task), config.targets, max_tokens)
        empty = 0 if rows else empty + 1
        yield from ((rows[i], seen.dihedral) for i in rng.permutation(len(rows)))


def lengths_of(model: LoadedModel, task: Task, config: AdaptConfig) -> list[int]:
    """Tokens of the training sequences; those of a view that turns grids on their side may be longer. At least one."""
    views = [augment.view(Augmentation(dihedral), task) for dihedral in (0, 1)]
    rows = [row for view in views for row in model.format.training(view, config.targets, context_tokens(model))]
    return [len(row) for row in rows] or [1]


def step_rows(rows: Iterator[Row], batch_tokens: int, batch_sequences: int = 1) -> Iterator[list[Row]]:
    """The rows of one optimiser step after the other: at most batch_tokens tokens, at least batch_sequences sequences."""
    step: list[Row] = []
    for row in rows:
        if len(step) >= batch_sequences and sum(len(r) for r, _ in step) + len(row[0]) > batch_tokens:
            yield step
            step = []
        step.append(row)


def micro_batches(rows: list[Row], micro_tokens: int) -> list[list[Row]]:
    """`rows`, sorted by length, in parts of at most micro_tokens tokens, at least one sequence each."""
    parts: list[list[Row]] = []
    room = 0
    for row in sorted(rows, key=lambda row: len(row[0])):
        if not parts or len(row[0]) > room:
            parts.append([])
            room = micro_tokens
        parts[-1].append(row)
        room -= len(row[0])
    return parts


def packed_of(model: LoadedModel, rows: list[Row]) -> Packed:
    """The rows of one micro-batch end to end on the model's device."""
    return pack([row for row, _ in rows], [dihedral for _, dihedral in rows], model.device)


def context_tokens(model: LoadedModel) -> int:
    """The longest sequence that the model takes: it has positions for it, and it is no longer than a sliding window.

    For neither packed attention nor search knows of windows. Nor longer than what LongRoPE was extended from: beyond, its
    angles depend on the longest sequence of a batch, and those of cached keys are no longer right.
    """
    if model.format.name == "grid":
        return NO_LIMIT
    config = model.net.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    first = rope.get("original_max_position_embeddings", getattr(config, "original_max_position_embeddings", None))
    extended = first if "longrope" in (rope.get("rope_type"), rope.get("type")) else None
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    limits = (getattr(config, "max_position_embeddings", None), window, extended)
    return min([limit for limit in limits if isinstance(limit, int)], default=NO_LIMIT)


def batch_of(model: LoadedModel, rows: list[Sequence], dihedrals: list[int], left: bool = False) -> dict[str, Tensor]:
    """Padded tensors on the model's device, as its forward takes them; `left` pads before the sequences."""
    batch = collate(rows, left)
    if model.format.name == "grid":
        batch["task_ids"] = batch["dihedral_ids"] = torch.tensor(dihedrals)
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def target_logits(model: LoadedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits (M, V) float32 at the positions that predict a target, row by row, and the targets (M,)."""
    labels = batch["labels"]
    targets = labels[:, 1:][labels[:, 1:] != IGNORE]
    with autocast(model):
        if model.format.name == "grid":
            return model.net(**batch).logits.float(), targets
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
        logits = model.net(**inputs, use_cache=False).logits[:, :-1]  # (B, T-1, V)
    return logits[labels[:, 1:] != IGNORE].float(), targets


def autocast(model: LoadedModel):
    """The precision in which the model computes."""
    return load.autocast(model.device, model.dtype)
