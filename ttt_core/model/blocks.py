"""Attention over packed rows by plain products: what `attention.py` takes on a CPU.

Short sequences of unlike length are padded and attended to together, for on a CPU a product of a few tokens costs no more
than the call; longer ones go block by block of their queries, whose scores stay in the cache of a core.

Shapes: n sequences of T tokens, R of them queries, H query heads, G key heads, d head dimension.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = 128  # queries of a longer sequence at once
TOGETHER = 1 << 17  # scores of a head at most of sequences that are padded to be attended to together

Block = tuple[
    int, int, int, Tensor | None
]  # first query, last + 1, keys that they may see, what is added to their last scores


@dataclass(frozen=True, eq=False)
class Places:
    """Of sequences padded to the same length: (padded places,) which token fills each, and (tokens,) the place of each."""

    tokens: Tensor
    filled: Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """n sequences that are attended to together, T tokens each, R of them queries. rows, keys: where these are in the packed row.

    asking, seen: their places; None where the sequences are all of one length.
    """

    n: int
    R: int
    T: int
    rows: slice
    keys: slice
    asking: Places | None
    seen: Places | None
    blocks: tuple[Block, ...]


class BlockAttention(torch.autograd.Function):
    """As `attention.attention`. Scores are made block by block, forward and again backward; saved are q, k and v."""

    @staticmethod
    def forward(ctx, q, k, v, runs, scale):
        k, v = k.to(q.dtype), v.to(q.dtype)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        for part in parts(runs, q.dtype):
            Q, K, V = _padded(part, q, k, v, scale)
            O = torch.empty_like(Q)
            for block in part.blocks:
                a, b, seen, _ = block
                O[:, :, a:b] = (_weights(Q, K, block) @ V[:, :seen]).unflatten(1, (-1, b - a))
            _unpadded(O, part.n, part.asking, out[part.rows])
        ctx.save_for_backward(q, k, v)
        ctx.runs, ctx.scale = runs, scale
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        for part in parts(ctx.runs, q.dtype):
            Q, K, V = _padded(part, q, k, v, ctx.scale)
            dO = grad[part.rows].to(q.dtype)
            if part.asking is not None:  # padding has no gradient
                dO = dO.new_zeros(part.n * part.R, *dO.shape[1:]).index_copy_(0, part.asking.filled, dO)
            dO = _heads(dO, part.n, k.shape[1])
            dQ, dK, dV = torch.empty_like(Q), torch.zeros_like(K), torch.zeros_like(V)
            for block in part.blocks:
                a, b, seen, _ = block
                P, g = _weights(Q, K, block), dO[:, :, a:b].flatten(1, 2)
                dV[:, :seen] += P.mT @ g
                dS = torch.ops.aten._softmax_backward_data(g @ V[:, :seen].mT, P, -1, P.dtype)
                dK[:, :seen] += dS.mT @ Q[:, :, a:b].flatten(1, 2)
                dQ[:, :, a:b] = (dS @ K[:, :seen]).unflatten(1, (-1, b - a))
            _unpadded(dQ.mul_(ctx.scale), part.n, part.asking, dq[part.rows])
            _unpadded(dK[:, None], part.n, part.seen, dk[part.keys])
            _unpadded(dV[:, None], part.n, part.seen, dv[part.keys])
        return dq, dk, dv, None, None


@functools.lru_cache(maxsize=16)
def parts(runs: tuple, dtype: torch.dtype) -> tuple[Part, ...]:
    """The parts of `runs`, sorted by length, made once for all layers. dtype: of the masks."""
    groups: list[list] = []
    for run in runs:
        before = groups[-1] if groups else []
        if before and (sum(other.count for other in before) + run.count) * run.length**2 <= TOGETHER:
            before.append(run)
        else:
            groups.append([run])
    made, row, key = [], 0, 0
    for group in groups:
        sizes, counts = np.array([(run.length, run.inputs, run.first) for run in group]), [run.count for run in group]
        lengths, inputs, first = np.repeat(sizes, counts, axis=0).T  # of each sequence
        queries = lengths - first
        n, R, T = len(lengths), int(queries.max()), int(lengths.max())
        rows, keys = slice(row, row + int(queries.sum())), slice(key, key + int(lengths.sum()))
        row, key = rows.stop, keys.stop
        if len(group) == 1:
            made.append(Part(n, R, T, rows, keys, None, None, tuple(_blocks(group[0], dtype))))
            continue
        at = first[:, None] + np.arange(R)
        sees = np.where(at < inputs[:, None], inputs[:, None], np.minimum(at + 1, lengths[:, None]))  # (n, R) keys
        hidden = torch.from_numpy(np.arange(T) >= sees[..., None])  # (n, R, T)
        mask = torch.zeros(n, 1, R, T, dtype=dtype).masked_fill_(hidden[:, None], float("-inf"))
        made.append(Part(n, R, T, rows, keys, _places(queries), _places(lengths), ((0, R, T, mask),)))
    return tuple(made)


def _blocks(run, dtype: torch.dtype) -> Iterator[Block]:
    """Of sequences of one length: inputs see all inputs, others what precedes them."""
    first = run.first
    for a in range(first, run.inputs, BLOCK):
        yield a - first, min(a + BLOCK, run.inputs) - first, run.inputs, None
    for a in range(max(first, run.inputs), run.length, BLOCK):
        b = min(a + BLOCK, run.length)
        yield a - first, b - first, b, torch.full((b - a, b - a), float("-inf"), dtype=dtype).triu_(1)


def _places(counts: np.ndarray) -> Places:
    is_token = np.arange(counts.max()) < counts[:, None]
    tokens = np.maximum(np.cumsum(is_token) - 1, 0)  # padding repeats the token before it
    return Places(torch.from_numpy(tokens), torch.from_numpy(np.flatnonzero(is_token)))


def _padded(part: Part, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of a part: queries (n G, H / G, R, d), scaled, and its keys and values (n G, T, d)."""
    Q, K, V = q[part.rows], k[part.keys], v[part.keys]
    if part.asking is not None:
        Q, K, V = (x.index_select(0, at.tokens) for x, at in ((Q, part.asking), (K, part.seen), (V, part.seen)))
    groups = k.shape[1]
    return _heads(Q, part.n, groups) * scale, _heads(K, part.n, groups)[:, 0], _heads(V, part.n, groups)[:, 0]


def _heads(x: Tensor, n: int, groups: int) -> Tensor:
    """(n t, h, d) to (n G, h / G, t, d), contiguous."""
    x = x.view(n, -1, groups, x.shape[1] // groups, x.shape[2]).permute(0, 2, 3, 1, 4)
    return x.reshape(-1, *x.shape[2:])


def _unpadded(x: Tensor, n: int, places: Places | None, into: Tensor) -> None:
    """The inverse of `_heads` into (tokens, h, d), padding left out."""
    x = x.reshape(n, -1, *x.shape[-2:]).transpose(1, 2).flatten(0, 1)
    into.copy_(x) if places is None else torch.index_select(x, 0, places.filled, out=into)


def _weights(Q: Tensor, K: Tensor, block: Block) -> Tensor:
    """(n G, H / G * (b - a), seen): how much each query of a block attends to each key."""
    a, b, seen, mask = block
    scores = Q[:, :, a:b].flatten(1, 2) @ K[:, :seen].mT
    if mask is not None:  # added: filling takes 5 times as long
        of_sequence = scores.view(mask.shape[0] if mask.ndim == 4 else 1, -1, b - a, seen)
        of_sequence[..., seen - mask.shape[-1] :].add_(mask)
    return torch.softmax(scores, dim=-1)
