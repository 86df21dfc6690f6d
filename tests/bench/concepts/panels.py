"""Concepts: panels and lattices, logic of pictures, counts and other summaries, changes of a picture's shape."""

import numpy as np

from tests.bench.concepts.scenes import between, blank, blob, box, chance, colors, pick, put, scatter
from tests.bench.more_tasks import enclosed, parts


def others(rng, count, *taken):
    """Different colours, none of `taken`, never 0."""
    return [int(c) for c in rng.choice([c for c in range(1, 10) if c not in taken], count, replace=False)]


def turner(rng):
    """One of the eight orientations, for both grids of all pairs."""
    turns, is_flipped = between(rng, 0, 3), chance(rng, 0.5)
    return lambda g: np.rot90(g.T if is_flipped else g, turns)


def same(g):
    return g


def bits(rng, height, width, density=0.5):
    return rng.random((height, width)) < density


def painted(mask, color):
    return (mask * color).astype(np.uint8)


def full(rng, height, width, palette):
    """Every cell one of the palette."""
    return rng.choice(np.array(palette, np.uint8), (height, width))


def picture(rng, height, width, palette, density=0.6):
    return np.where(bits(rng, height, width, density), full(rng, height, width, palette), 0).astype(np.uint8)


def run(blocks, axis, line=None):
    """Blocks side by side, with a line of that colour between them if one is given."""
    out = [blocks[0]]
    for block in blocks[1:]:
        if line is not None:
            out.append(np.full((1, block.shape[1]) if axis == 0 else (block.shape[0], 1), line, np.uint8))
        out.append(block)
    return np.concatenate(out, axis)


def joined(rows, line=None):
    """One grid of rows of blocks."""
    return run([run(row, 1, line) for row in rows], 0, line)


def rows_of(blocks, width):
    return [blocks[i : i + width] for i in range(0, len(blocks), width)]


def lattice(cells, n, line):
    """Every cell n x n, lines between."""
    return joined([[np.full((n, n), c, np.uint8) for c in row] for row in cells], line)


def only(values, is_most=True):
    """Where the one greatest or least value stands; None if there are two."""
    best = (max if is_most else min)(values)
    return list(values).index(best) if list(values).count(best) == 1 and len(values) > 1 else None


def different(masks):
    return len({(m.shape, m.tobytes()) for m in masks}) == len(masks)


def ranked(grid):
    """Colours from commonest to rarest, None where two are equally common."""
    values, counts = np.unique(grid[grid != 0], return_counts=True)
    if len(values) == 0 or len(set(counts.tolist())) < len(counts):
        return None
    return values[np.argsort(-counts)].tolist()


def pieces(rng, count, height=10, width=10, palette=None, size=3):
    """A grid with so many objects, or None."""
    grid = blank(rng, min(7, height), max(height, width))
    palette = palette or colors(rng, 1)
    objects = [(blob(rng, between(rng, 1, size), between(rng, 1, size)), pick(rng, palette)) for _ in range(count)]
    return grid if scatter(rng, grid, objects) else None


LOGIC = (
    lambda s: s.all(0), lambda s: s.any(0), lambda s: ~s.any(0), lambda s: s.sum(0) == 1, lambda s: s.sum(0) % 2 == 1,
    lambda s: s.sum(0) > 1, lambda s: ~s.all(0), lambda s: s[0] & ~s[1:].any(0), lambda s: s[-1] & ~s[:-1].any(0),
    lambda s: s.all(0) | ~s.any(0), lambda s: s.sum(0) == 2, lambda s: s[0] & s[1:].any(0),
    lambda s: s[0] ^ s[1:].any(0), lambda s: s[-1] | s[:-1].all(0),
)  # fmt: skip


def logic_many(rng):
    """Three or four pictures laid over one another: the cells where a condition on how many are painted holds."""
    n, op, c, turn, lined = between(rng, 3, 4), pick(rng, LOGIC), between(rng, 1, 9), turner(rng), chance(rng, 0.7)
    is_square, alike, density = n == 4 and chance(rng, 0.5), chance(rng, 0.4), 0.7 if op is LOGIC[0] else 0.45

    def draw(rng):
        h, w = between(rng, 3, 5), between(rng, 3, 5)
        line, *own = colors(rng, n + 1)
        s = np.stack([bits(rng, h, w, density) for _ in range(n)])
        blocks = [painted(m, own[0] if alike else x) for m, x in zip(s, own, strict=True)]
        return turn(joined(rows_of(blocks, 2 if is_square else n), line if lined else None)), turn(painted(op(s), c))

    return draw


def logic_coded(rng):
    """Two pictures laid over one another: colours tell first only, second only, both, neither."""
    turn, new = turner(rng), [int(x) for x in rng.integers(0, 10, 4)]
    kind = between(rng, 0, 2)
    if len(set(new)) < 3:
        return None

    def draw(rng):
        h, w = between(rng, 3, 6), between(rng, 3, 6)
        line, x, y = colors(rng, 3)
        a, b = bits(rng, h, w), bits(rng, h, w)
        grid = run([painted(a, x), painted(b, y)], 1, line)
        code = np.array(new if kind else [0, x, y, new[0]], np.uint8)
        out = code[a + 2 * b]
        if kind == 2:
            out = run([out, out[:, ::-1]], 1)
        return turn(grid), turn(out)

    return draw


def logic_in_place(rng):
    """The last, empty panel is filled with what two panels give."""
    turn, op, is_own = turner(rng), pick(rng, LOGIC[:5] + LOGIC[7:10]), chance(rng, 0.5)
    c, at = between(rng, 1, 9), between(rng, 0, 2)

    def draw(rng):
        h, w = between(rng, 3, 5), between(rng, 3, 4)
        line, x, y = others(rng, 3, c)
        s = np.stack([bits(rng, h, w), bits(rng, h, w)])
        made = op(s)
        if not made.any():
            return None
        new = painted(made, x if is_own else c)
        pair = [painted(s[0], x), painted(s[1], y)]
        a, b = ([*pair[:at], block, *pair[at:]] for block in (np.zeros_like(new), new))
        return turn(run(a, 1, line)), turn(run(b, 1, line))

    return draw


def overlaid(rng):
    """Panels laid over one another in an order fixed by place, or with the fullest or emptiest on top."""
    n, turn, lined, kind = between(rng, 3, 4), turner(rng), chance(rng, 0.6), between(rng, 0, 3)
    order, is_square = rng.permutation(n), n == 4 and chance(rng, 0.6)

    def draw(rng):
        h, w = between(rng, 3, 5), between(rng, 3, 5)
        line, *own = colors(rng, n + 1)
        masks = [bits(rng, h, w, rng.uniform(0.25, 0.7)) for _ in range(n)]
        counts = [int(m.sum()) for m in masks]
        if kind > 1 and len(set(counts)) < n:
            return None
        out = np.zeros((h, w), np.uint8)
        for i in order if kind < 2 else np.argsort(counts)[:: 1 if kind == 2 else -1]:
            out[masks[i]] = own[i]
        blocks = [painted(m, x) for m, x in zip(masks, own, strict=True)]
        return turn(joined(rows_of(blocks, 2 if is_square else n), line if lined else None)), turn(out)

    return draw


def odd_panel(rng):
    """All panels hold one picture but one: exactly, in any colour, or in any orientation."""
    kind, n, what, turn = between(rng, 0, 2), pick(rng, (3, 4, 6)), between(rng, 0, 3), turner(rng)
    k, c = 3, between(rng, 1, 9)

    def draw(rng):
        line, x, *own = others(rng, 4, c)
        a, b = blob(rng, k, k), blob(rng, k, k)
        if any(np.array_equal(np.rot90(m, t), b) for m in (a, a.T) for t in range(4)) or a.sum() < 3:
            return None
        at = between(rng, 0, n - 1)
        masks = [b if i == at else a for i in range(n)]
        if kind == 2:
            masks = [np.rot90(m, between(rng, 0, 3)) for m in masks]
        blocks = [painted(m, pick(rng, own) if kind == 1 else x) for m in masks]
        width = 3 if n == 6 else n if n == 3 else 2
        grid = joined(rows_of(blocks, width), line)
        if what == 0:
            out = blocks[at]
        elif what == 1:
            out = joined(rows_of([b if i == at else b * 0 for i, b in enumerate(blocks)], width), line)
        elif what == 2:
            new = painted(masks[at], c)
            out = joined(rows_of([new if i == at else b for i, b in enumerate(blocks)], width), line)
        else:
            out = painted(np.arange(n) == at, c).reshape(-1, width)
        return turn(grid), turn(out)

    return draw


def is_symmetric(m):
    return int(any(np.array_equal(m, x) for x in (m[:, ::-1], m[::-1])))


PANEL_KEYS = {
    "cells": lambda g: int((g != 0).sum()),
    "few": lambda g: -int((g != 0).sum()),
    "parts": lambda g: len(parts(g)),
    "symmetric": lambda g: is_symmetric(g != 0),
    "lopsided": lambda g: -is_symmetric(g != 0),
    "hole": lambda g: int(enclosed(g).any()),
    "colors": lambda g: len(np.unique(g)),
    "columns": lambda g: -int((g != 0).any(0).sum()),
}


def panel_chosen(rng):
    """The panel with most or least of something is given, recoloured, kept, or its ground painted."""
    name = pick(rng, list(PANEL_KEYS))
    key, n, what, turn, c = PANEL_KEYS[name], between(rng, 3, 4), between(rng, 0, 3), turner(rng), between(rng, 1, 9)
    is_square = n == 4 and chance(rng, 0.7)

    def panel(rng, k, own, special):
        """One of the kind looked for, or another."""
        for _ in range(20):
            m = blob(rng, k, k) if name != "parts" else bits(rng, k, k, 0.3)
            if name == "columns":
                w = between(rng, 1, k - 1 if special else k)
                m = np.pad(blob(rng, k, w), ((0, 0), (0, k - w)))
            if name in ("symmetric", "lopsided"):
                if special == (name == "symmetric"):
                    m = m | m[:, ::-1]
                if is_symmetric(m) != (special == (name == "symmetric")):
                    continue
            if name == "hole":
                m = box(k, k, True) & bits(rng, k, k, 0.9) | (bits(rng, k, k, 0.2) if special else blob(rng, k, k))
                if bool(enclosed(painted(m, 1)).any()) != special:
                    continue
            if m.any() and not m.all():
                return painted(m, 1) * (full(rng, k, k, own) if name == "colors" else pick(rng, own))
        return None

    def draw(rng):
        k = between(rng, 3, 4)
        line, *own = others(rng, 4, c)
        at = between(rng, 0, n - 1)
        blocks = [panel(rng, k, own[: 3 if name != "colors" or i == at else 2], i == at) for i in range(n)]
        if any(b is None for b in blocks) or only([key(b) for b in blocks]) is None:
            return None
        at, width = only([key(b) for b in blocks]), 2 if is_square else n
        if what == 0:
            out = blocks[at]
        else:
            new = [blocks[at], np.where(blocks[at] != 0, c, 0), np.where(blocks[at] == 0, c, blocks[at])][what - 1]
            rest = [b * 0 if what == 1 else b for b in blocks]
            out = joined(rows_of([new if i == at else b for i, b in enumerate(rest)], width), line)
        return turn(joined(rows_of(blocks, width), line)), turn(out)

    return draw


def panels_sorted(rng):
    """Panels come in the order of their numbers of cells, of parts, or of the height of their bar."""
    key, turn, lined, kind = pick(rng, ("cells", "parts", "columns")), turner(rng), chance(rng, 0.8), between(rng, 0, 2)
    is_stacked = chance(rng, 0.4)

    def draw(rng):
        n, k = between(rng, 3, 4), between(rng, 2, 4) if key == "cells" else 4
        line, *own = colors(rng, 5)
        found = {}
        for _ in range(30):
            m = bits(rng, k, k, rng.uniform(0.1, 0.8))
            if key == "columns":
                m = m | True if chance(rng, 0.2) else np.arange(k) < np.full((k, 1), between(rng, 1, k - 1))
            block = painted(m, own[min(len(found), n - 1) if kind else 0])
            if m.any() and len(found) < n:
                found.setdefault(PANEL_KEYS[key](block) if not m.all() or key != "parts" else 1, block)
        blocks, values = list(found.values()), list(found)
        n = len(blocks)
        order = np.argsort(values)[:: -1 if kind == 2 else 1]
        if n < 3 or (order == np.arange(n)).all():
            return None
        axis = 0 if is_stacked else 1
        gap = line if lined else 0
        return turn(run(blocks, 1, gap)), turn(run([blocks[i] for i in order], axis, gap))

    return draw


def template_copied(rng):
    """One panel shows a picture; every other panel with a mark gets it in the mark's colour."""
    kind, turn, r, k = between(rng, 0, 3), turner(rng), between(rng, 2, 3), 3
    spot = (between(rng, 0, 2), between(rng, 0, 2))
    way = pick(rng, (same, same, np.fliplr, np.flipud, np.rot90))

    def draw(rng):
        c = between(rng, 2, 4 if r == 2 else 3)
        line, x, *own = colors(rng, 5)
        m = blob(rng, k, k)
        if m.sum() < 3 or m.all() or is_symmetric(m) or np.array_equal(m, m.T):
            return None
        at, marks = between(rng, 0, r * c - 1), [pick(rng, (0, *own)) for _ in range(r * c)]
        a, b = [], []
        for i, mark in enumerate(marks):
            g = np.zeros((k, k), np.uint8)
            g[spot] = mark
            a.append(painted(m, x) if i == at else g)
            b.append(painted(m, x) if i == at else painted(way(m) if kind else ~m, mark))
        if sum(x > 0 for i, x in enumerate(marks) if i != at) < 2:
            return None
        return turn(joined(rows_of(a, c), line)), turn(joined(rows_of(b, c), line))

    return draw


def panels_by_count(rng):
    """The number of marks in a panel decides how it is filled."""
    kind, turn, k, small = between(rng, 0, 4), turner(rng), pick(rng, (2, 3)), chance(rng, 0.35)
    new, least = colors(rng, 4), between(rng, 2, 3)

    def draw(rng):
        h, w = between(rng, 2, 3), between(rng, 2, 3)
        line, x = others(rng, 2, *new)
        counts = rng.integers(0, 5, (h, w))
        if kind == 0:
            code = np.where(counts > 0, np.array([0, *new])[counts], 0)
        elif kind == 1:
            code = np.where(counts % 2 == 0, new[0], new[1])
        elif kind == 2:
            code = np.where(counts >= least, new[0], 0)
        else:
            at = only(counts.ravel().tolist(), kind == 3)
            if at is None:
                return None
            code = painted(np.arange(h * w) == at, new[0]).reshape(h, w)
        blocks = []
        for n in counts.ravel():
            g = np.zeros(k * k, np.uint8)
            g[rng.permutation(k * k)[:n]] = x
            blocks.append(g.reshape(k, k))
        out = code.astype(np.uint8) if small else lattice(code, k, line)
        return turn(joined(rows_of(blocks, w), line)), turn(out)

    return draw


WAYS = (
    ((0, 1),), ((0, 1), (0, -1)), ((1, 1),), ((1, 1), (-1, -1)), ((0, 1), (0, -1), (1, 0), (-1, 0)),
    ((1, 1), (-1, -1), (1, -1), (-1, 1)), ((0, 1), (1, 0)),
)  # fmt: skip


def lattice_rays(rng):
    """Filled cells of a lattice travel along its rows, columns or diagonals to the border."""
    ways, turn, n, c, is_own = pick(rng, WAYS), turner(rng), between(rng, 1, 2), between(rng, 1, 9), chance(rng, 0.6)
    stops = chance(rng, 0.3)

    def draw(rng):
        h, w = between(rng, 4, 5), between(rng, 4, 5)
        line, wall, *own = others(rng, 5, c)
        small = np.zeros((h, w), np.uint8)
        rows = rng.permutation(h)[: between(rng, 1, 3) if len(ways) == 1 and ways[0][0] == 0 else 1]
        for r, x in zip(rows, own, strict=False):
            small[r, between(rng, 0, w - 1)] = x
        if stops:
            small[(small == 0) & bits(rng, h, w, 0.15)] = wall
        out = small.copy()
        for r, k in np.argwhere((small != 0) & (small != wall)):
            for a, b in ways:
                i, j = r + a, k + b
                while 0 <= i < h and 0 <= j < w and small[i, j] == 0:
                    out[i, j] = small[r, k] if is_own else c
                    i, j = i + a, j + b
        return turn(lattice(small, n, line)), turn(lattice(out, n, line))

    return draw


def lattice_joined(rng):
    """Equal cells of a lattice in one row or column are joined; where two joints cross, columns (or rows) go over."""
    n, is_own, c = between(rng, 1, 2), chance(rng, 0.6), between(rng, 1, 9)
    kind, over = between(rng, 0, 2), chance(rng, 0.5)

    def draw(rng):
        h, w = between(rng, 4, 5), between(rng, 4, 5)
        line, *own = others(rng, 4, c)
        small = picture(rng, h, w, own, 0.3)
        out = small.copy()
        for is_row in (True, False) if over else (False, True):
            if kind < 2 and is_row != bool(kind):
                continue
            for a, b in zip(small if is_row else small.T, out if is_row else out.T, strict=True):
                at = np.flatnonzero(a)
                for i, j in zip(at, at[1:], strict=False):
                    if a[i] == a[j]:
                        b[i + 1 : j] = a[i] if is_own else c
        if np.array_equal(out, small):
            return None
        return lattice(small, n, line), lattice(out, n, line)

    return draw


def sized(cells, heights, widths, line):
    return joined([[np.full((a, b), x, np.uint8) for b, x in zip(widths, row)] for a, row in zip(heights, cells)], line)


def lattice_shrunk(rng):
    """One cell for each panel: its filling, its commonest mark, or whether it is filled wholly."""
    kind, is_even, c = between(rng, 0, 2), chance(rng, 0.5), between(rng, 1, 9)
    way = pick(rng, (same, same, np.fliplr, np.flipud, np.transpose, np.rot90))

    def draw(rng):
        h, w, k = between(rng, 2, 4), between(rng, 2, 4), between(rng, 2, 3)
        line, *own = others(rng, 4, c)
        heights, widths = ([k] * n if is_even or kind else [between(rng, 1, 4) for _ in range(n)] for n in (h, w))
        small = picture(rng, h, w, own, 0.7)
        grid = sized(small, heights, widths, line)
        if kind:
            blocks = [full(rng, k, k, own) * (bits(rng, k, k, 0.6) if chance(rng, 0.6) else True) for _ in range(h * w)]
            if kind == 2:
                blocks = [painted(b != 0, own[0]) for b in blocks]
                small = np.array([c if b.all() else 0 for b in blocks], np.uint8)
            else:
                found = [ranked(b) for b in blocks]
                if None in [f and f[0] for f in found]:
                    for i, f in enumerate(found):
                        if not f:
                            blocks[i] = np.full((k, k), pick(rng, own), np.uint8)
                small = np.array([ranked(b)[0] for b in blocks], np.uint8)
            grid, small = joined(rows_of(blocks, w), line), small.reshape(h, w)
        return grid, way(small)

    return draw


def lattice_drawn(rng):
    """Every cell becomes a square or its outline, with lines between and perhaps around."""
    n, line, kind, is_framed = between(rng, 1, 3), between(rng, 0, 9), between(rng, 0, 2), chance(rng, 0.4)

    def draw(rng):
        h, w = between(rng, 2, 4), between(rng, 2, 4)
        own = others(rng, 3, line)
        small = picture(rng, h, w, own, 0.8)
        blocks = [np.full((n, n), x, np.uint8) for x in small.ravel()]
        if kind and n == 3:
            for b in blocks:
                b[(1, 1) if kind == 1 else (slice(0, 3, 2), slice(0, 3, 2))] = line
        out = joined(rows_of(blocks, w), line)
        return small, np.pad(out, 1, constant_values=line) if is_framed else out

    return draw


def self_reference(rng):
    """The marks of the one panel that has any tell which panels are filled, or get its picture."""
    kind, k, c = between(rng, 0, 2), between(rng, 2, 3), between(rng, 1, 9)
    lined, keeps = chance(rng, 0.85), chance(rng, 0.4)

    def draw(rng):
        line, x = others(rng, 2, c)
        m, at = bits(rng, k, k), between(rng, 0, k * k - 1)
        if not m.any() or m.all():
            return None
        shown = painted(m, x)
        empty = shown * 0
        new = [np.full((k, k), x, np.uint8), np.full((k, k), c, np.uint8), shown][kind]
        a = [shown if i == at else empty for i in range(k * k)]
        b = [new if on else shown if keeps and i == at else empty for i, on in enumerate(m.ravel())]
        line = line if lined else 0
        return joined(rows_of(a, k), line), joined(rows_of(b, k), line)

    return draw


def kron_variants(rng):
    """Every cell becomes a copy of the grid, its inverse, mirror or in its own colour, if the cell is of a kind."""
    on, what, off = between(rng, 0, 2), between(rng, 0, 4), chance(rng, 0.3)

    def draw(rng):
        h, w = between(rng, 2, 3), between(rng, 2, 3)
        own = colors(rng, 3)
        g = picture(rng, h, w, own[: 2 if h * w < 7 else 3], 0.65)
        order = ranked(g)
        if order is None or len(order) < 2 or (g != 0).all():
            return None
        use = (g == order[0], g == order[-1], g != 0)[on]
        rows = []
        for row, flags in zip(g, use, strict=True):
            made = []
            for x, flag in zip(row, flags, strict=True):
                new = (g, painted(g == 0, order[0]), painted(g != 0, x), g[::-1, ::-1], painted(g == 0, x))[what]
                made.append(new if flag else np.full_like(g, x if off else 0))
            rows.append(made)
        return g, joined(rows)

    return draw


def scaled_by_count(rng):
    """The grid grows, or is repeated, as many times as it has colours, cells or parts."""
    measure, what = between(rng, 0, 2), between(rng, 0, 4)

    def draw(rng):
        h, w = between(rng, 2, 4), between(rng, 2, 4)
        own = colors(rng, between(rng, 1, 4))
        g = picture(rng, h, w, own, 0.3 if measure else 0.7)
        n = (len(np.unique(g[g != 0])), int((g != 0).sum()), len(parts(g)))[measure]
        if not 2 <= n <= 5:
            return None
        out = (
            g.repeat(n, 0).repeat(n, 1), np.tile(g, (n, n)), np.tile(g, (1, n)), np.tile(g, (n, 1)),
            run([g if i % 2 == 0 else g[:, ::-1] for i in range(n)], 1),
        )[what]  # fmt: skip
        return g, out

    return draw


def blocks_reduced(rng):
    """Noisy blocks give one cell each, or become clean."""
    k, what, c, way = between(rng, 2, 3), between(rng, 0, 2), between(rng, 1, 9), turner(rng)
    k = 3 if what == 2 else k

    def draw(rng):
        h, w = (between(rng, 2, 4) for _ in range(2))
        own = others(rng, 3, c)
        small = full(rng, h, w, [0, *own])
        grid = small.repeat(k, 0).repeat(k, 1)
        for r in range(h):
            for j in range(w):
                at = r * k + between(rng, 0, k - 1), j * k + between(rng, 0, k - 1)
                if chance(rng, 0.5):
                    grid[at] = pick(rng, own)
        big = small.repeat(k, 0).repeat(k, 1)
        if what == 0:
            return grid, way(small)
        return grid, big if what == 1 else np.where(grid != big, c, 0)

    return draw


def crop_by_corners(rng):
    """Four equal marks are corners: what lies between them is given, enlarged, recoloured, or all that is left."""
    what = between(rng, 0, 5)

    def draw(rng):
        h, w = between(rng, 7, 12), between(rng, 7, 12)
        mark, *own = colors(rng, 4)
        g = picture(rng, h, w, own, rng.uniform(0.2, 0.6))
        top, left = between(rng, 0, h - 5), between(rng, 0, w - 5)
        low, right = between(rng, top + 3, min(h - 1, top + 6)), between(rng, left + 3, min(w - 1, left + 6))
        for at in ((top, left), (top, right), (low, left), (low, right)):
            g[at] = mark
        inner = g[top + 1 : low, left + 1 : right]
        if not inner.any():
            return None
        if what < 4:
            return g, (inner, g[top : low + 1, left : right + 1], np.where(inner != 0, mark, 0), inner[:, ::-1])[what]
        out = np.zeros_like(g) if what == 4 else g.copy()
        out[top + 1 : low, left + 1 : right] = inner if what == 4 else np.where(inner != 0, mark, 0)
        return g, out

    return draw


def crop_gaplines(rng):
    """What lies between two parallel lines, or outside of them; or each side of it goes."""
    what, turn = between(rng, 0, 4), turner(rng)

    def draw(rng):
        h, w = between(rng, 8, 12), between(rng, 5, 9)
        line, *own = colors(rng, 4)
        g = picture(rng, h, w, own, 0.5)
        a = between(rng, 1, h - 5)
        b = between(rng, a + 2, min(h - 2, a + 5))
        g[[a, b]] = line
        mid = g[a + 1 : b]
        empty = np.zeros_like(g)
        empty[a : b + 1] = g[a : b + 1]
        flipped = np.concatenate([g[: a + 1], mid[:, ::-1], g[b:]])
        out = (mid, np.concatenate([g[:a], g[b + 1 :]]), mid[::-1], empty, flipped)[what]
        return turn(g), turn(out)

    return draw


def lines_taken_out(rng):
    """Full lines of one colour go; what they cut closes up, or each row of lines becomes another."""
    what, c, both = between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.6)

    def draw(rng):
        line, *own = others(rng, 4, c)
        heights = [between(rng, 1, 4) for _ in range(between(rng, 2, 3))]
        widths = [between(rng, 1, 4) for _ in range(between(rng, 2, 3))] if both else [between(rng, 4, 8)]
        blocks = [[picture(rng, a, b, own, 0.6) for b in widths] for a in heights]
        grid = joined(blocks, line)
        if what == 0:
            return grid, joined(blocks)
        if what == 1:
            return grid, joined(blocks[::-1], line)
        if what == 2:
            return grid, joined([[np.where(x, line, 0) for x in row] for row in blocks], c)
        return grid, joined([[x[:, ::-1] for x in row] for row in blocks], line)

    return draw


def legend_map(rng):
    """Pairs of colours at the side tell what becomes what in the rest."""
    turn, swaps, kept, is_cells = turner(rng), chance(rng, 0.3), chance(rng, 0.5), chance(rng, 0.5)

    def draw(rng):
        n = between(rng, 2, 3)
        line, free, *own = colors(rng, 2 + 2 * n)
        a, b = own[:n], own[n:]
        h, w = between(rng, 2 * n, 8) + (not is_cells), between(rng, 4, 8) + 2 * (not is_cells)
        palette = [free, *a, *(b if swaps else ())]
        main = picture(rng, h, w, palette, 0.6)
        if not is_cells:
            main = np.zeros((h, w), np.uint8)
            if not scatter(rng, main, [(blob(rng, between(rng, 1, 3), between(rng, 1, 3)), x) for x in palette]):
                return None
        legend = np.zeros((h, 2), np.uint8)
        legend[0 : 2 * n : 2] = np.stack([a, b], 1)
        code = np.arange(10, dtype=np.uint8)
        code[a] = b
        if swaps:
            code[b] = a
        new = code[main]
        return turn(run([legend, main], 1, line)), turn(run([legend, new], 1, line) if kept else new)

    return draw


def color_cycle(rng):
    """The colours of a row at the edge: each cell of the rest takes the colour that follows its own there."""
    turn, step, kept, alone = turner(rng), pick(rng, (1, -1)), chance(rng, 0.5), chance(rng, 0.5)

    def draw(rng):
        n = between(rng, 3, 4)
        own = colors(rng, n)
        h, w = between(rng, 4, 7), between(rng, n + 1, 8)
        main = picture(rng, h, w, own, 0.6)
        if alone:
            main = full(rng, (h + 1) // 2, (w + 1) // 2, [0, *own]).repeat(2, 0).repeat(2, 1)[:h, :w]
        code = np.arange(10, dtype=np.uint8)
        code[own] = np.roll(own, -step)
        key = np.zeros((2, w), np.uint8)
        key[0, :n] = own
        new = code[main]
        return turn(np.concatenate([key, main])), turn(np.concatenate([key, new]) if kept else new)

    return draw


def shape_legend(rng):
    """A legend shows shapes in colours; equal shapes of the rest take these."""
    turn, kept, is_turned = turner(rng), chance(rng, 0.5), chance(rng, 0.3)

    def draw(rng):
        n = between(rng, 2, 3)
        line, gray, *own = colors(rng, 2 + n)
        shapes = [blob(rng, 3, 3, between(rng, 4, 7)) for _ in range(n)]
        if not different([np.rot90(m, t) for m in shapes for t in range(4 if is_turned else 1)]) and not is_turned:
            return None
        if is_turned and len({int(m.sum()) for m in shapes}) < n:
            return None
        h, w = n, between(rng, 2, 3)
        a, b = [], []
        for _ in range(h):
            row = [None if chance(rng, 0.15) else between(rng, 0, n - 1) for _ in range(w)]
            turns = [between(rng, 0, 3) * is_turned for _ in row]
            masks = [np.rot90(shapes[i or 0], t) & (i is not None) for i, t in zip(row, turns, strict=True)]
            a.append([painted(m, gray) for m in masks])
            b.append([painted(m, 0 if i is None else own[i]) for m, i in zip(masks, row, strict=True)])
        legend = joined([[painted(m, x)] for m, x in zip(shapes, own, strict=True)], 0)
        a, b = joined(a, 0), joined(b, 0)
        return turn(run([legend, a], 1, line)), turn(run([legend, b], 1, line) if kept else b)

    return draw


def cell_patterns(rng):
    """Every painted cell becomes one small pattern in its colour, every empty one another pattern or nothing."""
    k, kind, c = between(rng, 2, 3), between(rng, 0, 3), between(rng, 1, 9)
    on, off = bits(rng, k, k, 0.6), bits(rng, k, k, 0.4)
    if not on.any() or np.array_equal(on, off) or on.all():
        return None

    def draw(rng):
        h, w = between(rng, 2, 4), between(rng, 2, 4)
        own = others(rng, 3, c)
        g = picture(rng, h, w, own, 0.55)
        order = ranked(g)
        if order is None:
            return None
        rows = []
        for row in g:
            made = []
            for x in row:
                if kind == 3:
                    made.append(painted(on if x == order[0] else off if x == order[-1] else on & ~on, x))
                else:
                    made.append(painted(on, x) if x else painted(off, c) if kind == 1 else painted(on & False, 0))
                    if x and kind == 2:
                        made[-1] = np.where(on, x, c)
            rows.append(made)
        return g, joined(rows)

    return draw


def sequence_developed(rng):
    """A row is developed downwards: each next row shifted, cut, longer, turned about or its inverse."""
    kind, step, turn = between(rng, 0, 6), pick(rng, (1, 1, -1, 2)), turner(rng)
    count, fixed = between(rng, 0, 2), between(rng, 4, 8)

    def draw(rng):
        w = between(rng, 4, 8)
        own = colors(rng, 3)
        row = picture(rng, 1, w, own, 0.5)[0]
        if kind in (2, 3):
            row = painted(np.arange(w) < between(rng, 1, w - 1) if kind == 2 else np.ones(w), own[0])
        if kind == 3 and chance(rng, 0.7):
            row[::2] = own[1]
        if not row.any() or kind in (4, 5) and np.array_equal(row, row[::-1]):
            return None
        h = (w, fixed, max(2, int((row != 0).sum())))[count if kind != 2 else 1]
        out = np.zeros((h, w), np.uint8)
        for i in range(h):
            if kind == 0:
                out[i] = np.roll(row, i * step)
            elif kind == 1:
                n = i * step
                out[i, max(0, n) : max(0, min(w, w + n))] = row[max(0, -n) : max(0, w - max(0, n))]
            elif kind == 2:
                out[i, : min(w, int((row != 0).sum()) + i)] = own[0]
            elif kind == 3:
                out[i, : max(0, w - i)] = row[: max(0, w - i)]
            elif kind == 4:
                out[i] = row[:: -1 if i % 2 else 1]
            elif kind == 5:
                out[i] = row if i % 3 == 0 else row[::-1] if i % 3 == 1 else 0
            else:
                out[i] = row if i % 2 == 0 else painted(row == 0, row[row != 0][0])
        return turn(row[None]), turn(out)

    return draw


def spiral(n):
    """The cells of a square from its corner inwards."""
    at, order = np.arange(n * n).reshape(n, n), []
    while at.size:
        order += at[0].tolist()
        at = np.rot90(at[1:])
    return np.array(order)


def reshaped(rng):
    """A line is laid into a grid by rows, as a snake, by columns or as a spiral; or the grid is read out so."""
    kind, turn, n, is_back = between(rng, 0, 4), turner(rng), between(rng, 3, 5), chance(rng, 0.4)

    def draw(rng):
        h = n if kind == 4 else between(rng, 2, 5)
        g = np.zeros(h * n, np.uint8)
        line = full(rng, 1, h * n, colors(rng, between(rng, 2, 5)))[0]
        if kind == 4:
            g[spiral(n)] = line
            g = g.reshape(n, n)
        else:
            g = line.reshape(h, n).copy()
            if kind in (1, 3):
                g[1::2] = g[1::2, ::-1]
            g = g.T if kind > 1 else g
        return (turn(g), turn(line[None])) if is_back else (turn(line[None]), turn(g))

    return draw


def rows_slid(rng):
    """Every row is shifted by its number, its count, or so that all begin on an edge, a diagonal or the middle."""
    kind, turn, step = between(rng, 0, 5), turner(rng), pick(rng, (1, -1, 2))

    def draw(rng):
        h, w = between(rng, 3, 7), between(rng, 6, 9)
        own = colors(rng, 3)
        g, out = np.zeros((2, h, w), np.uint8)
        for i in range(h):
            n = between(rng, 1, 4) if kind != 5 else pick(rng, (2, 4) if w % 2 == 0 else (1, 3))
            if kind == 0:
                g[i] = picture(rng, 1, w, own, 0.5)
                out[i] = np.roll(g[i], i * step)
                continue
            at = between(rng, 0, w - n)
            word = full(rng, 1, n, own)[0]
            g[i, at : at + n] = word
            to = (0, (at + n) % w, 0, w - n, i, (w - n) // 2)[kind]
            if kind == 1:
                out[i] = np.roll(g[i], n)
                continue
            if to + n > w:
                return None
            out[i, to : to + n] = word
        return turn(g), turn(out)

    return draw


def longest(row):
    best = n = 0
    for a, b in zip(row, [None, *row[:-1]], strict=True):
        n = 0 if a == 0 else n + 1 if a == b else 1
        best = max(best, n)
    return best


def rows_by_key(rng):
    """Rows are sorted by where they begin or end, their colours, their longest run; or the first so is given."""
    ends = (lambda r: int(np.flatnonzero(r)[0]), lambda r: int(np.flatnonzero(r)[-1]))
    key, turn = pick(rng, (*ends, lambda r: len(np.unique(r[r != 0])), longest)), turner(rng)
    is_falling, what = chance(rng, 0.5), between(rng, 0, 2)

    def draw(rng):
        h, w = between(rng, 3, 5), between(rng, 6, 8)
        rows = {}
        for _ in range(12 * h):
            own = colors(rng, between(rng, 1, 4))
            row = picture(rng, 1, w, own, rng.uniform(0.2, 0.9))[0]
            if row.any() and key(row) not in rows and len(rows) < h:
                rows[key(row)] = row
        values = list(rows)
        if len(values) < 3 or values == sorted(values, reverse=is_falling):
            return None
        order = sorted(values, reverse=is_falling)
        g = np.stack(list(rows.values()))
        if what == 2:
            out = np.where(np.array(values)[:, None] == order[0], g, 0)
        else:
            out = np.stack([rows[v] for v in order]) if what == 0 else rows[order[0]][None]
        return turn(g), turn(out)

    return draw


def bar_charts(rng):
    """Bars on one edge are sorted, hung, capped, completed, shortened, or told apart by length."""
    kind, turn, new, is_own = between(rng, 0, 10), turner(rng), colors(rng, 3), chance(rng, 0.4)

    def draw(rng):
        n, h = between(rng, 3, 5), between(rng, 6, 8)
        own = others(rng, 5, *new)
        tall = rng.permutation(np.arange(1, h))[:n]
        gap = 1 if is_own else between(rng, 1, 2)
        if (np.diff(tall) > 0).all() or (np.diff(tall) < 0).all():
            return None

        def chart(lengths, tops=None):
            g = np.zeros((n * gap - gap + 1, h), np.uint8)
            for i, t in enumerate(lengths):
                g[i * gap, :t] = own[i if is_own else 0]
            return g

        g = chart(tall)
        out, rank = g.copy(), np.argsort(np.argsort(-tall))
        line = np.arange(n) * gap
        if kind in (0, 1):
            order = np.argsort(tall)[:: 1 if kind else -1]
            out = np.zeros_like(g)
            out[line] = g[line][order]
        elif kind == 2:
            out[line[1::2]] = g[line[1::2], ::-1]
        elif kind == 3:
            for i, t in zip(line, tall, strict=True):
                out[i, t:] = new[0]
        elif kind in (4, 5):
            i = line[(rank == (0 if kind == 4 else n - 1))]
            out[i] = np.where(g[i] != 0, new[0], 0)
        elif kind == 6:
            for i, t in zip(line, tall, strict=True):
                out[i, t - 1] = new[0]
        elif kind == 7:
            out = chart(tall - tall.min())
        elif kind == 8:
            for i, t in zip(line, tall, strict=True):
                out[i, :t] = new[t % 2]
        elif kind == 9:
            for i, k in zip(line, rank, strict=True):
                out[i] = np.where(g[i] != 0, new[min(k, 2)], 0)
        else:
            out[line] = g[line] if gap > 1 else g[line, ::-1]
            if gap > 1:
                for i, t, u in zip(line, tall, tall[1:], strict=False):
                    out[i + 1, : min(t, u)] = new[0]
        return turn(g), turn(out)

    return draw


def bar_sums(rng):
    """Two bars in each row, on either side of a line: their sum, difference, the longer or shorter, or which it is."""
    kind, turn, c, new = between(rng, 0, 4), turner(rng), between(rng, 1, 9), colors(rng, 3)
    is_facing = chance(rng, 0.4)

    def draw(rng):
        h, w = between(rng, 2, 5), between(rng, 3, 6)
        line, x, y = others(rng, 3, c, *new[:2])
        a, b = rng.integers(0 if kind < 2 else 1, w + 1, (2, h))
        at = np.arange(w)
        left, right = painted(at < a[:, None], x), painted(at < b[:, None], y)
        grid = run([left, right[:, ::-1] if is_facing else right], 1, line)
        if kind == 4:
            out = np.where(a > b, new[0], np.where(a < b, new[1], new[2]))[:, None]
        else:
            n = (a + b, abs(a - b), np.maximum(a, b), np.minimum(a, b))[kind]
            out = painted(np.arange(2 * w if kind == 0 else w) < n[:, None], c)
        return turn(grid), turn(out.astype(np.uint8))

    return draw


def stripes_listed(rng):
    """Thick stripes with noise: their colours in order, or the picture without noise."""
    turn, kind = turner(rng), between(rng, 0, 3)

    def draw(rng):
        n, w = between(rng, 2, 5), between(rng, 5, 9)
        own = colors(rng, n)
        tall = [between(rng, 2, 4) for _ in range(n)]
        clean = np.repeat(np.array(own, np.uint8), tall)[:, None].repeat(w, 1)
        g = np.where(bits(rng, *clean.shape, 0.1), pick(rng, (0, between(rng, 1, 9))), clean)
        if len(g) > 14:
            return None
        listed = np.array(own, np.uint8)[:, None]
        return turn(g), turn((listed, clean, listed.repeat(n, 1), listed[::-1])[kind])

    return draw


def completed(grid, palette, block):
    """Fills cells that only one colour fits, as long as there are any; None if some are left."""
    g, (bh, bw) = grid.copy(), block
    while (g == 0).any():
        found = False
        for r, c in np.argwhere(g == 0):
            r0, c0 = r - r % bh, c - c % bw
            free = set(palette) - set(g[r].tolist()) - set(g[:, c].tolist())
            free -= set(g[r0 : r0 + bh, c0 : c0 + bw].ravel().tolist()) if bh > 1 else set()
            if len(free) == 1:
                g[r, c], found = free.pop(), True
        if not found:
            return None
    return g


def latin_square(rng):
    """Every colour once in each row and column: the holes are filled, or only the fillings given."""
    what, turn = pick(rng, (0, 0, 1, 2)), turner(rng)
    low, high = pick(rng, ((3, 5), (4, 6), (4, 4), (5, 5)))

    def draw(rng):
        n = between(rng, low, high)
        own = np.array(colors(rng, n), np.uint8)
        square = own[(np.arange(n)[:, None] + np.arange(n)) % n][rng.permutation(n)][:, rng.permutation(n)]
        g = square.copy()
        g.ravel()[rng.permutation(n * n)[: between(rng, n, n * n // 2)]] = 0
        if len(np.unique(g[g != 0])) < n or completed(g, own.tolist(), (1, 1)) is None:
            return None
        out = (square, np.where(g == 0, square, 0), np.kron(square, np.ones((2, 2), np.uint8)))[what]
        return turn(g), turn(out)

    return draw


def sudoku(rng):
    """Every colour once in each row, column and block, with lines between the blocks or not."""
    (bh, bw), lined, turn = pick(rng, ((2, 2), (2, 2), (2, 3))), chance(rng, 0.7), turner(rng)
    n = bh * bw

    def draw(rng):
        line, *own = colors(rng, n + 1)
        r, c = np.indices((n, n))
        whole = np.array(own, np.uint8)[((r % bh) * bw + r // bh + c) % n]
        order = np.concatenate([i * bh + rng.permutation(bh) for i in rng.permutation(n // bh)])
        across = np.concatenate([i * bw + rng.permutation(bw) for i in rng.permutation(n // bw)])
        whole = whole[order][:, across]
        g = whole.copy()
        g.ravel()[rng.permutation(n * n)[: between(rng, n, n * n // 2)]] = 0
        if len(np.unique(g[g != 0])) < n or completed(g, own, (bh, bw)) is None:
            return None

        def shown(g):
            blocks = [[g[i : i + bh, j : j + bw] for j in range(0, n, bw)] for i in range(0, n, bh)]
            return joined(blocks, line if lined else None)

        return turn(shown(g)), turn(shown(whole))

    return draw


def exploded(rng):
    """The pieces of a picture lie apart: they are put together, perhaps crosswise."""
    order = pick(rng, ((0, 1, 2, 3), (0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2), (2, 3, 0, 1)))
    kind, turn, in_place = between(rng, 0, 2), turner(rng), chance(rng, 0.3)

    def draw(rng):
        a, b = between(rng, 1, 3), between(rng, 2, 3)
        own = colors(rng, between(rng, 2, 4))
        if kind == 2:
            strips = [full(rng, between(rng, 1, 3), 2 * b, own) for _ in range(3)]
            gaps = [np.zeros((between(rng, 1, 3), 2 * b), np.uint8) for _ in range(2)]
            whole = np.concatenate([strips[0], gaps[0], strips[1], gaps[1], strips[2]])
            if order[0] % 3:
                strips = [s[:, ::-1] for s in strips]
            return turn(whole), turn(np.concatenate(strips[:: -1 if order[0] == 3 else 1]))
        quarters = [full(rng, a, b, own if kind else own[i : i + 1] or own[:1]) for i in range(4)]
        h, w = 2 * a + between(rng, 1, 5), 2 * b + between(rng, 1, 5)
        if in_place:
            h, w = h + h % 2, w + w % 2
        g = np.zeros((h, w), np.uint8)
        for i, q in enumerate(quarters):
            g[(h - a) * (i // 2) : (h - a) * (i // 2) + a, (w - b) * (i % 2) : (w - b) * (i % 2) + b] = q
        out = joined(rows_of([quarters[i] for i in order], 2))
        if in_place:
            view = np.zeros_like(g)
            view[(h - 2 * a) // 2 : (h + 2 * a) // 2, (w - 2 * b) // 2 : (w + 2 * b) // 2] = out
            out = view
        return g, out

    return draw


IMAGES = {
    "both": (np.fliplr, np.flipud, lambda g: g[::-1, ::-1]),
    "across": (np.fliplr,),
    "down": (np.flipud,),
    "turn": (lambda g: np.rot90(g), lambda g: np.rot90(g, 2), lambda g: np.rot90(g, 3)),
    "half": (lambda g: g[::-1, ::-1],),
    "diagonal": (np.transpose,),
}


def covered(rng):
    """A symmetric picture with a covered rectangle: the picture, or what is under the cover."""
    images, what, is_zero = IMAGES[pick(rng, list(IMAGES))], between(rng, 0, 1), chance(rng, 0.4)

    def draw(rng):
        n, (cover, *own) = between(rng, 6, 11), colors(rng, 4)
        g = full(rng, n, n, own) if chance(rng, 0.5) else full(rng, (n + 1) // 2, n, own).repeat(2, 0)[:n]
        r, k = np.indices((n, n))
        key = np.stack([r * n + k, *(f(r * n + k) for f in images)]).min(0)
        g = g.ravel()[key.ravel()].reshape(n, n)
        h, w = between(rng, 2, n // 2), between(rng, 2, n // 2)
        top, left = between(rng, 0, n - h), between(rng, 0, n - w)
        hidden = np.zeros((n, n), bool)
        hidden[top : top + h, left : left + w] = True
        if np.logical_and.reduce([hidden, *(f(hidden) for f in images)]).any():
            return None
        shown = np.where(hidden, 0 if is_zero else cover, g)
        return shown, g[top : top + h, left : left + w] if what == 1 else g

    return draw


def mosaic(rng):
    """The tile in drawn orientations, one for each place of an arrangement."""
    h, w = pick(rng, ((2, 2), (2, 2), (2, 3), (1, 3), (3, 3), (3, 2), (1, 4)))
    is_square, blanks, line = chance(rng, 0.5), chance(rng, 0.25), pick(rng, (None, None, None, 0, between(rng, 1, 9)))
    ways = [
        (between(rng, 0, 3) if is_square else 2 * between(rng, 0, 1), chance(rng, 0.5), blanks and chance(rng, 0.3))
        for _ in range(h * w)
    ]
    ways[0] = (*ways[0][:2], False)

    def draw(rng):
        a = between(rng, 2, 4 if h * w < 6 else 3)
        b = a if is_square else between(rng, 2, 4)
        g = picture(rng, a, b, others(rng, between(rng, 1, 3), line), 0.65)
        if not g.any() or is_symmetric(g):
            return None
        blocks = [np.rot90(g[:, ::-1] if flip else g, t) * (not empty) for t, flip, empty in ways]
        return g, joined(rows_of(blocks, w), line)

    return draw


def tiles_recolored(rng):
    """The tile is repeated; some copies, by their place, are recoloured, inverted or empty."""
    h, w, c = between(rng, 1, 3), between(rng, 2, 4), between(rng, 1, 9)
    what, where = between(rng, 0, 3), between(rng, 0, 4)

    def draw(rng):
        a, b = between(rng, 2, 3), between(rng, 2, 3)
        own = others(rng, 2, c)
        g = picture(rng, a, b, own[: between(rng, 1, 2)], 0.6)
        if not g.any() or (g != 0).all():
            return None
        new = (np.where(g != 0, c, 0), painted(g == 0, g[g != 0][0]), g * 0, np.where(g == 0, c, g))[what]
        rows = []
        for i in range(h):
            rows.append([])
            for j in range(w):
                is_corner = i in (0, h - 1) and j in (0, w - 1)
                is_other = ((i + j) % 2, j % 2, i % 2 if h > 1 else j % 2, i == j, is_corner)[where]
                rows[-1].append(new if is_other else g)
        return g, joined(rows)

    return draw


def rings(rng):
    """Rings within one another: their colours in reverse, moved on inwards or outwards, or listed."""
    kind, is_thick, turn = between(rng, 0, 5), chance(rng, 0.4), turner(rng)

    def draw(rng):
        n = between(rng, 3, 5)
        own = colors(rng, n)
        tall = [between(rng, 1, 2) if is_thick else 1 for _ in range(n)]
        inner = between(rng, 1, 3), between(rng, 1, 3)
        if inner[0] + 2 * sum(tall[1:]) > 14 or inner[1] + 2 * sum(tall[1:]) > 14:
            return None

        def drawn(own):
            g = np.full(inner, own[0], np.uint8)
            for x, t in zip(own[1:], tall[1:], strict=True):
                g = np.pad(g, t, constant_values=x)
            return g

        g = drawn(own)
        if kind == 3:
            return g, turn(np.array([own], np.uint8))
        if kind == 4:
            return g, g[tall[-1] : -tall[-1], tall[-1] : -tall[-1]]
        if kind == 5:
            out = np.full((1, 1), own[0], np.uint8)
            for x in own[1:]:
                out = np.pad(out, ((0, 1), (0, 1)), constant_values=x)
            return g, turn(out)
        return g, drawn((own[::-1], own[1:] + own[:1], own[-1:] + own[:-1])[kind])

    return draw


def frames_by_count(rng):
    """Frames around the picture in its colours, in the order of their counts; or in the rarest or commonest."""
    kind, thick = between(rng, 0, 4), between(rng, 1, 2)

    def draw(rng):
        g = picture(rng, between(rng, 3, 5), between(rng, 3, 5), colors(rng, between(rng, 2, 3)), 0.7)
        order = ranked(g)
        if order is None or len(order) < 2:
            return None
        out = g
        for x in (order, order[::-1], order[:1] * thick, order[-1:] * thick, [order[0], order[-1]])[kind]:
            out = np.pad(out, 1, constant_values=x)
        return g, out

    return draw


def colors_ranked(rng):
    """Colours by how many cells they have: as a list, nested squares, a stair, or in stripes."""
    kind, is_falling, turn, is_parts = between(rng, 0, 3), chance(rng, 0.5), turner(rng), chance(rng, 0.4)

    def draw(rng):
        n = between(rng, 2, 4)
        own = colors(rng, n)
        if is_parts:
            g = blank(rng, 8, 11)
            if not scatter(rng, g, [(blob(rng, between(rng, 1, 3), between(rng, 1, 3)), x) for x in own]):
                return None
        else:
            g = picture(rng, between(rng, 4, 8), between(rng, 4, 8), own, 0.4)
        order = ranked(g)
        if order is None or len(order) < 2:
            return None
        order = np.array(order if is_falling else order[::-1], np.uint8)
        n = len(order)
        at = np.indices((2 * n - 1, 2 * n - 1))
        ring = n - 1 - np.abs(at - (n - 1)).max(0)
        stair = np.where(np.tri(n, dtype=bool), order[:, None], 0)
        return g, (turn(order[None]), order[ring], turn(stair), turn(order[:, None].repeat(3, 1)))[kind]

    return draw


def diagonals(rng):
    """The diagonal, or both, or what is on one side of it: as a line, alone in its place, or the rest without."""
    kind, turn, c = between(rng, 0, 7), turner(rng), between(rng, 1, 9)

    def draw(rng):
        n = between(rng, 3, 8)
        own = others(rng, 4, c)
        g = full(rng, n, n, own)
        d = np.eye(n, dtype=bool)
        x = d | d[:, ::-1]
        if kind == 5:
            return turn(g[:1]), turn(np.where(d, g[:1], 0))
        if kind == 6:
            lower = np.tri(n, k=-1, dtype=bool)
            return turn(g), turn(np.where(lower, g.T, g))
        kept = (d, d, x, ~d, np.tri(n, dtype=bool), d, d, x)[kind]
        return turn(g), turn(g[d][None] if kind == 0 else np.where(x, c, g) if kind == 7 else np.where(kept, g, 0))

    return draw


def folded(rng):
    """The picture is folded along its middle: what comes on what is marked, or one side lies on top."""
    kind, turn, c, line, both = between(rng, 0, 3), turner(rng), between(rng, 1, 9), chance(rng, 0.5), chance(rng, 0.3)

    def fold(a, b, c):
        over = (a != 0) & (b != 0)
        return np.where(over, (c, a, b, 0)[kind], a | b)

    def draw(rng):
        h, w = between(rng, 3, 7), between(rng, 2, 5)
        mid, *own = others(rng, 4, c)
        a, b = (picture(rng, h, w, own, 0.45) for _ in range(2))
        out = fold(a, b, c)
        if both and h % 2 == 0 and kind in (1, 2):
            out = fold(out[: h // 2], out[h // 2 :][::-1], c)
        elif both and kind in (1, 2):
            return None
        return turn(run([a, b[:, ::-1]], 1, mid if line else None)), turn(out.astype(np.uint8))

    return draw


def unfolded(rng):
    """The picture and its mirror images share an edge, which may be painted."""
    ways, c, kind = pick(rng, ((0,), (1,), (0, 1))), between(rng, 1, 9), between(rng, 0, 2)
    before = chance(rng, 0.5)

    def draw(rng):
        g = picture(rng, between(rng, 3, 5), between(rng, 3, 5), others(rng, 3, c), 0.55)
        out = g
        for axis in ways:
            other = np.flip(out, axis)
            x, y = (other, out) if before else (out, other)
            cut = y[1:] if axis == 0 else y[:, 1:]
            n = x.shape[axis]
            if kind == 1:
                out = run([x, y], axis, c)
                continue
            out = np.concatenate([x, cut], axis)
            if kind == 2:
                at = (n - 1, slice(None)) if axis == 0 else (slice(None), n - 1)
                out[at] = np.where(out[at] != 0, c, 0)
        return g, out

    return draw


def blocks_moved(rng):
    """The panels change places as wholes, or each is turned in its place."""
    kind, lined = between(rng, 0, 8), chance(rng, 0.8)
    h, w = pick(rng, ((2, 2), (3, 3))) if kind < 3 else pick(rng, ((2, 2), (2, 3), (3, 3), (1, 3), (3, 2)))

    def draw(rng):
        k = between(rng, 2, 3)
        line, *own = colors(rng, 4)
        at = np.arange(h * w).reshape(h, w)
        blocks = [picture(rng, k, k, own[: between(rng, 1, 3)], 0.55) for _ in range(h * w)]
        turned = (lambda g: np.rot90(g), np.fliplr, np.flipud, np.transpose)
        order = (at.T, np.rot90(at), np.rot90(at, -1), at[::-1, ::-1], at[:, ::-1])[kind] if kind < 5 else at
        new = blocks if kind < 5 else [turned[kind - 5](b) for b in blocks]
        line = line if lined else 0
        return joined(rows_of(blocks, w), line), joined(rows_of([new[i] for i in order.ravel()], w), line)

    return draw


def unstretched(rng):
    """Rows and columns have come in several copies: the picture with one of each, or with two or three."""
    k, way = between(rng, 1, 2), turner(rng)
    bg = chance(rng, 0.5)

    def draw(rng):
        h, w = between(rng, 2, 4), between(rng, 2, 4)
        g = full(rng, h, w, [*([0] if bg else ()), *colors(rng, 3)])
        if any((x[1:] == x[:-1]).all(1).any() for x in (g, g.T)):
            return None
        wide = g.repeat(rng.integers(1, 5, h), 0).repeat(rng.integers(1, 5, w), 1)
        return wide, way(g.repeat(k, 0).repeat(k, 1))

    return draw


def halves_differ(rng):
    """Two panels are equal, mirrored or turned but for some cells: these are marked, kept, or counted."""
    kind, turn, c = between(rng, 0, 4), turner(rng), between(rng, 1, 9)
    way = pick(rng, (same, np.fliplr, lambda g: g[::-1, ::-1]))

    def draw(rng):
        h, w, n = between(rng, 3, 6), between(rng, 3, 5), between(rng, 1, 5)
        line, *own = others(rng, 4, c)
        a = picture(rng, h, w, own, 0.7)
        b, at = a.copy(), rng.permutation(h * w)[:n]
        for i in at:
            b.ravel()[i] = pick(rng, [x for x in (0, *own) if x != a.ravel()[i]])
        differ = a != b
        out = (
            painted(differ, c), np.where(differ, c, a), np.where(differ, a, 0), np.full((1, n), c, np.uint8),
            run([np.where(differ, c, a), way(np.where(differ, c, b))], 1, line),
        )[kind]  # fmt: skip
        return turn(run([a, way(b)], 1, line)), turn(out)

    return draw


def votes(rng):
    """All panels hold one picture, each with some errors: what most of them show."""
    n, turn, what, lined = pick(rng, (3, 3, 5)), turner(rng), between(rng, 0, 2), chance(rng, 0.8)
    c = between(rng, 1, 9)

    def draw(rng):
        h, w = between(rng, 3, 4), between(rng, 3, 4)
        line, *own = others(rng, 4, c)
        clean = picture(rng, h, w, own, 0.8)
        stack = np.stack([clean] * n)
        order = rng.permutation(h * w)[: between(rng, n - 1, n + 3)]
        for i in order:
            for j in rng.permutation(n)[: between(rng, 1, n // 2)]:
                stack[j].ravel()[i] = pick(rng, [x for x in own if x != clean.ravel()[i]])
        line = line if lined else 0
        marked = [np.where(s != clean, c, s) for s in stack]
        return turn(run(list(stack), 1, line)), turn((clean, run([clean] * n, 1, line), run(marked, 1, line))[what])

    return draw


def cut(rng, low, high, most=3):
    return [between(rng, 1, most) for _ in range(between(rng, low, high))]


def uneven_panels(rng):
    """Lines cut the grid unevenly: the biggest, smallest, corner, edge, inner panels, or every other are painted."""
    kind, new, is_ground = between(rng, 0, 6), colors(rng, 2), chance(rng, 0.25)

    def draw(rng):
        heights, widths = cut(rng, 2, 4), cut(rng, 2, 4)
        if kind in (3, 4) and (len(heights) < 3 or len(widths) < 3):
            heights, widths = cut(rng, 3, 4), cut(rng, 3, 4)
        line, bg = others(rng, 2, *new)
        bg = bg if is_ground else 0
        h, w = len(heights), len(widths)
        area = np.outer(heights, widths)
        r, c = np.indices((h, w))
        is_r, is_c = (r == 0) | (r == h - 1), (c == 0) | (c == w - 1)
        big, small = only(area.ravel().tolist()), only(area.ravel().tolist(), False)
        if kind == 0 and big is None or kind == 1 and (small is None or big is None):
            return None
        code = np.full((h, w), bg)
        if kind == 0:
            code.ravel()[big] = new[0]
        elif kind == 1:
            code.ravel()[[big, small]] = new
        else:
            code[(is_r & is_c, is_r | is_c, ~(is_r | is_c), (r + c) % 2 == 0, area == 1)[kind - 2]] = new[0]
        if kind == 3:
            code[is_r & is_c] = new[1]
        return sized(np.full((h, w), bg), heights, widths, line), sized(code, heights, widths, line)

    return draw


def panels_counted(rng):
    """A grid with one cell, or two by two, for each panel that lines cut, in the ground's or the lines' colour."""
    kind, n, c = between(rng, 0, 3), pick(rng, (1, 1, 2)), between(rng, 1, 9)

    def draw(rng):
        heights, widths = cut(rng, 1, 4, 4), cut(rng, 2, 5, 4)
        line, bg = others(rng, 2, c)
        h, w = len(heights), len(widths)
        checks = np.where(np.indices((h, w)).sum(0) % 2, bg, c)
        small = (np.full((h, w), bg), np.full((h, w), line), checks, np.full((max(1, h - 1), w - 1), line))[kind]
        if kind == 3 and h == 1:
            return None
        return sized(np.full((h, w), bg), heights, widths, line), small.astype(np.uint8).repeat(n, 0).repeat(n, 1)

    return draw


def interleaved(rng):
    """Two panels mixed: rows or columns by turns, or cells as on a checkerboard; or taken apart."""
    kind, turn, is_back, lined = between(rng, 0, 3), turner(rng), chance(rng, 0.35), chance(rng, 0.7)

    def draw(rng):
        h, w = between(rng, 3, 6), between(rng, 3, 6)
        line, x, y, *own = colors(rng, 5)
        a, b = picture(rng, h, w, [x] if kind < 3 else own, 0.7), picture(rng, h, w, [y] if kind < 3 else own, 0.7)
        r, c = np.indices((h, w))
        if kind in (0, 1):
            out = np.stack([a, b], 1).reshape(2 * h, w)
        else:
            out = np.where((r + c) % 2 if kind == 2 else r % 2, b, a)
        grid = run([a, b], 1, line if lined else None)
        return (turn(out), turn(grid)) if is_back and kind < 2 and not lined else (turn(grid), turn(out))

    return draw


def toward_mark(rng):
    """A mark beside the picture tells on which side it is continued, mirrored or repeated."""
    kind, kept = between(rng, 0, 2), chance(rng, 0.4)

    def draw(rng):
        h, w = between(rng, 2, 5), between(rng, 2, 5)
        mark, *own = colors(rng, 4)
        g, turns = picture(rng, h, w, own, 0.7), between(rng, 0, 3)
        if not g.any() or not (g.any(0).all() and g.any(1).all()) or is_symmetric(g):
            return None
        side = np.zeros((h, 1), np.uint8)
        side[between(rng, 0, h - 1)] = mark
        grid = np.pad(np.concatenate([g, side], 1), ((1, 1), (1, 0)))
        other = (g, g[:, ::-1], np.where(g != 0, mark, 0))[kind]
        out = np.concatenate([g, other], 1)
        return np.rot90(grid, turns), np.rot90(np.pad(out, 1) if kept else out, turns)

    return draw


def falls_to_line(rng):
    """Cells on both sides of a full line fall towards it or away from it, take its colour, or draw a line to it."""
    kind, c = between(rng, 0, 3), between(rng, 1, 9)

    def piled(g, is_up, moves):
        out = np.where(moves, 0, g)
        for col, old, m in zip(out.T, g.T, moves.T, strict=True):
            kept = old[m]
            if len(kept):
                col[slice(0, len(kept)) if is_up else slice(len(col) - len(kept), None)] = kept
        return out

    def draw(rng):
        a, b, w, turns = between(rng, 2, 6), between(rng, 2, 6), between(rng, 5, 10), between(rng, 0, 1)
        line, *own = others(rng, 4, c)
        top, low = picture(rng, a, w, own, 0.25), picture(rng, b, w, own, 0.25)
        mid = np.full((1, w), line, np.uint8)
        x, y = piled(top, kind == 1, top != 0), piled(low, kind != 1, low != 0)
        if kind == 2:
            x, y = np.where(x != 0, line, 0), np.where(y != 0, line, 0)
        if kind == 3:
            trail = np.maximum.accumulate(top != 0), np.maximum.accumulate(low[::-1] != 0)[::-1]
            x, y = np.where(trail[0] & (top == 0), c, top), np.where(trail[1] & (low == 0), c, low)
        return np.rot90(np.concatenate([top, mid, low]), turns), np.rot90(np.concatenate([x, mid, y]), turns)

    return draw


def over_lines(rng):
    """The one painted panel is mirrored, copied or turned on over the lines into all others."""
    kind, c = between(rng, 0, 3), between(rng, 1, 9)
    h, w = pick(rng, ((1, 2), (1, 3), (2, 2), (2, 3), (2, 1), (3, 1)))

    def draw(rng):
        a, b = between(rng, 3, 5 if h * w < 5 else 4), between(rng, 3, 5 if h * w < 5 else 4)
        line, *own = others(rng, 4, c)
        g = picture(rng, a, b, own[: between(rng, 1, 3)], 0.45)
        r0, c0 = between(rng, 0, h - 1), between(rng, 0, w - 1)
        if (g != 0).sum() < 2 or is_symmetric(g):
            return None
        x, y = [], []
        for r in range(h):
            for k in range(w):
                i, j = abs(r - r0) % 2, abs(k - c0) % 2
                new = g[:: -1 if i else 1, :: -1 if j else 1]
                is_here = (r, k) == (r0, c0)
                if kind == 1:
                    new = g
                elif kind == 2:
                    new = g if is_here else np.where(new != 0, c, 0)
                elif kind == 3:
                    new = g if is_here else np.where(g != 0, 0, c)
                x.append(g if is_here else g * 0)
                y.append(new)
        return joined(rows_of(x, w), line), joined(rows_of(y, w), line)

    return draw


def stretched_by_count(rng):
    """Every row (or column) comes as often as it has cells, or has colours, or as its place says."""
    kind, turn = between(rng, 0, 2), turner(rng)

    def draw(rng):
        h, w = between(rng, 3, 5), between(rng, 3, 5)
        g = picture(rng, h, w, colors(rng, 3), 0.5)
        n = ((g != 0).sum(1), np.array([len(set(r[r != 0].tolist())) for r in g]), np.arange(1, h + 1))[kind]
        if n.sum() < 2 or n.sum() > 16 or (n == 1).all():
            return None
        return turn(g), turn(g.repeat(n, 0))

    return draw


def keyed_lengths(rng):
    """A colour and a bar in each row: bars take the colour, or a line has so many cells of each, or squares grow."""
    kind, turn, gap = between(rng, 0, 3), turner(rng), between(rng, 0, 1)

    def draw(rng):
        n = between(rng, 2, 4)
        gray, *own = colors(rng, n + 1)
        lengths = [between(rng, 1, 5) for _ in range(n)]
        h = n + gap * (n - 1)
        g, out = np.zeros((2, h, 7), np.uint8)
        for i, (x, t) in enumerate(zip(own, lengths, strict=True)):
            g[i * (1 + gap), 0], g[i * (1 + gap), 1 + gap : 1 + gap + t] = x, gray
            out[i * (1 + gap), 0], out[i * (1 + gap), 1 + gap : 1 + gap + t] = x, x
        line = np.repeat(np.array(own, np.uint8), lengths)
        if kind == 2:
            at = only(lengths)
            return None if at is None else (turn(g), np.full((lengths[at], lengths[at]), own[at], np.uint8))
        right = np.zeros_like(g)
        for i, (x, t) in enumerate(zip(own, lengths, strict=True)):
            right[i * (1 + gap), 7 - t :] = x
        return turn(g), turn((out, line[None], None, right)[kind])

    return draw


def tile_found(rng):
    """A small tile covers the grid: the tile, the grid continued, or its holes mended."""
    kind, turn, c = between(rng, 0, 3), turner(rng), between(rng, 1, 9)

    def draw(rng):
        p, q = between(rng, 1, 3), between(rng, 2, 4)
        tile = full(rng, p, q, others(rng, between(rng, 2, 4), c))
        if any((t == np.roll(t, d, 0)).all() for t in (tile, tile.T) for d in range(1, len(t))):
            return None
        h, w = between(rng, 2 * p + 1, 8), between(rng, 2 * q, 11)
        big = np.tile(tile, (12, 9))[:h, : w + 4]
        g = big[:, :w]
        if kind == 1:
            return turn(g), turn(big)
        if kind > 1:
            hole = np.zeros((h, w), bool)
            for _ in range(between(rng, 1, 2)):
                a, b = between(rng, 1, 3), between(rng, 1, 3)
                r, k = between(rng, 0, h - a), between(rng, 0, w - b)
                hole[r : r + a, k : k + b] = True
            seen = np.zeros((p, q), bool)
            for r, k in np.argwhere(~hole):
                seen[r % p, k % q] = True
            return (turn(np.where(hole, 0, g)), turn(g if kind == 2 else np.where(hole, g, 0))) if seen.all() else None
        return turn(g), turn(tile)

    return draw


def rows_continued(rng):
    """The beginning of a pattern stands in some rows: it is continued to the end, or each second time recoloured."""
    turn, kind, c, gap = turner(rng), between(rng, 0, 2), between(rng, 1, 9), between(rng, 0, 1)

    def draw(rng):
        n, w = between(rng, 1, 4), between(rng, 9, 13)
        own = others(rng, 4, c)
        g, out = np.zeros((2, n * (gap + 1) + between(rng, 0, 2), w), np.uint8)
        for i in range(n):
            p = between(rng, 1, 3)
            word = full(rng, 1, p, own)[0]
            if p > 1 and chance(rng, 0.4):
                word[-1] = 0
            if not word[0] or p > 1 and len(set(word.tolist())) < 2:
                return None
            row, t = np.tile(word, w)[:w], 2 * p if p > 1 else 2
            g[i * (gap + 1), :t] = row[:t]
            rest = np.where(np.arange(w) < t, row, np.where(row != 0, c, 0)) if kind == 1 else row
            out[i * (gap + 1)] = rest if kind < 2 else np.where(np.arange(w) < t, 0, row)
        return turn(g), turn(out)

    return draw


def lattice_mended(rng):
    """Lines of a lattice have gaps: these are closed, told by a colour, or the lattice alone is given without noise."""
    kind, c = between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        line, x = others(rng, 2, c)
        n, h, w = between(rng, 1, 3), between(rng, 6, 13), between(rng, 6, 13)
        r0, c0 = between(rng, 0, n), between(rng, 0, n)
        r, k = np.indices((h, w))
        on = (r % (n + 1) == r0) | (k % (n + 1) == c0)
        whole = painted(on, line)
        g = whole.copy()
        lost = on & bits(rng, h, w, 0.15)
        if (np.where(on, lost, False).sum() < 2) or h < 2 * n + 3 or w < 2 * n + 3:
            return None
        g[lost] = x if kind == 2 else 0
        spots = ~on & bits(rng, h, w, 0.15)
        g[spots] = x
        kept = np.where(spots, x, whole)
        return g, (kept, np.where(lost, c, np.where(spots, x, g)), whole, np.where(lost, c, whole))[kind]

    return draw


def next_panel(rng):
    """From panel to panel the object moves, grows or is turned: the empty panel is filled."""
    kind, what, turn, n = between(rng, 0, 3), chance(rng, 0.5), turner(rng), between(rng, 3, 4)

    def draw(rng):
        k = 5 if n == 4 else between(rng, 4, 5)
        line, x, y = colors(rng, 3)
        step = pick(rng, ((0, 1), (1, 0), (1, 1), (1, -1), (-1, 0), (0, -1)))
        m, start = blob(rng, *pick(rng, ((1, 2), (2, 1), (2, 2)))), (between(rng, 0, k - 1), between(rng, 0, k - 1))
        shape, blocks = painted(bits(rng, k - 1, k - 1, 0.4), x), []
        shape[0, : k - 2], grow = y, between(rng, 1, k - n + 1)
        for i in range(n):
            g = np.zeros((k, k), np.uint8)
            if kind == 0:
                r, c = start[0] + i * step[0], start[1] + i * step[1]
                if min(r, c) < 0 or r + m.shape[0] > k or c + m.shape[1] > k:
                    return None
                put(g, m, (r, c), x)
            elif kind == 1:
                g[start[0], : grow + i] = x
            elif kind == 2:
                g = np.rot90(shape, i)
            else:
                g[k - 1 - i :, : i + 1] = x if start[0] % 2 else y
                g[k - 1 - i, i] = x
            blocks.append(g)
        at = n - 1
        a = [b if i != at else b * 0 for i, b in enumerate(blocks)]
        return turn(run(a, 1, line)), turn(run(blocks, 1, line) if what else blocks[at])

    return draw


def panel_matrix(rng):
    """Rows of panels share a shape, columns a colour or an orientation: the empty panel is filled."""
    kind, what, turn, (h, w) = between(rng, 0, 2), chance(rng, 0.5), turner(rng), pick(rng, ((2, 2), (2, 3), (3, 3)))
    k = 3

    def draw(rng):
        line, *own = colors(rng, w + 1)
        shapes = [blob(rng, k, k) for _ in range(h)]
        if not different([np.rot90(m, t) for m in shapes for t in range(4)]):
            return None
        at = between(rng, 0, h * w - 1)
        blocks = []
        for m in shapes:
            for j in range(w):
                new = (m, np.rot90(m, j), (m, m[:, ::-1], m[::-1])[j])[kind]
                blocks.append(painted(new, own[j if kind != 1 else 0]))
        a = [b * 0 if i == at else b for i, b in enumerate(blocks)]
        a, b = joined(rows_of(a, w), line), joined(rows_of(blocks, w), line)
        return turn(a), turn(b if what else blocks[at])

    return draw


def tables(rng):
    """A row and a column of marks at two edges: the table between is filled where they agree, or both or either is."""
    kind, turn, c, gap = between(rng, 0, 5), turner(rng), between(rng, 1, 9), between(rng, 0, 1)

    def draw(rng):
        h, w = between(rng, 3, 7), between(rng, 3, 7)
        line, *own = others(rng, 4, c)
        top, left = picture(rng, 1, w, own, 0.6), picture(rng, h, 1, own, 0.6)
        a, b = top != 0, left != 0
        body = (
            np.where((top == left) & a, top, 0), np.where(a & b, c, 0), np.where(a | b, c, 0), np.where(a ^ b, c, 0),
            np.where(a & b, top, 0), np.where(a, top, left | top * 0),
        )[kind].astype(np.uint8)  # fmt: skip
        if not body.any():
            return None
        corner = np.zeros((1, 1), np.uint8)
        x, y = ([[corner, top], [left, g]] for g in (body * 0, body))
        return turn(joined(x, line if gap else None)), turn(joined(y, line if gap else None))

    return draw


def automaton(rng):
    """The first row gives all further ones: each cell from the three above it."""
    turn, h, c = turner(rng), between(rng, 4, 8), between(rng, 1, 9)
    kind, alternates = between(rng, 0, 6), chance(rng, 0.35)

    def draw(rng):
        w = between(rng, 6, 11)
        (x,) = others(rng, 1, c)
        row = bits(rng, 1, w, pick(rng, (0.15, 0.3, 0.5)))[0]
        if not row.any():
            return None
        rows = [row]
        for _ in range(h - 1):
            m = rows[-1]
            wide = np.pad(m, 1)
            a, b = wide[:-2], wide[2:]
            rows.append((a ^ b, a | b, a | m | b, a ^ m, m & (a | b), a | m, ~(a | m | b))[kind])
        out = painted(np.stack(rows), x)
        if not out[1].any():
            return None
        grid = np.zeros_like(out)
        grid[0] = out[0]
        if alternates:
            out[1::2] = np.where(out[1::2] != 0, c, 0)
        return turn(grid), turn(out)

    return draw


def binary_rows(rng):
    """Rows are binary numbers: the next numbers are written, or the sum of the two that stand there."""
    kind, turn, n, is_down = between(rng, 0, 2), turner(rng), between(rng, 3, 6), chance(rng, 0.3)

    def draw(rng):
        w = between(rng, 4, 7)
        line, x = colors(rng, 2)

        def written(values):
            return painted((np.array(values)[:, None] >> np.arange(w)[::-1]) & 1, x)

        if kind == 2:
            a, b = (between(rng, 1, 2 ** (w - 1) - 1) for _ in range(2))
            return turn(np.concatenate([written([a, b]), np.full((1, w), line)])), turn(written([a + b]))
        v = between(rng, 1, 2**w - n - 2) if w > 3 and 2**w > n + 4 else 1
        if is_down:
            v = max(v, n)
        values = [v + (-i if is_down else i) for i in range(n)]
        if kind == 1:
            grid = written(values)
            grid[1:] = 0
            return turn(grid), turn(written(values))
        return turn(written([v])), turn(written(values))

    return draw


def count_to_shape(rng):
    """The number of objects, colours or cells: the output is the first, second, third ... of fixed pictures."""
    kind, c, n = between(rng, 0, 2), between(rng, 1, 9), between(rng, 3, 5)
    k = between(rng, 2, 3)
    shapes, is_own = [], chance(rng, 0.3) and kind != 1
    while len(shapes) < n:
        m = bits(rng, k, k, 0.5)
        if m.any() and different([*shapes, m]):
            shapes.append(m)

    def draw(rng):
        i = between(rng, 1, n)
        own = colors(rng, 5)
        if kind == 0:
            g = pieces(rng, i, palette=own[:1] if is_own else None)
        elif kind == 1:
            g = blank(rng, 6, 10)
            count = i + between(rng, 0, 2)
            objects = [(blob(rng, between(rng, 1, 2), between(rng, 1, 2)), own[j % i]) for j in range(count)]
            g = g if scatter(rng, g, objects) else None
        else:
            g = blank(rng, 3, 6)
            g.ravel()[rng.permutation(g.size)[:i]] = own[0]
        return None if g is None else (g, painted(shapes[i - 1], own[0] if is_own else c))

    return draw


def count_to_size(rng):
    """The number of objects is the side of the output: a square, frame, diagonal, stair, checkerboard, cross."""
    kind, c, turn = between(rng, 0, 5), between(rng, 1, 9), turner(rng)
    size, is_own = between(rng, 1, 3), chance(rng, 0.5)

    def draw(rng):
        n = between(rng, 1, 6)
        own = colors(rng, 6)
        g = pieces(rng, n, palette=own[:1], size=size)
        if g is None:
            return None
        r, k = np.indices((n, n))
        m = (r >= 0, box(n, n, True), r == k, r >= k, (r + k) % 2 == 0, (r == k) | (r + k == n - 1))[kind]
        return g, turn(painted(m, own[0] if is_own else c))

    return draw


def twin_panels(rng):
    """Just two panels hold equal pictures, perhaps in other colours or mirrored: they are marked, kept or given."""
    kind, what, c, turn = between(rng, 0, 2), between(rng, 0, 2), between(rng, 1, 9), turner(rng)
    n, k = pick(rng, (4, 6)), 3

    def draw(rng):
        line, *own = others(rng, 4, c)
        masks = [blob(rng, k, k, between(rng, 4, 6)) for _ in range(n - 1)]
        if not different([f for m in masks for f in {x.tobytes(): x for x in (m, m[:, ::-1])}.values()]):
            return None
        twin = masks[0][:, ::-1] if kind == 2 else masks[0]
        if kind == 2 and is_symmetric(masks[0]):
            return None
        blocks = [painted(m, pick(rng, own) if kind else own[0]) for m in (*masks, twin)]
        order = rng.permutation(n)
        twins = [i in (0, n - 1) for i in order]
        blocks = [blocks[i] for i in order]
        if what == 2 and kind == 0:
            out = blocks[twins.index(True)]
        elif what:
            out = joined(rows_of([np.where(b != 0, c, 0) if t else b for b, t in zip(blocks, twins)], n // 2), line)
        else:
            out = joined(rows_of([b if t else b * 0 for b, t in zip(blocks, twins)], n // 2), line)
        return turn(joined(rows_of(blocks, n // 2), line)), turn(out)

    return draw


def projected(rng):
    """Shadows of the cells on an edge, or as bars of their counts, or the rows that have none."""
    kind, turn, c = between(rng, 0, 4), turner(rng), between(rng, 1, 9)

    def draw(rng):
        h, w = between(rng, 4, 9), between(rng, 4, 8)
        (x,) = others(rng, 1, c)
        m = bits(rng, h, w, pick(rng, (0.1, 0.2, 0.4)))
        if kind < 2:
            m[:, -1] = False
        if not m.any() or kind < 3 and m.any(1).all() or kind == 4 and only(m.sum(1).tolist()) is None:
            return None
        g, n = painted(m, x), m.sum(1)
        if kind == 0:
            out = g.copy()
            out[m.any(1), -1] = c
        elif kind == 1:
            out = np.where(m.any(1)[:, None] | m, np.where(m, x, c), 0)
        elif kind == 2:
            out = g.copy()
            out[~m.any(1)] = c
        elif kind == 3:
            out = painted(np.arange(w) < n[:, None], c)
        else:
            out = np.where((n == n.max())[:, None], np.where(m, x, c), g)
        return turn(g), turn(out.astype(np.uint8))

    return draw


def swapped_within(rng):
    """Every panel has two colours, which change places; or the ground and the marks do."""
    kind, lined = between(rng, 0, 2), chance(rng, 0.8)
    h, w = pick(rng, ((1, 2), (2, 2), (1, 3), (2, 3)))

    def draw(rng):
        k = between(rng, 3, 4)
        line, *palette = colors(rng, 8)
        a, b = [], []
        for _ in range(h * w):
            x, y = (int(v) for v in rng.choice(palette, 2, replace=False))
            m = blob(rng, k, k) if chance(rng, 0.5) else bits(rng, k, k)
            if m.all() or not m.any():
                return None
            g, new = np.where(m, x, y), np.where(m, y, x)
            if kind == 1:
                new = np.where(m, x, 0) if m.sum() * 2 < m.size else np.where(m, 0, y)
                if m.sum() * 2 == m.size:
                    return None
            if kind == 2:
                if m.sum() * 2 == m.size:
                    return None
                new = np.full((k, k), x if m.sum() * 2 > m.size else y)
            a.append(g.astype(np.uint8))
            b.append(new.astype(np.uint8))
        line = line if lined else 0
        return joined(rows_of(a, w), line), joined(rows_of(b, w), line)

    return draw


def keyed_panels(rng):
    """A colour stands beside every panel: the panel's picture, or its ground, takes it."""
    kind, turn, kept, k = between(rng, 0, 2), turner(rng), chance(rng, 0.5), between(rng, 3, 4)

    def draw(rng):
        n = between(rng, 2, 4 if k == 3 else 3)
        line, gray, *own = colors(rng, n + 2)
        masks = [blob(rng, k, k) for _ in range(n)]
        keys = [np.zeros((k, 1), np.uint8) for _ in range(n)]
        for g, x in zip(keys, own, strict=True):
            g[k // 2] = x
        a = [[key, painted(m, gray)] for key, m in zip(keys, masks, strict=True)]
        if any(m.all() for m in masks):
            return None
        pairs = zip(masks, own, strict=True)
        new = [[(painted(m, x), np.where(m, gray, x).astype(np.uint8), painted(~m, x))[kind]] for m, x in pairs]
        b = [[key, g[0]] for key, g in zip(keys, new, strict=True)] if kept else new
        return turn(joined(a, line)), turn(joined(b, line))

    return draw


def panel_at_mark(rng):
    """In a small key one cell is marked: the panel at the same place is given, kept or recoloured."""
    what, turn, (h, w), c = between(rng, 0, 3), turner(rng), pick(rng, ((2, 2), (2, 3), (3, 2))), between(rng, 1, 9)

    def draw(rng):
        k = between(rng, 3, 4) if h * w == 4 else 3
        line, mark, frame, *own = others(rng, 6, c)
        at = between(rng, 0, h * w - 1)
        blocks = [painted(blob(rng, k, k), pick(rng, own)) for _ in range(h * w)]
        main = joined(rows_of(blocks, w), line)
        key = np.zeros((len(main), w), np.uint8)
        key[:h] = frame
        key[at // w, at % w] = mark
        new = (blocks[at], np.where(blocks[at], mark, 0), np.where(blocks[at], mark, 0), blocks[at])[what]
        if what < 2:
            return turn(run([key, main], 1, 0)), turn(new)
        b = [new if i == at else g * (what == 2) for i, g in enumerate(blocks)]
        return turn(run([key, main], 1, 0)), turn(joined(rows_of(b, w), line))

    return draw


def corners_to_quarters(rng):
    """Four coloured marks around a picture: each quarter takes the colour of the nearest mark, or the farthest."""
    kept, kind = chance(rng, 0.5), between(rng, 0, 2)

    def draw(rng):
        n, m = 2 * between(rng, 1, 3), 2 * between(rng, 1, 3)
        gray, *own = colors(rng, 5)
        on = bits(rng, n, m, 0.6) if kind else box(n, m)
        if on.sum() < 3 or n * m < 8:
            return None
        marks = np.array(own, np.uint8).reshape(2, 2)
        quarter = (marks if kind < 2 else marks[::-1, ::-1]).repeat(n // 2, 0).repeat(m // 2, 1)
        a, b = (np.pad(np.where(on, g, 0), 2) for g in (np.full((n, m), gray), quarter))
        for g in (a, b):
            for i in (0, 1):
                for j in (0, 1):
                    g[-i, -j] = marks[i, j]
        return a, b if kept else b[2:-2, 2:-2]

    return draw


def nth_panel(rng):
    """A bar of so many cells tells which of the panels, counted from its end, is given, kept or recoloured."""
    what, turn, c, n = between(rng, 0, 2), turner(rng), between(rng, 1, 9), between(rng, 3, 4)

    def draw(rng):
        line, mark, *own = others(rng, 4, c)
        at = between(rng, 0, n - 1)
        blocks = [painted(blob(rng, 3, 3), pick(rng, own)) for _ in range(n)]
        main = run(blocks, 1, line)
        bar = np.zeros((2, main.shape[1]), np.uint8)
        bar[0, : at + 1] = mark
        new = blocks[at] if what < 2 else painted(blocks[at] != 0, c)
        out = new if what == 0 else run([new if i == at else b * (what == 2) for i, b in enumerate(blocks)], 1, line)
        return turn(np.concatenate([bar, main])), turn(out)

    return draw


def panel_that_fits(rng):
    """One other panel's shape fills what the first panel leaves empty: that shape, or the two put together."""
    what, turn, n, is_square = between(rng, 0, 2), turner(rng), 3, chance(rng, 0.4)

    def draw(rng):
        k = between(rng, 3, 4)
        line, x, *own = colors(rng, n + 2)
        masks = [blob(rng, k, k) for _ in range(n)]
        if not different(masks) or any(m.all() for m in masks):
            return None
        at = between(rng, 0, n - 1)
        first = painted(~masks[at], x)
        blocks = [first, *(painted(m, y) for m, y in zip(masks, own, strict=True))]
        out = (blocks[at + 1], first + blocks[at + 1], np.full((k, k), own[at], np.uint8))[what]
        return turn(joined(rows_of(blocks, 2 if is_square else n + 1), line)), turn(out)

    return draw


def bars_stacked(rng):
    """Bars that lie about are stacked by length, at one side or on their middle, apart or closed up."""
    kind, turn, is_falling, gap = between(rng, 0, 1), turner(rng), chance(rng, 0.5), chance(rng, 0.25)

    def draw(rng):
        n = between(rng, 2, 5)
        own, g = colors(rng, n), blank(rng, 9, 12)
        tall = rng.permutation(np.array((1, 3, 5, 7, 9) if kind else (1, 2, 3, 4, 5, 6)))[:n]
        if max(tall) > g.shape[1] or not scatter(rng, g, [(box(1, int(t)), x) for t, x in zip(tall, own, strict=True)]):
            return None
        out = np.zeros((n * (1 + gap) - gap, max(tall)), np.uint8)
        for i, j in enumerate(np.argsort(tall)[:: -1 if is_falling else 1]):
            left = (max(tall) - tall[j]) // 2 if kind else 0
            out[i * (1 + gap), left : left + tall[j]] = own[j]
        return turn(g), turn(out)

    return draw


def quarter_from_each(rng):
    """Of each of four panels one quarter, the one on its own corner or towards the middle, makes the output."""
    kind, lined = between(rng, 0, 2), chance(rng, 0.7)

    def draw(rng):
        a, b = between(rng, 1, 3), between(rng, 1, 3)
        line, *own = colors(rng, 5)
        blocks = [picture(rng, 2 * a, 2 * b, [x], 0.7) for x in own]
        rows = []
        for i, g in enumerate(blocks):
            r, k = divmod(i if kind == 0 else 3 - i, 2)
            r, k = (r, 1 - k) if kind == 2 else (r, k)
            rows.append(g[r * a : r * a + a, k * b : k * b + b])
        return joined(rows_of(blocks, 2), line if lined else None), joined(rows_of(rows, 2))

    return draw


def runs_as_bars(rng):
    """The runs of a line become bars, a stair or single cells, one after the other; or the longest becomes a square."""
    kind, turn, thick = between(rng, 0, 4), turner(rng), between(rng, 1, 2)

    def draw(rng):
        n = between(rng, 2, 5)
        runs = [(x, between(rng, 1, 5)) for x in colors(rng, n)]
        line = np.repeat([x for x, _ in runs], [t for _, t in runs]).astype(np.uint8)
        longest = only([t for _, t in runs])
        if len(line) > 18 or longest is None:
            return None
        bars = np.stack([np.arange(5) < t for _, t in runs]) * np.array([[x] for x, _ in runs])
        stair = np.stack([np.where(line == x, x, 0) for x, _ in runs])
        x, t = runs[longest]
        out = (bars[:, :t], stair, np.array([[x for x, _ in runs]]), np.full((t, t), x), bars[::-1, ::-1])[kind]
        return turn(line[None].repeat(thick, 0)), turn(out.astype(np.uint8))

    return draw


def gap_measured(rng):
    """Two walls stand apart: the gap between them is filled, given as a block, or closed by moving one."""
    kind, turn, c = between(rng, 0, 3), turner(rng), between(rng, 1, 9)

    def draw(rng):
        h, w = between(rng, 3, 5), between(rng, 8, 13)
        x, y = others(rng, 2, c)
        a, gap, b = between(rng, 1, 3), between(rng, 1, 5), between(rng, 1, 3)
        left = between(rng, 0, 3)
        if left + a + gap + b > w:
            return None
        top, low = between(rng, 0, 1), between(rng, 0, 1)
        g = np.zeros((h + top + low, w), np.uint8)
        out = g.copy()
        at = slice(top, top + h)
        g[at, left : left + a], g[at, left + a + gap : left + a + gap + b] = x, y
        out[at, left : left + a], out[at, left + a : left + a + b] = x, y
        filled = g.copy()
        filled[at, left + a : left + a + gap] = c
        block = np.full((1, gap), c, np.uint8)
        return turn(g), turn((filled, block, out, block.repeat(gap, 0))[kind].astype(np.uint8))

    return draw


def marks_to_bars(rng):
    """One mark in every row: a bar goes to it, or from it; it is mirrored, moved by its row's number, or all sorted."""
    kind, turn, c = between(rng, 0, 5), turner(rng), between(rng, 1, 9)

    def draw(rng):
        h, w = between(rng, 4, 8), between(rng, 4, 8)
        (x,) = others(rng, 1, c)
        at = rng.integers(0, w, h)
        k = np.arange(w)[None]
        g = painted(k == at[:, None], x)
        out = (
            np.where(k < at[:, None], c, g), np.where(k > at[:, None], c, g),
            np.where((g == 0) & (g[:, ::-1] != 0), c, g),
            painted(k == (at + np.arange(h))[:, None] % w, x), painted(k == np.sort(at)[:, None], x),
            painted(k <= at[:, None], x),
        )[kind]  # fmt: skip
        return turn(g), turn(out.astype(np.uint8))

    return draw


def patterns_decoded(rng):
    """Blocks hold one of some fixed patterns in any colour: a cell for each, in the pattern's colour or the block's."""
    k, n, is_own, lined = between(rng, 2, 3), between(rng, 2, 3), chance(rng, 0.35), chance(rng, 0.7)
    new, shapes = [int(x) for x in rng.choice(10, n, replace=False)], []
    while len(shapes) < n:
        m = bits(rng, k, k, 0.55)
        if m.any() and different([*shapes, m]):
            shapes.append(m)

    def draw(rng):
        h, w = between(rng, 2, 4), between(rng, 2, 4)
        line, *own = colors(rng, 4)
        code = rng.integers(0, n, (h, w))
        tone = full(rng, h, w, own)
        blocks = [painted(shapes[i], x) for i, x in zip(code.ravel(), tone.ravel(), strict=True)]
        out = np.where(code == 0, tone, 0) if is_own else np.array(new)[code]
        return joined(rows_of(blocks, w), line if lined else 0), out.astype(np.uint8)

    return draw


def lattice_route(rng):
    """Two cells of a lattice are joined by a way with one turn, which goes along the row of one (or column) first."""
    n, c, turn, is_own, kind = between(rng, 1, 2), between(rng, 1, 9), turner(rng), chance(rng, 0.3), between(rng, 0, 1)

    def draw(rng):
        h, w = between(rng, 4, 6 if n == 1 else 5), between(rng, 4, 6 if n == 1 else 5)
        line, x, y = others(rng, 3, c)
        r0, r1 = sorted(int(v) for v in rng.choice(h, 2, replace=False))
        c0, c1 = (int(v) for v in rng.choice(w, 2, replace=False))
        small = np.zeros((h, w), np.uint8)
        out = small.copy()
        row, col = (r0, c1) if kind == 0 else (r1, c0)
        out[row, min(c0, c1) : max(c0, c1) + 1] = x if is_own else c
        out[r0 : r1 + 1, col] = x if is_own else c
        for g in (small, out):
            g[r0, c0], g[r1, c1] = x, x if is_own else y
        return turn(lattice(small, n, line)), turn(lattice(out, n, line))

    return draw


def border_turned(rng):
    """The cells of the outermost ring move on along it, by a step or to the next side; the inside stays."""
    step, is_side = pick(rng, (1, -1, 2, -2)), chance(rng, 0.3)

    def draw(rng):
        n = between(rng, 3, 7)
        g = picture(rng, n, n, colors(rng, between(rng, 2, 4)), 0.6 if n > 3 else 0.9)
        at = np.arange(n * n).reshape(n, n)
        ring = np.concatenate([at[0, :-1], at[:-1, -1], at[-1, :0:-1], at[:0:-1, 0]])
        out = g.copy()
        out.ravel()[ring] = np.roll(g.ravel()[ring], (1 if step > 0 else -1) * (n - 1) if is_side else step)
        return g, out

    return draw


EQUATIONS = (
    lambda a, b: a & b, lambda a, b: a | b, lambda a, b: a ^ b, lambda a, b: a & ~b, lambda a, b: b & ~a,
    lambda a, b: ~(a | b),
)  # fmt: skip


def panel_equation(rng):
    """In the full rows of panels the third is made of the first two: the missing third of another row."""
    what, turn, n, ops = chance(rng, 0.5), turner(rng), between(rng, 2, 3), rng.permutation(6)[: between(rng, 2, 4)]

    def draw(rng):
        h, w = between(rng, 2, 3), between(rng, 2, 4 if n == 2 else 3)
        line, x = colors(rng, 2)
        op, rows = EQUATIONS[int(pick(rng, ops))], [(bits(rng, h, w), bits(rng, h, w)) for _ in range(n)]
        if sum(all(np.array_equal(o(*p), op(*p)) for p in rows[:-1]) for o in EQUATIONS) > 1:
            return None
        blocks = [[painted(m, x) for m in (*p, op(*p))] for p in rows]
        a = [*blocks[:-1], [*blocks[-1][:2], np.zeros((h, w), np.uint8)]]
        return turn(joined(a, line)), turn(joined(blocks, line) if what else blocks[-1][2])

    return draw


def collected(rng):
    """All coloured cells, in reading order, stand close together: in a line, aslant, in short rows, as a snake."""
    kind, turn, w = between(rng, 0, 3), turner(rng), between(rng, 2, 4)

    def draw(rng):
        g = picture(rng, between(rng, 4, 8), between(rng, 4, 8), colors(rng, 5), 0.15)
        found = g[g != 0]
        if not 2 <= len(found) <= 9:
            return None
        if kind == 0:
            return turn(g), turn(found[None])
        if kind == 1:
            return turn(g), turn(np.where(np.eye(len(found), dtype=bool), found, 0))
        out = np.zeros(-(-len(found) // w) * w, np.uint8)
        out[: len(found)] = found
        out = out.reshape(-1, w)
        if kind == 3:
            out[1::2] = out[1::2, ::-1]
        return turn(g), turn(out)

    return draw


def line_modes(rng):
    """Each row's commonest (or rarest) colour: as a column, throughout the row, alone in it, or taken out of it."""
    kind, turn, is_most = between(rng, 0, 3), turner(rng), chance(rng, 0.6)

    def draw(rng):
        h, w = between(rng, 3, 6), between(rng, 5, 8)
        own, rows = colors(rng, 4), []
        while len(rows) < h:
            row = full(rng, 1, w, own)[0]
            counts = np.bincount(row, minlength=10)
            seen = np.flatnonzero(counts)
            at = only(counts[seen].tolist(), is_most)
            if at is not None:
                rows.append((row, seen[at]))
        g, best = np.stack([row for row, _ in rows]), np.array([x for _, x in rows], np.uint8)[:, None]
        out = (best, best.repeat(w, 1), np.where(g == best, g, 0), np.where(g == best, 0, g))[kind]
        return turn(g), turn(out)

    return draw


CONCEPTS = (
    logic_many, logic_coded, logic_in_place, overlaid, odd_panel, panel_chosen, panels_sorted, template_copied,
    panels_by_count, lattice_rays, lattice_joined, lattice_shrunk, lattice_drawn, self_reference, kron_variants,
    scaled_by_count, blocks_reduced, crop_by_corners, crop_gaplines, lines_taken_out, legend_map, color_cycle,
    shape_legend, cell_patterns, sequence_developed, reshaped, rows_slid, rows_by_key, bar_charts, bar_sums,
    stripes_listed, latin_square, sudoku, exploded, covered, mosaic, tiles_recolored, rings, frames_by_count,
    colors_ranked, diagonals, folded, unfolded, blocks_moved, unstretched, halves_differ, votes, uneven_panels,
    panels_counted, interleaved, toward_mark, falls_to_line, over_lines, stretched_by_count, keyed_lengths, tile_found,
    rows_continued, lattice_mended, next_panel, panel_matrix, tables, automaton, binary_rows, count_to_shape,
    count_to_size, twin_panels, projected, swapped_within, keyed_panels, panel_at_mark, corners_to_quarters,
    nth_panel, panel_that_fits, bars_stacked, quarter_from_each, runs_as_bars, gap_measured, marks_to_bars,
    patterns_decoded, lattice_route, border_turned, panel_equation, collected, line_modes,
)  # fmt: skip
