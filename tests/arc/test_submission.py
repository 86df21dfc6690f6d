"""Submission files: always complete, exactly Kaggle's layout, and a fault is named with its place."""

import copy
import json

import numpy as np
import pytest

from ttt_core.arc.submission import PLACEHOLDER, build, check, dumps, read
from ttt_core.arc.tasks import Challenges
from ttt_core.errors import InputError

CHALLENGES = Challenges(tasks=(), bad={"bad": "why"}, n_test={"z": 2, "bad": 1, "a": 1})
GRID = np.array([[1, 2, 3]], np.uint8)
EMPTY = {"attempt_1": PLACEHOLDER, "attempt_2": PLACEHOLDER}


def test_every_id_in_order_and_placeholders_where_nothing_is_known():
    submission = build(CHALLENGES, {"z": [(GRID, [[4]]), None]})
    assert list(submission) == ["z", "bad", "a"]
    assert submission["z"] == [{"attempt_1": [[1, 2, 3]], "attempt_2": [[4]]}, EMPTY]
    assert submission["bad"] == submission["a"] == [EMPTY]
    check(submission, CHALLENGES)


def test_answers_share_no_list_with_each_other_or_the_placeholder():
    submission = build(CHALLENGES, {})
    submission["a"][0]["attempt_1"][0][0] = 7
    assert submission["bad"] == [EMPTY] and PLACEHOLDER == [[0, 0], [0, 0]]


@pytest.mark.parametrize("attempts", [{"b": [(GRID, GRID)]}, {"z": [(GRID, GRID)]}, {"a": []}])
def test_build_refuses_attempts_that_do_not_fit(attempts):
    with pytest.raises(InputError, match="drop the record"):
        build(CHALLENGES, attempts)


def test_bytes_are_a_function_of_the_contents_and_read_back(tmp_path):
    submission = build(CHALLENGES, {"a": [(GRID, GRID)]})
    path = tmp_path / "submission.json"
    path.write_bytes(dumps(submission))
    assert read(path) == submission and dumps(read(path)) == dumps(copy.deepcopy(submission))


def edited(change):
    submission = build(CHALLENGES, {})
    change(submission)
    return submission


FAULTS = [
    (lambda s: s.pop("a"), "task a: 0 answers for 1"),
    (lambda s: s.update(b=s["a"]), "unknown task 'b', the nearest is"),
    (lambda s: s["z"].pop(), "task z: 1 answers for 2"),
    (lambda s: s["a"].append(EMPTY), "task a: 2 answers for 1"),
    (lambda s: s.update(a=[]), "task a: is not a list of at least one"),
    (lambda s: s.update(a={}), "task a: is not a list"),
    (lambda s: s["z"][1].pop("attempt_2"), r"task z test\[1\]: an answer has exactly"),
    (lambda s: s["z"][1].update(attempt_3=[[1]]), r"task z test\[1\]: an answer has exactly"),
    (lambda s: s["z"].__setitem__(1, [[1]]), r"task z test\[1\]: an answer has exactly"),
    (lambda s: s["z"][1].update(attempt_2=[[0] * 31]), r"task z test\[1\] attempt_2: width 31 > 30"),
    (lambda s: s["z"][1].update(attempt_2=[[10]]), "attempt_2: row 0 holds 10"),
    (lambda s: s["z"][1].update(attempt_2=[[True]]), "holds True"),
    (lambda s: s["z"][1].update(attempt_2=[[1.0]]), "holds 1.0"),
    (lambda s: s["z"][1].update(attempt_2=[[np.uint8(1)]]), "holds"),
    (lambda s: s["z"][1].update(attempt_2=[[1], [1, 2]]), "row 1 has 2 cells"),
    (lambda s: s["z"][1].update(attempt_2=[]), "height 0 < 1"),
]


@pytest.mark.parametrize("change, reason", FAULTS)
def test_check_names_the_fault(change, reason):
    with pytest.raises(InputError, match=reason):
        check(edited(change), CHALLENGES)


def test_equal_attempts_are_valid():
    check(build(CHALLENGES, {"a": [(GRID, GRID)]}), CHALLENGES)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": 1}', '{"a": [], "a": []}', '{"a": [{"attempt_1": [[NaN]], "attempt_2": [[1]]}]}']
)
def test_read_refuses(tmp_path, text):
    path = tmp_path / "submission.json"
    path.write_text(text)
    with pytest.raises(InputError, match="submission.json"):
        read(path)


def test_read_finds_a_repeated_key_that_json_would_swallow(tmp_path):
    answer = '{"attempt_1": [[1]], "attempt_1": [[2]], "attempt_2": [[3]]}'
    assert json.loads(answer)["attempt_1"] == [[2]]  # the naive twin
    path = tmp_path / "submission.json"
    path.write_text(f'{{"a": [{answer}]}}')
    with pytest.raises(InputError, match="'attempt_1' stands twice"):
        read(path)
