"""The optimisers of adaptation, and their rate over time. Not here: gradients."""

import math

import torch

from ttt_core.config import AdaptConfig
from ttt_core.errors import ModelError


def make_optimizers(groups: list[dict], config: AdaptConfig) -> list[torch.optim.Optimizer]:
    """AdamW, or for groups of layers Muon for the matrices with AdamW, at a tenth of the rate, for the rest.

    groups: dicts of params, lr and optionally layers. ModelError if 8-bit AdamW is asked for and not installed.
    """
    rest, matrices = _split(groups, config)
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        made = [{"params": parameters, "lr": lr} for lr, parameters in rest.items()]
        options = {"betas": (0.9, 0.95), "weight_decay": config.weight_decay}
        optimizers.append(_adamw8bit(made, options) if config.optimizer == "adamw8bit" else _adamw(made, options))
    if matrices:
        decay, steps = config.weight_decay, config.muon_steps
        optimizers.append(torch.optim.Muon(matrices, lr=config.lr, weight_decay=decay, ns_steps=steps))
    return optimizers


def state_bytes(groups: list[dict], config: AdaptConfig) -> int:
    """Bytes of the optimisers' states: two moments of AdamW (one byte each in 8 bits), one of Muon."""
    rest, matrices = _split(groups, config)
    moments = {p: p.nbytes if config.optimizer != "adamw8bit" else p.numel() for ps in rest.values() for p in ps}
    return 2 * sum(moments.values()) + sum(p.nbytes for p in matrices)


def _split(groups: list[dict], config: AdaptConfig) -> tuple[dict[float, list], list]:
    """Parameters for AdamW by their rate, and matrices for Muon."""
    rest: dict[float, list] = {}
    matrices = []
    for group in groups:
        is_muon = config.optimizer == "muon" and group.get("layers", False)
        for parameter in group["params"]:
            if is_muon and parameter.ndim == 2 and min(parameter.shape) > 16:
                matrices.append(parameter)
            else:
                rest.setdefault(group["lr"] * (0.1 if is_muon else 1), []).append(parameter)
    return rest, matrices


def _adamw(groups: list[dict], options: dict) -> torch.optim.Optimizer:
    kinds = {parameter.device.type for group in groups for parameter in group["params"]}
    return torch.optim.AdamW(groups, fused=kinds <= {"cpu", "cuda"}, **options)


def _adamw8bit(groups: list[dict], options: dict) -> torch.optim.Optimizer:
    try:
        import bitsandbytes
    except ImportError:
        raise ModelError("adapt.optimizer=adamw8bit: bitsandbytes is not installed; install it or take adamw") from None
    return bitsandbytes.optim.AdamW8bit(groups, **options)


def rate(config: AdaptConfig, step: int, share: float) -> float:
    """Factor of the peak rates at `share` of the adaptation: linear warm-up, then the decay."""
    warm = min(1.0, (step + 1) / max(1, round(config.warmup * config.steps)))
    fall = {"linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2, "constant": 1.0}[config.decay]
    return warm * fall
