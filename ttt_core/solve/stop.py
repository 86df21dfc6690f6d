"""When to stop: one demonstration is held out, and the step at which it is understood is the step for all of them.

Watched are its NLL under two views and whether greedy decoding gets it right under both. Decoding is greedy and right
exactly where every answer token is the most probable of those that the grammar allows, so one forward pass tells. Not here:
the adaptation itself (`adapt.py`), which is run on the others, and then again on all.
"""

import dataclasses
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from ttt_core.arc import augment
from ttt_core.arc.augment import Augmentation
from ttt_core.arc.encode import IGNORE, Sequence
from ttt_core.arc.result import OUT_OF_TIME
from ttt_core.arc.tasks import Task
from ttt_core.config import AdaptConfig
from ttt_core.errors import is_out_of_memory
from ttt_core.model.load import LoadedModel
from ttt_core.model.packing import target_logits
from ttt_core.solve.adapt import adapted
from ttt_core.solve.feed import Row, autocast, context_tokens, packed_of

MIN_DEMONSTRATIONS = 3  # below, holding one out leaves too little to learn from
CHECKS = 16  # over the steps of the config
STAYS, PATIENCE = 3, 4  # checks in a row that are right; that are no better than the best before them
TRIAL_SHARE = 0.5  # of the time, at most, goes into the trial


@dataclass(frozen=True)
class Check:
    """The held-out demonstration after `step` steps: nats per token, and whether it is answered right in both views."""

    step: int
    nll: float
    is_right: bool


@dataclass(frozen=True)
class Trial:
    """What a trial says: steps for all demonstrations, what was seen, seconds it took."""

    steps: int
    checks: tuple[Check, ...]
    seconds: float


def verdict(checks: list[Check]) -> int | None:
    """The step to stop at, once the checks tell; None while it is worth going on.

    Right STAYS times in a row: the last of these steps. PATIENCE checks without a better NLL: the best one's step.
    """
    if len(checks) >= STAYS and all(check.is_right for check in checks[-STAYS:]):
        return checks[-1].step
    best = min(checks, key=lambda check: (math.isnan(check.nll), check.nll)) if checks else None
    if best is not None and len(checks) - checks.index(best) > PATIENCE and not checks[-1].is_right:
        return best.step
    return None


def trial(
    model: LoadedModel, task: Task, config: AdaptConfig, rng: np.random.Generator, deadline: float
) -> Trial | None:
    """How many steps `task` needs, by a demonstration held out.

    None if it has too few, the model has learnt them all, nothing is trained, or there is no room to ask.
    """
    is_known = task.id in getattr(model.net.config, "task_ids", ())
    if len(task.train) < MIN_DEMONSTRATIONS or is_known or config.method == "none" or config.steps == 0:
        return None
    began = time.monotonic()
    held = int(rng.integers(len(task.train)))
    others = Task(task.id, task.train[:held] + task.train[held + 1 :], (task.train[held],))
    asked = questions(model, others, rng, config.color_permutations)
    if not asked:
        return None
    every, checks, no_room = max(1, config.steps // CHECKS), [], []

    def watch(step: int, loss: float) -> bool:
        if step % every == 0:
            try:
                checks.append(check(model, asked, step))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                no_room.append(step)
        if no_room:
            return True
        return step % every == 0 and verdict(checks) is not None

    with adapted(model, others, config, rng, began + TRIAL_SHARE * (deadline - began), watch) as adaptation:
        was_cut = OUT_OF_TIME in adaptation.note  # then the clock is no verdict
        steps = verdict(checks) or (0 if was_cut else adaptation.steps) or config.steps
    if no_room:
        return None
    return Trial(steps, tuple(checks), time.monotonic() - began)


@dataclass(frozen=True, eq=False)
class Question:
    """A demonstration asked in one view: its row, and bool (M, V): what the grammar allows where each target is due."""

    row: Row
    allowed: torch.Tensor


def questions(model: LoadedModel, task: Task, rng: np.random.Generator, permutes_colors: bool = True) -> list[Question]:
    """The demonstration in the place of the test pair, asked after the others, as it stands and in one other view."""
    free, (held,) = augment.free_colors((*task.train, *task.test)) if permutes_colors else (), task.test
    views = (Augmentation(), Augmentation(1 + int(rng.integers(7)), augment.permute_colors(free, rng)))
    whole, limit = Task(task.id, (*task.train, held), ()), context_tokens(model)
    rows = [(model.format.training(augment.view(view, whole), "leave_one_out"), view.dihedral) for view in views]
    rows = [(made[-1], dihedral) for made, dihedral in rows if len(made[-1]) <= limit]
    return [Question(row, _allowed(model, row[0])) for row in rows]


def _allowed(model: LoadedModel, sequence: Sequence) -> torch.Tensor:
    grammar, masks = model.format.grammar, []
    state = grammar.start(1)
    for token in sequence.labels[sequence.labels != IGNORE]:
        masks.append(grammar.allowed(state))
        state = grammar.advance(state, np.array([token]))
    return torch.from_numpy(np.concatenate(masks)).to(model.device)


@torch.no_grad()
def check(model: LoadedModel, asked: list[Question], step: int) -> Check:
    """Only while `packed(model.net)` is on, that is from within the adaptation."""
    nlls, right = [], []
    for question in asked:
        batch = packed_of(model, [question.row])
        with autocast(model):
            logits = target_logits(model.net, batch).float()  # (M, V)
        nlls.append(float(F.cross_entropy(logits, batch.targets)))
        greedy = logits.masked_fill(~question.allowed, float("-inf")).argmax(-1)
        right.append(bool((greedy == batch.targets).all()))
    return Check(step, float(np.mean(nlls)), all(right))


def with_steps(config: AdaptConfig, chosen: Trial | None) -> AdaptConfig:
    """`config` with the steps of the trial, never more than it had."""
    return config if chosen is None else dataclasses.replace(config, steps=min(config.steps, chosen.steps))
