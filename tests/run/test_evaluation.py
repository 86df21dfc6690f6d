"""What the evaluation notebook tells: the oracle beside the selection, near misses, leaks; and its figures."""

import json

import numpy as np
import pytest

from ttt_core.arc import augment, metric
from ttt_core.arc.encode import GridFormat
from ttt_core.arc.result import Candidate, TaskResult
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import Config
from ttt_core.errors import InputError
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.run import evaluation, figures, store
from ttt_core.run.run import run

TRUTH, NEAR, FAR = np.array([[1, 2], [3, 4]], np.uint8), np.array([[1, 2], [3, 0]], np.uint8), np.array([[9]], np.uint8)
PAIR = {"input": [[5]], "output": [[6]]}


def candidate(grid) -> Candidate:
    return Candidate(grid, (-1.0, -2.0), (0,))


@pytest.fixture
def rows(tmp_path):
    """a: solved. b: found and not chosen. c: nearly. d: not reached."""
    challenges = {name: {"train": [PAIR, PAIR], "test": [{"input": [[7]]}]} for name in "abcd"}
    (tmp_path / "challenges.json").write_text(json.dumps(challenges))
    (tmp_path / "model").mkdir()
    settings = {"config": Config(), "budget_s": 0.0, "progress": False}
    run(tmp_path / "challenges.json", tmp_path / "model", tmp_path / "run", **settings)
    for name, attempts, found in (("a", (FAR, TRUTH), TRUTH), ("b", (FAR, NEAR), TRUTH), ("c", (NEAR, FAR), NEAR)):
        told = TaskResult(name, "ok", attempts=(attempts,), candidates=((candidate(found),),), notes={"used_s": 2.0})
        store.write_record(tmp_path / "run", told)
    run(tmp_path / "challenges.json", tmp_path / "model", tmp_path / "run", **settings)
    return evaluation.outcomes(tmp_path / "run", {name: (TRUTH,) for name in "abcd"})


def test_what_was_found_is_told_from_what_was_chosen(rows):
    assert [(r.task_id, r.solved, r.found, r.near) for r in rows] == [
        ("a", True, True, 1.0), ("b", False, True, 0.75), ("c", False, False, 0.75), ("d", False, False, 0.0)
    ]  # fmt: skip
    told = evaluation.summary(rows)
    low, high = metric.wilson(1, 4)
    assert f"1 = 25.0% (95 % interval {low:.1%} to {high:.1%})" in told and "2 = 50.0%; 1 lost" in told
    assert "600.0 (0.1667 per second, 6 s of all tasks together" in told  # two seconds each of three tasks
    lines = evaluation.table(rows).splitlines()
    assert "| a | 1 | solved |" in lines[2] and "found, not chosen" in lines[3] and "skipped" in lines[5]


def test_near_misses_are_unsolved_and_of_the_right_shape(rows):
    assert [row.task_id for row in evaluation.near_misses(rows)] == ["b", "c"]
    assert evaluation.share_right(FAR, TRUTH) == 0 and evaluation.share_right(TRUTH, TRUTH) == 1


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"holds no run\.json"):
        evaluation.outcomes(tmp_path, {})


def test_tasks_that_a_model_knows_are_told_with_what_taught_them(tmp_path):
    def edition(folder, evaluation_input):
        folder.mkdir()
        task = {"train": [PAIR], "test": [{"input": [[7, 7]]}]}
        other = {"train": [{"input": [[1, 1]], "output": [[2]]}], "test": [{"input": evaluation_input}]}
        (folder / "arc-agi_training_challenges.json").write_text(json.dumps({"t": task}))
        (folder / "arc-agi_training_solutions.json").write_text(json.dumps({"t": [[[8]]]}))
        (folder / "arc-agi_evaluation_challenges.json").write_text(json.dumps({"e": other}))
        return folder, folder / "arc-agi_evaluation_challenges.json"

    GridLM(GridLMConfig(width=32, layers=1, heads=2, hidden=32, task_ids=("t",))).save_pretrained(tmp_path / "model")
    clean, leaky = edition(tmp_path / "clean", [[3, 3]]), edition(tmp_path / "leaky", [[7, 7]])
    assert evaluation.known_tasks(tmp_path / "model", clean[1], clean[0]) == {}
    assert evaluation.known_tasks(tmp_path / "model", leaky[1], leaky[0]) == {"e": "t"}
    assert evaluation.known_tasks(tmp_path / "model", leaky[1]) == {}  # the naive twin: ids alone do not tell
    later = GridLMConfig(width=32, layers=1, heads=2, hidden=32, task_ids=("t",), learnt_ids=("e", "t"))
    GridLM(later).save_pretrained(tmp_path / "later")  # its base had e
    assert evaluation.known_tasks(tmp_path / "later", clean[1], clean[0]) == {"e": "e"}
    (clean[0] / "arc-agi_training_solutions.json").unlink()
    with pytest.raises(InputError, match=r"training_solutions\.json: cannot be read"):  # is no leak
        evaluation.known_tasks(tmp_path / "model", clean[1], clean[0])


def test_every_figure_draws(rows, tmp_path):
    task = Task("a", (Pair(TRUTH, NEAR), Pair(NEAR, TRUTH)), (Pair(TRUTH),))
    views = augment.draw_views(task, 10, augment.task_rng(0, "a"))
    found = [Candidate(grid, tuple(-np.arange(1.0, 11)), (0, 3)) for grid in (TRUTH, NEAR, FAR)]
    one = figures.search_tree(found, GridFormat(), TRUTH)
    told = [text.get_text() for text in one.axes[0].texts]
    assert any("row 1, column 1" in t for t in told) and any("row 2, column 2" in t for t in told)
    assert sum("right" in t for t in told) == 1
    for number, figure in enumerate(
        [
            one,
            figures.search_tree([], GridFormat()),
            figures.views(task, views),
            figures.curve([2.0, 1.0], "loss"),
            figures.curve(np.linspace(2, 1, 40), "loss"),
            figures.candidates_by_view(found, [str(view) for view in views]),
            figures.best_seen(found, views),
            figures.best_seen([], views),
            figures.candidates_by_view([], []),
            figures.near_misses(
                evaluation.near_misses(rows), dict.fromkeys("abcd", task), {n: (TRUTH,) for n in "abcd"}
            ),
        ]
    ):
        figure.savefig(path := tmp_path / f"{number}.png", dpi=40)
        assert path.stat().st_size > 1000


def test_views_show_the_test_input_that_is_asked_for():
    task = Task("a", (Pair(TRUTH, NEAR),), (Pair(TRUTH), Pair(np.zeros((5, 5), np.uint8))))
    views = augment.draw_views(task, 2, augment.task_rng(0, "a"))
    shown = figures.views(task, views, 1).axes[2 * len(views) :]
    assert [ax.images[0].get_array().shape for ax in shown] == [(5, 5)] * len(views)
