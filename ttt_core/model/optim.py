"""Muon for many matrices, the optimisers of adaptation, and their rate over time. Not here: gradients."""

import math

import torch

from ttt_core.config import AdaptConfig
from ttt_core.errors import ModelError
from ttt_core.model.load import dtype_on

TOGETHER = 1 << 19  # elements of matrices orthogonalised at once, at most: what the cache of a CPU core holds
TOGETHER_CUDA = 1 << 26  # likewise on a GPU, which wants few large products
NARROW = 64  # rows or columns of a matrix, such as an adapter's, that is orthogonalised by way of its Gram matrix


class Muon(torch.optim.Muon):
    """torch's Muon with its defaults, matrices of one shape taken together: many small ones in a quarter of the time."""

    @torch.no_grad()
    def step(self, closure=None):
        """One step on the matrices that have a gradient; a closure is not called."""
        for group in self.param_groups:
            for part in _alike([p for p in group["params"] if p.grad is not None]):
                self._step_together(part, group)

    def _step_together(self, matrices: list[torch.Tensor], group: dict) -> None:
        gradients = [matrix.grad for matrix in matrices]
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        updates = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's
        height, width = matrices[0].shape
        is_narrow, rate = min(height, width) <= NARROW, -group["lr"] * math.sqrt(max(1, height / width))
        dtype = torch.float32 if is_narrow else dtype_on(matrices[0].device)
        wide = torch.stack([(u if _is_wide(u) else u.T).to(dtype) for u in updates])
        moves = _by_gram(wide, group, rate) if is_narrow else _orthogonal(wide, group).to(matrices[0].dtype).mul_(rate)
        if group["weight_decay"]:
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(matrices, [m if _is_wide(u) else m.T for m, u in zip(moves, updates, strict=True)])


def _is_wide(matrix: torch.Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def _alike(matrices: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Those of one shape together, of TOGETHER elements at most; at least one."""
    parts: dict = {}
    for matrix in matrices:
        same = parts.setdefault(matrix.shape, [[]])
        limit = TOGETHER_CUDA if matrix.is_cuda else TOGETHER
        if same[-1] and (len(same[-1]) + 1) * matrix.numel() > limit:
            same.append([])
        same[-1].append(matrix)
    return [part for same in parts.values() for part in same]


def _orthogonal(matrices: torch.Tensor, group: dict) -> torch.Tensor:
    """(N, R, C), R <= C: nearly the closest matrices with orthonormal rows, by Newton-Schulz iterations in their dtype."""
    a, b, c = group["ns_coefficients"]
    X = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = X @ X.mT
        X = torch.baddbmm(X, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X


def _by_gram(X: torch.Tensor, group: dict, rate: float) -> torch.Tensor:
    """`rate` times `_orthogonal(X)`: its steps multiply X by polynomials of X X^T (N, R, R), on which they are taken alone."""
    a, b, c = group["ns_coefficients"]
    gram = X @ X.mT
    size = gram.diagonal(dim1=1, dim2=2).sum(-1).clamp(min=group["eps"] ** 2)[:, None, None]  # the square of X's norm
    gram, one = gram / size, torch.eye(X.shape[1], dtype=X.dtype, device=X.device)
    left = rate / size.sqrt() * one
    for _ in range(group["ns_steps"]):
        factor = torch.baddbmm(a * one + b * gram, gram, gram, alpha=c)
        left, gram = factor @ left, factor @ gram @ factor
    return left @ X


def make_optimizers(groups: list[dict], config: AdaptConfig) -> list[torch.optim.Optimizer]:
    """AdamW, or for groups of layers Muon for the matrices with AdamW, at a tenth of the rate, for the rest.

    groups: dicts of params, lr and optionally layers. ModelError if 8-bit AdamW is asked for and not installed.
    """
    rest, matrices = _split(groups, config)
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:  # first: should memory end in a step, it ends here, and none has been taken
        decay, steps = config.weight_decay, config.muon_steps
        optimizers.append(Muon(matrices, lr=config.lr, weight_decay=decay, ns_steps=steps))
    if rest:
        made = [{"params": parameters, "lr": lr} for lr, parameters in rest.items()]
        options = {"betas": (0.9, 0.95), "weight_decay": config.weight_decay}
        optimizers.append(_adamw8bit(made, options) if config.optimizer == "adamw8bit" else _adamw(made, options))
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
