"""Sequences of different length end to end in one row, without padding, and the training forward pass over them.

Within `packed(net)` the modules of a transformers model or of GridLM whose plain form wastes time or memory compute the
same by `kernels.py` and `attention.py`; `refuse_unequal` refuses a model whose packed pass is not its own. Not here: tokens, optimisers.

Shapes: S tokens of the row, M targets, D width, V vocabulary.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.activations import ACT2FN, NewGELUActivation

from ttt_core.arc.encode import IGNORE, Sequence
from ttt_core.errors import ModelError, is_out_of_memory
from ttt_core.model import kernels, lora
from ttt_core.model.attention import Run, attention
from ttt_core.model.gridlm import ALL, MLP, Attention, GridLM, rotary_table
from ttt_core.model.load import autocast

ATTENTION = "packed"  # its name among transformers' attention implementations
SILU = (nn.SiLU, type(ACT2FN["silu"]))  # the latter is transformers' own in later versions
MAX_GAP = 0.05  # between a packed pass and the model's own, relative: twice what bfloat16 rounds
MAX_GAP_FLOAT32 = 1e-3  # which rounds by about 1e-6
CHUNK_LOGITS = 1 << 22  # logits of one chunk of targets at most: 16 MiB in float32


@dataclass(frozen=True, eq=False)
class Packed:
    """ids (S,), positions (S,) or (S, 3), views (S,): each token's dihedral, at (M,): where targets (M,) are predicted.

    asking (A,): all tokens but those of the inputs that `runs` tell of.
    """

    ids: Tensor
    positions: Tensor
    views: Tensor
    at: Tensor
    targets: Tensor
    asking: Tensor
    runs: tuple[Run, ...]


def pack(rows: Rows[Sequence], dihedrals: Rows[int], device: torch.device) -> Packed:
    """`rows` sorted by length, end to end. A grid pair's input tokens, role 0 of its positions, see one another."""
    inputs = [int((row.positions[:, 0] == 0).sum()) if row.positions.ndim == 2 else 0 for row in rows]
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), inputs[i]))
    runs = tuple(Run(len(list(same)), *size) for size, same in groupby((len(rows[i]), inputs[i]) for i in order))
    lengths = [len(rows[i]) for i in order]
    labels = np.concatenate([rows[i].labels for i in order])
    at = np.flatnonzero(labels != IGNORE)
    arrays = {
        "ids": np.concatenate([rows[i].ids for i in order]),
        "positions": np.concatenate([rows[i].positions for i in order]),
        "views": np.repeat([dihedrals[i] for i in order], lengths),
        "at": at - 1,  # the first token of a sequence is no target
        "targets": labels[at],
        "asking": np.flatnonzero(np.concatenate([np.arange(len(rows[i])) >= inputs[i] for i in order])),
    }
    return Packed(**{name: torch.from_numpy(array).to(device) for name, array in arrays.items()}, runs=runs)


def target_loss(net: nn.Module, batch: Packed) -> Tensor:
    """The summed cross entropy, nats in float32, of all targets. Only within `packed(net)`.

    Logits are computed at targets alone, and chunk by chunk (again in the backward pass) where they are many.
    """
    hidden = _hidden(net, batch)
    head = net.get_output_embeddings()
    size = max(1, CHUNK_LOGITS // head.weight.shape[0])
    if len(hidden) <= size:
        return _chunk_loss(head, hidden, batch.targets)
    chunks = zip(hidden.split(size), batch.targets.split(size), strict=True)
    checkpoint = functools.partial(torch.utils.checkpoint.checkpoint, _chunk_loss, head, use_reentrant=False)
    return torch.stack([checkpoint(*chunk) for chunk in chunks]).sum()


def _chunk_loss(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


def target_logits(net: nn.Module, batch: Packed) -> Tensor:
    """(M, V): the logits of all targets at once. Only within `packed(net)`."""
    return net.get_output_embeddings()(_hidden(net, batch))


def _hidden(net: nn.Module, batch: Packed) -> Tensor:
    """(M, D): the last hidden states where targets are predicted."""
    if isinstance(net, GridLM):
        return _grid_hidden(net, batch)
    out = net.base_model(batch.ids[None], position_ids=batch.positions[None], use_cache=False, runs=batch.runs)
    return out.last_hidden_state[0, batch.at]


def _grid_hidden(net: GridLM, batch: Packed) -> Tensor:
    """(M, D): as GridLM.forward, but sequences of any length in one row. The last layer computes what follows inputs alone."""
    x = net.embed_tokens(batch.ids) + net.task_vectors(batch.views) + net.dihedral_vectors(batch.views)  # (S, D)
    rotary = tuple(
        t[0, 0, :, None] for t in rotary_table(batch.positions[None], x.shape[1] // net.config.heads, x.dtype)
    )
    x = x[None]
    for i, layer in enumerate(net.layers[:-1]):
        x = layer(x, rotary, batch.runs, None, i, ALL)
    asked = tuple(dataclasses.replace(run, first=run.inputs) for run in batch.runs)
    x = net.layers[-1](x, rotary, asked, None, len(net.layers) - 1, batch.asking)
    return net.norm(x[0, torch.searchsorted(batch.asking, batch.at)])


@contextlib.contextmanager
def packed(net: nn.Module, dtype: torch.dtype, checkpoint: bool = False):
    """Within the context `net` takes packed rows, and no others. dtype: of computation.

    checkpoint: keep of each block's activations its input alone, and compute the others again in the backward pass.
    """
    AttentionInterface.register(ATTENTION, _attention)
    implementation = net.config._attn_implementation
    replaced = {}
    for module in net.modules():
        forward = _replacement(module, dtype)
        if forward is not None:
            replaced[module] = forward
    for block in blocks_of(net) if checkpoint else ():
        replaced[block] = functools.partial(torch.utils.checkpoint.checkpoint, block.forward, use_reentrant=False)
    try:
        for module, forward in replaced.items():
            module.forward = forward
        net.config._attn_implementation = ATTENTION
        yield
    finally:
        net.config._attn_implementation = implementation
        for module in replaced:
            module.__dict__.pop("forward", None)


@torch.no_grad()
def refuse_unequal(net: nn.Module, dtype: torch.dtype) -> None:
    """ModelError if a packed pass over two sequences is not the model's own: some scale logits or scores in their own way."""
    if isinstance(net, GridLM):
        return
    places, vocabulary = [np.arange(n) for n in (5, 12)], net.get_input_embeddings().num_embeddings
    rows = [Sequence(p % vocabulary, np.where(p > 0, p % vocabulary, IGNORE), p) for p in places]
    batch, fault = pack(rows, [0, 0], net.device), ""
    with autocast(net.device, dtype):
        parts = batch.ids.split([len(row) for row in rows])
        own = torch.cat([net(input_ids=ids[None], use_cache=False).logits[0, :-1] for ids in parts])
        try:
            with packed(net, dtype):
                ours = target_logits(net, batch)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:  # attention is called in another way
            if is_out_of_memory(error):
                raise
            fault = " ".join(str(error).split())
    if not own.isfinite().all():
        told = str(dtype).removeprefix("torch.")
        raise ModelError(f"model {type(net).__name__}: its logits are not finite in {told}; take model.dtype=float32")
    if not fault:
        own, ours = (logits.float() - logits.float().mean(-1, keepdim=True) for logits in (own, ours))
        gap = float((ours - own).norm() / own.norm())
        most = MAX_GAP_FLOAT32 if dtype == torch.float32 else MAX_GAP
        fault = f"packed logits differ by {gap:.2g} from its own" if not gap <= most else ""
    if fault:
        raise ModelError(
            f"model {type(net).__name__}: {fault}; it cannot be trained faithfully here: "
            "take another model, or adapt.method=none"
        )


def blocks_of(net: nn.Module) -> nn.ModuleList:
    """The model's repeated layers: its longest list of modules."""
    lists = [module for module in net.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


def _attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, *, runs, **_):
    """As transformers calls it: query (1, H, S, d), key and value (1, G, S, d) give (1, S, H, d)."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attention(q, k, v, runs, scaling if scaling is not None else q.shape[-1] ** -0.5)[None], None


def _replacement(module: nn.Module, dtype: torch.dtype):
    """A cheaper forward of `module`, or None where there is none that computes the same."""
    if isinstance(module, Attention):
        return functools.partial(_grid_attention, module)
    if isinstance(module, MLP) or _is_swiglu(module):
        return lambda x: module.down_proj(kernels.swiglu(*lora.apply(x, (module.gate_proj, module.up_proj))))
    if isinstance(module, NewGELUActivation):
        return functools.partial(F.gelu, approximate="tanh")
    if "RMSNorm" in type(module).__name__ and getattr(module, "weight", None) is not None:
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        fast = functools.partial(_rms_norm, module, eps, dtype)
        return fast if eps is not None and _is_plain(type(module)) else None
    return None


def _rms_norm(module: nn.Module, eps: float, dtype: torch.dtype, x: Tensor) -> Tensor:
    return kernels.rms_norm(x, module.weight, eps, dtype)


def _is_swiglu(module: nn.Module) -> bool:
    parts = all(isinstance(getattr(module, name, None), nn.Module) for name in ("gate_proj", "up_proj", "down_proj"))
    return parts and isinstance(getattr(module, "act_fn", None), SILU)


@functools.cache
@torch.no_grad()
def _is_plain(kind: type[nn.Module]) -> bool:
    """Whether norms of this kind scale by their weight; some scale by 1 + weight."""
    try:
        norm = kind(8, eps=1e-6)
    except TypeError:
        return False
    norm.weight.fill_(0.5)
    x = torch.linspace(-3, 3, 8)[None]
    return torch.allclose(norm(x), kernels.rms_norm(x, norm.weight, 1e-6, x.dtype), atol=1e-5)


def _grid_attention(module: Attention, x: Tensor, rotary, runs: tuple[Run, ...], cache, index: int, rows) -> Tensor:
    """GridLM's attention over a packed row: x (1, S, D); rotary (S, 1, d/2) twice; rows: the queries of `runs`."""
    q, k, v = (y[0] for y in module.split(x, None if rows is ALL else x[:, rows], lora.apply))
    q, k = kernels.rotate(q, *(t[rows] for t in rotary)), kernels.rotate(k, *rotary)
    y = attention(q, k, v, runs, q.shape[-1] ** -0.5)  # (Q, H, d)
    return module.o_proj(y.flatten(1)[None])
