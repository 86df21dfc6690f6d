"""Search: every answer of a view whose probability lies above the floor, grammar first.

Breadth first over answer tokens, all views of a batch at once. Branches of one view at one depth are disjoint, so at
most 1 / floor of them can live and the search is exact without a stack. Drafts, answers found in other views, are
verified in one pass and the search goes on only where this view would leave them. Log-probs are the model's own, in
nats; tokens the grammar forbids are cut, their probability is not shared out. Not here: mapping answers to the task.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ttt_core.arc.grammar import State
from ttt_core.config import DecodeConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve import prefix, trie
from ttt_core.solve.prefix import Prefixes, Query
from ttt_core.solve.trie import Trie

Answer = tuple[np.ndarray, float]  # answer token ids (T,) with their end, log-prob


@dataclass(frozen=True, eq=False)
class Frontier:
    """B branches about to be extended. logprobs: (B, V) of the next token. node: of the draft, -1 at its root or without one.

    owner: the query; total: log-prob so far; tokens: (B, longest answer), the first `depth` of them set.
    """

    owner: np.ndarray
    total: np.ndarray
    tokens: np.ndarray
    depth: np.ndarray
    state: State
    logprobs: np.ndarray
    node: np.ndarray


def decode(model: LoadedModel, queries: list[Query], config: DecodeConfig, deadline: float) -> list[list[Answer]]:
    """The answers found for each query, most probable first; what is found by the deadline (monotonic seconds)."""
    answers: list[list[Answer]] = [[] for _ in queries]
    for i, found in search(model, queries, config, deadline):
        answers[i] = found
    return answers


def search(
    model: LoadedModel,
    queries: list[Query],
    config: DecodeConfig,
    deadline: float,
    *,
    drafts: Callable[[int], list[np.ndarray]] = lambda i: [],
    first: int = 0,
    kept: list | None = None,
    counts: Counter | None = None,
) -> Iterator[tuple[int, list[Answer]]]:
    """(query, its answers, most probable first), batch by batch.

    drafts: token ids of answers to try first in a query, asked when its batch begins; they change the work, not the
    answers. first, kept: see `prefix.batches`. counts: gets the tokens of "prefill", "draft", "search", and "unshared",
    what the same search takes without a cache.
    """
    counts = Counter() if counts is None else counts
    for part, prefixes in prefix.batches(model, queries, config.batch_tokens, counts, first, kept):
        if time.monotonic() >= deadline:
            return
        tries = [trie.build(drafts(i) if config.search == "dfs" else [], model.format.grammar) for i in part]
        found = _search(model, prefixes, tries, config, deadline, counts)
        for i, answers in zip(part, found, strict=True):
            yield i, sorted(answers, key=lambda answer: (-answer[1], answer[0].tobytes()))


def _search(
    model: LoadedModel, prefixes: Prefixes, tries: list[Trie], config: DecodeConfig, deadline: float, counts: Counter
) -> list[list[Answer]]:
    """One batch of queries; a branch is a row of the KV cache, which is gathered anew wherever branches fork or die."""
    greedy = config.search == "greedy"
    floor, cap = (-np.inf, 1) if greedy else (np.log(config.floor), config.max_branches)
    grammar, found = model.format.grammar, [[] for _ in tries]
    front, kv, past = _start(model, prefixes, tries, floor, counts)
    cache, mask = None, prefixes.mask
    while True:
        scores = np.where(grammar.allowed(front.state), front.total[:, None] + front.logprobs, -np.inf)  # (B, V)
        branch, token = _survivors(scores, front, tries, floor, cap)
        ended = token == grammar.end
        for b in branch[ended]:
            answer = np.append(front.tokens[b, : front.depth[b]], grammar.end)
            found[front.owner[b]].append((answer, float(scores[b, grammar.end])))
        branch, token = branch[~ended], token[~ended]
        if len(branch) == 0 or time.monotonic() > deadline:
            return found
        if cache is None:  # the first tokens that no draft holds
            kv, mask = _gather(kv, mask, front, branch, tries, past)
            cache = prefix.cache_of(kv)
        elif not np.array_equal(branch, np.arange(len(scores))):
            index = torch.from_numpy(branch).to(model.device)
            cache.batch_select_indices(index)
            mask = mask[index]
        mask = torch.cat([mask, mask.new_ones(len(branch), 1)], dim=1)  # (B, S)
        front = _advanced(model, prefixes, front, scores, branch, token, cache, mask, counts)


def _start(
    model, prefixes: Prefixes, tries: list[Trie], floor: float, counts: Counter
) -> tuple[Frontier, prefix.KV, int]:
    """The roots of all queries and the draft nodes above the floor; the cache that holds both; columns of the prefix in it."""
    drafted = [b for b, tree in enumerate(tries) if len(tree)]
    kv, past = prefixes.kv, prefixes.mask.shape[1]
    after: dict[int, np.ndarray] = {}
    if drafted:
        verified, grown = prefix.verify(model, prefixes, drafted, [tries[b] for b in drafted])
        after = dict(zip(drafted, verified, strict=True))
        kv = grown if len(drafted) == len(tries) else _spread(kv, grown, drafted)
        counts["draft"] += sum(len(tries[b]) for b in drafted)
    owner, total, nodes, logprobs = [], [], [], []
    for b, tree in enumerate(tries):
        totals, ahead = {-1: 0.0}, {-1: prefixes.logprobs[b]}
        for node in range(len(tree)):
            parent = int(tree.parent[node])
            if parent not in totals or (score := totals[parent] + ahead[parent][tree.tokens[node]]) < floor:
                continue
            totals[node], ahead[node] = score, after[b][node]
        owner += [b] * len(totals)
        total += totals.values()
        nodes += totals.keys()
        logprobs += ahead.values()
    owner, node = np.array(owner), np.array(nodes)
    grammar = model.format.grammar
    state, tokens = grammar.start(len(owner)), np.zeros((len(owner), grammar.max_tokens()), np.int16)
    depth = np.zeros(len(owner), np.int64)
    for i in np.flatnonzero(node >= 0):
        tree, path = tries[owner[i]], tries[owner[i]].path(int(node[i]))
        depth[i] = len(path)
        tokens[i, : len(path)] = tree.tokens[path]
        for name in ("rows", "cols", "width"):
            getattr(state, name)[i] = getattr(tree.after, name)[node[i]]
    counts["unshared"] += int((prefixes.lengths[owner] + depth).sum())
    return Frontier(owner, np.array(total), tokens, depth, state, np.stack(logprobs), node), kv, past


def _spread(kv: prefix.KV, grown: prefix.KV, rows: list[int]) -> prefix.KV:
    """`kv` of all queries, made as long as `grown`, which takes the place of its `rows`."""
    wide = []
    for old, new in zip(kv, grown, strict=True):
        pair = []
        for a, b in zip(old, new, strict=True):
            out = a.new_zeros(a.shape[0], a.shape[1], b.shape[2], a.shape[3])
            out[:, :, : a.shape[2]] = a
            out[rows] = b
            pair.append(out)
        wide.append(tuple(pair))
    return wide


def _gather(kv: prefix.KV, mask, front: Frontier, branch: np.ndarray, tries: list[Trie], past: int):
    """Cache and mask of the branches: their query's prefix, then the draft nodes on their way, padded to the longest."""
    owner = torch.from_numpy(front.owner[branch]).to(mask.device)
    paths = [tries[front.owner[b]].path(int(front.node[b])) for b in branch]
    most = max(map(len, paths))
    mask = mask[owner]
    if most == 0:
        return [(k[owner, :, :past], v[owner, :, :past]) for k, v in kv], mask
    columns, used = np.zeros((len(branch), most), np.int64), np.zeros((len(branch), most), np.int64)
    for row, path in enumerate(paths):
        columns[row, : len(path)], used[row, : len(path)] = path, 1
    own = torch.arange(past, device=mask.device).expand(len(branch), -1)
    columns = torch.cat([own, torch.from_numpy(columns).to(mask.device) + past], dim=1)  # (B, S)
    mask = torch.cat([mask, torch.from_numpy(used).to(mask)], dim=1)
    rows = owner[:, None]
    return [tuple(t.transpose(1, 2)[rows, columns].transpose(1, 2) for t in pair) for pair in kv], mask


def _advanced(model, prefixes: Prefixes, front: Frontier, scores, branch, token, cache, mask, counts) -> Frontier:
    """The frontier one token further: each `branch` extended by its `token`."""
    owner, depth, state = front.owner[branch], front.depth[branch], front.state.take(branch)
    tokens = front.tokens[branch]
    tokens[np.arange(len(branch)), depth] = token
    positions = model.format.positions(prefixes.lengths[owner], depth, state.rows, state.cols)
    logprobs = prefix.step(model, cache, mask, token, positions, prefixes.dihedrals[owner])
    counts["search"] += len(branch)
    counts["unshared"] += int((prefixes.lengths[owner] + depth + 1).sum())
    following, away = model.format.grammar.advance(state, token), np.full(len(branch), -2)
    return Frontier(owner, scores[branch, token], tokens, depth + 1, following, logprobs, away)


def _survivors(scores: np.ndarray, front: Frontier, tries: list[Trie], floor: float, cap: int):
    """(branch, token) of the continuations at or above the floor that are no draft nodes, the `cap` best of each query."""
    branch, token = np.nonzero(scores >= max(floor, np.finfo(np.float64).min))
    if (front.node > -2).any():
        new = [
            (int(front.node[b]), int(t)) not in tries[front.owner[b]].children
            for b, t in zip(branch, token, strict=True)
        ]
        branch, token = branch[new], token[new]
    values, queries = scores[branch, token], front.owner[branch]
    best_first = np.lexsort((token, branch, -values, queries))
    starts = np.searchsorted(queries[best_first], queries[best_first])
    kept = np.sort(best_first[np.arange(len(best_first)) - starts < cap])
    return branch[kept], token[kept]
