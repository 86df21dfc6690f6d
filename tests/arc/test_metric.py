"""The score counts outputs, exactly, over what it says it is over."""

import json

import numpy as np
import pytest

from ttt_core.arc.metric import format_score, read_solutions, score, wilson
from ttt_core.errors import InputError

SOLUTIONS = {
    "one": (np.array([[1, 2]], np.uint8),),
    "two": (np.array([[3]], np.uint8), np.array([[4], [4]], np.uint8)),
    "three": (np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8), np.full((1, 3), 5, np.uint8)),
}
WRONG = [[9]]


def answer(first, second=WRONG):
    return {"attempt_1": first, "attempt_2": second}


def perfect():
    return {task_id: [answer(grid.tolist()) for grid in grids] for task_id, grids in SOLUTIONS.items()}


def test_all_right_is_one_and_all_wrong_is_zero():
    assert score(perfect(), SOLUTIONS).kaggle_score == 1.0
    wrong = {task_id: [answer(WRONG)] * len(grids) for task_id, grids in SOLUTIONS.items()}
    assert score(wrong, SOLUTIONS).kaggle_score == 0.0


def test_kaggle_score_is_over_outputs_not_the_mean_over_tasks():
    submission = perfect() | {"two": [answer([[3]]), answer(WRONG)], "three": [answer(WRONG)] * 3}
    result = score(submission, SOLUTIONS)
    assert result.solved == {"one": [True], "two": [True, False], "three": [False] * 3}
    assert (result.outputs_solved, result.outputs, result.tasks_solved, result.tasks) == (2, 6, 1, 3)
    assert result.kaggle_score == pytest.approx(2 / 6)
    naive = np.mean([np.mean(hits) for hits in result.solved.values()])  # the naive twin: 0.5
    assert naive != pytest.approx(result.kaggle_score)


def test_placeholders_of_a_task_that_could_not_be_read_are_unsolved_whatever_their_number():
    spoiled = perfect() | {"two": [answer([[0, 0], [0, 0]], [[0, 0], [0, 0]])]}
    assert score(spoiled, SOLUTIONS).solved["two"] == [False, False]
    with pytest.raises(InputError, match="task two has 1 answers, the solution 2 outputs"):
        score(perfect() | {"two": [answer([[0, 0], [0, 0]])]}, SOLUTIONS)


def test_placeholders_of_a_task_that_was_not_reached_do_not_hide_a_wrong_solutions_file():
    with pytest.raises(InputError, match="task one has 2 answers, the solution 1 outputs"):
        score(perfect() | {"one": [answer([[0, 0], [0, 0]], [[0, 0], [0, 0]])] * 2}, SOLUTIONS)


def test_second_attempt_counts_and_both_right_count_once():
    submission = {"one": [answer(WRONG, [[1, 2]])], "two": [answer([[3]], [[3]]), answer(WRONG)]}
    assert score(submission, SOLUTIONS, ["one", "two"]).outputs_solved == 2


@pytest.mark.parametrize("grid", [[[1], [2]], [[1, 2], [1, 2]], [[1]], [[1, 2, 0]], [[2, 1]]])
def test_only_the_exact_grid_counts(grid):
    assert score({"one": [answer(grid)]}, SOLUTIONS, ["one"]).outputs_solved == 0


def test_broadcasting_is_no_equality():
    solutions = {"flat": (np.full((2, 2), 9, np.uint8),)}
    assert (np.asarray(WRONG) == solutions["flat"][0]).all()  # the naive twin calls this solved
    assert score({"flat": [answer(WRONG)]}, solutions).outputs_solved == 0


def test_missing_task_scores_zero_and_stays_in_the_denominator():
    result = score({"one": perfect()["one"]}, SOLUTIONS)
    assert result.solved["three"] == [False] * 3 and result.kaggle_score == pytest.approx(1 / 6)


def test_subset_is_scored_on_itself_and_says_so():
    result = score(perfect(), SOLUTIONS, tasks=["one"])
    assert (result.outputs, result.tasks, result.tasks_in_file) == (1, 1, 3)
    assert "1/1, of 3 in the solutions file" in format_score(result)
    assert "solutions file" not in format_score(score(perfect(), SOLUTIONS))


@pytest.mark.parametrize(
    "submission, tasks, reason",
    [
        ({}, ["four"], "no solution for task 'four'"),
        ({}, [], "no task to score"),
        ({"two": [answer(WRONG)]}, None, "task two has 1 answers"),
        ({"one": [{"attempt_1": [[1, 2]]}]}, None, "an answer has exactly"),
        ({"one": [answer([[1.0, 2.0]])]}, None, "holds 1.0"),
    ],
)
def test_score_refuses(submission, tasks, reason):
    with pytest.raises(InputError, match=reason):
        score(submission, SOLUTIONS, tasks)


@pytest.mark.parametrize("n", [1, 10, 419])
def test_wilson_bounds_solve_the_score_equation(n):
    """By definition each inner bound p satisfies |hit/n - p| = z sqrt(p (1 - p) / n)."""
    for hit in {0, n // 3, n}:
        for p in wilson(hit, n):
            assert abs(hit / n - p) == pytest.approx(1.959964 * np.sqrt(p * (1 - p) / n), abs=1e-6)
            assert 0 <= p <= 1
    assert wilson(0, n)[1] > 0  # where the normal approximation says [0, 0]


def test_solutions_read_back(tmp_path):
    path = tmp_path / "s.json"
    path.write_text(json.dumps({task_id: [grid.tolist() for grid in grids] for task_id, grids in SOLUTIONS.items()}))
    assert score(perfect(), read_solutions(path)).kaggle_score == 1.0


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"a": 1}', '{"a": []}', '{"a": [[[10]]]}', '{"a": [[[1]]], "a": [[[1]]]}', '{"a": [[[NaN]]]}'],
)
def test_bad_solutions_are_one_input_error(tmp_path, text):
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(InputError, match="s.json.*; give the edition's solutions file"):
        read_solutions(path)
