"""What pretraining learns: the pairs of training tasks, generated pairs, a challenge file's demonstrations, as a `Corpus`.

Not here: how they are read (`material.py`), what must not be learnt (`leakage.py`), views (`corpus.py`), batches.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ttt_core.arc import augment
from ttt_core.arc.tasks import N_COLORS, Pair, Task, nearest
from ttt_core.errors import InputError
from ttt_core.model.corpus import Corpus, length
from ttt_core.model.leakage import digest, refuse_leaks
from ttt_core.model.material import read_demonstrations, read_extra, read_training_tasks

COLOR_RULES = ("none", "free", "outputs_fixed", "all")


def read_corpus(
    data: Path | None,
    extra: Path | None = None,
    *,
    max_tokens: int,
    transductive: Path | None = None,
    colors: str = "free",
    original_views: int = 1,
    hold_out: frozenset[str] = frozenset(),
    exclude: frozenset[str] = frozenset(),
    guard: Path | None = None,
) -> Corpus:
    """Training tasks of `data` (all their pairs) with `extra` pairs of the same tasks, and the demonstrations of `transductive`.

    Equal pairs of one task are taken once, sequences above max_tokens dropped, and tasks that keep none to learn.
    original_views: how often a pair that is not generated stands in the corpus, for as many views of it an epoch. hold_out:
    ids of tasks whose test pairs (of a challenge file's tasks: whose last demonstration) are kept out of training. exclude:
    ids left out altogether; of a task that `transductive` has too, what `data` knows of it is left out alone.
    guard: challenge file that must share neither a task id nor a pair with what is learnt, InputError if it does; but
    its own demonstrations may be, where it is `transductive` itself.
    """
    if data is None and transductive is None:
        raise InputError("no training material: give --data, --transductive, or both")
    if extra and data is None:
        raise InputError(f"extra pairs {extra}: belong to training tasks; give --data too, or leave --extra out")
    given = read_training_tasks(data) if data else []
    demonstrated = read_demonstrations(transductive) if transductive else []
    in_data = {task.id for task in given}
    known = in_data | {task.id for task in demonstrated}
    if unknown := sorted(exclude - known):
        told = f"there is no such task; the nearest id is {nearest(unknown[0], sorted(known))}"
        more = f"; and {len(unknown) - 1} more are unknown" if len(unknown) > 1 else ""
        warnings.warn(f"--exclude {unknown[0]}: {told}{more}", stacklevel=3)
    tasks = {task.id: task for task in given if task.id not in exclude}
    generated = read_extra(extra, tasks) if extra else {}
    shown = [task for task in demonstrated if task.id not in exclude or task.id in in_data]
    if guard:
        is_other = transductive and transductive.resolve() != guard.resolve()
        refuse_leaks(tasks, shown if is_other else [], generated, guard, in_data, transductive)
    for task in shown:
        if task.id in tasks:
            raise InputError(f"task {task.id}: in {data} and in {transductive}; leave it out with --exclude {task.id}")
        tasks[task.id] = split_last(task) if task.id in hold_out else task
    missing = sorted(hold_out - set(tasks))
    if missing:
        raise InputError(f"hold-out task {missing[0]}: not among the training tasks of {data or transductive}")
    ids, pairs, held_out, free = [], [], [], []
    for task in tasks.values():
        kept_out = distinct(task.test) if task.id in hold_out else []
        originals = task.train if kept_out else (*task.train, *task.test)
        own = distinct((*kept_out, *originals))
        every = distinct((*own, *generated.get(task.id, ())))
        learnt = own[len(kept_out) :] * original_views + every[len(own) :]  # nothing of what is kept out
        if short := [(len(ids), pair) for pair in learnt if length(pair) <= max_tokens]:
            pairs += short
            held_out += [(len(ids), pair) for pair in kept_out if length(pair) <= max_tokens]
            free.append(permutable(originals, colors))
            ids.append(task.id)
    if not pairs:
        raise InputError(f"{data or transductive}: no pair of at most {max_tokens} tokens; raise --max-tokens")
    fit = f"of at most {max_tokens} tokens"
    if silent := len(tasks) - len(ids):
        told = f"{silent} of {len(tasks)} tasks have no pair {fit} and are not learnt"
        warnings.warn(f"{told}; raise --max-tokens", stacklevel=3)
    if (n := len({index for index, _ in held_out})) < len(hold_out):
        told = f"{len(hold_out)} tasks are held out, of which {n} are learnt and have a test pair {fit}"
        warnings.warn(f"{told}; raise --max-tokens", stacklevel=3)
    return Corpus(tuple(ids), tuple(free), tuple(pairs), tuple(held_out), frozenset(task.id for task in shown))


def permutable(pairs: tuple[Pair, ...], rule: str) -> tuple[int, ...]:
    """Colours that a view may exchange. none; all but 0; outputs_fixed: those that some input shows, but 0; free: see augment."""
    if rule == "free":
        return augment.free_colors(pairs)
    if rule == "outputs_fixed":
        return tuple(sorted(set().union(*(np.unique(p.input).tolist() for p in pairs)) - {0}))
    return tuple(range(1, N_COLORS)) if rule == "all" else ()


def split_last(task: Task) -> Task:
    """The last demonstration as the test pair; InputError if it is the only one."""
    if len(task.train) < 2:
        raise InputError(f"hold-out task {task.id}: has one demonstration only; hold out another")
    return Task(task.id, task.train[:-1], task.train[-1:])


def distinct(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs without repetitions, in order."""
    return list({digest(p.input, p.output): p for p in pairs}.values())
