"""The leakage guard: nothing may be learnt that shows what is to be evaluated, by id or by content, in any view.

Views exchange colours and turn grids, so these are compared without either. Not here: how files are read (`material.py`).
"""

import collections
import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ttt_core.arc import augment
from ttt_core.arc.tasks import N_COLORS, Pair, Task
from ttt_core.errors import InputError
from ttt_core.model.material import read_training_tasks, usable

MANY = 60  # ids that a command line is better spared
TELLING_CELLS = 30  # of a grid that is the same puzzle in any view; smaller ones are often alike by chance


def refuse_leaks(
    tasks: dict[str, Task],
    shown: list[Task],
    generated: dict,
    guard: Path,
    in_data: set[str],
    transductive: Path | None,
) -> None:
    """InputError if what is learnt shows what `guard` asks: all of `tasks` and their generated pairs, of those `shown` the demonstrations.

    Says how to be rid of it: --exclude leaves a task out, but of one that is `in_data` too not what `transductive` shows.
    """
    checked = [*tasks.values(), *shown]
    pairs = ((t.id, pair) for t in checked for pair in (*t.train, *t.test, *generated.get(t.id, ())))
    if told := leaks({t.id for t in checked}, pairs, guard):
        stays = {t.id for t in shown} & in_data
        out, off = [t for t in told if t in tasks or t not in stays], [t for t in told if t in stays]
        (source, (asked, *_)), *others = told.items()
        more, it = (f", and {len(others)} more like it", "them") if others else ("", "it")
        given = ",".join(out) if len(out) <= MANY else f"@FILE, where FILE holds {','.join(out)}"
        ways = [f"leave {it} out with --exclude {given}"] if out else []
        ways += [f"take {','.join(off)} out of {transductive}"] if off else []
        leak = f"training task {source} shows what task {asked} of {guard} asks{more}"
        raise InputError(f"leak: {leak}; {', and '.join(ways)}")


def leaks(ids: set[str], pairs: Iterable[tuple[str, Pair]], guard: Path) -> dict[str, tuple[str, ...]]:
    """Tasks of the material (ids; pairs of an id and a pair) that show what the challenge file `guard` asks, each with those of its tasks.

    What may be shown is a task id, a pair or a test input; grids of 30 cells and more in any view.
    """
    read, asked = usable(guard, "cannot be read and are compared by id alone"), collections.defaultdict(set)
    inputs = set()
    for task in read.tasks:
        for pair in (*task.train, *(Pair(p.input) for p in task.test)):  # whatever else the file holds
            for seen in turns_of(pair):
                inputs.add(look(seen.input))
                asked[look(*(g for g in (seen.input, seen.output) if g is not None))].add(task.id)
    told = {task_id: {task_id} for task_id in read.n_test if task_id in ids}
    for task_id, pair in pairs:
        if (shown := look(pair.input)) in inputs:
            if found := asked.get(shown, set()) | asked.get(look(pair.input, pair.output), set()):
                told.setdefault(task_id, set()).update(found)
    return {task_id: tuple(sorted(found)) for task_id, found in told.items()}


def base_leaks(base_ids: set[str], guard: Path, data: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Tasks that a base model knows and that show what `guard` asks, each with those of its tasks: by id or, of those in `data`, by content."""
    known = [task for task in read_training_tasks(data) if task.id in base_ids] if data else []
    return leaks(base_ids, ((t.id, pair) for t in known for pair in (*t.train, *t.test)), guard)


def refuse_base(
    base_ids: set[str],
    guard: Path,
    transductive: bool,
    data: Path | None = None,
    learnt_ids: frozenset[str] = frozenset(),
    exclude: frozenset[str] = frozenset(),
) -> None:
    """InputError if a base model knows tasks of `guard`, from more than a transductive run may use; see `base_leaks`.

    learnt_ids: those of base_ids that it knows with their answers, which a transductive run is told. exclude: of what it
    knows by these other tasks it is only warned.
    """
    for source, asked in (known := base_leaks(base_ids, guard, data)).items():
        how = "learnt with its answers" if transductive and source in learnt_ids else "learnt"
        shows = "" if source in asked else f"task {source}, which shows what is asked by "
        told = f"the base model has {how} {shows}task {', '.join(asked)} of {guard}"
        if source in asked or source not in exclude:
            more = f", and {len(known) - 1} more like it" if len(known) > 1 else ""
            way = "" if source in asked else f", or give --exclude {source} and never count {', '.join(asked)}"
            raise InputError(f"leak: {told}{more}; start from another base{way}")
        warnings.warn(f"{told}; no score of what is trained may count {', '.join(asked)}", stacklevel=4)


def turns_of(pair: Pair) -> tuple[Pair, ...]:
    """The pair under all eight dihedrals; one of less than TELLING_CELLS as it stands."""
    views = [augment.Augmentation(dihedral) for dihedral in range(8 if pair.input.size >= TELLING_CELLS else 1)]
    return tuple(augment.view(view, Task("", (pair,), ())).train[0] for view in views)


def look(*grids: np.ndarray) -> bytes:
    """A hash of grids, shapes included; where the first has TELLING_CELLS, the same whatever colours stand for each other."""
    if grids[0].size < TELLING_CELLS:
        return digest(*grids)
    cells = np.concatenate([g.ravel() for g in grids])
    first = np.zeros(N_COLORS, np.uint16)
    first[cells[::-1]] = np.arange(len(cells))[::-1]  # the last one counts: where a colour stands first
    parts = np.split(first[cells], np.cumsum([g.size for g in grids])[:-1])
    return digest(*(part.reshape(g.shape) for part, g in zip(parts, grids, strict=True)))


def digest(*grids: np.ndarray) -> bytes:
    """A hash of grids, shape included."""
    return hashlib.blake2b(b"".join(bytes(g.shape) + g.tobytes() for g in grids), digest_size=16).digest()
