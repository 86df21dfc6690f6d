"""GridLM over packed rows of one size: how pretraining runs on a GPU, without padding and with fixed shapes.

What surrounds attention is compiled once for all layers; attention itself is `attention.py`. Unlike `packing.py` it
patches no module and trains all weights. Not here: what is in a row (`batches.py`).

Shapes: S tokens of the row, D width, H heads, d of a head.
"""

import contextlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutputWithPast

from ttt_core.errors import InputError
from ttt_core.model.attention import Run, attention
from ttt_core.model.distributed import World
from ttt_core.model.gridlm import IGNORE, GridLM, Layer, rotary_table, rotate
from ttt_core.model.pretrain_config import PretrainConfig

NO_COMPILER = ("InvalidCxxCompiler", "Failed to find C compiler")  # as Inductor and Triton say it


class PackedGridLM(nn.Module):
    """A row of sequences -> mean loss over its targets in nats. Holds `net` itself, whose weights it trains."""

    def __init__(self, net: GridLM, compile: bool = False):
        super().__init__()
        self.net = net
        wrap = torch.compile if compile else (lambda function: function)
        self.before, self.after, self.end = wrap(before), wrap(after), wrap(end)

    def forward(
        self,
        input_ids: Tensor,  # (S,)
        labels: Tensor,  # (S,): of each token the one to predict after it, or IGNORE
        position_ids: Tensor,  # (S, 3)
        task_ids: Tensor,  # (S,)
        dihedral_ids: Tensor,  # (S,)
        runs: tuple[Run, ...],
    ) -> CausalLMOutputWithPast:
        net = self.net
        x = net.embed_tokens(input_ids) + net.task_vectors(task_ids) + net.dihedral_vectors(dihedral_ids)  # (S, D)
        tables = rotary_table(position_ids[None], net.config.width // net.config.heads, x.dtype)
        cos, sin = (table[0, 0, :, None] for table in tables)  # (S, 1, d/2)
        for layer in net.layers:
            q, k, v = self.before(layer, x, cos, sin)
            y = attention(q, k, v, runs, q.shape[-1] ** -0.5)
            x = self.after(layer, x, y)
        return CausalLMOutputWithPast(loss=self.end(net, x, labels))


def before(layer: Layer, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (S, H, d) of the residual stream x (S, D)."""
    x = layer.attn_norm(x)
    q, k, v = layer.attn.split(x)
    return rotate(q, (cos, sin)), rotate(k, (cos, sin)), v


def after(layer: Layer, x: Tensor, y: Tensor) -> Tensor:
    """The residual stream after attention's y (S, H, d) and the SwiGLU."""
    return layer.after(x, layer.attn.o_proj(y.flatten(1)))


def end(net: GridLM, x: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of the targets, nats in float32."""
    return F.cross_entropy(net.lm_head(net.norm(x)).float(), labels, ignore_index=IGNORE)


def callable_of(net: GridLM, config: PretrainConfig, place: World) -> nn.Module:
    """`net` as a training calls it: on packed rows or padded batches, compiled if asked for, its gradients shared."""
    packed = config.is_packed(place.device)
    model = PackedGridLM(net, config.compile) if packed else net
    model = nn.parallel.DistributedDataParallel(model) if place.size > 1 else model
    return torch.compile(model, dynamic=True) if config.compile and not packed else model


@contextlib.contextmanager
def compiler_missed():
    """Within the context torch.compile on a machine that has no C++ compiler is an InputError."""
    try:
        yield
    except RuntimeError as error:
        if not any(told in str(error) for told in NO_COMPILER):
            raise
        raise InputError("--compile: finds no C++ compiler; install one (g++), or leave --compile away") from None
