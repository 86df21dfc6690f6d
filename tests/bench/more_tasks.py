"""More training tasks than ARC-AGI-1 has: `python tests/bench/more_tasks.py --out build/more --source build/data --pairs re_arc.json.gz`.

Writes a Kaggle-named folder for `pretrain --data`, and `extra.json.gz` for its `--extra`: the training tasks of `--source`;
those of `--also`, another such folder, that neither `--without` nor `--unlike` holds; the tasks in `--mini-arc`, a folder of task files;
`--made` tasks whose rule is drawn here: one to three steps of RULES on the inputs or the outputs of the tasks of
`--source` and their `--pairs`, a file in RE-ARC's layout (`--first`: number of the first draw, for others than last time's); and
`--concepts` tasks of each concept in `concepts/`. `--more-pairs` is another file of pairs, of which no task is made. Generated pairs
whose input stands, in any view, in a challenge file of `--unlike` are left out, and no task is made of a pair whose input is a test
input of the tasks of `--hold-out`, `id,id` or `@FILE` as for `pretrain`. Equal arguments write equal files.
"""

import argparse
import gzip
import json
import signal
import sys
from collections import deque
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

from tests.bench.concepts import all_concepts, pairs_of
from ttt_core.arc.augment import task_rng
from ttt_core.arc.tasks import MAX_SIDE, MAX_TASKS, N_COLORS, read_challenges, read_ids, to_grid
from ttt_core.errors import InputError, TTTError
from ttt_core.model.leakage import look, turns_of
from ttt_core.model.material import read_extra, read_training_tasks

MADE_PAIRS = 12  # of each made task
TRIES = 40  # source pairs looked at for them
LATE_S = 30  # that a task of a concept may take; most take milliseconds
CELLS = 300  # of a made pair's grids at most: small grids teach as much and cost less


def ground(grid):
    """The background: 0 if there is any, else the commonest colour."""
    return 0 if (grid == 0).any() else int(np.bincount(grid.ravel(), minlength=N_COLORS).argmax())


def parts(grid, is_diagonal=True, by_color=False):
    """The connected parts of what is not background, as boolean masks in reading order."""
    shape, left, found = grid.shape, grid != ground(grid), []
    steps = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0) and (is_diagonal or not (a and b))]
    for start in zip(*np.nonzero(left), strict=True):
        if not left[start]:
            continue
        mask, queue = np.zeros(shape, bool), deque([start])
        left[start], mask[start] = False, True
        while queue:
            r, c = queue.popleft()
            for a, b in steps:
                at = r + a, c + b
                if 0 <= at[0] < shape[0] and 0 <= at[1] < shape[1] and left[at]:
                    if not by_color or grid[at] == grid[r, c]:
                        left[at], mask[at] = False, True
                        queue.append(at)
        found.append(mask)
    return found


def box(mask):
    rows, cols = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)


def grown(mask, is_diagonal):
    """The mask and its neighbours."""
    wide = np.pad(mask, 1)
    out = wide.copy()
    for a in (-1, 0, 1):
        for b in (-1, 0, 1):
            if is_diagonal or not (a and b):
                out |= np.roll(wide, (a, b), (0, 1))
    return out[1:-1, 1:-1]


def enclosed(grid):
    """Background that no path of background joins to the border."""
    free = np.pad(grid == ground(grid), 1, constant_values=True)
    seen, queue = np.zeros(free.shape, bool), deque([(0, 0)])
    seen[0, 0] = True
    while queue:
        r, c = queue.popleft()
        for at in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            if 0 <= at[0] < free.shape[0] and 0 <= at[1] < free.shape[1] and free[at] and not seen[at]:
                seen[at] = True
                queue.append(at)
    return (free & ~seen)[1:-1, 1:-1]


def extreme(masks, key, is_most):
    """The one mask with the most or fewest of `key`, None where two have."""
    values = [key(mask) for mask in masks]
    if not values:
        return None
    best = max(values) if is_most else min(values)
    return masks[values.index(best)] if values.count(best) == 1 and len(values) > 1 else None


KEYS = {
    "cells": lambda mask: int(mask.sum()),
    "height": lambda mask: box(mask)[0].stop - box(mask)[0].start,
    "width": lambda mask: box(mask)[1].stop - box(mask)[1].start,
    "row": lambda mask: box(mask)[0].start,
    "column": lambda mask: box(mask)[1].start,
}


def color(rng):
    return int(rng.integers(1, N_COLORS))


def turned(rng):
    turns, is_flipped = int(rng.integers(4)), rng.random() < 0.5
    return lambda g: np.rot90(g, turns).T if is_flipped else np.rot90(g, turns)


def scaled(rng):
    a, b = (int(x) for x in rng.choice([1, 2, 2, 3], 2))
    return lambda g: g.repeat(a, 0).repeat(b, 1)


def thinned(rng):
    n = int(rng.integers(2, 4))
    return lambda g: g[::n, ::n]


def tiled(rng):
    a, b = (int(x) for x in rng.choice([1, 2, 3], 2))
    return lambda g: np.tile(g, (a, b))


def beside_mirror(rng):
    axis, is_before, turn = int(rng.integers(2)), rng.random() < 0.5, rng.random() < 0.3
    other = (lambda g: np.flip(g)) if turn else (lambda g: np.flip(g, axis))
    return lambda g: np.concatenate([other(g), g] if is_before else [g, other(g)], axis)


def four_mirrors(rng):
    def rule(g):
        top = np.concatenate([g, g[:, ::-1]], 1)
        return np.concatenate([top, top[::-1]], 0)

    return rule


def half(rng):
    axis, is_first = int(rng.integers(2)), rng.random() < 0.5

    def rule(g):
        n = g.shape[axis] // 2
        at = slice(0, n) if is_first else slice(g.shape[axis] - n, None)
        return g[at] if axis == 0 else g[:, at]

    return rule


def cropped(rng):
    return lambda g: g[box(g != ground(g))] if (g != ground(g)).any() else None


def framed(rng):
    c, is_outside = color(rng), rng.random() < 0.5

    def rule(g):
        g = np.pad(g, 1, constant_values=c) if is_outside else g.copy()
        g[[0, -1]], g[:, [0, -1]] = c, c
        return g

    return rule


def trimmed(rng):
    return lambda g: g[1:-1, 1:-1]


def recolored(rng):
    c = color(rng)

    def rule(g):
        out = g.copy()
        out[g != ground(g)] = c
        return out

    return rule


def mapped(rng):
    new = rng.permutation(N_COLORS).astype(np.uint8)
    return lambda g: new[g]


def common_color(rng):
    """Keeps or drops the commonest or rarest colour, or tells it."""
    is_most, what = rng.random() < 0.5, int(rng.integers(3))

    def rule(g):
        counts = {c: int((g == c).sum()) for c in np.unique(g).tolist() if c != ground(g)}
        c = _only(counts, is_most)
        if c is None or len(counts) < 2:
            return None
        if what == 2:
            return np.full((1, 1), c, np.uint8)
        out = g.copy()
        out[(g == c) if what else (g != c)] = ground(g)
        return out

    return rule


def _only(counts, is_most):
    best = (max if is_most else min)(counts.values(), default=None)
    found = [c for c, n in counts.items() if n == best]
    return found[0] if len(found) == 1 else None


def negative(rng):
    c = color(rng)

    def rule(g):
        out = np.full_like(g, ground(g))
        out[g == ground(g)] = c
        return out

    return rule


def fallen(rng):
    turns = int(rng.integers(4))

    def rule(g):
        bg, g = ground(g), np.rot90(g, turns).copy()
        for col in g.T:
            kept = col[col != bg]
            col[:] = bg
            if len(kept):
                col[-len(kept) :] = kept
        return np.rot90(g, -turns)

    return rule


def sorted_lines(rng):
    """Rows or columns by how much they hold."""
    axis, is_falling = int(rng.integers(2)), rng.random() < 0.5

    def rule(g):
        counts = (g != ground(g)).sum(1 - axis)
        order = np.argsort(-counts if is_falling else counts, kind="stable")
        return g.take(order, axis)

    return rule


def moved(rng):
    a, b = (int(x) for x in rng.integers(-2, 3, 2))
    wraps = rng.random() < 0.4

    def rule(g):
        if wraps:
            return np.roll(g, (a, b), (0, 1))
        wide = np.pad(g, 2, constant_values=ground(g))
        return wide[2 - a : 2 - a + g.shape[0], 2 - b : 2 - b + g.shape[1]]

    return rule


def part_chosen(rng):
    """Crops, keeps, drops or recolours the part that has most or least of something."""
    key, is_most, what, c = KEYS[str(rng.choice(list(KEYS)))], rng.random() < 0.6, int(rng.integers(4)), color(rng)
    is_diagonal, by_color = rng.random() < 0.6, rng.random() < 0.4

    def rule(g):
        mask = extreme(parts(g, is_diagonal, by_color), key, is_most)
        if mask is None:
            return None
        out = g.copy()
        if what == 0:
            out[~mask] = ground(g)
            return out[box(mask)]
        out[~mask if what == 1 else mask] = ground(g) if what < 3 else c
        return out

    return rule


def parts_by_size(rng):
    """Recolours parts by whether they are of at least so many cells, touch the border, are higher than wide, or have a hole."""
    a, b, n, kind = color(rng), color(rng), int(rng.integers(2, 7)), int(rng.integers(4))
    is_diagonal, by_color = rng.random() < 0.5, rng.random() < 0.3

    def tall(mask):
        return KEYS["height"](mask) > KEYS["width"](mask)

    def border(mask):
        return mask[[0, -1]].any() or mask[:, [0, -1]].any()

    def holed(mask):
        return enclosed(mask.astype(np.uint8)).any()

    test = (lambda mask: mask.sum() >= n, border, tall, holed)[kind]

    def rule(g):
        out = g.copy()
        for mask in parts(g, is_diagonal, by_color):
            out[mask] = a if test(mask) else b
        return out

    return rule if a != b else None


def parts_dropped(rng):
    n, is_small, is_diagonal = int(rng.integers(1, 5)), rng.random() < 0.7, rng.random() < 0.5

    def rule(g):
        out = g.copy()
        for mask in parts(g, is_diagonal):
            if (mask.sum() <= n) == is_small:
                out[mask] = ground(g)
        return out

    return rule


def parts_ranked(rng):
    colors = [int(c) for c in rng.choice(np.arange(1, N_COLORS), 4, replace=False)]
    is_falling = rng.random() < 0.5

    def rule(g):
        found = parts(g)
        sizes = sorted({int(m.sum()) for m in found}, reverse=is_falling)
        if not 2 <= len(sizes) <= 4:
            return None
        out = g.copy()
        for mask in found:
            out[mask] = colors[sizes.index(int(mask.sum()))]
        return out

    return rule


def part_moved(rng):
    """Every part slides by its own height or width, or to the border."""
    turns, to_border = int(rng.integers(4)), rng.random() < 0.5

    def rule(g):
        g = np.rot90(g, turns)
        bg = ground(g)
        out = np.full_like(g, bg)
        for mask in reversed(parts(g)):
            rows, _ = box(mask)
            n = len(g) - rows.stop if to_border else min(rows.stop - rows.start, len(g) - rows.stop)
            at = np.nonzero(mask)
            out[at[0] + n, at[1]] = g[at]
        return np.rot90(out, -turns)

    return rule


def part_mirrored(rng):
    """Every part is turned within its box."""
    turn = turned(rng)

    def rule(g):
        out = np.full_like(g, ground(g))
        for mask in parts(g):
            at = box(mask)
            new = turn(np.where(mask, g, ground(g))[at])
            if new.shape != out[at].shape:
                return None
            out[at] = new
        return out

    return rule


def holes_filled(rng):
    c, is_all = color(rng), rng.random() < 0.3

    def rule(g):
        out = g.copy()
        out[enclosed(g)] = c
        if is_all:
            out[(g == ground(g)) & (out != c)] = c % 9 + 1
        return out

    return rule


def outlined(rng):
    c, is_diagonal, kept = color(rng), rng.random() < 0.5, rng.random() < 0.8

    def rule(g):
        mask = g != ground(g)
        out = g.copy()
        out[grown(mask, is_diagonal) & ~mask] = c
        if not kept:
            out[mask] = ground(g)
        return out

    return rule


def inside_colored(rng):
    """Cells of parts that have no background beside them, or those that have, change colour."""
    c, is_diagonal, is_inner = color(rng), rng.random() < 0.5, rng.random() < 0.6

    def rule(g):
        mask = g != ground(g)
        inner = mask & ~grown(~mask, is_diagonal)
        out = g.copy()
        out[inner if is_inner else mask & ~inner] = c
        return out

    return rule


def boxes_filled(rng):
    c, by_color = color(rng), rng.random() < 0.5

    def rule(g):
        out = g.copy()
        for mask in parts(g, True, by_color):
            at = box(mask)
            view = out[at]
            view[view == ground(g)] = c
        return out

    return rule


def rays(rng):
    """All cells draw lines until the border, or until something stands in the way."""
    turns, stops, c, own, diagonal = (
        int(rng.integers(4)), rng.random() < 0.5, color(rng), rng.random() < 0.6, rng.random() < 0.3,
    )  # fmt: skip

    def rule(g):
        g = np.rot90(g, turns)
        bg, out = ground(g), g.copy()
        for r, k in zip(*np.nonzero(g != bg), strict=True):
            i, j = r + 1, k + diagonal
            while i < g.shape[0] and j < g.shape[1]:
                if g[i, j] != bg:
                    if stops:
                        break
                else:
                    out[i, j] = g[r, k] if own else c
                i, j = i + 1, j + diagonal
        return np.rot90(out, -turns)

    return rule


def lines_joined(rng):
    """Background between two cells of one colour in a row, or column, or both, is filled."""
    c, own, ways = color(rng), rng.random() < 0.5, [(True,), (False,), (True, False)][int(rng.integers(3))]

    def rule(g):
        bg, out = ground(g), g.copy()
        for is_row in ways:
            for line, made in zip(g if is_row else g.T, out if is_row else out.T, strict=True):
                at = np.flatnonzero(line != bg)
                for a, b in zip(at, at[1:], strict=False):
                    if line[a] == line[b]:
                        made[a + 1 : b] = line[a] if own else c
        return out

    return rule


def lines_through(rng):
    """Rows or columns that hold one colour are filled."""
    c, own, is_row, over = color(rng), rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.4

    def rule(g):
        bg, out = ground(g), g.copy()
        for line, made in zip(g if is_row else g.T, out if is_row else out.T, strict=True):
            held = line[line != bg]
            if len(held) and len(set(held.tolist())) == 1:
                made[(line == bg) | over] = held[0] if own else c
        return out

    return rule


def symmetric(rng):
    axis, is_full = int(rng.integers(3)), rng.random() < 0.5

    def rule(g):
        bg, out = ground(g), g.copy()
        for flipped in [np.flip(g, axis)] if axis < 2 else [g[:, ::-1], g[::-1], g[::-1, ::-1]]:
            out = np.where(out == bg, flipped, out)
        return out if is_full or axis < 2 else None

    return rule


def patterned(rng):
    """Background, or what is on it, is painted with stripes or a checkerboard."""
    n, c, kind, on_ground = int(rng.integers(2, 4)), color(rng), int(rng.integers(4)), rng.random() < 0.6

    def rule(g):
        r, k = np.indices(g.shape)
        stripes = ((r % n) == 0, (k % n) == 0, ((r + k) % n) == 0, ((r - k) % n) == 0)[kind]
        out = g.copy()
        out[((g == ground(g)) == on_ground) & stripes] = c
        return out

    return rule


def corners(rng):
    """Corners of every part's box, or its middle, are marked."""
    c, kind = color(rng), int(rng.integers(2))

    def rule(g):
        out = g.copy()
        for mask in parts(g):
            rows, cols = box(mask)
            if kind:
                for r in (rows.start, rows.stop - 1):
                    for k in (cols.start, cols.stop - 1):
                        out[r, k] = c
            elif (rows.stop - rows.start) % 2 and (cols.stop - cols.start) % 2:
                out[(rows.start + rows.stop) // 2, (cols.start + cols.stop) // 2] = c
        return out

    return rule


def counted(rng):
    """A line of as many cells as there are parts, or as colours; or each colour's count as bars."""
    kind, c, is_row = int(rng.integers(3)), color(rng), rng.random() < 0.5

    def rule(g):
        bg = ground(g)
        if kind == 2:
            counts = sorted(((int((g == x).sum()), x) for x in np.unique(g).tolist() if x != bg), reverse=True)
            if not counts or counts[0][0] > 12 or len({n for n, _ in counts}) < len(counts):
                return None
            out = np.full((len(counts), counts[0][0]), bg, np.uint8)
            for i, (n, x) in enumerate(counts):
                out[i, :n] = x
        else:
            n = len(parts(g)) if kind == 0 else len(set(np.unique(g).tolist()) - {bg})
            if not 1 <= n <= 10:
                return None
            out = np.full((1, n), c, np.uint8)
        return out if is_row else out.T

    return rule


def halves_compared(rng):
    """The halves laid over one another: both, one or other, just one, neither; or the first where it is not background."""
    axis, kind, c = int(rng.integers(2)), int(rng.integers(5)), color(rng)

    def rule(g):
        n = g.shape[axis] // 2
        if n < 2:
            return None
        a, b = (g[:n], g[-n:]) if axis == 0 else (g[:, :n], g[:, -n:])
        bg = ground(g)
        x, y = a != bg, b != bg
        if kind == 4:
            return np.where(x, a, b)
        on = (x & y, x | y, x ^ y, ~x & ~y)[kind]
        return np.where(on, c, bg).astype(np.uint8)

    return rule


def self_tiled(rng):
    """A copy of the grid for every cell that is not background, or that is."""
    is_on = rng.random() < 0.7

    def rule(g):
        if max(g.shape) > 5:
            return None
        bg = ground(g)
        on = (g != bg) == is_on
        return np.where(np.kron(on, np.ones(g.shape, bool)), np.tile(g, g.shape), bg).astype(np.uint8)

    return rule


def neighbours(rng):
    """A step of an automaton: background with so many neighbours of parts is painted, or cells with so few are lost."""
    n, c, is_birth, is_diagonal = int(rng.integers(1, 4)), color(rng), rng.random() < 0.6, rng.random() < 0.5

    def rule(g):
        mask = g != ground(g)
        wide = np.pad(mask, 1).astype(int)
        count = np.zeros(wide.shape, int)
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                if (a, b) != (0, 0) and (is_diagonal or not (a and b)):
                    count += np.roll(wide, (a, b), (0, 1))
        count = count[1:-1, 1:-1]
        out = g.copy()
        if is_birth:
            out[~mask & (count > n)] = c
        else:
            out[mask & (count < n)] = ground(g)
        return out

    return rule


def distinct_lines(rng):
    """Rows or columns equal to the one before, or empty ones, are left out."""
    is_row, is_empty = rng.random() < 0.5, rng.random() < 0.5

    def rule(g):
        g = g if is_row else g.T
        if is_empty:
            keep = (g != ground(g)).any(1)
        else:
            keep = np.append(True, (g[1:] != g[:-1]).any(1))
        return (g[keep] if is_row else g[keep].T) if keep.any() else None

    return rule


# None is told by a colour of the input: views exchange these, so that a task vector cannot tell which colour is meant.
RULES = (
    turned, scaled, thinned, tiled, beside_mirror, four_mirrors, half, cropped, framed, trimmed, recolored, mapped,
    common_color, negative, fallen, sorted_lines, moved, part_chosen, part_chosen, parts_by_size,
    parts_by_size, parts_dropped, parts_ranked, part_moved, part_mirrored, holes_filled, outlined, inside_colored,
    boxes_filled, rays, rays, lines_joined, lines_through, symmetric, patterned, corners, counted, halves_compared,
    self_tiled, neighbours, distinct_lines,
)  # fmt: skip


def fits(grid):
    return grid is not None and 0 < grid.size <= CELLS and max(grid.shape) <= MAX_SIDE


def applied(rule, grid):
    """The grid after the rule; None where either does not fit."""
    grid = rule(grid) if fits(grid) else None
    return np.ascontiguousarray(grid, np.uint8) if fits(grid) else None


def make_task(number, sources):
    """The pairs of the made task `number`; None where its rule does not suit the pairs of its source.

    The rule is applied to inputs, or to outputs: alone, or as what follows the source's own rule.
    """
    rng = task_rng(0, f"made {number}")
    of = sources[int(rng.integers(len(sources)))]
    kind = str(rng.choice(["input", "output", "after", "after"]))
    rules = [RULES[int(rng.integers(len(RULES)))](rng) for _ in range(int(rng.choice([1, 1, 2, 2, 3])))]
    if None in rules:
        return None
    made, seen = [], set()
    for i in rng.permutation(len(of))[:TRIES]:
        given = of[i].output if kind == "output" else of[i].input
        grids = [of[i].output if kind == "after" else given]
        for rule in rules:
            grids.append(applied(rule, grids[-1]))
        key, end = (given.tobytes(), given.shape), grids[-1]
        if end is None or given.size + end.size > CELLS or key in seen or np.array_equal(given, end):
            continue
        seen.add(key)
        made.append((all(not np.array_equal(x, y) for x, y in zip(grids, grids[1:], strict=False)), given, end))
        if len(made) == MADE_PAIRS:
            break
    is_telling = len({(e.tobytes(), e.shape) for _, _, e in made}) > len(made) // 2
    if len(made) < MADE_PAIRS // 2 or sum(c for c, _, _ in made) < 0.7 * len(made) or not is_telling:
        return None
    return [{"input": a.tolist(), "output": b.tolist()} for _, a, b in made]


def as_raw(pairs):
    return [{"input": p.input.tolist(), "output": p.output.tolist()} for p in pairs]


def whole(pair):
    """Mini-ARC's pair: some cells are strings, and those that nobody painted null."""
    return {side: [[int(cell or 0) for cell in row] for row in pair[side]] for side in ("input", "output")}


def given_tasks(options, own, asked):
    """{id: {"train": pairs, "test": pairs}} of what is given, `own` first; of --also none that is `asked`."""
    left_out = set(options.without.read_text().split()) if options.without else set()
    left_out |= {task.id for task in asked}
    also = read_training_tasks(options.also) if options.also else []
    tasks = [*own.values(), *(task for task in also if task.id not in own and task.id not in left_out)]
    found = {t.id: {"train": as_raw(t.train), "test": as_raw(t.test)} for t in tasks}
    for number, path in enumerate(sorted(options.mini_arc.glob("*.json")) if options.mini_arc else ()):
        raw = json.loads(path.read_text())
        found[f"mini{number:04x}"] = {part: [whole(pair) for pair in raw[part]] for part in ("train", "test")}
    return found


def looks(pairs):
    """What the leakage guard knows inputs by, in every view."""
    return {look(seen.input) for pair in pairs for seen in turns_of(pair)}


def sources_of(own, extra, held):
    """The pairs of each task that has enough to make tasks of; none whose input is a test input of the tasks `held`."""
    if unknown := sorted(held - own.keys()):
        raise InputError(f"--hold-out {unknown[0]}: not among the training tasks of --source; leave it out")
    kept_out = looks(p for task_id in held for p in own[task_id].test)
    every = ([*task.train, *task.test, *extra.get(task.id, ())] for task in own.values())
    fit = (
        [p for p in pairs if p.input.size + p.output.size <= CELLS and look(p.input) not in kept_out]
        for pairs in every
    )
    return [pairs for pairs in fit if len(pairs) >= MADE_PAIRS]


def refuse_too_many(given, made, concepts):
    """InputError if a folder of the given tasks, the made ones and those of the concepts may be more than is read."""
    ideas = len(all_concepts())
    if (count := given + made + concepts * ideas) > MAX_TASKS:
        told = f"--made {made} and --concepts {concepts} of each of {ideas}, with {given} given tasks"
        raise InputError(f"{told}: {count} tasks, of which `pretrain` reads {MAX_TASKS} at most; lower one of the two")


def made_tasks(count, sources, first):
    """{id: pairs} of the first `count` rules from number `first` on that suit their source, and how many were drawn."""
    made, number = {}, first
    while len(made) < count:
        if pairs := make_task(number, sources):
            made[f"made{number:05x}"] = pairs
        number += 1
    return made, number - first


def late(*_):
    raise TimeoutError(
        f"a task of a concept takes more than {LATE_S} s: the concept whose lines stand above draws without end"
    )


def concept_tasks(count):
    """{id: pairs} of `count` draws of each concept, less those that have too few pairs. TimeoutError where one takes LATE_S."""
    signal.signal(signal.SIGALRM, late)
    found = {}
    for idea, concept in all_concepts().items():
        for number in range(count):
            name = f"{idea}-{number}"
            signal.alarm(LATE_S)
            if pairs := pairs_of(concept, task_rng(0, name)):
                found[name] = [{"input": a.tolist(), "output": b.tolist()} for a, b in pairs]
    signal.alarm(0)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--out", "--source"):
        parser.add_argument(name, type=Path, required=True)
    for name in ("--pairs", "--more-pairs", "--also", "--without", "--mini-arc"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--unlike", type=Path, nargs="*", default=[])
    parser.add_argument("--hold-out", default="")
    for name in ("--made", "--first", "--concepts"):
        parser.add_argument(name, type=int, default=0)
    options = parser.parse_args(argv)
    own = {task.id: task for task in read_training_tasks(options.source)}
    asked = [task for path in options.unlike for task in read_challenges(path).tasks]
    challenges = given_tasks(options, own, asked)
    refuse_too_many(len(challenges), options.made, options.concepts)
    extra, more = (read_extra(path, own) if path else {} for path in (options.pairs, options.more_pairs))
    made, drawn = made_tasks(options.made, sources_of(own, extra, set(read_ids(options.hold_out))), options.first)
    ideas = concept_tasks(options.concepts)
    seen = looks(p for task in asked for p in (*task.train, *task.test))
    generated = {task_id: as_raw((*extra.get(task_id, ()), *more.get(task_id, ()))) for task_id in own}
    generated = {
        task_id: [pair for pair in pairs if look(to_grid(pair["input"])) not in seen]
        for task_id, pairs in (generated | made | ideas).items()
    }
    for task_id in [*made, *ideas]:
        first, second, *generated[task_id] = generated[task_id]
        challenges[task_id] = {"train": [first], "test": [second]}
    solutions = {task_id: [pair["output"] for pair in task["test"]] for task_id, task in challenges.items()}
    for task in challenges.values():
        task["test"] = [{"input": pair["input"]} for pair in task["test"]]
    options.out.mkdir(parents=True, exist_ok=True)
    for name, value in (("challenges", challenges), ("solutions", solutions)):
        (options.out / f"arc-agi_training_{name}.json").write_text(json.dumps(value, separators=(",", ":")))
    packed = gzip.compress(json.dumps(generated, separators=(",", ":")).encode(), mtime=0)
    (options.out / "extra.json.gz").write_bytes(packed)
    total = sum(map(len, generated.values()))
    told = f"{len(challenges)} tasks, {len(made)} of {drawn} rules taken, {len(ideas)} of concepts"
    print(f"{told}, {total} generated pairs: {options.out}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TTTError as error:
        sys.exit(f"error: {error}")
