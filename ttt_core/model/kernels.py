"""The parts of a transformer that plain modules do slowly in training, as autograd functions in plain torch.

Each computes what the module it replaces computes, with fewer passes over memory, and saves only what its gradient
needs. Not here: attention (`attention.py`), or which module is replaced, and when (`packing.py`).

Shapes: S tokens of a packed row, H heads, d head dimension.
"""

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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, scaling: float, is_conv: bool):
    """W x + bias + scaling * B(A x), W and bias frozen: weight (in, out) if is_conv, else (out, in); A (R, in), B (out, R).

    In autocast's dtype where that is on, else in the weight's.
    """
    dtype = compute_dtype(weight)
    bias = bias if bias is None else bias.to(dtype)
    return _LoRALinear.apply(x.to(dtype), weight.to(dtype), bias, A, B, scaling, is_conv)


class _LoRALinear(torch.autograd.Function):
    """Every update is added while it is computed; saved are x and A x."""

    @staticmethod
    def forward(ctx, x, weight, bias, A, B, scaling, is_conv):
        flat, W = x.flatten(0, -2), weight if is_conv else weight.t()  # (S, in), (in, out)
        y = flat @ W if bias is None else torch.addmm(bias, flat, W)
        h = flat @ A.to(x.dtype).t()  # (S, R)
        y.addmm_(h, B.to(x.dtype).t(), alpha=scaling)
        ctx.save_for_backward(flat, weight, A, B, h)
        ctx.scaling, ctx.is_conv = scaling, is_conv
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx, grad):
        x, weight, A, B, h = ctx.saved_tensors
        flat = grad.flatten(0, -2).to(x.dtype)  # (S, out)
        dh = (flat @ B.to(x.dtype)).mul_(ctx.scaling)  # (S, R)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = flat @ (weight.t() if ctx.is_conv else weight)
            dx = dx.addmm_(dh, A.to(x.dtype)).unflatten(0, grad.shape[:-1])
        dA = (dh.t() @ x).to(A.dtype)
        dB = (flat.t() @ h).to(B.dtype).mul_(ctx.scaling)
        return dx, None, None, dA, dB, None, None


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
