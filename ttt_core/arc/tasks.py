"""Tasks: what a puzzle is, and the strict door through which puzzle files come in.

In: the Kaggle file `{id: {"train": [{"input", "output"}], "test": [{"input"}]}}`, or a folder of `<id>.json`.
Out: grids, uint8 (H, W), read-only, sides 1..30, values 0..9; nothing behind this door checks them again.
A bad task costs only itself, a bad file is one InputError. Not here: solutions (`metric.py`), submissions
(`submission.py`), token formats (`encode.py`).
"""

import difflib
import json
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttt_core.errors import InputError

MAX_SIDE = 30
N_COLORS = 10
MAX_FILE_MIB = 64  # the largest public file has 7; also the limit of a folder's files together
MAX_DEPTH = 16  # nesting of the JSON text; a challenge file needs 6
MAX_TASKS = 10_000
MAX_PAIRS = 100  # of one task's train or test list; public tasks have at most 10
MAX_OUTPUTS = 100_000  # test inputs of a whole file, bad tasks included: each needs its place in the submission

PLACED = "; it gets the placeholder attempt"
_LAYOUT = 'give a file {id: {"train": [...], "test": [...]}} or a folder of <id>.json files'
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")  # ids become file names
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # possessive: linear time on any bytes
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as int8: a level down, a level up
_NO_STEPS = bytes(set(range(256)) - set(b"[{]}"))


@dataclass(frozen=True, eq=False)
class Pair:
    """A demonstration or a test case: `input` uint8 (H, W), `output` uint8 (H', W') or None if hidden."""

    input: np.ndarray
    output: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """One puzzle: demonstrations `train` (outputs always known) and `test` pairs (outputs may be hidden)."""

    id: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]


@dataclass(frozen=True, eq=False)
class Challenges:
    """A challenge file as read. tasks: the usable ones, in file order; bad: id to the sentence that says why not.

    n_test: the number of answers owed for EVERY id of the file, in file order, so that a submission is complete.
    """

    tasks: tuple[Task, ...]
    bad: dict[str, str]
    n_test: dict[str, int]

    @property
    def faults(self) -> list[str]:
        """What is wrong with the bad tasks, without what follows for a submission."""
        return [told.removesuffix(PLACED) for told in self.bad.values()]


@dataclass(frozen=True)
class Fault:
    """Stands where JSON text was at fault, in place of the value, so that the damage stays local."""

    reason: str


def read_challenges(path: str | Path) -> Challenges:
    """Read a Kaggle challenge file or a folder of one-task files; InputError if the file as a whole is unusable."""
    path = Path(path)
    entries = _read_folder(path) if path.is_dir() else read_object(path, _LAYOUT)
    if not 1 <= len(entries) <= MAX_TASKS:
        raise InputError(f"{path}: holds {len(entries)} tasks, not 1 to {MAX_TASKS}; {_LAYOUT}")
    n_test = {task_id: _count_tests(entry) for task_id, entry in entries.items()}
    if sum(n_test.values()) > MAX_OUTPUTS:
        raise InputError(f"{path}: asks for {sum(n_test.values())} answers > {MAX_OUTPUTS}; split the file")
    tasks, bad = [], {}
    for task_id, entry in entries.items():
        try:
            tasks.append(_task(task_id, entry))
        except InputError as error:
            bad[task_id] = f"{error}{PLACED}"
    return Challenges(tuple(tasks), bad, n_test)


def cells(task: Task) -> int:
    """Cells of everything the task shows: both sides of its demonstrations and its test inputs."""
    return sum(pair.input.size + pair.output.size for pair in task.train) + sum(pair.input.size for pair in task.test)


def select_tasks(challenges: Challenges, spec: str | None) -> tuple[Task, ...]:
    """Choose tasks. None: all; "10": the 10 with the fewest cells; "id1,id2"; "@FILE": see `read_ids`.

    An id made of digits only, as ARC has some, is an id if the file holds it. InputError on an unknown or bad id.
    """
    if spec is None:
        return challenges.tasks
    spec = spec.strip()
    if re.fullmatch(r"0|-?[1-9][0-9]{0,5}", spec) and spec not in challenges.n_test:  # an id of digits has eight
        if int(spec) < 1:
            raise InputError(f"tasks {spec}: give 1 or more, or leave it out for all tasks")
        return tuple(sorted(challenges.tasks, key=lambda task: (cells(task), task.id))[: int(spec)])
    if not (ids := read_ids(spec)):
        raise InputError(f"tasks {spec!r}: names no task; give a number, ids separated by commas, or @FILE")
    by_id = {task.id: task for task in challenges.tasks}
    for task_id in ids:
        if task_id in challenges.bad:
            raise InputError(f"{challenges.bad[task_id]}: leave it out of the tasks to solve")
        if task_id not in by_id:
            raise InputError(f"unknown task {reprlib.repr(task_id)}: the nearest id is {nearest(task_id, by_id)}")
    return tuple(by_id[task_id] for task_id in ids)


def nearest(name: str, known) -> str:
    """The element of `known` most like `name`; "(none)" when there is none."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)), "(none)")


def grid_fault(value) -> str | None:
    """Why a parsed JSON value is not a grid, or None if it is one. Types count: true and 1.0 are not 1."""
    if type(value) is not list:
        return f"a grid is a list of rows, not {reprlib.repr(value)}"
    if not 1 <= len(value) <= MAX_SIDE:
        return f"height {len(value)} {'<' if not value else '>'} {MAX_SIDE if value else 1}"
    for i, row in enumerate(value):
        if type(row) is not list:
            return f"row {i} is {reprlib.repr(row)}, not a list of cells"
        if not 1 <= len(row) <= MAX_SIDE:
            return f"width {len(row)} {'<' if not row else '>'} {MAX_SIDE if row else 1}"
        if len(row) != len(value[0]):
            return f"row {i} has {len(row)} cells, row 0 has {len(value[0])}"
        if {*map(type, row)} == {int} and min(row) >= 0 and max(row) < N_COLORS:
            continue  # the quick way, for nearly every row
        for cell in row:
            if type(cell) is not int or not 0 <= cell < N_COLORS:
                return f"row {i} holds {reprlib.repr(cell)}, not an integer 0 to {N_COLORS - 1}"
    return None


def to_grid(value) -> np.ndarray:
    """The read-only uint8 (H, W) array of a value without `grid_fault`."""
    grid = np.array(value, np.uint8)
    grid.setflags(write=False)
    return grid


def read_object(path: str | Path, remedy: str, faults_allowed: bool = True) -> dict:
    """The root object of a JSON file, its size and depth bounded; InputError ending with `remedy` if it has none.

    Repeated keys and NaN inside the root leave a Fault in their place, or raise unless `faults_allowed`.
    """
    root = _load(Path(path))
    if not isinstance(root, dict | Fault):
        root = Fault(f"the root is {_kind(root)}, not an object")
    reason = root.reason if isinstance(root, Fault) else None if faults_allowed else find_fault(root)
    if reason is not None:
        raise InputError(f"{path}: {reason}; {remedy}")
    return root


def find_fault(value) -> str | None:
    """The reason of the first Fault inside a parsed JSON value, or None."""
    if isinstance(value, Fault):
        return value.reason
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(child, dict | list | Fault) and (reason := find_fault(child)) is not None:
            return reason
    return None


def _load(path: Path):
    """Parse a file; whatever is wrong with it comes back as a Fault."""
    limit = MAX_FILE_MIB * 2**20
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        return Fault(f"cannot be read ({getattr(error, 'strerror', None) or error})")
    if len(data) > limit:
        return Fault(f"more than {MAX_FILE_MIB} MiB")
    if _depth(data) > MAX_DEPTH:  # before parsing: the parser's recursion limit is not the same in every Python
        return Fault(f"nested more than {MAX_DEPTH} deep")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
    except ValueError as error:
        return Fault(f"not JSON in UTF-8 ({error})")


def _depth(data: bytes) -> int:
    steps = _STRING.sub(b"", data).translate(_STEPS, _NO_STEPS)
    return int(np.cumsum(np.frombuffer(steps, np.int8), dtype=np.int32).max(initial=0))


def _object(pairs: list):
    entries = dict(pairs)
    if len(entries) == len(pairs):
        return entries
    seen = set()
    repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
    return Fault(f"key {reprlib.repr(repeated)} stands twice in one object")


def _constant(name: str) -> Fault:
    return Fault(f"{name} is not JSON")


def _read_folder(folder: Path) -> dict:
    files = sorted(file for file in folder.glob("*.json") if file.is_file() and not file.name.startswith("."))
    if len(files) > MAX_TASKS or sum(file.stat().st_size for file in files) > MAX_FILE_MIB * 2**20:
        raise InputError(f"{folder}: more than {MAX_TASKS} files or {MAX_FILE_MIB} MiB; {_LAYOUT}")
    return {file.stem: _load(file) for file in files}


def read_ids(spec: str) -> tuple[str, ...]:
    """The ids of "id1,id2", or of the file that "@FILE" names: separated by commas, spaces or line ends. InputError if there is none."""
    try:
        text = Path(spec[1:]).read_text(encoding="utf-8-sig") if spec.startswith("@") else spec
    except (OSError, ValueError) as error:
        raise InputError(f"tasks {spec}: cannot be read ({error}); give a text file with one id a line") from None
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


def _count_tests(entry) -> int:
    tests = entry.get("test") if isinstance(entry, dict) else None
    return max(1, len(tests)) if isinstance(tests, list) else 1


def _task(task_id: str, entry) -> Task:
    if not _ID.fullmatch(task_id):
        raise InputError(f"task {reprlib.repr(task_id)}: an id is 1 to 64 letters, digits, _ or -")
    if (reason := find_fault(entry)) is not None:
        raise InputError(f"task {task_id}: {reason}")
    if not isinstance(entry, dict):
        raise InputError(f"task {task_id}: is {_kind(entry)}, not an object with train and test")
    return Task(task_id, _pairs(task_id, "train", entry), _pairs(task_id, "test", entry))


def _pairs(task_id: str, split: str, entry: dict) -> tuple[Pair, ...]:
    values = entry.get(split)
    if not isinstance(values, list) or not 1 <= len(values) <= MAX_PAIRS:
        count = f"has {len(values)} pairs" if isinstance(values, list) else f"is {_kind(values)}"
        raise InputError(f"task {task_id} {split}: {count}, not a list of 1 to {MAX_PAIRS}")
    return tuple(_pair(f"task {task_id} {split}[{i}]", value, split == "test") for i, value in enumerate(values))


def _pair(where: str, value, output_may_hide: bool) -> Pair:
    if not isinstance(value, dict):
        raise InputError(f"{where}: is {_kind(value)}, not an object with input and output")
    sides = {where: value.get("input"), f"{where} output": value.get("output")}
    if output_may_hide and value.get("output") is None:
        del sides[f"{where} output"]
    for name, side in sides.items():
        if (reason := grid_fault(side)) is not None:
            raise InputError(f"{name}: {reason}")
    return Pair(*map(to_grid, sides.values()))


def _kind(value) -> str:
    names = {dict: "an object", list: "a list", str: "a string", type(None): "missing or null", bool: "a boolean"}
    return names.get(type(value), "a number")
