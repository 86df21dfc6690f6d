"""Pictures of tasks, attempts and answers in the ARC colours, for notebooks, reports and the README.

In: tasks, a submission (plain dict), solutions if known. Out: a matplotlib Figure that belongs to the caller; pyplot
and its global state are never touched. Not here: files, scores in numbers (`metric.py`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ttt_core.arc.metric import grids_equal
from ttt_core.arc.submission import ATTEMPTS, PLACEHOLDER
from ttt_core.arc.tasks import Pair, Task

# The palette of the ARC testing interface, in the order of the cell values 0 to 9.
COLORS = ("#000000", "#0074D9", "#FF4136", "#2ECC40", "#FFDC00", "#AAAAAA", "#F012BE", "#FF851B", "#7FDBFF", "#870C25")

_LINE = "#BFBFBF"
_TEXT = "#333333"
_FAINT = "#8A8A8A"
_SOLVED = "#1A9641"
_MISSED = "#C0392B"
_WIDTH_IN = 14.0
_ROW_IN = 1.5
_HEAD_IN = 0.45
_SHOWN_PAIRS = 3  # of the demonstrations; more would leave the attempts too small to read


def draw_grid(ax, grid, title: str = "", color: str = _TEXT, frame: str | None = None) -> None:
    """Draw one grid (H, W) of values 0..9 into a matplotlib Axes, with a title and, if given, a coloured frame."""
    from matplotlib.colors import ListedColormap

    height, width = np.shape(grid)
    extent = (0, width, height, 0)  # row 0 on top
    ax.imshow(grid, cmap=ListedColormap(COLORS), vmin=0, vmax=9, extent=extent, interpolation="nearest")
    thickness = min(0.7, 8 / max(height, width))  # points; on large grids full lines would drown the colours
    ax.vlines(range(1, width), 0, height, _LINE, linewidth=thickness)
    ax.hlines(range(1, height), 0, width, _LINE, linewidth=thickness)
    _frame(ax, title, color, frame)


def draw_tasks(
    tasks: Sequence[Task],
    submission: Mapping[str, list],
    solutions: Mapping[str, Sequence[np.ndarray]] | None = None,
    max_tasks: int = 10,
):
    """Figure with one row per test input of the first `max_tasks` tasks: demonstrations, test input, two attempts.

    With solutions the attempts are marked solved or missed and the expected output closes the row.
    """
    from matplotlib.figure import Figure

    rows = [(task, index) for task in tasks[:max_tasks] for index in range(len(task.test))]
    pairs = max((min(len(task.train), _SHOWN_PAIRS) for task, _ in rows), default=0)
    figure, axes = _canvas(Figure, len(rows), pairs, with_answer=solutions is not None)
    for line, (task, index) in zip(axes, rows, strict=False):
        truth = solutions[task.id][index] if solutions is not None and task.id in solutions else None
        _draw_label(line[0], task, index)
        _draw_demonstrations(line, task.train[:pairs])
        _draw_answers(line[3 * pairs :], task.test[index], submission[task.id][index], truth)
    return figure


def _canvas(figure_class, rows: int, pairs: int, with_answer: bool):
    """A white Figure and its switched-off axes (rows, columns): input, output, gap per pair; test, gap; attempts."""
    widths = [1, 1, 0.22] * pairs + [1, 0.22, 1, 1] + [1] * with_answer
    height = _ROW_IN * max(1, rows) + _HEAD_IN
    spaces = {"left": 0.085, "right": 0.993, "top": 1 - _HEAD_IN / height, "bottom": 0.15 / height}
    figure = figure_class(figsize=(_WIDTH_IN, height), facecolor="white")
    axes = figure.subplots(
        max(1, rows),
        len(widths),
        squeeze=False,
        gridspec_kw={"width_ratios": widths, "wspace": 0.22, "hspace": 0.3, **spaces},
    )
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def _draw_label(ax, task: Task, index: int) -> None:
    lines = [task.id if len(task.id) <= 12 else task.id[:11] + "\N{HORIZONTAL ELLIPSIS}"]
    if len(task.test) > 1:
        lines.append(f"test {index + 1} of {len(task.test)}")
    if len(task.train) > _SHOWN_PAIRS:
        lines.append(f"{_SHOWN_PAIRS} of {len(task.train)} pairs")
    box = ax.get_position()
    middle = (box.y0 + box.y1) / 2
    ax.figure.text(0.007, middle, "\n".join(lines), va="center", fontsize=9, color=_TEXT, linespacing=1.5)


def _draw_demonstrations(line, pairs: Sequence[Pair]) -> None:
    for i, pair in enumerate(pairs):
        shown, answer = line[3 * i : 3 * i + 2]
        draw_grid(shown, pair.input, f"pair {i + 1}", _FAINT)
        draw_grid(answer, pair.output)
        _arrow(shown, answer)


def _draw_answers(line, test: Pair, answer: dict, truth) -> None:
    test_ax, _, *answer_axes = line
    draw_grid(test_ax, test.input, "test input", frame="#555555")
    for number, (ax, name) in enumerate(zip(answer_axes, ATTEMPTS, strict=False), 1):
        grid = answer[name]
        if truth is not None and grids_equal(grid, truth):
            draw_grid(ax, grid, f"{number}: solved \N{CHECK MARK}", _SOLVED, _SOLVED)
        elif grid == PLACEHOLDER:
            _draw_nothing(ax, f"{number}: no answer")
        elif truth is not None:
            draw_grid(ax, grid, f"{number}: missed \N{BALLOT X}", _MISSED)
        else:
            draw_grid(ax, grid, f"attempt {number}")
    if truth is not None:
        draw_grid(answer_axes[2], truth, "expected")


def _draw_nothing(ax, title: str) -> None:
    ax.set_facecolor("#F4F4F4")
    ax.set_box_aspect(1)
    _frame(ax, title, _FAINT, None)


def _frame(ax, title: str, color: str, frame: str | None) -> None:
    ax.set_axis_on()
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=9, color=color, pad=5, fontweight="bold" if frame else "normal")
    for spine in ax.spines.values():
        spine.set_color(frame or _LINE)
        spine.set_linewidth(3 if frame else 0.8)
        if frame:
            spine.set_position(("outward", 1.5))  # beside the grid, of which a row may be narrower than the line
        spine.set_zorder(3)


def _arrow(left, right) -> None:
    """An arrow in the space between two neighbouring axes."""
    figure = left.figure
    left.apply_aspect()
    right.apply_aspect()
    a, b = left.get_position(), right.get_position()
    middle = (a.y0 + a.y1) / 2
    figure.text((a.x1 + b.x0) / 2, middle, "\N{RIGHTWARDS ARROW}", ha="center", va="center", fontsize=10, color=_FAINT)
