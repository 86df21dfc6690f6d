"""Figures for the notebooks: near misses, views, losses, the search's tree, candidates under every view.

In: tasks, records, arrays. Out: matplotlib Figures that belong to the caller; pyplot is not touched. Tasks with their
attempts are drawn by `arc/draw.py`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from ttt_core.arc import augment
from ttt_core.arc.draw import COLORS, draw_grid
from ttt_core.arc.encode import Format, answer_ids
from ttt_core.arc.result import Candidate
from ttt_core.arc.tasks import Task
from ttt_core.run.evaluation import Outcome
from ttt_core.run.passes import mean_logprob

SHOWN = 8  # views or candidates in a row
LEAST_SPAN = 5.0  # nats of a colour scale at least: smaller differences are none
RIGHT, WRONG, PLAIN = "#1A9641", "#C0392B", "#333333"
RGB = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in COLORS], np.uint8)  # (10, 3)


def near_misses(rows: Sequence[Outcome], tasks: Mapping[str, Task], truths: Mapping) -> Figure:
    """One row an output: test input, the better attempt, the answer, and where they differ."""
    figure, axes = _panels(max(1, len(rows)), 4)
    for line, row in zip(axes, rows, strict=False):
        truth = truths[row.task_id][row.index]
        wrong = row.best != truth
        draw_grid(line[0], tasks[row.task_id].test[row.index].input, f"{row.task_id} test {row.index + 1}")
        draw_grid(line[1], row.best, "attempt", WRONG)
        draw_grid(line[2], truth, "answer", RIGHT)
        draw_grid(line[3], np.where(wrong, 2, 5), f"{wrong.sum()} of {wrong.size} cells wrong", WRONG)
    return figure


def views(task: Task, augmentations: Sequence[augment.Augmentation], test: int = 0) -> Figure:
    """The first demonstration and the test input number `test`, from 0, as each of the first views shows them."""
    shown = augmentations[:SHOWN]
    figure, axes = _panels(3, len(shown))
    for column, augmentation in enumerate(shown):
        seen = augment.view(dataclasses.replace(augmentation, order=()), task)  # the same demonstration in all
        draw_grid(axes[0, column], seen.train[0].input, str(augmentation))
        draw_grid(axes[1, column], seen.train[0].output, "output")
        draw_grid(axes[2, column], seen.test[test].input, "test input")
    return figure


def curve(values: Sequence[float], what: str) -> Figure:
    """A loss over steps; a running mean of 8, centred, in front of the single values."""
    if not len(values):
        return _nothing("no step was taken in its time")
    figure = Figure(figsize=(8, 3), layout="constrained", facecolor="white")
    ax, values = figure.subplots(), np.asarray(values, float)
    x, is_long = np.arange(1, len(values) + 1), len(values) > 16
    blue = {"color": "#0074D9"}
    ax.plot(x, values, linewidth=1, alpha=0.35 if is_long else 1, marker="" if is_long else ".", label="a step", **blue)
    if is_long:
        ax.plot(x[3:-4], np.convolve(values, np.ones(8) / 8, "valid"), linewidth=2, label="mean of 8", **blue)
        ax.legend(frameon=False)
    ax.set_xlabel("step")
    ax.set_ylabel(what)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.3)
    return figure


def search_tree(candidates: Sequence[Candidate], form: Format, truth: np.ndarray | None = None) -> Figure:
    """The candidates as the search told them apart.

    A line is a run of tokens that they share; a fork is a cell at which they part, named by row and column, each as far
    right as forks lie before it; a white square is the end of a row or grid. At the end stand the grid and its mean
    probability over the views.
    """
    if not candidates:
        return _nothing()
    shown = sorted(candidates, key=lambda c: answer_ids(form.grammar, c.grid).tolist())
    best = sorted(shown, key=mean_logprob, reverse=True)[:SHOWN]
    shown = [c for c in shown if any(c is b for b in best)]
    answers = [answer_ids(form.grammar, c.grid).tolist() for c in shown]
    figure = Figure(figsize=(11, 0.6 + 0.9 * len(shown)), layout="constrained", facecolor="white")
    ax = figure.subplots()
    ax.set_axis_off()
    depth = _fork(ax, form, answers, list(range(len(shown))), 0, 0)[1]
    ax.set_xlim(-0.1, depth * 1.5)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    if len(candidates) > len(shown):
        ax.set_title(f"{len(shown)} of {len(candidates)} candidates, the most probable", loc="left", fontsize=9)
    for y, candidate in enumerate(shown):
        is_right = truth is not None and np.array_equal(candidate.grid, truth)
        picture = OffsetImage(RGB[candidate.grid], zoom=44 / max(candidate.grid.shape), interpolation="nearest")
        ax.add_artist(AnnotationBbox(picture, (1.12 * depth, y), frameon=False))
        found = len(candidate.found_in)
        told = f"p = {math.exp(mean_logprob(candidate)):.2g}, in {found} view{'s' * (found != 1)}"
        color = RIGHT if is_right else PLAIN
        ax.text(1.2 * depth, y, told + (", right" if is_right else ""), va="center", fontsize=9, color=color)
    return figure


def _fork(ax, form: Format, answers: list[list[int]], rows: list[int], start: int, depth: int) -> tuple[float, int]:
    """Draw the subtree of `rows`, whose first `start` tokens and `depth` forks are drawn; its height on the axis, and its end."""
    first = answers[rows[0]]
    ends = [i for i in range(start, len(first)) if any(answers[r][i : i + 1] != first[i : i + 1] for r in rows)]
    stop = ends[0] if ends else len(first)
    groups: dict = {}
    for row in rows:
        groups.setdefault(tuple(answers[row][stop : stop + 1]), []).append(row)
    below = [_fork(ax, form, answers, group, stop, depth + 1) for group in groups.values()] if ends else []
    heights = [height for height, _ in below] or [rows[0]]
    middle, x = (heights[0] + heights[-1]) / 2, depth + 1
    ax.plot([depth, x], [middle, middle], color="#777777", linewidth=1 + len(rows) / 2, solid_capstyle="butt")
    if ends:
        ax.plot([x, x], [heights[0], heights[-1]], color="#777777", linewidth=1)
        row_ends = [i for i in range(stop) if first[i] == form.grammar.row_end]
        place = f"row {len(row_ends) + 1}, column {stop - (row_ends[-1] + 1 if row_ends else 0) + 1}"
        ax.text(x, middle - 0.08, place + " ", ha="right", va="bottom", fontsize=8, color=PLAIN)
        for token, height in zip(groups, heights, strict=True):
            is_cell = token and form.symbols[token[0]] in tuple("0123456789")
            color = COLORS[int(form.symbols[token[0]])] if is_cell else "white"
            ax.plot(x, height, "s", color=color, markeredgecolor="#555555", markersize=9)
    return middle, max([end for _, end in below] or [x])


def candidates_by_view(candidates: Sequence[Candidate], names: Sequence[str]) -> Figure:
    """Log-probability of the most probable candidates under every scoring view.

    A dot stands where a view found the candidate, a dash where it had no time for it.
    """
    if not candidates:
        return _nothing()
    shown = sorted(candidates, key=mean_logprob, reverse=True)[:SHOWN]
    scores = np.array([c.logprobs for c in shown], float)  # (candidates, N)
    figure = Figure(figsize=(12, max(2.6, 1.2 + 0.5 * len(shown))), layout="constrained", facecolor="white")
    ax = figure.subplots()
    least = min(-LEAST_SPAN, *scores[np.isfinite(scores)]) if np.isfinite(scores).any() else -LEAST_SPAN
    image = ax.imshow(scores, cmap="viridis", aspect="auto", vmin=least, vmax=0)
    for y, candidate in enumerate(shown):
        for x, score in enumerate(scores[y]):
            color = PLAIN if math.isnan(score) else "black" if score > least / 2 else "white"
            mark = "\N{BULLET}" if x in candidate.found_in else ""
            told = "\N{EN DASH}" if math.isnan(score) else f"{score:.1f}".replace("-0.0", "0.0")
            ax.text(x, y, told + mark, ha="center", va="center", fontsize=7, color=color)
    if len(candidates) > len(shown):
        ax.set_title(f"{len(shown)} of {len(candidates)} candidates, the most probable", loc="left", fontsize=9)
    ax.set_yticks(range(len(shown)), [f"candidate {i + 1}" for i in range(len(shown))])
    ax.set_xticks(range(scores.shape[1]), names[: scores.shape[1]], rotation=60, ha="right", fontsize=7)
    figure.colorbar(image, label="log-prob, nats")
    return figure


def best_seen(candidates: Sequence[Candidate], augmentations: Sequence[augment.Augmentation]) -> Figure:
    """The most probable candidate as the first views show it, with its log-probability there."""
    if not candidates:
        return _nothing()
    best, shown = max(candidates, key=mean_logprob), augmentations[:SHOWN]
    figure, axes = _panels(1, len(shown))
    for ax, augmentation, score in zip(axes[0], shown, best.logprobs, strict=False):
        draw_grid(ax, augment.apply(augmentation, best.grid), f"{augmentation}\n{score:.2f} nats")
    return figure


def _nothing(told: str = "the search found no candidate in its time") -> Figure:
    figure = Figure(figsize=(8, 0.6), facecolor="white")
    figure.add_axes((0, 0, 1, 1)).set_axis_off()  # notebooks show no figure without axes
    figure.text(0.02, 0.5, told, va="center", color=PLAIN)
    return figure


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A white Figure and its switched-off axes (rows, columns)."""
    figure = Figure(figsize=(min(14, 2.2 * columns), 2.1 * rows), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes
