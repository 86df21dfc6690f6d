"""Sequences of either model family as one kind of batch, and the one forward pass with targets.

Knows that GridLM wants a task and a dihedral per sequence and that a causal LM does not; nothing else in `solve/` does.
At test time GridLM holds eight task vectors, one a dihedral, so a sequence's task id is its dihedral.
"""

import torch
from torch import Tensor

from ttt_core.arc.encode import IGNORE, Sequence
from ttt_core.model.corpus import collate
from ttt_core.model.load import LoadedModel


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
    low = model.dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(model.device.type, model.dtype if low else torch.bfloat16, enabled=low)
