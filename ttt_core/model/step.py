"""One optimiser step of pretraining: loss, gradients, Muon and AdamW, averaged weights.

Knows nothing of files, time or where batches come from.
"""

import contextlib

import torch
from torch import Tensor, nn

from ttt_core.errors import NonFiniteError
from ttt_core.model.distributed import World
from ttt_core.model.load import autocast, dtype_on
from ttt_core.model.optim import Muon


def train_step(model: nn.Module, optimizers, parts: list[tuple[dict, float]], clip_norm: float) -> Tensor:
    """One step on micro-batches and the weights of their losses; the weighted sum, in nats per output token.

    NonFiniteError leaves the weights as they were.
    """
    losses = []
    for number, (batch, weight) in enumerate(parts, 1):
        alone = getattr(model, "no_sync", None) if number < len(parts) else None  # DDP averages gradients once a step
        with alone() if alone else contextlib.nullcontext():
            device = batch["input_ids"].device
            with autocast(device, dtype_on(device)):
                loss = model(**batch).loss * weight
            loss.backward()
        losses.append(loss.detach())
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
    if not torch.isfinite(norm):
        raise NonFiniteError(
            f"gradient norm {float(norm)}: lower --lr and the other rates, with another --out and this one as --base"
        )
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return torch.stack(losses).sum()


def make_optimizers(net: nn.Module, config, place: World) -> list[torch.optim.Optimizer]:
    """Muon, its work shared by the processes, for the matrices inside the layers; AdamW for everything else."""
    named = list(net.named_parameters())
    matrices = [p for name, p in named if name.startswith("layers.") and p.ndim == 2]
    vectors = [p for name, p in named if "_vectors." in name]
    taken = {id(p) for p in (*matrices, *vectors)}
    rest = [p for _, p in named if id(p) not in taken]
    groups = [{"params": vectors, "lr": config.vector_lr}, {"params": rest, "lr": config.lr}]
    return [
        SharedMuon(matrices, place, lr=config.muon_lr, weight_decay=0.0),
        torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=place.device.type == "cuda"),
    ]


class SharedMuon(Muon):
    """Muon, of which each process updates a part of the matrices and tells the others the result.

    The gradients are the same in all processes. A matrix's momentum is kept by its own process; `gather` before saving.
    """

    def __init__(self, matrices: list[nn.Parameter], place: World, **options):
        super().__init__(matrices, **options)
        self.place, self.owners, loads = place, {}, [0] * place.size
        for matrix in sorted(matrices, key=lambda p: -p.numel()):
            self.owners[matrix] = loads.index(min(loads))
            loads[self.owners[matrix]] += matrix.numel() * min(matrix.shape)  # of products, in proportion

    @torch.no_grad()
    def step(self, closure=None):
        for matrix, owner in self.owners.items():
            if owner != self.place.rank:
                matrix.grad = None
        super().step(closure)
        self.place.tell(self.owners)

    @torch.no_grad()
    def gather(self) -> None:
        """Every process gets the momenta of all matrices. To be called by all of them."""
        for matrix in self.owners:
            self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
        self.place.tell({self.state[matrix]["momentum_buffer"]: owner for matrix, owner in self.owners.items()})


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], net: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights towards the current ones; early on faster, so that the start is soon forgotten."""
    decay = min(decay, (step + 1) / (step + 10))
    state = net.state_dict()
    torch._foreach_lerp_(list(ema.values()), [state[name] for name in ema], 1 - decay)


@contextlib.contextmanager
def weights_of(net: nn.Module, weights: dict[str, Tensor] | None):
    """Within the context the parameters of `net` are `weights`, where there are any."""
    own = {name: p.data for name, p in net.named_parameters()} if weights else {}
    for name, p in net.named_parameters() if weights else ():
        p.data = weights[name]
    try:
        yield
    finally:
        for name, p in net.named_parameters() if weights else ():
            p.data = own[name]
