"""Prefixes of views, read once: their KV cache serves the search below them, the drafts and the re-scoring.

A row of the cache is a query or a branch of one; columns are the left-padded prefix, then what was added. Caches are
transformers' DynamicCache, so any causal LM and GridLM serve. Log-probs are the model's own, nats, float64. Not here:
which tokens are tried (`decode.py`) or which answers are scored (`rescore.py`).
"""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Rows
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from ttt_core.arc.encode import Sequence
from ttt_core.errors import NonFiniteError
from ttt_core.model.load import LoadedModel
from ttt_core.solve.feed import autocast, batch_of
from ttt_core.solve.trie import Trie

KV = list[tuple[Tensor, Tensor]]  # a layer's keys and values, (B, H, S, d) each


@dataclass(frozen=True, eq=False)
class Query:
    """A prefix after which an answer is expected, and the dihedral of its view."""

    prefix: Sequence
    dihedral: int


@dataclass(frozen=True, eq=False)
class Prefixes:
    """B queries that went through the model. kv: their cache; mask: (B, S), 0 where padded; logprobs: (B, V), of the first token."""

    kv: KV
    mask: Tensor
    lengths: np.ndarray
    dihedrals: np.ndarray
    logprobs: np.ndarray

    def take(self, rows: list[int]) -> "Prefixes":
        """The queries `rows`, in that order."""
        index = torch.tensor(rows, device=self.mask.device)
        kv = [(k[index], v[index]) for k, v in self.kv]
        return Prefixes(kv, self.mask[index], self.lengths[rows], self.dihedrals[rows], self.logprobs[rows])


def batches(
    model: LoadedModel,
    queries: list[Query],
    batch_tokens: int,
    counts: Counter,
    first: int = 0,
    kept: list | None = None,
) -> Iterator[tuple[list[int], Prefixes]]:
    """Indices of `queries` and their prefixes, at most `batch_tokens` padded tokens at once (at least one query).

    first: this many leading queries make up batches of their own, which come first. kept: prefixes of these queries
    from an earlier call, used instead of reading again; filled where all of them together fit `batch_tokens`.
    """
    if kept:
        yield from kept
        return
    longest = max((len(query.prefix) for query in queries), default=0)
    keep = kept is not None and longest * len(queries) <= batch_tokens
    for group in (range(min(first, len(queries))), range(min(first, len(queries)), len(queries))):
        order = sorted(group, key=lambda i: len(queries[i].prefix))
        while order:
            fits = sum((n + 1) * len(queries[i].prefix) <= batch_tokens for n, i in enumerate(order))
            part, order = order[: max(1, fits)], order[max(1, fits) :]
            prefixes = read(model, [queries[i] for i in part], counts)
            if keep:
                kept.append((part, prefixes))
            yield part, prefixes


@torch.inference_mode()
def read(model: LoadedModel, queries: Rows[Query], counts: Counter) -> Prefixes:
    """Pass the prefixes through the model."""
    batch = batch_of(model, [q.prefix for q in queries], [q.dihedral for q in queries], left=True)
    del batch["labels"]
    cache, lengths = DynamicCache(), np.array([len(q.prefix) for q in queries])
    with autocast(model):
        logits = model.net(**batch, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    counts["prefill"] += int(lengths.sum())
    dihedrals = np.array([q.dihedral for q in queries])
    return Prefixes(kv_of(cache), batch["attention_mask"], lengths, dihedrals, _logprobs(logits))


@torch.inference_mode()
def verify(model: LoadedModel, prefixes: Prefixes, rows: list[int], tries: list[Trie]) -> tuple[list[np.ndarray], KV]:
    """One pass of a trie each over the prefixes `rows`: per trie log-probs (N, V) after its nodes, and the grown cache."""
    most = max(map(len, tries))
    ids, mask = np.zeros((len(tries), most), np.int64), np.zeros((len(tries), most, most), bool)
    mask |= np.eye(most, dtype=bool)  # padding attends to itself, so that no NaN arises
    positions = []
    for trie, number, row in zip(tries, range(len(tries)), rows, strict=True):
        ids[number, : len(trie)] = trie.tokens
        mask[number, : len(trie), : len(trie)] = trie.ancestry()
        lengths = np.full(len(trie), prefixes.lengths[row])
        own = model.format.positions(lengths, trie.depth, trie.before.rows, trie.before.cols)
        positions.append(np.concatenate([own, np.ones((most - len(trie), *own.shape[1:]), own.dtype)]))
    index = torch.tensor(rows, device=model.device)
    past = prefixes.mask[index].bool()[:, None].expand(-1, most, -1)  # (B, N, S)
    tree = torch.cat([past, torch.from_numpy(mask).to(model.device)], dim=2)[:, None]  # (B, 1, N, S + N)
    cache = cache_of([(k[index], v[index]) for k, v in prefixes.kv])
    inputs = _inputs(model, ids, np.stack(positions), prefixes.dihedrals[rows])
    with autocast(model):
        logits = model.net(**inputs, attention_mask=_as_bias(model, tree), past_key_values=cache, use_cache=True).logits
    logprobs = _logprobs(logits)
    return [logprobs[number, : len(trie)] for number, trie in enumerate(tries)], kv_of(cache)


@torch.inference_mode()
def step(model: LoadedModel, cache: DynamicCache, mask: Tensor, tokens, positions, dihedrals) -> np.ndarray:
    """Log-probs (B, V) after one more token (B,) a row; the cache grows by it. mask: (B, S + 1), the token included."""
    inputs = _inputs(model, tokens[:, None], positions[:, None], dihedrals)
    with autocast(model):
        logits = model.net(
            **inputs, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits
    return _logprobs(logits[:, -1])


def kv_of(cache: DynamicCache) -> KV:
    """The tensors of a cache."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def cache_of(kv: KV) -> DynamicCache:
    """A cache that holds `kv` and leaves it as it is when it grows."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(kv):
        cache.update(keys, values, index)
    return cache


def _inputs(model: LoadedModel, ids: np.ndarray, positions: np.ndarray, dihedrals: np.ndarray) -> dict[str, Tensor]:
    inputs = {"input_ids": ids, "position_ids": positions}
    if model.format.name == "grid":
        inputs["task_ids"] = inputs["dihedral_ids"] = dihedrals
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(model.device) for name, array in inputs.items()}


def _as_bias(model: LoadedModel, allowed: Tensor) -> Tensor:
    """A (B, 1, T, S) mask in the form that the model's attention takes: bool, but additive for the eager one."""
    if model.net.config._attn_implementation != "eager":
        return allowed
    least = torch.finfo(torch.float32).min
    return torch.zeros(allowed.shape, device=allowed.device).masked_fill(~allowed, least)


def _logprobs(logits: Tensor) -> np.ndarray:
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    if not torch.isfinite(logprobs).all():
        raise NonFiniteError("logits are not finite: the adapted weights have diverged; lower adapt.lr")
    return logprobs.cpu().numpy()
