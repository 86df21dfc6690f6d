"""Pictures: the right colours in the right places, solved marked only when solved, pyplot left alone."""

import io
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ttt_core.arc.draw import COLORS, draw_grid, draw_tasks
from ttt_core.arc.tasks import Pair, Task

GRID = np.arange(10, dtype=np.uint8).reshape(2, 5)
TASK = Task("t", (Pair(GRID, GRID.T),), (Pair(GRID), Pair(GRID.T)))
RIGHT, WRONG, NONE = [[1, 2]], [[2, 1]], [[0, 0], [0, 0]]
SOLUTIONS = {"t": (np.array(RIGHT, np.uint8), np.array(NONE, np.uint8))}


def answer(first, second):
    return {"attempt_1": first, "attempt_2": second}


def judged(titles):
    return [title for title in titles if title[:2] in ("1:", "2:")]


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.axison and ax.get_title()]


def test_cells_have_their_colours_where_the_grid_has_them():
    figure = Figure(figsize=(5, 2), dpi=40)
    ax = figure.add_axes((0, 0, 1, 1))
    draw_grid(ax, GRID)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())  # (80, 200, 4): 40 pixels a cell
    for (row, column), value in np.ndenumerate(GRID):
        shown = pixels[row * 40 + 20, column * 40 + 20, :3] / 255
        assert shown == pytest.approx(to_rgb(COLORS[value]), abs=0.01)


def test_solved_is_said_of_the_exact_attempt_only():
    submission = {"t": [answer(WRONG, RIGHT), answer(WRONG, WRONG)]}
    shown = titles(draw_tasks([TASK], submission, SOLUTIONS))
    assert judged(shown) == ["1: missed ✗", "2: solved ✓", "1: missed ✗", "2: missed ✗"]
    assert shown.count("expected") == 2


def test_placeholder_is_no_answer_unless_it_is_the_solution():
    submission = {"t": [answer(NONE, NONE), answer(NONE, NONE)]}
    shown = titles(draw_tasks([TASK], submission, SOLUTIONS))
    assert judged(shown) == ["1: no answer", "2: no answer", "1: solved ✓", "2: solved ✓"]


def test_without_solutions_nothing_is_judged():
    shown = titles(draw_tasks([TASK], {"t": [answer(WRONG, RIGHT)] * 2}))
    assert "attempt 1" in shown and not [t for t in shown if "solved" in t or "missed" in t or t == "expected"]


def test_at_most_max_tasks_and_png_renders_without_pyplot():
    pyplot_before = "matplotlib.pyplot" in sys.modules  # another test may have loaded it
    many = [Task(f"t{i}", TASK.train, TASK.test[:1]) for i in range(4)]
    figure = draw_tasks(many, {task.id: [answer(WRONG, RIGHT)] for task in many}, max_tasks=2)
    assert titles(figure).count("test input") == 2
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=30)
    assert png.getvalue().startswith(b"\x89PNG") and ("matplotlib.pyplot" in sys.modules) == pyplot_before


def test_no_tasks_is_an_empty_figure():
    draw_tasks([], {}, {}).savefig(io.BytesIO(), format="png", dpi=30)
