"""The pass that search waits for: the tokens due in all queries of a frontier, each with its draft behind it.

Not here: what is drafted (`drafts.py`), which tokens are due (`levels.py`).
"""

from dataclasses import replace

import numpy as np
import torch

from ttt_core.solve import prefix
from ttt_core.solve.frontier import Frontier
from ttt_core.solve.levels import Batch

PADDING, GPU_PADDING = 32, 2048  # padded tokens that take about as long as one more pass
EVEN = 16  # tokens of one query's pass, beyond so many a multiple of this: every new shape costs a kernel


def passed(batch: Batch, front: Frontier) -> Frontier:
    """`front` once the branches that wait for a pass have had it."""
    model, drafts, counts = batch.model, batch.drafts, batch.counts
    away = np.flatnonzero(front.entry < 0)
    owner, depth = front.owner[away], front.depth[away] - 1
    queries = front.asked[owner]
    chains = drafts.chains(queries, depth, front.token[away])
    chain, place = np.nonzero(chains >= 0)
    active, row = np.unique(owner[chain], return_inverse=True)
    sizes = np.bincount(row)
    slot = np.arange(len(row)) - (np.cumsum(sizes) - sizes)[row]
    state = model.format.grammar.before(chains, front.before.take(away))
    cells = state.rows[chain, place], state.cols[chain, place]
    where = model.format.positions(front.prefixes.lengths[owner[chain]], depth[chain] + place, *cells)
    sees, logprobs = front.sees(drafts, away), np.empty((len(row), model.format.vocab_size))
    for part in _groups(sizes, PADDING if model.device.type == "cpu" else GPU_PADDING):
        now = np.flatnonzero(np.isin(row, part))
        r, t = np.searchsorted(part, row[now]), slot[now]
        shape = (len(part), _even(int(sizes[part].max())))  # (A, T)
        ids, positions = np.zeros(shape, np.int64), np.ones((*shape, *where.shape[1:]), np.int64)
        of = np.tile(-1 - np.arange(shape[1]), (shape[0], 1))  # the chain of each; padding is alone
        ids[r, t], positions[r, t], of[r, t] = chains[chain[now], place[now]], where[now], chain[now]
        wide = np.zeros((*shape, sees.shape[1]), bool)
        wide[r, t] = sees[chain[now]]
        of, wide = (torch.from_numpy(array).to(model.device) for array in (of, wide))
        own = (of[:, :, None] == of[:, None, :]).tril()
        used = front.used[active[part]]
        logits = prefix.grow(model, front.prefixes, active[part], used, ids, positions, wide, own)
        logprobs[now] = prefix.logprobs_of(logits[r, t])
    order = np.argsort(front.total[away], kind="stable")
    columns = front.used[owner[chain]] + slot
    entry, path = front.entry.copy(), front.path.copy()
    entry[away] = path[away, depth] = drafts.add(queries, depth, chains, columns, logprobs, order)
    used = front.used.copy()
    used[active] += sizes
    counts["search"] += len(away)
    if len(row) > len(away):
        counts["draft"] += len(row) - len(away)
    return replace(front, used=used, entry=entry, path=path)


def _even(size: int) -> int:
    return size if size <= EVEN else -(-size // EVEN) * EVEN


def _groups(sizes: np.ndarray, padding: int) -> list[np.ndarray]:
    """The numbers of the queries that have so many tokens each, for one pass, or for two where that spares `padding`."""
    most, ends = int(sizes.max()), np.unique(sizes)
    spared = np.array([(sizes <= end).sum() * (most - end) for end in ends])
    if spared.max() < padding:
        return [np.arange(len(sizes))]
    is_small = sizes <= ends[spared.argmax()]
    return [np.flatnonzero(is_small), np.flatnonzero(~is_small)]
