"""The parts of a transformer that plain modules do slowly in training, as autograd functions in plain torch.

Each computes what the module it replaces computes, with fewer passes over memory, and saves only what its gradient
needs. Not here: attention (`attention.py`), or which module is replaced, and when (`packing.py`).

Shapes: S tokens of a packed row, H heads, d head dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def compute_dtype(x: Tensor) -> torch.dtype:
    """Of the products that take x: autocast's where that is on, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """x / rms(x) * weight over the last dimension, in `dtype`; float16, whose gradients would overflow, by way of float32."""
    x = x.float() if x.dtype == torch.float16 else x
    return _RMSNorm.apply(x, weight, eps, dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, eps, dtype):
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float)
        inverse = torch.rsqrt(size.square_().div_(x.shape[-1]).add_(eps)).to(x.dtype)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight.to(x.dtype)).to(dtype)

    @staticmethod
    def backward(ctx, grad):
        x, weight, inverse = ctx.saved_tensors
        grad = grad.to(x.dtype)
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (grad * x).mul_(inverse).flatten(0, -2).sum(0, dtype=torch.float).to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, d_weight, None, None
        grad = grad * weight.to(x.dtype)
        along = (grad * x).sum(-1, keepdim=True, dtype=torch.float)
        along = (along.mul_(inverse.float().pow(3)).div_(-x.shape[-1])).to(x.dtype)
        return grad.mul_(inverse).addcmul_(x, along), d_weight, None, None


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    return _SwiGLU.apply(gate, up)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, up):
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx, grad):
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)


def linears(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], adapters, scaling: float, is_conv: bool
):
    """For each of N layers W x + bias + scaling * B(A x), W and bias frozen: weight (in, out) if is_conv, else (out, in).

    adapters: A (R, in) and B (out, R) of each. In autocast's dtype where that is on, else in the weights'.
    """
    dtype = compute_dtype(weights[0])
    frozen = [w.to(dtype) for w in weights], [b if b is None else b.to(dtype) for b in biases]
    return _LoRALinears.apply(x.to(dtype), *frozen, scaling, is_conv, *(part for pair in adapters for part in pair))


class _LoRALinears(torch.autograd.Function):
    """Every update is added while it is computed, and what layers of one input have in common is one product; saved are x and A x."""

    @staticmethod
    def forward(ctx, x, weights, biases, scaling, is_conv, *adapters):
        flat, A, B = x.flatten(0, -2), adapters[::2], adapters[1::2]  # (S, in)
        h = flat @ _joined(A, x.dtype).t()  # (S, R of all)
        outs = []
        for weight, bias, b, part in zip(weights, biases, B, h.split([len(a) for a in A], dim=1), strict=True):
            W = weight if is_conv else weight.t()
            y = flat @ W if bias is None else torch.addmm(bias, flat, W)
            outs.append(y.addmm_(part, b.to(x.dtype).t(), alpha=scaling).unflatten(0, x.shape[:-1]))
        ctx.save_for_backward(flat, h, *weights, *adapters)
        ctx.scaling, ctx.is_conv = scaling, is_conv
        return tuple(outs)

    @staticmethod
    def backward(ctx, *grads):
        (x, h, *rest), n, shape = ctx.saved_tensors, len(grads), grads[0].shape[:-1]
        weights, A, B = rest[:n], rest[n::2], rest[n + 1 :: 2]
        ranks = [len(a) for a in A]
        grads = [grad.flatten(0, -2).to(x.dtype) for grad in grads]  # (S, out)
        dh = torch.cat([g @ b.to(x.dtype) for g, b in zip(grads, B, strict=True)], dim=1).mul_(ctx.scaling)  # as h
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dh @ _joined(A, x.dtype)
            for g, weight in zip(grads, weights, strict=True):
                dx.addmm_(g, weight.t() if ctx.is_conv else weight)
            dx = dx.unflatten(0, shape)
        dA = (dh.t() @ x).to(A[0].dtype).split(ranks)
        parts = zip(grads, h.split(ranks, dim=1), B, strict=True)
        dB = [(g.t() @ part).to(b.dtype).mul_(ctx.scaling) for g, part, b in parts]
        return dx, None, None, None, None, *(d for pair in zip(dA, dB, strict=True) for d in pair)


def _joined(A: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return A[0].to(dtype) if len(A) == 1 else torch.cat(list(A)).to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (S, H, d) with each pair (x[i], x[i + d/2]) turned by its angle; cos, sin (S, 1, d/2)."""
    return _Rotate.apply(x, cos.to(x.dtype), sin.to(x.dtype))


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    (a, b), y = x.chunk(2, dim=-1), torch.empty_like(x, memory_format=torch.contiguous_format)
    for out, one, other, sign in zip(y.chunk(2, dim=-1), (a, b), (b, a), (-1, 1), strict=True):
        torch.mul(one, cos, out=out).addcmul_(other, sin, value=sign)
    return y
