"""Attention over packed rows: each sequence by itself, a grid pair's inputs in both directions, all else causally.

By torch's kernels; on a CPU in bfloat16 by plain products (`blocks.py`). Not here: who calls it (`packing.py`, `rows.py`).

Shapes: S tokens of a packed row, Q of them queries, H query heads, G key heads (H a multiple of G), d head dimension.
"""

import functools
import inspect
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ttt_core.model.blocks import BlockAttention

WHOLE, BLOCK = (
    400,
    256,
)  # tokens of a sequence whose queries ask at once; of a longer one's queries behind its inputs that do


@dataclass(frozen=True)
class Run:
    """`count` sequences of `length` tokens each, end to end; the first `inputs` tokens of each attend to one another.

    All later tokens of a sequence attend to what precedes them, none to another sequence. Queries are made of the tokens
    from `first` on; keys of all.
    """

    count: int
    length: int
    inputs: int = 0
    first: int = 0

    @property
    def queries(self) -> int:
        """Of each sequence."""
        return self.length - self.first


def attention(q: Tensor, k: Tensor, v: Tensor, runs: tuple[Run, ...], scale: float) -> Tensor:
    """Attention within each of the sequences of `runs`: q (Q, H, d), k and v (S, G, d) give (Q, H, d).

    On CUDA torch's variable-length kernel does it where it can, else its fused kernel run by run, as on a CPU in float32. In
    bfloat16 that takes a CPU 8.2 ms for 9 heads of 512 tokens on one core, plain products take 2.5 ms.
    """
    if not q.is_cuda:
        return (fused if q.dtype == torch.float32 else BlockAttention.apply)(q, k, v, runs, scale)
    is_fit = q.dtype in (torch.bfloat16, torch.float16) and q.shape[-1] <= 256 and q.shape[-1] % 8 == 0
    return varlen(q, k, v, runs, scale) if is_fit and has_varlen(q.device) else fused(q, k, v, runs, scale)


def has_varlen(device: torch.device) -> bool:
    """Whether the variable-length kernel runs on the device: a GPU of the Ampere generation or newer, torch 2.11 or newer."""
    return device.type == "cuda" and not is_before_ampere(device) and _knows_windows()


def is_before_ampere(device: torch.device) -> bool:
    """Whether the device is a GPU for which torch has no flash attention, such as a T4."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)


@functools.cache
def _knows_windows() -> bool:
    """Whether torch's kernel takes what `varlen` gives it; in torch 2.10 it knows neither a scale nor windows."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    return {"scale", "window_size"} <= set(inspect.signature(varlen_attn).parameters)


def varlen(q: Tensor, k: Tensor, v: Tensor, runs: tuple[Run, ...], scale: float) -> Tensor:
    """`attention` by torch's variable-length kernel: inputs by themselves in both directions, the others causally."""
    from torch.nn.attention.varlen import varlen_attn

    lay = layout(runs, q.device)
    k, v = (_repeated(x.to(q.dtype), q.shape[1]) for x in (k, v))
    if lay.inputs is None:
        return varlen_attn(q, k, v, *lay.ends, scale=scale, window_size=(-1, 0))
    asking, keys, ends = lay.inputs
    inputs = varlen_attn(*(_Take.apply(x, rows) for x, rows in ((q, asking), (k, keys), (v, keys))), *ends, scale=scale)
    others = varlen_attn(_Take.apply(q, lay.others), k, v, *lay.ends, scale=scale, window_size=(-1, 0))
    return _Put.apply(inputs, asking, others, lay.others)


Ends = tuple[
    Tensor, Tensor, int, int
]  # of sequences' queries and keys: where they end, int32 from 0 on, and the longest


@dataclass(frozen=True, eq=False)
class Layout:
    """Runs as the variable-length kernel wants them.

    ends: of the queries that attend causally, and of all keys. others: where these queries are. inputs: where the queries
    and the keys of inputs are, and their ends; None where no input asks, and so all queries are others.
    """

    ends: Ends
    others: Tensor
    inputs: tuple[Tensor, Tensor, Ends] | None


@functools.lru_cache(maxsize=16)
def layout(runs: tuple[Run, ...], device: torch.device) -> Layout:
    """The layout of `runs`, made once for all layers."""
    counts = [run.count for run in runs]
    of_runs = [(run.length, run.inputs, run.queries, max(0, run.inputs - run.first)) for run in runs]
    lengths, inputs, queries, asking = np.repeat(np.array(of_runs), counts, axis=0).T  # of each sequence

    def given(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    def ends(q: np.ndarray, k: np.ndarray) -> Ends:
        return *(given(np.append(0, np.cumsum(x)).astype(np.int32)) for x in (q, k)), int(q.max()), int(k.max())

    def is_first(of: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Which of all sequences' tokens are among the first `of` of the `whole` that each has."""
        return np.repeat(np.tile([True, False], len(of)), np.stack([of, whole - of], axis=1).ravel())

    is_input = is_first(asking, queries)
    others = given(np.flatnonzero(~is_input))
    keys = is_first(np.where(asking > 0, inputs, 0), lengths)
    found = (
        given(np.flatnonzero(is_input)),
        given(np.flatnonzero(keys)),
        ends(asking, np.where(asking > 0, inputs, 0)),
    )
    return Layout(ends(queries - asking, lengths), others, found if is_input.any() else None)


class _Take(torch.autograd.Function):
    """Rows of x, none of them twice, so that a gradient is copied and not summed."""

    @staticmethod
    def forward(ctx, x, rows):
        ctx.save_for_backward(rows)
        ctx.shape = x.shape
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx, grad):
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).index_copy_(0, rows, grad), None


class _Put(torch.autograd.Function):
    """One tensor of two parts, whose rows are at `rows` and at `others`."""

    @staticmethod
    def forward(ctx, x, rows, y, others):
        ctx.save_for_backward(rows, others)
        out = x.new_empty(len(x) + len(y), *x.shape[1:])
        return out.index_copy_(0, rows, x).index_copy_(0, others, y)

    @staticmethod
    def backward(ctx, grad):
        rows, others = ctx.saved_tensors
        return grad.index_select(0, rows), None, grad.index_select(0, others), None


def fused(q: Tensor, k: Tensor, v: Tensor, runs: tuple[Run, ...], scale: float) -> Tensor:
    """`attention` by torch's fused kernel, run by run.

    Key heads are repeated: before the Ampere generation the fused kernels know no groups, and without them all scores are held.
    """
    k, v = (_repeated(x.to(q.dtype), q.shape[1]) for x in (k, v))
    parts = []
    for run, rows, keys in _slices(runs):
        Q, K, V = (x[at].unflatten(0, (run.count, -1)).transpose(1, 2) for x, at in ((q, rows), (k, keys), (v, keys)))
        ys = [
            F.scaled_dot_product_attention(
                Q[:, :, a - run.first : b - run.first], K[:, :, :seen], V[:, :, :seen],
                attn_mask=mask_of(run.inputs, a, b, seen, q.device, q.dtype) if is_masked else None,
                is_causal=not is_masked and not run.inputs, scale=scale,
            )
            for a, b, seen, is_masked in _pieces(run)
        ]  # fmt: skip
        y = ys[0] if len(ys) == 1 else torch.cat(ys, dim=2)
        parts.append(y.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts)


def _pieces(run: Run) -> list[tuple[int, int, int, bool]]:
    """Which tokens of a run's sequences ask together: from one to another, how many keys are read, and whether some of these are hidden.

    In a long sequence inputs ask by themselves, and what follows them in blocks: of what is masked no scores are made.
    """
    if run.length <= WHOLE or not (run.inputs or run.first):
        return [(run.first, run.length, run.length, bool(run.inputs or run.first))]
    starts = list(range(max(run.first, run.inputs), run.length - BLOCK // 2, BLOCK)) or [max(run.first, run.inputs)]
    asking = [(run.first, run.inputs, run.inputs, False)] if run.first < run.inputs else []
    return asking + [(a, b, b, True) for a, b in zip(starts, [*starts[1:], run.length], strict=True)]


def _repeated(x: Tensor, heads: int) -> Tensor:
    """(S, G, d) to (S, heads, d), each key head for its group of query heads."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _slices(runs):
    """Each run with where its queries and its keys are."""
    query = key = 0
    for run in runs:
        rows, keys = (slice(at, at + run.count * n) for at, n in ((query, run.queries), (key, run.length)))
        yield run, rows, keys
        query, key = rows.stop, keys.stop


@functools.lru_cache(maxsize=16)
def mask_of(inputs: int, a: int, b: int, seen: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(b - a, seen): added to the scores of the tokens a to b of a sequence, -inf where one may not attend; made once for all layers."""
    query, key = torch.arange(a, b, device=device)[:, None], torch.arange(seen, device=device)
    hidden = (key > query) & ((query >= inputs) | (key >= inputs))
    return torch.zeros(b - a, seen, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
