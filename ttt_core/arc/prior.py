"""What the demonstrations say of an answer's shape and colours; each prior only where it holds on every demonstration.

Of the 400 ARC-AGI-1 evaluation tasks' 419 answers @@. numpy only; not here: the grammar that keeps to it.
"""

import numpy as np

from ttt_core.arc.grammar import Prior
from ttt_core.arc.tasks import Task


def prior_of(task: Task, index: int, kind: str) -> Prior:
    """The prior of the answer to test input `index`. kind: "shape", "palette", "both", or "none" for a free one."""
    height, width = _shape(task, task.test[index].input) if kind in ("shape", "both") else (0, 0)
    colors = _palette(task, task.test[index].input) if kind in ("palette", "both") else Prior().colors
    return Prior(height, width, colors)


def _shape(task: Task, test_input: np.ndarray) -> tuple[int, int]:
    """Of the input where every output has its input's shape; the outputs' where at least two have one; else (0, 0).

    Also (0, 0) where the two disagree.
    """
    shapes = {pair.output.shape for pair in task.train}
    claims = [shapes.pop()] if len(shapes) == 1 and len(task.train) > 1 else []
    if all(pair.output.shape == pair.input.shape for pair in task.train):
        claims.append(test_input.shape)
    return claims[0] if len(set(claims)) == 1 else (0, 0)


def _palette(task: Task, test_input: np.ndarray) -> frozenset[int]:
    """The colours of the input and of all outputs, where each output is so explained by its input and the other outputs."""
    inputs, outputs = ([set(np.unique(grid).tolist()) for grid in grids] for grids in zip(*_grids(task), strict=True))
    for i, (shown, made) in enumerate(zip(inputs, outputs, strict=True)):
        if not made <= shown.union(*outputs[:i], *outputs[i + 1 :]):
            return Prior().colors
    return frozenset(set(np.unique(test_input).tolist()).union(*outputs))


def _grids(task: Task) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(pair.input, pair.output) for pair in task.train]
