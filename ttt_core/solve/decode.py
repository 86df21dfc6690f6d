"""Search: every answer of a view whose probability lies above the floor, grammar first.

Breadth first over answer tokens, all views of a batch at once. Branches of one view at one depth are disjoint, so at
most 1 / floor of them can live and the search is exact without a stack. Log-probs are the model's own, in nats;
tokens the grammar forbids are cut, their probability is not shared out. Not here: mapping answers back to the task.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from ttt_core.arc.encode import Sequence
from ttt_core.config import DecodeConfig
from ttt_core.errors import NonFiniteError
from ttt_core.model.load import LoadedModel
from ttt_core.solve.feed import autocast, batch_of


@dataclass(frozen=True, eq=False)
class Query:
    """A prefix after which an answer is expected, and the dihedral of its view."""

    prefix: Sequence
    dihedral: int


Answer = tuple[np.ndarray, float]  # answer token ids (T,) with their end, log-prob


@torch.inference_mode()
def decode(model: LoadedModel, queries: list[Query], config: DecodeConfig, deadline: float) -> list[list[Answer]]:
    """The answers found for each query, most probable first; what is found by the deadline (monotonic seconds)."""
    answers: list[list[Answer]] = [[] for _ in queries]
    order = sorted(range(len(queries)), key=lambda i: len(queries[i].prefix))
    start = 0
    while start < len(order) and time.monotonic() < deadline:
        longest = [len(queries[i].prefix) for i in order[start:]]
        count = max(1, sum((n + 1) * size <= config.batch_tokens for n, size in enumerate(longest)))
        part = order[start : start + count]
        for i, found in zip(part, _search(model, [queries[i] for i in part], config, deadline), strict=True):
            answers[i] = sorted(found, key=lambda answer: (-answer[1], answer[0].tobytes()))
        start += count
    return answers


def _search(model: LoadedModel, queries: list[Query], config: DecodeConfig, deadline: float) -> list[list[Answer]]:
    """One batch of queries; a branch is a row of the KV cache."""
    greedy = config.search == "greedy"
    floor, cap = (-np.inf, 1) if greedy else (np.log(config.floor), config.max_branches)
    grammar, found = model.format.grammar, [[] for _ in queries]
    batch = batch_of(model, [q.prefix for q in queries], [q.dihedral for q in queries], left=True)
    del batch["labels"]
    cache = DynamicCache()
    logprobs = _step(model, batch, cache)
    owner = np.arange(len(queries))  # (B,): the query a branch belongs to
    lengths = np.array([len(q.prefix) for q in queries])
    dihedrals = np.array([q.dihedral for q in queries])
    mask, state = batch["attention_mask"], grammar.start(len(queries))
    total, tokens = np.zeros(len(queries)), np.zeros((len(queries), 0), np.int64)
    for step in range(grammar.max_tokens()):
        scores = np.where(grammar.allowed(state), total[:, None] + logprobs, -np.inf)  # (B, V)
        branch, token = _survivors(scores, owner, floor, cap)
        ended = token == grammar.end
        for b in branch[ended]:
            found[owner[b]].append((np.append(tokens[b], grammar.end), float(scores[b, grammar.end])))
        branch, token = branch[~ended], token[~ended]
        if len(branch) == 0 or time.monotonic() > deadline:
            break
        rows, cols = state.rows[branch], state.cols[branch]
        total, owner = scores[branch, token], owner[branch]
        tokens = np.concatenate([tokens[branch], token[:, None]], axis=1)
        state = grammar.advance(state.take(branch), token)
        if not np.array_equal(branch, np.arange(len(scores))):
            index = torch.from_numpy(branch).to(model.device)
            cache.batch_select_indices(index)
            mask = mask[index]
        mask = torch.cat([mask, mask.new_ones(len(branch), 1)], dim=1)  # (B, S)
        positions = model.format.positions(lengths[owner], step, rows, cols)[:, None]  # (B, 1) or (B, 1, 3)
        inputs = {"input_ids": token[:, None], "position_ids": positions}
        if model.format.name == "grid":
            inputs["task_ids"] = inputs["dihedral_ids"] = dihedrals[owner]
        inputs = {name: torch.from_numpy(array).to(model.device) for name, array in inputs.items()}
        logprobs = _step(model, {**inputs, "attention_mask": mask}, cache)
    return found


def _survivors(scores: np.ndarray, owner: np.ndarray, floor: float, cap: int) -> tuple[np.ndarray, np.ndarray]:
    """(branch, token) of the continuations at or above the floor, the `cap` best of each query; in branch order."""
    branch, token = np.nonzero(scores >= max(floor, np.finfo(np.float64).min))
    values, queries = scores[branch, token], owner[branch]
    best_first = np.lexsort((token, branch, -values, queries))
    starts = np.searchsorted(queries[best_first], queries[best_first])
    kept = np.sort(best_first[np.arange(len(best_first)) - starts < cap])
    return branch[kept], token[kept]


def _step(model: LoadedModel, inputs: dict, cache: DynamicCache) -> np.ndarray:
    """Log-probs (B, V) float64 of the next token; the cache grows by the given tokens."""
    with autocast(model):
        logits = model.net(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    if not torch.isfinite(logprobs).all():
        raise NonFiniteError("logits are not finite: the adapted weights have diverged; lower adapt.lr")
    return logprobs.cpu().numpy()
