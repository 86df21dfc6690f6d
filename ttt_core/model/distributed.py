"""The processes that `torchrun` started, or this one alone: the same training either way.

Every process holds the whole model and takes its part of every batch; DDP averages the gradients, and Muon's work is
shared matrix by matrix (`step.py`). What must be decided together (is the time up?) process 0 decides and tells over
gloo, so that no GPU is waited for.
"""

import contextlib
import os
from dataclasses import dataclass

import torch
from torch import distributed as dist

from ttt_core.model.load import has_gpu


@dataclass(frozen=True)
class World:
    """rank and size of the group of processes; device: this process's."""

    rank: int
    size: int
    device: torch.device
    control: object = None  # gloo group for decisions; None when alone

    def agree(self, value: float) -> float:
        """Process 0's value, in every process."""
        if self.control is None:
            return value
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, src=0, group=self.control)
        return float(told)

    def differs(self, value: float) -> bool:
        """Whether the processes' values are not the same; every process gets to know."""
        if self.control is None:
            return False
        told = torch.tensor([value, -value], dtype=torch.float64)
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.control)
        return float(told[0]) != -float(told[1])

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of `value` over the processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def tell(self, owners: dict[torch.Tensor, int]) -> None:
        """Give each tensor, in every process, the values that it has in the process of the rank beside it."""
        if self.size > 1:
            for work in [dist.broadcast(tensor, src=rank, async_op=True) for tensor, rank in owners.items()]:
                work.wait()


@contextlib.contextmanager
def world():
    """Join the group that the environment names (torchrun's variables), and leave it at the end; yields a World."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    has_cuda = has_gpu()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if has_cuda else torch.device("cpu")
    if has_cuda:
        torch.cuda.set_device(device)
    if size == 1:
        yield World(0, 1, device)
        return
    dist.init_process_group("nccl" if has_cuda else "gloo")
    try:
        yield World(dist.get_rank(), size, device, dist.new_group(backend="gloo"))
    finally:
        dist.destroy_process_group()
