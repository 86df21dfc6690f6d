"""Where pretraining pairs come from: training tasks, generated pairs, a challenge file's demonstrations; and the leakage guard.

Reads Kaggle-named files and RE-ARC-like extra pairs into a `Corpus`. Of a challenge file only the demonstrations are
taken, whatever else stands in it. Not here: views (`corpus.py`), batches.
"""

import collections
import contextlib
import gc
import gzip
import hashlib
import json
import reprlib
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ttt_core.arc import augment
from ttt_core.arc.metric import read_solutions
from ttt_core.arc.tasks import N_COLORS, Challenges, Pair, Task, grid_fault, nearest, read_challenges, to_grid
from ttt_core.errors import InputError
from ttt_core.model.corpus import Corpus, length

COLOR_RULES = ("none", "free", "outputs_fixed", "all")
MANY = 60  # ids that a command line is better spared
TELLING_CELLS = 30  # of a grid that is the same puzzle in any view; smaller ones are often alike by chance
EXTRA_LAYOUT = "give a JSON file {id: [pair, ...]}, or RE-ARC's folder of <id>.json files, each a list of pairs"


@contextlib.contextmanager
def uncollected():
    """Within the context no garbage is looked for: among millions of lists that are still in use that takes 0.4 of the time of reading."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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


def permutable(pairs: tuple[Pair, ...], rule: str) -> tuple[int, ...]:
    """Colours that a view may exchange. none; all but 0; outputs_fixed: those that some input shows, but 0; free: see augment."""
    if rule == "free":
        return augment.free_colors(pairs)
    if rule == "outputs_fixed":
        return tuple(sorted(set().union(*(np.unique(p.input).tolist() for p in pairs)) - {0}))
    return tuple(range(1, N_COLORS)) if rule == "all" else ()


def read_training_tasks(data: Path) -> list[Task]:
    """The training tasks of a Kaggle-named folder, with the outputs of their test pairs."""
    if not data.is_dir():
        raise InputError(
            f"data {data}: no such folder; write it with `python -m ttt_core data --edition arc-agi-1 --out {data}`"
        )
    solutions = read_solutions(data / "arc-agi_training_solutions.json")
    tasks = usable(data / "arc-agi_training_challenges.json").tasks
    for task in tasks:
        if (n := len(solutions.get(task.id, ()))) != len(task.test):
            told = f"task {task.id} has {len(task.test)} test inputs and {n} solutions"
            raise InputError(f"{data}: {told}; write the edition anew with `python -m ttt_core data`")
    return [
        Task(t.id, t.train, tuple(Pair(p.input, o) for p, o in zip(t.test, solutions[t.id], strict=True)))
        for t in tasks
    ]


def read_demonstrations(challenges: Path) -> list[Task]:
    """The usable tasks of a challenge file without their test pairs: nothing of those is ever learnt. InputError if there are none."""
    return [Task(task.id, task.train, ()) for task in usable(challenges).tasks]


def usable(challenges: Path, others: str = "are left out") -> Challenges:
    """A challenge file, and a warning that names one of its tasks that is not usable. InputError if none is."""
    read = read_challenges(challenges)
    if not read.tasks:
        raise InputError(f"{challenges}: no usable task: {read.faults[0]}; give a challenge file")
    if read.bad:
        told = f"{len(read.bad)} of {len(read.n_test)} tasks {others}: {read.faults[0]}"
        warnings.warn(f"{challenges}: {told}", stacklevel=4)
    return read


def split_last(task: Task) -> Task:
    """The last demonstration as the test pair; InputError if it is the only one."""
    if len(task.train) < 2:
        raise InputError(f"hold-out task {task.id}: has one demonstration only; hold out another")
    return Task(task.id, task.train[:-1], task.train[-1:])


def distinct(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs without repetitions, in order."""
    return list({digest(p.input, p.output): p for p in pairs}.values())


def read_extra(path: Path, tasks: dict[str, Task]) -> dict[str, list[Pair]]:
    """Generated pairs {task id: [pair, ...]} for `tasks` only.

    From one JSON file {id: [pair, ...]}, gzipped or not, or as RE-ARC is published: a folder of <id>.json, each a list
    of pairs, given itself or by the folder that holds it as `tasks`. InputError on another layout.
    """
    if path.is_dir():
        folder = path / "tasks" if (path / "tasks").is_dir() else path
        raw = {key: _read_json(file) for key in tasks if (file := folder / f"{key}.json").exists()}
        if not raw:
            raise InputError(f"extra pairs {folder}: no <id>.json of a training task; {EXTRA_LAYOUT}")
    else:
        raw = _read_json(path)
        if not isinstance(raw, dict):
            raise InputError(f"extra pairs {path}: the root is a JSON {type(raw).__name__}, no object; {EXTRA_LAYOUT}")
    if not tasks.keys() & raw.keys():
        warnings.warn(f"extra pairs {path}: none is of a training task, so none is learnt", stacklevel=4)
    for key in tasks.keys() & raw.keys():
        if not isinstance(raw[key], list):
            raise InputError(f"extra pairs {path} task {key}: {reprlib.repr(raw[key])} is no list; {EXTRA_LAYOUT}")
    return {key: [_extra_pair(path, key, pair) for pair in raw[key]] for key in tasks if key in raw}


def _read_json(path: Path):
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return json.load(file)
    except (OSError, ValueError, EOFError, RecursionError, zlib.error) as error:
        raise InputError(f"extra pairs {path}: {error}; {EXTRA_LAYOUT}") from None


def _extra_pair(path: Path, task_id: str, pair) -> Pair:
    fault = "no pair" if not isinstance(pair, dict) else grid_fault(pair.get("input")) or grid_fault(pair.get("output"))
    if fault:
        raise InputError(f"extra pairs {path} task {task_id}: {fault}; give {{'input': grid, 'output': grid}} for each")
    return Pair(to_grid(pair["input"]), to_grid(pair["output"]))


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
