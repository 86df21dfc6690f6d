"""Prefixes of views, read once: their KV cache serves the search below them and the re-scoring.

Log-probs are the model's own, nats, float64. Not here: which tokens are tried (`levels.py`) or which answers are
scored (`rescore.py`).
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ttt_core.arc.encode import NO_LIMIT, Sequence
from ttt_core.arc.grammar import Prior
from ttt_core.errors import ModelError, NonFiniteError
from ttt_core.model.attention import is_before_ampere
from ttt_core.model.load import LoadedModel
from ttt_core.solve import cache
from ttt_core.solve.cache import Place, TreeCache
from ttt_core.solve.clock import fitting_size, timed
from ttt_core.solve.feed import autocast, context_tokens
from ttt_core.solve.trie import Trie

# Where at least this share of a cache's rows have new tokens, and few, reading all rows costs less than copying those.
WHOLE, FEW = 0.25, 8
# Tokens of prefixes read at once on a CPU, where more are no faster: so a short time is not spent on reading.
CPU_READ = 4096
READ_SHARE = 0.25  # of the time that is left, for one of these readings


@dataclass(frozen=True, eq=False)
class Query:
    """A prefix after which an answer is expected, the dihedral of its view, and what is known of the answer.

    vector: the row of GridLM's task vectors; None at test time, when there is one a dihedral. expected: tokens of the
    answer to reckon with where time is short. draft: token ids of an answer that may be much like it. answer_tokens: of an
    answer at most, as the grammar is told; the model's context limits it too.
    """

    prefix: Sequence
    dihedral: int
    prior: Prior = Prior()
    vector: int | None = None
    expected: int = 0
    draft: np.ndarray | None = None
    answer_tokens: int = NO_LIMIT

    def room(self, model: LoadedModel) -> int:
        """Tokens that its answer may have."""
        return min(self.answer_tokens, context_tokens(model) - len(self.prefix))


@dataclass(frozen=True, eq=False)
class Prefixes:
    """B queries that went through the model. rows: theirs in the cache; lengths, dihedrals, vectors: (B,).

    logprobs: (B, V), of the first token.
    """

    cache: TreeCache
    rows: np.ndarray
    lengths: np.ndarray
    dihedrals: np.ndarray
    vectors: np.ndarray
    logprobs: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Rows[int]) -> "Prefixes":
        """The queries `index`, in that order, in the same cache."""
        names = ("rows", "lengths", "dihedrals", "vectors", "logprobs")
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def moved(self, index: np.ndarray, columns: Tensor) -> "Prefixes":
        """The queries `index` with a cache of their own, of which each holds its `columns` (B, W)."""
        taken = self.take(index)
        rows = torch.from_numpy(taken.rows).to(columns.device)
        return replace(taken, cache=self.cache.select(rows, columns), rows=np.arange(len(index)))


def batches(
    model: LoadedModel,
    queries: Rows[Query],
    batch_tokens: int,
    counts: Counter,
    first: int = 0,
    kept: list | None = None,
    only: Iterable[int] | None = None,
    deadline: float = math.inf,
    last: float = -math.inf,
) -> Iterator[tuple[list[int], Prefixes]]:
    """Indices of `queries`, in order, and their prefixes, at most `batch_tokens` padded tokens at once, on a CPU CPU_READ (at least one query).

    A query that leaves no room in the model's context is left out. only: these queries; None is all. first: this many
    leading queries make up batches of their own, which come first. kept: batches of these queries from an earlier call,
    used instead of reading again; filled up to `batch_tokens`. deadline: monotonic seconds, after which nothing is read, nor
    what would not end by the later of it and `last`; where it is near, fewer are read at once, in READ_SHARE of the time.
    """
    wanted = set(range(len(queries)) if only is None else only)
    for part, prefixes in kept or ():
        if rows := [row for row, i in enumerate(part) if i in wanted]:
            yield [part[row] for row in rows], prefixes.take(rows)
            wanted -= set(part)
    wanted = sorted(i for i in wanted if len(queries[i].prefix) < context_tokens(model))
    room = batch_tokens - sum(len(prefixes) * int(prefixes.lengths.max()) for _, prefixes in kept or ())
    at_once = min(batch_tokens, CPU_READ) if model.device.type == "cpu" else batch_tokens
    for is_first in (True, False):
        order = [i for i in wanted if (i < first) == is_first]
        while order and time.monotonic() < deadline:
            widest = np.maximum.accumulate([len(queries[i].prefix) for i in order])
            size = max(1, int((widest * np.arange(1, len(order) + 1) <= at_once).sum()))
            size = fitting_size(model, "read", widest, size, max(deadline, last), READ_SHARE)
            if not size:
                return
            tokens = size * int(widest[size - 1])
            part, order = order[:size], order[size:]
            with timed(model, "read", tokens):
                prefixes = read(model, [queries[i] for i in part], counts)
            if kept is not None and tokens <= room:
                kept.append((part, prefixes))
                room -= tokens
            yield part, prefixes


def refuse_windows(model: LoadedModel) -> None:
    """ModelError if some layers attend otherwise than to all that precedes: search knows of nothing else."""
    kinds = set(getattr(model.net.config.get_text_config(), "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        raise ModelError(f"model {model.path}: layers with {', '.join(sorted(kinds))}; search needs full attention")


@torch.inference_mode()
def read(model: LoadedModel, queries: Rows[Query], counts: Counter) -> Prefixes:
    """Pass the prefixes, padded behind, through the model."""
    refuse_windows(model)
    lengths = np.array([len(q.prefix) for q in queries])
    ids, mask = np.zeros((len(queries), lengths.max()), np.int64), np.arange(lengths.max()) < lengths[:, None]
    positions = np.ones((*ids.shape, *queries[0].prefix.positions.shape[1:]), np.int64)
    for row, query in enumerate(queries):
        ids[row, : lengths[row]], positions[row, : lengths[row]] = query.prefix.ids, query.prefix.positions
    dihedrals = np.array([q.dihedral for q in queries])
    vectors = np.array([q.dihedral if q.vector is None else q.vector for q in queries])
    tree = cache.empty()
    columns = torch.arange(ids.shape[1], device=model.device).expand(ids.shape)
    rows = torch.arange(len(queries), device=model.device)
    tree.place[:] = [Place(rows, columns, ids.shape[1], is_whole=True, kept=True)]
    mask = torch.from_numpy(mask).to(model.device)
    if model.format.name != "grid" and is_before_ampere(model.device):
        # Without a mask transformers leaves groups of heads to torch, whose kernel for these GPUs then holds all scores.
        causal = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool, device=model.device).tril()
        mask = _as_bias(
            model, (mask[:, None, None] & causal) | torch.eye(mask.shape[1], dtype=torch.bool, device=model.device)
        )
    asked = int(lengths.max() - lengths.min()) + 1  # from the end of the shortest prefix on
    logits = _forward(model, tree, ids, positions, mask, vectors, dihedrals, asked)
    logits = logits[np.arange(len(ids)), lengths - lengths.max() - 1]
    counts["prefill"] += int(lengths.sum())
    return Prefixes(tree, np.arange(len(ids)), lengths, dihedrals, vectors, logprobs_of(logits))


@torch.inference_mode()
def grow(
    model: LoadedModel,
    prefixes: Prefixes,
    index: np.ndarray,
    used: np.ndarray,
    ids: np.ndarray,
    positions: np.ndarray,
    sees: Tensor,
    own: Tensor,
    kept: bool = True,
) -> Tensor:
    """Logits (A, T, V) after T more tokens for each of the queries `index` (A,).

    used: (A,) columns in use; ids: (A, T); positions: (A, T) or (A, T, 3); sees, own, kept: see `cache.tree_mask`.
    """
    mask, columns = cache.tree_mask(sees, own, used, kept)
    part, n = prefixes.take(index), len(prefixes.cache.kv.layers[0].keys)
    inputs = ids, positions, part.vectors, part.dihedrals
    rows, every = torch.from_numpy(part.rows).to(model.device), np.array_equal(part.rows, np.arange(n))
    is_spread = kept and not every and ids.shape[1] <= FEW and len(index) >= WHOLE * n
    if is_spread:  # the other rows get tokens that nobody reads
        inputs = [_spread(values, part.rows, n) for values in inputs]
        mask = torch.zeros(n, *mask.shape[1:], dtype=mask.dtype, device=mask.device).index_copy_(0, rows, mask)
        mask[..., 0] |= ~mask.any(-1)  # so that no NaN arises
    prefixes.cache.place[:] = [Place(rows, columns, mask.shape[3], every or is_spread, kept)]
    logits = _forward(model, prefixes.cache, *inputs[:2], _as_bias(model, mask), *inputs[2:])
    return logits[rows] if is_spread else logits


def _spread(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """(n, ...) with `values` at `rows` and zeros elsewhere."""
    made = np.zeros((n, *values.shape[1:]), values.dtype)
    made[rows] = values
    return made


def verify(model: LoadedModel, prefixes: Prefixes, index: np.ndarray, tries: Rows[Trie]) -> list[np.ndarray]:
    """One pass of a trie each directly below the prefixes `index`, repeats allowed: per trie log-probs (N, V) after its nodes."""
    most, lengths = max(map(len, tries)), prefixes.lengths[index]
    ids, own = np.zeros((len(tries), most), np.int64), np.zeros((len(tries), most, most), bool)
    own |= np.eye(most, dtype=bool)  # padding attends to itself, so that no NaN arises
    positions = []
    for number, trie in enumerate(tries):
        size = len(trie)
        ids[number, :size] = trie.tokens
        own[number, :size, :size] = trie.ancestry()
        where = model.format.positions(np.full(size, lengths[number]), trie.depth, trie.before.rows, trie.before.cols)
        positions.append(np.concatenate([where, np.ones((most - size, *where.shape[1:]), where.dtype)]))
    sees = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]).to(model.device)[:, None].expand(-1, most, -1)
    own = torch.from_numpy(own).to(model.device)
    logits = grow(model, prefixes, index, lengths, ids, np.stack(positions), sees, own, kept=False)
    logprobs = logprobs_of(logits)
    return [logprobs[number, : len(trie)] for number, trie in enumerate(tries)]


def logprobs_of(logits: Tensor) -> np.ndarray:
    """The log-probs (..., V) of logits, in float64; NonFiniteError if one is not finite."""
    logits = logits.double().cpu()
    if not torch.isfinite(logits).all():
        raise NonFiniteError("logits are not finite: lower adapt.lr, or, if that is not why, take model.dtype=float32")
    return torch.log_softmax(logits, dim=-1).numpy()


def renormalised(logprobs: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """`logprobs` (..., V) with the probability of what is not `allowed` shared out; all -inf where nothing is."""
    logprobs = np.where(allowed, logprobs, -np.inf)
    total = np.logaddexp.reduce(logprobs, axis=-1, keepdims=True)
    return logprobs - np.where(np.isfinite(total), total, 0.0)


def _forward(model: LoadedModel, tree: TreeCache, ids, positions, mask: Tensor, vectors, dihedrals, asked=0) -> Tensor:
    """Logits of the last `asked` columns; 0: of all."""
    inputs = {"input_ids": ids, "position_ids": positions}
    if model.format.name == "grid":
        inputs |= {"task_ids": vectors, "dihedral_ids": dihedrals}
    inputs = {name: torch.from_numpy(np.ascontiguousarray(array)).to(model.device) for name, array in inputs.items()}
    with autocast(model):
        options = {"past_key_values": tree.kv, "use_cache": True, "logits_to_keep": asked}
        return model.net(**inputs, attention_mask=mask, **options).logits


def _as_bias(model: LoadedModel, allowed: Tensor) -> Tensor:
    """A (B, 1, T, S) mask in the form that the model's attention takes: bool, but additive for the eager one."""
    if model.net.config._attn_implementation != "eager":
        return allowed
    least = torch.finfo(torch.float32).min
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill(~allowed, least)
