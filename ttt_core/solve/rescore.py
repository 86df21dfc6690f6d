"""Re-scoring: the log-prob of every candidate under every view, by teacher-forced passes. Not here: choosing."""

import time

import numpy as np
import torch

from ttt_core.arc.augment import apply, view
from ttt_core.arc.encode import Sequence, answer_ids
from ttt_core.arc.tasks import Task
from ttt_core.config import RescoreConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve.feed import batch_of, target_logits


@torch.inference_mode()
def rescore(
    model: LoadedModel, task: Task, test_index: int, grids: list[np.ndarray], views, config: RescoreConfig, deadline: float
) -> np.ndarray:
    """(candidates, views) nats, NaN where the deadline (monotonic seconds) came first. grids: in the task's own orientation."""
    scores = np.full((len(grids), len(views)), np.nan)
    work = []
    for v, augmentation in enumerate(views):
        prefix = model.format.query(view(augmentation, task), test_index)
        for g, grid in enumerate(grids):
            work.append((v, g, answered(model, prefix, apply(augmentation, grid))))
    work.sort(key=lambda item: len(item[2]), reverse=True)
    while work and time.monotonic() < deadline:
        count = max(1, config.batch_tokens // len(work[0][2]))
        part, work = work[:count], work[count:]
        batch = batch_of(model, [row for _, _, row in part], [views[v].dihedral for v, _, _ in part])
        logits, targets = target_logits(model, batch)
        values = torch.log_softmax(logits.double(), -1).gather(1, targets[:, None])[:, 0]  # (M,)
        sizes = [int((row.labels != -100).sum()) for _, _, row in part]
        for (v, g, _), piece in zip(part, values.split(sizes), strict=True):
            scores[g, v] = float(piece.sum())
    return scores


def answered(model: LoadedModel, prefix: Sequence, grid: np.ndarray) -> Sequence:
    """`prefix` followed by the answer `grid` of the same view, its tokens being the targets."""
    grammar = model.format.grammar
    answer = answer_ids(grammar, grid)
    state, positions = grammar.start(1), []
    for step, token in enumerate(answer):
        positions.append(model.format.positions(np.array([len(prefix)]), step, state.rows, state.cols))
        state = grammar.advance(state, np.array([token]))
    return Sequence(
        np.concatenate([prefix.ids, answer]),
        np.concatenate([prefix.labels, answer]),
        np.concatenate([prefix.positions, *positions]),
    )


