"""Memory of adaptation, known before it is taken: what a training step will hold at its peak, and how much there is.

The estimate takes two short samples of a step, counts the bytes of all storages alive at once, and is linear in tokens
between and beyond them. It is made once per model and options. Not here: what is done with the number (`solve/adapt.py`).
"""

import weakref
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ttt_core.arc.encode import IGNORE, Sequence
from ttt_core.config import AdaptConfig
from ttt_core.model import host
from ttt_core.model.attention import mask_of
from ttt_core.model.blocks import parts
from ttt_core.model.gridlm import GridLM
from ttt_core.model.load import autocast
from ttt_core.model.optim import state_bytes
from ttt_core.model.packing import Packed, blocks_of, pack, packed, target_loss

SAMPLE_TOKENS = (128, 384)  # of the sequences whose steps are counted


class Meter(TorchDispatchMode):
    """Counts, while active, the bytes of storages that torch's operators make: `now` alive, `peak` at once."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._seen = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = {id(s) for s in _storages((args, kwargs))}
        for storage in _storages(out):
            if id(storage) not in inputs and storage not in self._seen:
                self._seen.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return out

    def _freed(self, size: int) -> None:
        self.now -= size


def _storages(values) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


@dataclass(frozen=True)
class Estimate:
    """Bytes. weights: of the base. trained: what is adapted and a snapshot of it. optimizer: its states.

    fixed, per_token: of one micro-batch, that is activations, logits, gradients and temporaries.
    """

    weights: int
    trained: int
    optimizer: int
    fixed: float
    per_token: float

    def total(self, tokens: int) -> int:
        """Peak bytes of an optimiser step with micro-batches of `tokens`."""
        return int(self.weights + self.trained + self.optimizer + self.fixed + self.per_token * tokens)

    def tokens(self, limit: float) -> float:
        """The largest micro-batch that stays below `limit` bytes; below 1 where none does."""
        return (limit - self.total(0)) / self.per_token


def estimate(
    net: nn.Module, dtype: torch.dtype, weights: int, groups: list[dict], config: AdaptConfig, checkpoint: bool
):
    """What training the parameters of `groups` in `net` takes, beside `weights` bytes of the base.

    No weight is changed; gradients are gone afterwards. Deep nets are counted with fewer of their blocks: the peak is
    linear in blocks as in tokens.
    """
    count = len(blocks_of(net))
    depths = [2, 4] if count > 4 else [count]
    parameters = [p for group in groups for p in group["params"]]
    peaks = [[_peak(net, dtype, parameters, depth, t, checkpoint) for t in SAMPLE_TOKENS] for depth in depths]
    peaks = np.array(peaks, np.float64)
    peak = peaks[0] if len(depths) == 1 else peaks[1] + (peaks[1] - peaks[0]) / 2 * (count - 4)
    per_token = (peak[1] - peak[0]) / (SAMPLE_TOKENS[1] - SAMPLE_TOKENS[0])
    trained = 2 * sum(p.nbytes for p in parameters)
    fixed = float(peak[0] - per_token * SAMPLE_TOKENS[0])
    return Estimate(weights, trained, state_bytes(groups, config), fixed, float(per_token))


def _peak(net: nn.Module, dtype: torch.dtype, parameters, depth: int, tokens: int, checkpoint: bool) -> int:
    """Bytes that the second of two micro-batches of one sequence adds at its peak, gradients of the first included."""
    device = next(net.parameters()).device
    blocks = blocks_of(net)
    cut = list(blocks[depth:])
    batch, meter = _sample(net, tokens, device), Meter()
    for keeps_masks in (parts, mask_of):  # these count too
        keeps_masks.cache_clear()
    try:
        del blocks[depth:]
        for parameter in parameters:
            parameter.requires_grad_(True)
        with packed(net, dtype, checkpoint), meter:
            for _ in range(2):
                meter.peak = meter.now
                with autocast(device, dtype):
                    loss = target_loss(net, batch)
                loss.backward()
                del loss
    finally:
        blocks.extend(cut)
        for parameter in parameters:
            parameter.grad = None
    return meter.peak


def _sample(net: nn.Module, tokens: int, device: torch.device) -> Packed:
    """One sequence, half of it targets; of a grid pair, whose answer may be much longer than its input, three quarters."""
    ids, places, is_grid = np.zeros(tokens, np.int64), np.arange(tokens), isinstance(net, GridLM)
    first = tokens // (4 if is_grid else 2)
    roles = (places >= first - 1).astype(np.int64)  # the separator is the output's
    positions = np.repeat(roles[:, None], 3, axis=1) if is_grid else ids
    return pack([Sequence(ids, np.where(places >= first, ids, IGNORE), positions)], [0], device)


def free_bytes(device: torch.device) -> float:
    """Memory that may still be taken on `device`, in bytes; infinite where the system does not say."""
    if device.type != "cuda":
        return host.free_bytes()
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
        device
    )  # by torch's allocator, for the next
    return float(torch.cuda.mem_get_info(device)[0] + kept)
