"""Attention over packed rows by plain products: what `attention.py` takes on a CPU in bfloat16.

Short sequences are attended to together, for on a CPU a product of a few tokens costs no more than the call; longer ones go
block by block of their queries, whose scores stay in the cache of a core. Keys are padded to a multiple of ALIGNED
and read contiguous: else attention takes 1.2 to 1.7 times as long in bfloat16.

Shapes: n sequences of T tokens, R of them queries, H query heads, G key heads, d head dimension.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BLOCK = 128  # queries of a longer sequence at once
TOGETHER = 1 << 17  # scores of a head at most of sequences that are attended to together
ALIGNED = 32  # keys

# Of its queries the first and the last + 1, how many keys they read, what is added to the scores of the last of these.
Block = tuple[int, int, int, Tensor | None]


@dataclass(frozen=True, eq=False)
class Places:
    """Of sequences padded to the same length: (padded places,) which token fills each, and (tokens,) the place of each."""

    tokens: Tensor
    filled: Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """n sequences that are attended to together, padded to T keys and R queries each. rows, keys: where these are in the packed row.

    asking, seen: their places; None where there is no padding.
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
            for (a, b, _, mask), keys, values in _read(part.blocks, K, V):
                O[:, :, a:b] = (_weights(_rows(Q, a, b), keys, b - a, mask) @ values).unflatten(1, (-1, b - a))
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
            for (a, b, seen, mask), keys, values in _read(part.blocks, K, V):
                q_rows, g = _rows(Q, a, b), _rows(dO, a, b)
                P = _weights(q_rows, keys, b - a, mask)
                dV[:, :seen] += P.mT @ g
                dS = torch.ops.aten._softmax_backward_data(g @ values.mT, P, -1, P.dtype)
                dK[:, :seen] += dS.mT @ q_rows
                dQ[:, :, a:b] = (dS @ keys).unflatten(1, (-1, b - a))
            _unpadded(dQ.mul_(ctx.scale), part.n, part.asking, dq[part.rows])
            _unpadded(dK[:, None], part.n, part.seen, dk[part.keys])
            _unpadded(dV[:, None], part.n, part.seen, dv[part.keys])
        return dq, dk, dv, None, None


@functools.lru_cache(maxsize=16)
def parts(runs: tuple, dtype: torch.dtype) -> tuple[Part, ...]:
    """The parts of `runs`, made once for all layers; few where these are sorted by length. dtype: of the masks."""
    groups: list[list] = []
    for run in runs:
        wider = [*groups[-1], run] if groups else [run]
        longest = max(other.length for other in wider)  # a row of pretraining is not sorted
        if groups and sum(other.count for other in wider) * _aligned(longest) ** 2 <= TOGETHER:
            groups[-1] = wider
        else:
            groups.append([run])
    made, row, key = [], 0, 0
    for group in groups:
        sizes, counts = np.array([(run.length, run.inputs, run.first) for run in group]), [run.count for run in group]
        lengths, inputs, first = np.repeat(sizes, counts, axis=0).T  # of each sequence
        queries = lengths - first
        n, R, T = len(lengths), int(queries.max()), _aligned(int(lengths.max()))
        rows, keys = slice(row, row + int(queries.sum())), slice(key, key + int(lengths.sum()))
        row, key = rows.stop, keys.stop
        if n * T**2 <= TOGETHER:
            blocks = [(0, R, T, _hidden(first, inputs, lengths, R, T, dtype))]
        else:
            blocks = _blocks(group[0], dtype)
        made.append(Part(n, R, T, rows, keys, _places(queries, R), _places(lengths, T), tuple(blocks)))
    return tuple(made)


def _aligned(keys: int) -> int:
    return -(-keys // ALIGNED) * ALIGNED


def _hidden(first: np.ndarray, inputs: np.ndarray, lengths: np.ndarray, R: int, T: int, dtype: torch.dtype) -> Tensor:
    """(n, 1, R, T): -inf where a sequence's query, of those from `first` on, may not see a key."""
    at = first[:, None] + np.arange(R)
    sees = np.where(at < inputs[:, None], inputs[:, None], np.minimum(at + 1, lengths[:, None]))  # (n, R) keys
    hidden = torch.from_numpy(np.arange(T) >= sees[..., None])
    return torch.zeros(len(first), 1, R, T, dtype=dtype).masked_fill_(hidden[:, None], float("-inf"))


def _blocks(run, dtype: torch.dtype) -> Iterator[Block]:
    """Of sequences of one length: inputs see all inputs, others what precedes them."""
    first = run.first
    for a in range(first, run.inputs, BLOCK):
        keys = _aligned(run.inputs)
        mask = torch.full((1, keys - run.inputs), float("-inf"), dtype=dtype) if keys > run.inputs else None
        yield a - first, min(a + BLOCK, run.inputs) - first, keys, mask
    for a in range(max(first, run.inputs), run.length, BLOCK):
        b = min(a + BLOCK, run.length)
        keys = _aligned(b)
        yield a - first, b - first, keys, torch.full((b - a, keys - a), float("-inf"), dtype=dtype).triu_(1)


def _places(counts: np.ndarray, width: int) -> Places | None:
    is_token = np.arange(width) < counts[:, None]
    if is_token.all():
        return None
    tokens = np.maximum(np.cumsum(is_token) - 1, 0)  # padding repeats the token before it
    return Places(torch.from_numpy(tokens), torch.from_numpy(np.flatnonzero(is_token)))


def _padded(part: Part, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Of a part: queries (n G, H / G, R, d), scaled, and its keys and values (n G, T, d)."""
    given = ((q[part.rows], part.asking), (k[part.keys], part.seen), (v[part.keys], part.seen))
    Q, K, V = (x if places is None else x.index_select(0, places.tokens) for x, places in given)
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


def _read(blocks: tuple[Block, ...], K: Tensor, V: Tensor) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Each block with the keys and values (n G, seen, d) that it reads, contiguous: a product else copies them every time."""
    keys = values = K[:, :0]
    for block in blocks:
        seen = block[2]
        if seen != keys.shape[1]:
            keys, values = K[:, :seen].contiguous(), V[:, :seen].contiguous()
        yield block, keys, values


def _rows(x: Tensor, a: int, b: int) -> Tensor:
    """(n G, H / G * (b - a), d): queries a to b of x (n G, H / G, R, d)."""
    return x[:, :, a:b].flatten(1, 2).contiguous()


def _weights(rows: Tensor, keys: Tensor, count: int, mask: Tensor | None) -> Tensor:
    """(n G, H / G * count, seen): how much each query of `rows` attends to each of `keys`. mask: added to the last scores."""
    scores = rows @ keys.mT
    if mask is not None:  # added: filling takes 5 times as long
        of_sequence = scores.view(mask.shape[0] if mask.ndim == 4 else 1, -1, count, keys.shape[1])
        of_sequence[..., keys.shape[1] - mask.shape[-1] :].add_(mask)
    return torch.softmax(scores, dim=-1)
