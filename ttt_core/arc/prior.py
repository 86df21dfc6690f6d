"""What the demonstrations say of an answer's shape and colours; each prior only where it holds on every demonstration.

Where they hold in ARC-AGI-2's 1,243 public answers (tests/arc/test_prior.py), the input's shape (832) and the palette
(1,077) never mislead; a constant shape (521) does 39 times. numpy only; not here: the grammar that keeps to a prior.
"""

import numpy as np

from ttt_core.arc.grammar import Prior
from ttt_core.arc.tasks import Task


def prior_of(task: Task, index: int, *, same_shape: bool, constant_shape: bool, palette: bool) -> Prior:
    """The prior of the answer to test input `index`, of the kinds asked for.

    same_shape: the input's, where every output has its input's. constant_shape: the outputs', where these are at least
    two and have one shape; the input's goes first. palette: the colours of the input and of all outputs, where each
    output is so explained by its input and the other outputs.
    """
    test_input, shapes = task.test[index].input, {pair.output.shape for pair in task.train}
    height, width = 0, 0
    if same_shape and all(pair.output.shape == pair.input.shape for pair in task.train):
        height, width = test_input.shape
    elif constant_shape and len(shapes) == 1 and len(task.train) > 1:
        height, width = shapes.pop()
    return Prior(height, width, _palette(task, test_input) if palette else Prior().colors)


def _palette(task: Task, test_input: np.ndarray) -> frozenset[int]:
    inputs = [set(np.unique(pair.input).tolist()) for pair in task.train]
    outputs = [set(np.unique(pair.output).tolist()) for pair in task.train]
    for i, (shown, made) in enumerate(zip(inputs, outputs, strict=True)):
        if not made <= shown.union(*outputs[:i], *outputs[i + 1 :]):
            return Prior().colors
    return frozenset(set(np.unique(test_input).tolist()).union(*outputs))
