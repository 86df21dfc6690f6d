"""Concepts: objects move, are copied, completed, taken apart and put together."""

import numpy as np

from tests.bench.concepts.scenes import between, blank, blob, box, chance, colors, noise, put, scatter
from tests.bench.more_tasks import box as bounds
from tests.bench.more_tasks import parts

DOT = np.ones((1, 1), bool)
WAYS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def view(rng):
    """How a task's grids are turned, and at times the colour that its background changes with."""
    turns, flips, back = between(rng, 0, 3), chance(rng, 0.5), between(rng, 1, 9) if chance(rng, 0.1) else 0
    new = np.arange(10, dtype=np.uint8)
    new[[0, back]] = back, 0

    def show(*grids):
        return tuple(new[np.rot90(g, turns).T if flips else np.rot90(g, turns)] for g in grids)

    return show


def spun(rng, *grids):
    """The grids turned at random, for rules whose direction each pair shows anew."""
    turns = between(rng, 0, 3)
    return [np.rot90(g, turns) for g in grids]


def dab(grid, mask, r, c, color, over=True):
    """Paints what of the object is inside the grid; not over other things unless `over`."""
    for i, k in np.argwhere(mask):
        if 0 <= r + i < grid.shape[0] and 0 <= c + k < grid.shape[1] and (over or not grid[r + i, c + k]):
            grid[r + i, c + k] = color if np.isscalar(color) else color[i, k]


def free(grid, mask, r, c):
    h, w = mask.shape
    inside = r >= 0 and c >= 0 and r + h <= grid.shape[0] and c + w <= grid.shape[1]
    return bool(inside and not grid[r : r + h, c : c + w][mask].any())


def slid(grid, mask, r, c, way):
    """Where an object that is not on the grid comes to rest."""
    while free(grid, mask, r + way[0], c + way[1]):
        r, c = r + way[0], c + way[1]
    return r, c


def settle(grid, things, way):
    """Slides all [mask, at, color] on the grid until none can go on."""
    is_moving = True
    while is_moving:
        is_moving = False
        for thing in things:
            mask, at, color = thing
            put(grid, mask, at, 0)
            thing[1] = slid(grid, mask, *at, way)
            put(grid, mask, thing[1], color)
            is_moving |= thing[1] != at


def blobs(rng, count, low=1, high=3):
    return [blob(rng, between(rng, low, high), between(rng, low, high)) for _ in range(count)]


def things_on(rng, grid, masks, palette, gap=1, margin=0):
    """[[mask, at, color]] put where there is room; None if there is none."""
    hues = [palette[i % len(palette)] for i in range(len(masks))]
    at = scatter(rng, grid, list(zip(masks, hues, strict=True)), gap, margin)
    return None if at is None else [[m, a, c] for m, a, c in zip(masks, at, hues, strict=True)]


def patch(rng, h, w, palette):
    """A connected object of several colours."""
    return np.where(blob(rng, h, w), rng.choice(np.array(palette, np.uint8), (h, w)), 0).astype(np.uint8)


def falling(rng):
    """Objects fall whole onto the floor or each other: all, only the full rectangles, or only the wide ones."""
    show, kind = view(rng), between(rng, 0, 2)

    def falls(mask):
        return (True, mask.all(), mask.shape[1] > mask.shape[0])[kind]

    def draw(rng):
        grid = blank(rng, 8, 13)
        masks = blobs(rng, between(rng, 3, 5), 1, 3)
        masks = [m if m.size < 6 or chance(rng, 0.5) else box(*m.shape) for m in masks]
        things = things_on(rng, grid, masks, colors(rng, 4))
        if things is None:
            return None
        out = grid.copy()
        settle(out, [t for t in things if falls(t[0])], (1, 0))
        return show(grid, out)

    return draw


def wall_drawn(rng):
    """Objects on both sides of a wall slide to it, away from it, or all one way."""
    show, kind = view(rng), between(rng, 0, 2)

    def draw(rng):
        grid = blank(rng, 8, 13)
        wall, *hues = colors(rng, 4)
        at = between(rng, 3, len(grid) - 4)
        grid[at] = wall
        things = things_on(rng, grid, blobs(rng, between(rng, 3, 5), 1, 3), hues)
        if things is None or len({t[1][0] < at for t in things}) < 2:
            return None
        out = grid.copy()
        for is_above in (True, False):
            goes_down = (is_above, not is_above, True)[kind]
            settle(out, [t for t in things if (t[1][0] < at) == is_above], (1 if goes_down else -1, 0))
        return show(grid, out)

    return draw


def own_side(rng):
    """Cells move to the border line of their colour (or to the other one); those with no line vanish or stay."""
    show, other_too, is_swapped, stays_as_line = view(rng), between(rng, 0, 2), chance(rng, 0.3), chance(rng, 0.3)

    def draw(rng):
        grid = blank(rng, 7, 12)
        a, b, c = colors(rng, 3)
        grid[0], grid[-1] = a, b
        out = grid.copy()
        for col in rng.permutation(grid.shape[1])[: between(rng, 3, grid.shape[1] - 1)]:
            row, hue = between(rng, 2, len(grid) - 3), (a, b, c)[between(rng, 0, 2 if other_too else 1)]
            grid[row, col] = hue
            if hue == c:
                out[row, col] = c if other_too == 2 else 0
            elif stays_as_line:
                out[slice(1, row + 1) if (hue == a) != is_swapped else slice(row, -1), col] = hue
            else:
                out[1 if (hue == a) != is_swapped else -2, col] = hue
        return show(grid, out)

    return draw


def tip_points(rng):
    """A block goes, shoots or is copied to where its differently coloured cell points."""
    show, kind, is_back = view(rng), between(rng, 0, 4), chance(rng, 0.3)

    def draw(rng):
        grid = blank(rng, 9, 14)
        a, b = colors(rng, 2)
        places = scatter(rng, grid, [(box(3, 3), a)] * between(rng, 1, 3))
        if places is None:
            return None
        marked = []
        for r, c in places:
            way = WAYS[between(rng, 0, 3)]
            grid[r + 1 + way[0], c + 1 + way[1]] = b
            marked.append((r, c, way, grid[r : r + 3, c : c + 3].copy()))
        out = np.zeros_like(grid) if kind < 3 else grid.copy()
        for r, c, way, tile in marked:
            y, x = (-way[0], -way[1]) if is_back else way
            if kind < 3:
                steps = (3, 99, 2)[kind]
                to = (r, c)
                while steps and free(out, box(3, 3), to[0] + y, to[1] + x):
                    to, steps = (to[0] + y, to[1] + x), steps - 1
                if kind != 1 and steps or not free(out, box(3, 3), *to):
                    return None
                put(out, tile > 0, to, tile)
            elif kind == 3:
                for n in range(2, 30):
                    dab(out, DOT, r + 1 + n * y, c + 1 + n * x, b, False)
            elif not free(out, box(3, 3), r + 3 * y, c + 3 * x):
                return None
            else:
                put(out, box(3, 3), (r + 3 * y, c + 3 * x), tile)
        return show(grid, out)

    return draw


def marks_tell_steps(rng):
    """A rectangle moves (or grows) as many cells as it has marks, one way."""
    show, kind, times, c = view(rng), between(rng, 0, 3), between(rng, 1, 2), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 9, 13)
        a, b = colors(rng, 2)
        masks = [box(between(rng, 2, 3), between(rng, 2, 4)) for _ in range(between(rng, 1, 2))]
        things = things_on(rng, grid, masks, [a])
        if things is None:
            return None
        out = np.zeros_like(grid)
        for mask, (row, col), _ in things:
            h, w = mask.shape
            n = between(rng, 1, 3 if times == 1 else 2)
            for k in rng.permutation(mask.size)[:n]:
                grid[row + k // w, col + k % w] = b
            tile = grid[row : row + h, col : col + w]
            if not free(out, box(h + times * n, w), row, col):
                return None
            if kind == 1:
                put(out, mask, (row, col), c)
            if kind == 2:
                put(out, mask, (row, col), tile)
                put(out, box(times * n, w), (row + h, col), c)
            else:
                put(out, mask, (row + times * n, col), np.where(tile > 0, a, 0) if kind == 3 else tile)
        return show(grid, out)

    return draw


def dots_tell_steps(rng):
    """The object moves as many cells as there are single cells."""
    show, is_diagonal, keeps, sign = view(rng), chance(rng, 0.4), between(rng, 0, 3), between(rng, 0, 1)

    def draw(rng):
        grid = blank(rng, 8, 13)
        a, b = colors(rng, 2)
        mask, n = blob(rng, between(rng, 2, 3), between(rng, 2, 3)), between(rng, 1, 5)
        at = scatter(rng, grid, [(mask, a)] + [(DOT, b)] * n)
        if at is None:
            return None
        out = grid.copy()
        if keeps < 2:
            put(out, mask, at[0], 0)
        if keeps % 2:
            for dot in at[1:]:
                out[dot] = 0
        to = at[0][0] + n, at[0][1] + n * is_diagonal * (1 - 2 * sign)
        blocked = grid.copy()
        put(blocked, mask, at[0], 0)
        if not free(blocked, mask, *to):
            return None
        put(out, mask, to, a)
        return show(grid, out)

    return draw


def anchor_pulls(rng):
    """Single cells in line with the big block move until they touch it; the others vanish, stay or turn."""
    show, kind, c, ray = view(rng), between(rng, 0, 2), between(rng, 1, 9), between(rng, 0, 2)

    def draw(rng):
        grid = blank(rng, 9, 13)
        a, b = colors(rng, 2)
        h, w = between(rng, 2, 4), between(rng, 2, 4)
        at = scatter(rng, grid, [(box(h, w), a)] + [(DOT, b)] * between(rng, 3, 6), margin=1)
        if at is None:
            return None
        (r, k), out, hit = at[0], np.zeros_like(grid), set()
        put(out, box(h, w), (r, k), a)
        for y, x in at[1:]:
            to = min(max(y, r - 1), r + h), min(max(x, k - 1), k + w)
            if (r <= y < r + h) == (k <= x < k + w):
                out[y, x] = (0, b, c)[kind]
                continue
            if to in hit:
                return None
            hit.add(to)
            if ray:
                span = out[min(y, to[0]) : max(y, to[0]) + 1, min(x, to[1]) : max(x, to[1]) + 1]
                if span.any():
                    return None
                if ray == 2:
                    span[:] = c
            out[to] = b
        return show(grid, out) if hit else None

    return draw


def called(rng):
    """A line along one side calls all objects there (or drives them away)."""
    show, is_away, leaves, c = view(rng), chance(rng, 0.4), between(rng, 0, 2), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 7, 12)
        wall, *hues = colors(rng, 4)
        grid[-1] = wall
        things = things_on(rng, grid, blobs(rng, between(rng, 2, 4), 1, 3), hues)
        if things is None:
            return None
        out = grid.copy()
        settle(out, things, (-1 if is_away else 1, 0))
        if not leaves:
            out[-1] = 0
        if leaves == 1:
            out[(grid > 0) & (out == 0)] = c
        return show(*spun(rng, grid, out))

    return draw


def out_of_frame(rng):
    """What is in a frame with a gap leaves on the side of the gap: moved, mirrored, or to the border."""
    show, kind, stays, closed, c = view(rng), between(rng, 0, 2), chance(rng, 0.3), chance(rng, 0.3), between(rng, 1, 9)

    def draw(rng):
        a, *hues = colors(rng, 3)
        h, w = between(rng, 2, 3), between(rng, 2, 3)
        grid = np.zeros((between(rng, h + 3, h + 6), between(rng, 2 * w + 4, 2 * w + 7)), np.uint8)
        r, k = between(rng, 0, len(grid) - h - 2), between(rng, 0, grid.shape[1] - 2 * w - 3)
        put(grid, box(h + 2, w + 2, True), (r, k), a)
        tile = patch(rng, h, w, hues)
        put(grid, tile > 0, (r + 1, k + 1), tile)
        gap = slice(r + 1, r + 1 + h), k + w + 1
        grid[gap] = 0
        out = grid.copy()
        if not stays:
            out[r + 1 : r + 1 + h, k + 1 : k + 1 + w] = 0
        if closed:
            out[gap] = c
        new = tile[:, ::-1] if kind == 1 else tile
        put(out, new > 0, (r + 1, grid.shape[1] - w if kind == 2 else k + w + 2), new)
        return show(*spun(rng, grid, out))

    return draw


def contents_swapped(rng):
    """What is in two frames changes places: the contents, their colours, the frames' colours, or all."""
    show, kind = view(rng), between(rng, 0, 3)

    def draw(rng):
        n = between(rng, 2, 3)
        a, b, c, d = colors(rng, 4)
        grid = np.zeros((between(rng, n + 2, n + 5), between(rng, 2 * n + 5, 2 * n + 7)), np.uint8)
        at = scatter(rng, grid, [(box(n + 2, n + 2, True), a), (box(n + 2, n + 2, True), b)], 0)
        if at is None:
            return None
        one, two = blob(rng, n, n), blob(rng, n, n)
        out = grid.copy()
        if kind == 2:
            out[grid == a], out[grid == b] = b, a
        tiles = (one * c, two * d)
        new = ((two * d, one * c), (one * d, two * c), tiles, (two * c, one * d))[kind]
        for (r, k), old, other in zip(at, tiles, new, strict=True):
            grid[r + 1 : r + 1 + n, k + 1 : k + 1 + n] = old
            out[r + 1 : r + 1 + n, k + 1 : k + 1 + n] = other
        return show(grid, out)

    return draw


def joined(rng):
    """Objects are pushed together along one axis, in their order, with no gap or one; in place or as the output."""
    show, gap, cut, is_level = view(rng), between(rng, 0, 1), chance(rng, 0.4), between(rng, 0, 2)

    def draw(rng):
        grid = np.zeros((between(rng, 6, 9), between(rng, 10, 14)), np.uint8)
        hues, col, things = colors(rng, 4), between(rng, 0, 2), []
        for i in range(between(rng, 2, 4)):
            mask = blob(rng, between(rng, 1, 3), between(rng, 1, 3))
            row = between(rng, 0, len(grid) - mask.shape[0])
            if col + mask.shape[1] > grid.shape[1]:
                return None
            put(grid, mask, (row, col), hues[i])
            things.append((mask, row, hues[i]))
            col += mask.shape[1] + between(rng, 1, 3)
        out, col = np.zeros_like(grid), 0
        for mask, row, hue in things:
            to = (row, len(grid) - mask.shape[0], 0)[is_level]
            put(out, mask, (to, col), hue)
            col += mask.shape[1] + gap
        return show(grid, out[bounds(out > 0)] if cut else out)

    return draw


def aligned(rng):
    """Objects move up or down to be level with one: the tallest, the first or the last; by foot or head."""
    show, which, by_head = view(rng), between(rng, 0, 2), chance(rng, 0.5)

    def draw(rng):
        grid = np.zeros((between(rng, 7, 11), between(rng, 9, 14)), np.uint8)
        hues, col, things = colors(rng, 4), between(rng, 0, 1), []
        for i in range(between(rng, 3, 4)):
            mask = blob(rng, between(rng, 1, 4), between(rng, 1, 3))
            row = between(rng, 0, len(grid) - mask.shape[0])
            if col + mask.shape[1] > grid.shape[1]:
                break
            put(grid, mask, (row, col), hues[i])
            things.append((mask, row, col, hues[i]))
            col += mask.shape[1] + between(rng, 1, 2)
        tall = sorted(things, key=lambda t: -len(t[0]))
        if len(things) < 3 or which == 0 and len(tall[0][0]) == len(tall[1][0]):
            return None
        mask, row, *_ = (tall[0], things[0], things[-1])[which]
        out, foot = np.zeros_like(grid), row + len(mask)
        for mask, _, col, hue in things:
            to = row if by_head else foot - len(mask)
            if not free(out, mask, to, col):
                return None
            put(out, mask, (to, col), hue)
        return show(grid, out)

    return draw


def tower(rng):
    """Bars become a tower in the order of their lengths: centred, or flush."""
    show, centred, falls, cut = view(rng), chance(rng, 0.5), chance(rng, 0.5), chance(rng, 0.5)

    def draw(rng):
        lengths = rng.permutation([1, 3, 5, 7] if centred else [1, 2, 3, 4, 5])[: between(rng, 3, 4)]
        hues = colors(rng, len(lengths))
        grid = np.zeros((between(rng, 8, 10), between(rng, max(8, max(lengths)), 10)), np.uint8)
        rows = rng.permutation(np.arange(0, len(grid), 2))[: len(lengths)]
        for row, n, hue in zip(rows, lengths, hues, strict=True):
            col = between(rng, 0, grid.shape[1] - n)
            grid[row, col : col + n] = hue
        out = np.zeros((len(lengths) if cut else len(grid), max(lengths)), np.uint8)
        for i, k in enumerate(np.argsort(lengths)):
            start = (max(lengths) - lengths[k]) // 2 if centred else 0
            out[len(out) - 1 - i if falls else len(out) - len(lengths) + i, start : start + lengths[k]] = hues[k]
        return show(grid, out)

    return draw


def over_bar(rng):
    """Objects on one side of a bar appear on the other: mirrored or moved, kept or not, in a new colour or not."""
    show, kind, keeps, c = view(rng), between(rng, 0, 1), chance(rng, 0.6), between(rng, 0, 4)

    def draw(rng):
        half = blank(rng, 4, 6)[:, : between(rng, 4, 9)]
        bar, *hues = colors(rng, 4)
        masks = blobs(rng, between(rng, 1, 3), 1, 3)
        if things_on(rng, half, masks, hues) is None:
            return None
        new = half[::-1] if kind == 0 else half
        if c:
            new = np.where(new > 0, c, 0)
        line = np.full((1, half.shape[1]), bar, np.uint8)
        parts_ = [half, line, np.zeros_like(half)], [half if keeps else np.zeros_like(half), line, new]
        grid, out = (np.concatenate(p).astype(np.uint8) for p in parts_)
        return show(*spun(rng, grid, out))

    return draw


def around_pivot(rng):
    """The object turns around the single cell: a quarter, a half, or all four ways; the first stays or not."""
    show, kind, keeps, c = view(rng), between(rng, 0, 3), chance(rng, 0.4), between(rng, 0, 5)

    def draw(rng):
        a, p = colors(rng, 2)
        n = between(rng, 7, 13)
        grid = np.zeros((n, between(rng, max(7, n - 2), min(13, n + 2))), np.uint8)
        h, w = between(rng, 1, 3), between(rng, 1, 3)
        y, x = between(rng, 3, len(grid) - 4), between(rng, 3, grid.shape[1] - 4)
        mask, at = blob(rng, h, w), (y - h - between(rng, 0, 1), x + between(rng, 1, 2))
        if mask.sum() < 2 or not free(grid, mask, *at):
            return None
        put(grid, mask, at, a)
        grid[y, x] = p
        out = np.zeros_like(grid) if kind < 3 and not keeps else grid.copy()
        out[y, x] = p
        for turn in (1, 2, 3) if kind == 3 else (kind + 1,):
            for r, k in np.argwhere(grid == a) - (y, x):
                for _ in range(turn):
                    r, k = k, -r
                if not free(out, DOT, y + r, x + k):
                    return None
                out[y + r, x + k] = c or a
        return show(grid, out)

    return draw


def anchored_copies(rng):
    """The object is copied to single cells of the colour of the one cell by which it is held."""
    show, keeps, kind, c = view(rng), chance(rng, 0.7), between(rng, 0, 2), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 8, 13)
        a, b = colors(rng, 2)
        mask = blob(rng, between(rng, 2, 3), between(rng, 2, 3))
        tile = mask * np.uint8(a)
        spot = np.argwhere(mask)[between(rng, 0, mask.sum() - 1)]
        tile[tuple(spot)] = b
        if mask.sum() < 4:
            return None
        at = scatter(rng, grid, [(mask, tile)])
        out = grid.copy()
        if not keeps:
            out[:] = 0
        n = 0
        for _ in range(25):
            r, k = between(rng, 0, len(grid) - 1) - spot[0], between(rng, 0, grid.shape[1] - 1) - spot[1]
            wide = np.pad(grid | out, 1)[max(0, r) : r + len(mask) + 2, max(0, k) : k + mask.shape[1] + 2]
            if n < 3 and r >= 0 and k >= 0 and free(out, box(*mask.shape), r, k) and not wide.any():
                grid[r + spot[0], k + spot[1]] = b
                put(out, mask, (r, k), (tile, np.where(tile == a, c, tile), np.full_like(tile, b))[kind])
                n += 1
        return show(grid, out) if n and at else None

    return draw


def stamped(rng):
    """The shape is stamped around every single cell, in its colour; the middle is the cell's, or in a third colour."""
    show, keeps, kind, c = view(rng), chance(rng, 0.5), between(rng, 0, 2), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 9, 14)
        a, *hues = colors(rng, 5)
        mask = blob(rng, 3, 3)
        at = scatter(rng, grid, [(mask, a)] + [(DOT, h) for h in hues[: between(rng, 2, 4)]], 2, 1)
        if at is None:
            return None
        out = grid.copy() if keeps else np.zeros_like(grid)
        for r, k in at[1:]:
            put(out, mask, (r - 1, k - 1), grid[r, k] if kind < 2 else c)
            if kind:
                out[r, k] = c if kind == 1 else grid[r, k]
        return show(grid, out)

    return draw


def scaled_by_dots(rng):
    """The object alone, as many times larger as there are single cells (or as many copies side by side)."""
    show, kind, c = view(rng), between(rng, 0, 3), between(rng, 0, 5)

    def draw(rng):
        grid = blank(rng, 7, 10)
        a, b = colors(rng, 2)
        mask, n = blob(rng, between(rng, 2, 3), between(rng, 2, 3)), between(rng, 1, 4)
        if scatter(rng, grid, [(mask, a)] + [(DOT, b)] * n) is None:
            return None
        tile = (mask * np.uint8(c or a)).astype(np.uint8)
        if kind == 0:
            out = tile.repeat(n, 0).repeat(n, 1)
        elif kind == 1:
            out = np.tile(tile, (1, n))
        elif kind == 2:
            out = np.concatenate([tile if i % 2 == 0 else tile[:, ::-1] for i in range(n)], 1)
        else:
            out = tile.repeat(n, 1)
        return show(grid, out)

    return draw


def symmetry_mended(rng):
    """A symmetric object with cells missing is completed, the new cells in its colour or another."""
    show, kind, c, own, count = view(rng), between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.5), between(rng, 1, 3)

    def images(g):
        turned = [np.rot90(g, k) for k in range(4)]
        return ([g, g[:, ::-1]], [g, g[:, ::-1], g[::-1], g[::-1, ::-1]], turned, [g, g.T])[kind]

    def draw(rng):
        n = between(rng, 4, 7)
        tile = np.max(images(noise(rng, n, n, colors(rng, count), 0.45 if kind in (0, 3) else 0.3)), 0)
        half = tile[:, : n // 2] if kind == 0 else np.triu(tile, 1) if kind == 3 else tile[: n // 2, : n // 2]
        spots = np.argwhere(half)
        if len(parts(tile)) != 1 or (tile > 0).mean() > 0.9 or len(spots) < 2:
            return None
        grid = np.zeros((n + between(rng, 1, 4), n + between(rng, 1, 4)), np.uint8)
        at = between(rng, 0, len(grid) - n), between(rng, 0, grid.shape[1] - n)
        put(grid, tile > 0, at, tile)
        out = grid.copy()
        for y, x in spots[rng.permutation(len(spots))[: between(rng, 1, 3)]]:
            grid[at[0] + y, at[1] + x] = 0
            if not own:
                out[at[0] + y, at[1] + x] = c
        return show(grid, out) if bounds(grid > 0) == bounds(out > 0) else None

    return draw


def copies_mended(rng):
    """Of several copies one or two lack cells; these are put back, in the copy's own colour or a new one."""
    show, c, own, is_one_color = view(rng), between(rng, 1, 9), chance(rng, 0.5), chance(rng, 0.5)

    def draw(rng):
        grid = blank(rng, 9, 13)
        mask = blob(rng, between(rng, 3, 4), between(rng, 3, 4))
        hues = colors(rng, 4)
        if is_one_color:
            hues = hues[:1]
        things = things_on(rng, grid, [mask] * between(rng, 3, 5), hues)
        if things is None:
            return None
        out = grid.copy()
        for _, (r, k), hue in things[: between(rng, 1, len(things) // 2)]:
            spots = np.argwhere(mask)
            for y, x in spots[rng.permutation(len(spots))[: between(rng, 1, 2)]]:
                less = grid[r : r + mask.shape[0], k : k + mask.shape[1]].copy()
                less[y, x] = 0
                if less.any() and len(parts(less)) == 1 and (less.any(0).all() and less.any(1).all()):
                    grid[r + y, k + x] = 0
                    out[r + y, k + x] = hue if own else c
        return show(grid, out)

    return draw


def holes_plugged(rng):
    """Each loose piece goes into the hole of its shape; it leaves its place or not."""
    show, keeps, alone = view(rng), chance(rng, 0.4), chance(rng, 0.3)

    def draw(rng):
        a, *hues = colors(rng, 4)
        n = 2 if chance(rng, 0.7) else 3
        shapes = blobs(rng, n, 1, 3)
        if len({(s.shape, s.tobytes()) for s in shapes}) < n or min(s.sum() for s in shapes) < 2:
            return None
        grid = blank(rng, 13, 14)
        walls = [np.pad(~s, 1, constant_values=True) for s in shapes]
        at = scatter(rng, grid, [(w, a) for w in walls], 0)
        loose = scatter(rng, grid, list(zip(shapes, hues, strict=False))) if at else None
        if loose is None:
            return None
        for (r, k), w in zip(at, walls, strict=True):
            if np.pad(grid, 1)[r : r + w.shape[0] + 2, k : k + w.shape[1] + 2][[0, -1]].any():
                return None
        out = grid.copy()
        for shape, hue, (r, k), old in zip(shapes, hues, at, loose, strict=False):
            if not keeps:
                put(out, shape, old, 0)
            put(out, shape, (r + 1, k + 1), hue)
        if alone:
            out[out == a] = 0
        return show(grid, out)

    return draw


def notches_plugged(rng):
    """Rectangles above a ground with notches go into the notch of their size."""
    show, own, c = view(rng), chance(rng, 0.8), between(rng, 1, 9)

    def draw(rng):
        a, *hues = colors(rng, 4)
        sizes = [(h, w) for h in (1, 2, 3) for w in (1, 2, 3)]
        sizes = [sizes[i] for i in rng.permutation(9)[: between(rng, 2, 3)]]
        sky, deep = between(rng, 5, 6), between(rng, 4, 5)
        width = sum(w for _, w in sizes) + len(sizes) + between(rng, 1, 4)
        grid = np.zeros((sky + deep, width), np.uint8)
        grid[sky:] = a
        col = 1
        out, slots = grid.copy(), []
        for h, w in sizes:
            slots.append((sky, col))
            put(grid, box(h, w), (sky, col), 0)
            col += w + 1
        masks = [box(h, w) for h, w in sizes]
        things = scatter(rng, grid[: sky - 1], [(m, hues[i]) for i, m in enumerate(masks)])
        if things is None:
            return None
        for mask, hue, slot in zip(masks, hues, slots, strict=False):
            put(out, mask, slot, hue if own else c)
        return show(grid, out)

    return draw


def gap_beams(rng):
    """Gaps of a wall are filled, or let a beam through, to one side or both."""
    show, kind, c, own = view(rng), between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.3)

    def draw(rng):
        grid = blank(rng, 6, 12)
        a, row = colors(rng, 1)[0], between(rng, 2, len(grid) - 3)
        thick = between(rng, 1, 2)
        grid[row : row + thick] = a
        gaps = rng.permutation(grid.shape[1])[: between(rng, 1, 3)]
        grid[row : row + thick, gaps] = 0
        out = grid.copy()
        rows = (slice(row, row + thick), slice(None), slice(row, None), slice(row + thick, None))[kind]
        out[rows, gaps] = a if own else c
        return show(grid, out)

    return draw


def sieve(rng):
    """Balls fall: those over a gap of the wall through it to the floor, the others onto the wall."""
    show, lost, c = view(rng), between(rng, 0, 2), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 8, 12)
        a, *hues = colors(rng, 4)
        row, width = between(rng, 4, len(grid) - 3), grid.shape[1]
        grid[row] = a
        grid[row, rng.permutation(width)[: between(rng, 2, width // 2)]] = 0
        out = grid.copy()
        balls = rng.permutation(width)[: between(rng, 3, width - 2)]
        for col in balls:
            hue = hues[between(rng, 0, 2)]
            grid[between(rng, 0, row - 2), col] = hue
            if grid[row, col]:
                out[row - 1, col] = (hue, 0, hue)[lost]
            else:
                out[-1, col] = (hue, hue, c)[lost]
        return show(grid, out)

    return draw


def line_goes_on(rng):
    """A row of colours that begins at the side goes on until the other: again and again, or to and fro, or doubled."""
    show, kind, is_slant = view(rng), between(rng, 0, 2), chance(rng, 0.3)

    def draw(rng):
        grid = np.zeros((between(rng, 9 if is_slant else 5, 11), between(rng, 8, 14)), np.uint8)
        out = grid.copy()
        rows = [0] if is_slant else rng.permutation(np.arange(0, len(grid), 2))[: between(rng, 1, 3)]
        n = between(rng, 3 if kind == 1 else 2, 4 if kind == 0 else 3)
        for row in rows:
            hues = colors(rng, n)
            cycle = hues if kind == 0 else hues + hues[-2:0:-1] if kind == 1 else [h for h in hues for _ in (0, 1)]
            seen = 2 * n if kind == 2 else n if kind == 0 else len(cycle) + 1
            for k in range(grid.shape[1]):
                y = row + k if is_slant else row
                if y < len(grid):
                    out[y, k] = cycle[k % len(cycle)]
                    grid[y, k] = out[y, k] if k < seen else 0
        return show(grid, out)

    return draw


def corner_tiled(rng):
    """The patch in the corner is repeated over the whole grid: plain, mirrored, or as a chess board of patches."""
    show, kind = view(rng), between(rng, 0, 3)

    def draw(rng):
        h, w = between(rng, 2, 3), between(rng, 2, 3)
        tile = rng.choice(np.array(colors(rng, 3), np.uint8), (h, w))
        grid = blank(rng, 6, 12)
        put(grid, box(h, w), (0, 0), tile)
        side = np.concatenate([tile, tile[:, ::-1]], 1)
        none = np.zeros_like(tile)
        big = (tile, side, np.block([[tile, none], [none, tile]]), np.concatenate([side, side[::-1]]))[kind]
        out = np.tile(big, (6, 6))[: grid.shape[0], : grid.shape[1]]
        return show(grid, out)

    return draw


def hits_and_pushes(rng):
    """Cells fly until they hit a block: the trail stays or not, the block is pushed, coloured or lost."""
    show, trail, kind, c = view(rng), chance(rng, 0.5), between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        grid = np.zeros((between(rng, 6, 11), between(rng, 9, 13)), np.uint8)
        a, b = colors(rng, 2)
        out, row, hits = grid.copy(), between(rng, 0, 1), 0
        while row + 3 <= len(grid):
            h, w = between(rng, 1, 3), between(rng, 1, 3)
            col, y = between(rng, 4, grid.shape[1] - w - 1), between(rng, 0, h - 1)
            put(grid, box(h, w), (row, col), a)
            if chance(rng, 0.75):
                x = between(rng, 0, col - 3)
                grid[row + y, x] = b
                if trail:
                    out[row + y, x:col] = c
                out[row + y, col - 1] = b
                if kind < 3:
                    put(out, box(h, w), (row, grid.shape[1] - w if kind == 0 else col), (a, c, b)[kind])
                if kind == 0:
                    out[row + y, x : grid.shape[1] - w - 1] = c if trail else 0
                    out[row + y, grid.shape[1] - w - 1] = b
                if kind == 3:
                    put(out, box(h, w), (row, col), 0)
                hits += 1
            else:
                put(out, box(h, w), (row, col), a)
            row += h + between(rng, 1, 2)
        return show(grid, out) if hits else None

    return draw


def exploded(rng):
    """The four cells of a square fly apart on their diagonals: some steps, to the border, with lines, or as blocks."""
    show, kind, keeps, steps = view(rng), between(rng, 0, 3), chance(rng, 0.4), between(rng, 1, 2)

    def draw(rng):
        grid = blank(rng, 7, 12)
        hues = colors(rng, 4)
        hues = hues if chance(rng, 0.6) else [hues[i % 2 + (i == 3)] for i in range(4)]
        r, k = between(rng, 2, len(grid) - 4), between(rng, 2, grid.shape[1] - 4)
        grid[r : r + 2, k : k + 2] = np.reshape(hues, (2, 2))
        out = grid.copy() if keeps or kind == 1 else np.zeros_like(grid)
        for i, (y, x) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
            to = r + (y > 0), k + (x > 0)
            n = 0
            while 0 <= to[0] + y < len(grid) and 0 <= to[1] + x < grid.shape[1] and (n < steps or kind in (1, 2)):
                to, n = (to[0] + y, to[1] + x), n + 1
                if kind == 1:
                    out[to] = hues[i]
            out[to] = hues[i]
            if kind == 3:
                at = r + (2 if y > 0 else -2), k + (2 if x > 0 else -2)
                dab(out, box(2, 2), *at, hues[3 - i])
                out[to] = hues[3 - i]
        return show(grid, out)

    return draw


def assembled(rng):
    """Four corner pieces are put together as one square, its middle empty or filled."""
    show, cut, fill, gap = view(rng), chance(rng, 0.6), between(rng, 0, 6), between(rng, 0, 1)

    def draw(rng):
        n = between(rng, 2, 3)
        corner = np.zeros((n, n), bool)
        corner[0], corner[:, 0] = True, True
        if n == 3 and chance(rng, 0.3):
            corner[1, 1] = True
        pieces = [corner, corner[:, ::-1], corner[::-1], corner[::-1, ::-1]]
        grid = blank(rng, 2 * n + 4, 12)
        hues = colors(rng, 4)
        order = rng.permutation(4)
        if scatter(rng, grid, [(pieces[i], hues[i]) for i in order]) is None:
            return None
        side = 2 * n + gap
        out = np.zeros((side, side), np.uint8)
        for i, piece in enumerate(pieces):
            put(out, piece, ((n + gap) * (i // 2), (n + gap) * (i % 2)), hues[i])
        if fill:
            out[1:-1, 1:-1][out[1:-1, 1:-1] == 0] = fill
        if not cut:
            whole = np.zeros_like(grid)
            put(whole, out > 0, (0, 0), out)
            out = whole
        return show(grid, out)

    return draw


def nest_turned(rng):
    """Nested boxes: their colours in reverse order, moved in or out by one, or with one or two more boxes around."""
    show, kind = view(rng), between(rng, 0, 4)

    def draw(rng):
        n, wide, tall = between(rng, 2, 4), between(rng, 1, 3), between(rng, 1, 3)
        hues = colors(rng, n)
        new = (hues[::-1], hues[1:] + hues[:1], hues[-1:] + hues[:-1], hues[-1:] + hues, hues + hues)[kind]
        pad = max(0, len(new) - n)
        if len(new) > 5:
            return None
        grid = np.zeros((2 * n - 2 + tall, 2 * n - 2 + wide), np.uint8)
        out = np.zeros((2 * len(new) - 2 + tall, 2 * len(new) - 2 + wide), np.uint8)
        for g, row in ((grid, hues), (out, new)):
            for i, hue in enumerate(row):
                g[i : g.shape[0] - i, i : g.shape[1] - i] = hue
        grid = np.pad(grid, pad)
        if pad == 0:
            grow = tuple(between(rng, 0, 3) for _ in range(4))
            grid, out = (np.pad(g, (grow[:2], grow[2:])) for g in (grid, out))
        return show(grid, out)

    return draw


def hollowed(rng):
    """Full rectangles are hollowed out: all, the squares, the largest, or those that do not touch the border."""
    show, which, fill, keeps_middle = view(rng), between(rng, 0, 3), between(rng, 0, 4), chance(rng, 0.2)

    def draw(rng):
        grid = blank(rng, 9, 14)
        hues = colors(rng, 3)
        masks = [box(between(rng, 3, 5), between(rng, 3, 5)) for _ in range(between(rng, 2, 3))]
        things = things_on(rng, grid, masks, hues)
        sizes = [m.size for m in masks]
        if things is None or which == 2 and sizes.count(max(sizes)) > 1:
            return None
        out = grid.copy()
        for mask, (r, k), hue in things:
            h, w = mask.shape
            is_inner = r > 0 and k > 0 and r + h < grid.shape[0] and k + w < grid.shape[1]
            if (True, h == w, h * w == max(sizes), is_inner)[which]:
                out[r + 1 : r + h - 1, k + 1 : k + w - 1] = fill
                if keeps_middle and h > 4 and w > 4:
                    out[r + 2 : r + h - 2, k + 2 : k + w - 2] = hue
        return show(grid, out)

    return draw


def rings_by_count(rng):
    """The block gets as many rings as there are cells in the corner's bar; next to each other in turn or apart."""
    show, kind, c, keeps = view(rng), between(rng, 0, 2), between(rng, 1, 9), chance(rng, 0.6)

    def draw(rng):
        grid = blank(rng, 10, 14)
        a, b = colors(rng, 2)
        n, h, w = between(rng, 1, 3), between(rng, 1, 2), between(rng, 1, 3)
        step = 1 if kind == 0 else 2
        room_ = n * step
        if len(grid) - h - 2 * room_ < 1 or grid.shape[1] - w - 2 * room_ < 0:
            return None
        r, k = between(rng, room_ + 1, len(grid) - h - room_), between(rng, room_, grid.shape[1] - w - room_)
        put(grid, box(h, w), (r, k), a)
        out = grid.copy()
        grid[0, :n] = b
        for i in range(1, n + 1):
            ring = box(h + 2 * i * step, w + 2 * i * step, True)
            put(out, ring, (r - i * step, k - i * step), (c if i % 2 else a) if kind == 0 else a if kind == 1 else c)
        if keeps:
            out[0, :n] = b
        return show(grid, out)

    return draw


def bridged(rng):
    """Blocks that face each other are bridged: the whole facing width, its edges, or its middle."""
    show, kind, c, own = view(rng), between(rng, 0, 2), between(rng, 1, 9), chance(rng, 0.3)

    def draw(rng):
        grid = np.zeros((between(rng, 7, 10), between(rng, 10, 14)), np.uint8)
        a = colors(rng, 1)[0]
        col, row, last, n = between(rng, 0, 1), between(rng, 0, 3), None, 0
        out = grid.copy()
        while True:
            h, w = between(rng, 3, 5), between(rng, 2, 3)
            row = between(rng, 0, len(grid) - h)
            if col + w > grid.shape[1]:
                break
            put(grid, box(h, w), (row, col), a)
            put(out, box(h, w), (row, col), a)
            if last:
                top, foot = max(row, last[0]), min(row + h, last[1])
                if foot - top < 1 or kind == 1 and foot - top < 3 or kind == 2 and (foot - top) % 2 == 0:
                    return None
                hue = a if own else c
                if kind == 2:
                    out[(top + foot) // 2, last[2] : col] = hue
                else:
                    out[top:foot, last[2] : col] = hue
                    if kind == 1:
                        out[top + 1 : foot - 1, last[2] : col] = 0
                n += 1
            last = row, row + h, col + w
            col += w + between(rng, 2, 4)
        return show(grid, out) if n else None

    return draw


def lids(rng):
    """Open boxes get a lid, are filled, or let a beam out through their open side."""
    show, kind, c = view(rng), between(rng, 0, 4), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 8, 14)
        a = colors(rng, 1)[0]
        cups = []
        for _ in range(between(rng, 1, 3)):
            h, w = between(rng, 2, 4), between(rng, 3, 5)
            cup, inner = box(h, w, True), np.zeros((h, w), bool)
            cup[0, 1:-1] = False
            inner[:-1, 1:-1] = True
            turn = between(rng, 0, 3)
            way = ((-1, 0), (0, -1), (1, 0), (0, 1))[turn]
            cups.append((np.rot90(cup, turn), np.rot90(inner, turn), way, inner, turn))
        at = scatter(rng, grid, [(cup[0], a) for cup in cups], margin=1)
        if at is None:
            return None
        out = grid.copy()
        for (r, k), (_, inside, (y, x), inner, turn) in zip(at, cups, strict=True):
            mouth = np.zeros(inner.shape, bool)
            mouth[0] = inner[0]
            mouth = np.rot90(mouth, turn)
            if kind in (0, 3):
                dab(out, mouth, r, k, c)
            if kind == 1:
                dab(out, mouth, r + y, k + x, c)
            if kind == 2:
                dab(out, inside, r, k, c)
            for n in range(1, 15) if kind in (3, 4) else ():
                if kind == 4 and n == 1:
                    dab(out, inside, r, k, c)
                spots = np.argwhere(mouth) + (r + n * y, k + n * x)
                if any(0 <= i < len(grid) and 0 <= j < grid.shape[1] and grid[i, j] for i, j in spots):
                    return None
                dab(out, mouth, r + n * y, k + n * x, c)
        return show(grid, out)

    return draw


def group_framed(rng):
    """All cells of a colour get one box: drawn through the outer ones, around them, or filled behind them."""
    show, kind, c, own = view(rng), between(rng, 0, 2), between(rng, 1, 9), chance(rng, 0.5)

    def draw(rng):
        grid = blank(rng, 8, 14)
        out, n = grid.copy(), 0
        for hue in colors(rng, between(rng, 1, 3)):
            h, w = between(rng, 2, 5), between(rng, 2, 5)
            tile = noise(rng, h, w, [hue], 0.4)
            spot = scatter(rng, grid.copy() | out, [(box(h, w), hue)], 2, 1)
            if spot is None or not (tile.any(0)[[0, -1]].all() and tile.any(1)[[0, -1]].all()):
                continue
            (r, k), n = spot[0], n + 1
            ink = hue if own else c
            if kind == 1:
                put(out, box(h + 2, w + 2, True), (r - 1, k - 1), ink)
            else:
                put(out, box(h, w, kind == 0), (r, k), ink)
            put(grid, tile > 0, (r, k), tile)
            put(out, tile > 0, (r, k), tile)
        return show(grid, out) if n and not np.array_equal(grid, out) else None

    return draw


def corner_rays(rng):
    """Rectangles send diagonals from some of their corners, to the border or as long as the side."""
    show, which, own, c, short = view(rng), between(rng, 0, 4), chance(rng, 0.4), between(rng, 1, 9), chance(rng, 0.4)
    a, b, e, d = (-1, -1), (-1, 1), (1, -1), (1, 1)
    ways = ((a, b, e, d), (a, d), (a, b), (d,), (b, e, d))[which]

    def draw(rng):
        grid = blank(rng, 8, 14)
        masks = [box(between(rng, 1, 4), between(rng, 1, 4)) for _ in range(1 if own else between(rng, 1, 2))]
        if short:
            masks = [box(len(m), len(m)) for m in masks]
        things = things_on(rng, grid, masks, colors(rng, 2), margin=1)
        if things is None:
            return None
        out = grid.copy()
        for mask, (r, k), hue in things:
            for y, x in ways:
                at = r + (len(mask) - 1) * (y > 0), k + (mask.shape[1] - 1) * (x > 0)
                for n in range(1, len(mask) + 1 if short else 15):
                    spot = at[0] + n * y, at[1] + n * x
                    if free(np.zeros_like(grid), DOT, *spot) and grid[spot]:
                        return None
                    dab(out, DOT, *spot, hue if own else c)
        return show(grid, out)

    return draw


def at_intervals(rng):
    """Two copies tell a step; more follow with the same step until the border, colours in turn, or in a new colour."""
    show, kind, c, both = view(rng), between(rng, 0, 2), between(rng, 1, 9), chance(rng, 0.3)

    def draw(rng):
        grid = blank(rng, 9, 14)
        a, b = colors(rng, 2)
        mask = blob(rng, between(rng, 1, 3), between(rng, 1, 3))
        h, w = mask.shape
        step = (between(rng, 0, 3), between(rng, w + 1, w + 2)) if chance(rng, 0.5) else (h + 1, between(rng, 0, 3))
        r, k = between(rng, 0, 3), between(rng, 0, 3)
        if both:
            r, k = r + step[0], k + step[1]
        if not free(grid, mask, r + step[0], k + step[1]):
            return None
        out = grid.copy()
        for n in range(-9 if both else 0, 15):
            hue = a if kind == 1 else (a, b)[n % 2] if kind == 0 else c if n not in (0, 1) else a
            dab(out, mask, r + n * step[0], k + n * step[1], hue)
            if n in (0, 1):
                put(grid, mask, (r + n * step[0], k + n * step[1]), hue)
        return show(grid, out) if (out != grid).sum() > 1 else None

    return draw


def tipped(rng):
    """Standing bars fall over to the side of the cell at their foot, or away from it."""
    show, is_away, c, keeps = view(rng), chance(rng, 0.5), between(rng, 0, 4), chance(rng, 0.3)

    def draw(rng):
        a, b = colors(rng, 2)
        grid = np.zeros((between(rng, 6, 9), between(rng, 10, 14)), np.uint8)
        out, n, col = grid.copy(), 0, between(rng, 0, 4)
        while col < grid.shape[1]:
            high, side = between(rng, 2, 5), 1 if chance(rng, 0.5) else -1
            to = -side if is_away else side
            cells = [col + to * i for i in range(high)]
            if n < 3 and 0 <= min(*cells, col + side) and max(*cells, col + side) < grid.shape[1]:
                if not out[-1, cells].any() and not grid[-1, [col, col + side]].any() and not out[-1, col + side]:
                    grid[-high:, col], grid[-1, col + side] = a, b
                    out[-1, cells] = c or a
                    if is_away and keeps:
                        out[-1, col + side] = b
                    n += 1
            col = max((col, *np.flatnonzero(grid.any(0) | out.any(0)))) + between(rng, 2, 5)
        return show(grid, out) if n else None

    return draw


def row_reordered(rng):
    """Objects in a row: their order, or that of their colours or shapes alone, is reversed or moved by one."""
    show, kind, by_one = view(rng), between(rng, 0, 2), between(rng, 0, 2)

    def draw(rng):
        n, size = between(rng, 3, 4), between(rng, 2, 3)
        masks, hues = [blob(rng, size, size) for _ in range(n)], colors(rng, n)
        order = (list(range(n))[::-1], [n - 1, *range(n - 1)], [n - 1, *range(1, n - 1), 0])[by_one]
        grid = np.zeros((size + between(rng, 0, 3), n * (size + 1) - 1), np.uint8)
        out, row = grid.copy(), between(rng, 0, len(grid) - size)
        for i, k in enumerate(order):
            put(grid, masks[i], (row, i * (size + 1)), hues[i])
            put(out, masks[i if kind == 1 else k], (row, i * (size + 1)), hues[i if kind == 2 else k])
        return show(grid, out)

    return draw


def cut_apart(rng):
    """A line that points at a block cuts it: the cut is coloured, or a part moves aside, is lost or coloured."""
    show, kind, c, keeps = view(rng), between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.5)

    def draw(rng):
        a, b = colors(rng, 2)
        grid = blank(rng, 8, 13)
        h, w = between(rng, 2, 4), between(rng, 4, 6)
        r, k = between(rng, 3, len(grid) - h), between(rng, 0, grid.shape[1] - w - 1)
        if r + h > len(grid) or k + w >= grid.shape[1]:
            return None
        cut, size = between(rng, 1, w - 2), between(rng, 1, r)
        if w - 1 - cut == cut and kind > 1:
            return None
        put(grid, box(h, w), (r, k), a)
        out = grid.copy()
        grid[r - size : r, k + cut] = b
        if keeps:
            out[r - size : r, k + cut] = b
        out[r : r + h, k + cut] = 0 if kind else c
        small = slice(k, k + cut) if cut < w - 1 - cut else slice(k + cut + 1, k + w)
        if kind == 1:
            out[r : r + h, k + cut + 1 : k + w + 1] = a
            out[r : r + h, k + cut + 1] = 0
        elif kind > 1:
            out[r : r + h, small] = 0 if kind == 2 else c
        return show(*spun(rng, grid, out))

    return draw


def crops_in_order(rng):
    """All objects cut out and set side by side: in their order, or by their number of cells; flipped or with gaps."""
    show, by_size, gap, turn = view(rng), between(rng, 0, 2), between(rng, 0, 1), between(rng, 0, 2)
    down = chance(rng, 0.4)

    def draw(rng):
        n, size = between(rng, 2, 3 if by_size else 4), between(rng, 3 if by_size else 2, 3)
        masks = [blob(rng, size, size, between(rng, 2 * size - 1, size * size - 1)) for _ in range(n)]
        hues = colors(rng, n)
        grid = blank(rng, 8, 12)
        at = scatter(rng, grid, list(zip(masks, hues, strict=True)))
        if at is None or len({k for _, k in at}) < n or by_size and len({m.sum() for m in masks}) < n:
            return None
        order = sorted(range(n), key=lambda i: (at[i][1], masks[i].sum(), -masks[i].sum())[by_size])
        tiles = [masks[i] * np.uint8(hues[i]) for i in order]
        tiles = [(t, t[::-1, ::-1], t[:, ::-1])[turn] for t in tiles]
        tiles = [np.pad(t, ((0, gap * down), (0, gap * (not down)))) for t in tiles]
        out = np.concatenate(tiles, 0 if down else 1)
        if gap:
            out = out[:-1] if down else out[:, :-1]
        return show(grid, out)

    return draw


def overlaid(rng):
    """All objects laid over one another, the last (first, smallest) on top; or where all, or just one of them, are."""
    show, kind, c = view(rng), between(rng, 0, 4), between(rng, 1, 9)

    def draw(rng):
        n, size = between(rng, 2, 3), between(rng, 3, 4)
        masks, hues = [blob(rng, size, size) for _ in range(n)], colors(rng, n)
        grid = blank(rng, 8, 12)
        at = scatter(rng, grid, list(zip(masks, hues, strict=True)))
        if at is None or len({k for _, k in at}) < n or kind == 2 and len({m.sum() for m in masks}) < n:
            return None
        out, count = np.zeros((size, size), np.uint8), sum(m.astype(int) for m in masks)
        for i in sorted(range(n), key=lambda i: (at[i][1], -at[i][1], -masks[i].sum(), 0, 0)[kind]):
            put(out, masks[i], (0, 0), hues[i])
        if kind > 2:
            out = (np.uint8(c) * (count == (n if kind == 3 else 1))).astype(np.uint8)
        return show(grid, out) if out.any() else None

    return draw


def bounced(rng):
    """A slanting line goes on, and is thrown back by the sides (or comes in again on the other one)."""
    show, wraps, c = view(rng), chance(rng, 0.3), between(rng, 0, 5)

    def draw(rng):
        grid = np.zeros((between(rng, 4, 7), between(rng, 9, 14)), np.uint8)
        a = colors(rng, 1)[0]
        r, way = between(rng, 0, len(grid) - 3), 1
        if chance(rng, 0.5):
            r, way = len(grid) - 1 - r, -1
        out, n = grid.copy(), between(rng, 2, 3)
        if not 0 <= r + 2 * way < len(grid):
            return None
        for k in range(grid.shape[1]):
            grid[r, k] = a if k < n else 0
            out[r, k] = a if k < n or not c else c
            if wraps:
                r = (r + way) % len(grid)
            else:
                way = way if 0 <= r + way < len(grid) else -way
                r += way
        return show(grid, out)

    return draw


def ring_turned(rng):
    """The cells around the middle move on along the ring by one or two; what is inside stays, goes or is turned."""
    show, steps, kind = view(rng), int(rng.choice([1, 2, -1])), between(rng, 0, 2)

    def draw(rng):
        h, w = between(rng, 3, 5), between(rng, 3, 5)
        grid = rng.choice(np.array(colors(rng, 4), np.uint8), (h, w))
        if kind == 2:
            grid[1:-1, 1:-1] = 0
        ring = [(0, k) for k in range(w)] + [(r, w - 1) for r in range(1, h)]
        ring += [(h - 1, k) for k in range(w - 2, -1, -1)] + [(r, 0) for r in range(h - 2, 0, -1)]
        out = grid.copy()
        for i, spot in enumerate(ring):
            out[ring[(i + steps) % len(ring)]] = grid[spot]
        if kind == 1:
            out[1:-1, 1:-1] = 0
        return show(grid, out)

    return draw


def belt(rng):
    """The contents of cells between lines all move on by one cell, to the next in the row or in reading order."""
    show, by_row, wraps = view(rng), chance(rng, 0.5), chance(rng, 0.6)

    def draw(rng):
        n, size, m = between(rng, 3, 4), between(rng, 2, 3), between(rng, 1, 2)
        line, *hues = colors(rng, 4)
        grid = np.full((m * (size + 1) - 1, n * (size + 1) - 1), line, np.uint8)
        out = grid.copy()
        tiles = [patch(rng, size, size, hues) * np.uint8(chance(rng, 0.7)) for _ in range(m * n)]
        for i, tile in enumerate(tiles):
            spots = [(r * (size + 1), k * (size + 1)) for r in range(m) for k in range(n)]
            r, k = divmod(i, n)
            to = r * n + (k + 1) % n if by_row else (i + 1) % (m * n)
            lost = to <= i and not wraps
            put(grid, box(size, size), spots[i], tile)
            put(out, box(size, size), spots[to], 0 * tile if lost else tile)
        return show(grid, out)

    return draw


def to_border(rng):
    """Every object goes straight to the side it is nearest to (or farthest from), perhaps leaving a trail or a copy."""
    show, is_far, kind, c = view(rng), chance(rng, 0.3), between(rng, 0, 2), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 9, 13)
        things = things_on(rng, grid, blobs(rng, between(rng, 1, 3), 1, 3), colors(rng, 3), margin=1)
        if things is None:
            return None
        out = np.zeros_like(grid) if kind == 0 else grid.copy()
        for mask, (r, k), hue in things:
            h, w = mask.shape
            ways = {(-1, 0): r, (0, -1): k, (1, 0): len(grid) - r - h, (0, 1): grid.shape[1] - k - w}
            best = (max if is_far else min)(ways.values())
            if list(ways.values()).count(best) > 1:
                return None
            y, x = next(w for w, n in ways.items() if n == best)
            for n in range(1, best + 1):
                spots = np.argwhere(mask) + (r + n * y, k + n * x)
                if any(out[i, j] and not (r <= i < r + len(mask) and k <= j < k + mask.shape[1]) and out[i, j] != c
                       for i, j in spots):  # fmt: skip
                    return None
            if kind == 2:
                for n in range(best):
                    dab(out, mask, r + n * y, k + n * x, c)
            if not (kind or free(out, mask, r + best * y, k + best * x)):
                return None
            put(out, mask, (r + best * y, k + best * x), hue)
        return show(grid, out)

    return draw


def cannon(rng):
    """A T-shaped thing shoots where it points; what is hit first is coloured, lost, or just stops the shot."""
    show, kind, c, back = view(rng), between(rng, 0, 2), between(rng, 1, 9), chance(rng, 0.25)

    def draw(rng):
        grid = blank(rng, 9, 14)
        a, b = colors(rng, 2)
        turn = between(rng, 0, 3)
        gun = np.rot90(np.array([[0, 1, 0], [1, 1, 1]], bool), turn)
        y, x = ((-1, 0), (0, -1), (1, 0), (0, 1))[turn]
        y, x = (-y, -x) if back else (y, x)
        blocks = [box(between(rng, 2, 3), between(rng, 2, 3)) for _ in range(between(rng, 3, 5))]
        at = scatter(rng, grid, [(gun, a)] + [(m, b) for m in blocks])
        if at is None:
            return None
        out = grid.copy()
        r, k = at[0][0] + (1 if gun.shape[0] == 3 else int(not gun[0].all())), at[0][1]
        k += 1 if gun.shape[1] == 3 else int(not gun[:, 0].all())
        r, k = r + y, k + x
        while 0 <= r < len(grid) and 0 <= k < grid.shape[1] and grid[r, k] != b:
            if grid[r, k] == 0:
                out[r, k] = c
            r, k = r + y, k + x
        if 0 <= r < len(grid) and 0 <= k < grid.shape[1]:
            for mask, (i, j) in zip(blocks, at[1:], strict=True):
                if i <= r < i + len(mask) and j <= k < j + mask.shape[1]:
                    put(out, mask, (i, j), (c, 0, b)[kind])
        elif chance(rng, 0.7):
            return None
        return show(grid, out)

    return draw


def flowing(rng):
    """Water from the top runs down, and around the bars in its way: on one side or both."""
    show, both, c = view(rng), chance(rng, 0.6), between(rng, 0, 4)

    def draw(rng):
        grid = blank(rng, 9, 14)
        a, b = colors(rng, 2)
        bars = [(box(1, between(rng, 1, 4)), a)] * between(rng, 2, 4)
        if scatter(rng, grid[2:, 1:-1], bars) is None:
            return None
        start = between(rng, 1, grid.shape[1] - 2)
        grid[0, start] = b
        out, streams, turns, ink = grid.copy(), [(0, start)], 0, c or b
        while streams:
            r, k = streams.pop()
            while r + 1 < len(grid) and grid[r + 1, k] != a:
                r += 1
                out[r, k] = ink
            if r + 1 < len(grid):
                turns += 1
                for way in (-1, 1) if both else (1,):
                    j = k
                    while grid[r + 1, j] == a and grid[r, j + way] != a:
                        j += way
                        out[r, j] = ink
                    if grid[r + 1, j] != a:
                        streams.append((r, j))
        out[0, start] = b
        return show(grid, out) if turns else None

    return draw


def deflected(rng):
    """A beam from the side turns in front of every obstacle: to the right, to the left, or in turn."""
    show, kind, c = view(rng), between(rng, 0, 2), between(rng, 0, 4)

    def draw(rng):
        grid = blank(rng, 8, 13)
        a, b = colors(rng, 2)
        row, h, w = between(rng, 2, len(grid) - 3), *grid.shape
        grid[row, 0] = b
        if scatter(rng, grid, [(DOT, a)] * between(rng, 1, 3)) is None:
            return None
        if not (grid[row, 2:] == a).any():
            grid[row, between(rng, 3, w - 2)] = a
        r, k, y, x, turns, out = row, 0, 0, 1, 0, grid.copy()
        for _ in range(100):
            if not (0 <= r + y < h and 0 <= k + x < w):
                break
            if grid[r + y, k + x] == a:
                right = (True, False, turns % 2 == 0)[kind]
                y, x, turns = (x, -y, turns + 1) if right else (-x, y, turns + 1)
                if not (0 <= r + y < h and 0 <= k + x < w) or grid[r + y, k + x] == a:
                    return None
            r, k = r + y, k + x
            if grid[r, k] == b:
                return None
            out[r, k] = c or b
        else:
            return None
        return show(grid, out) if turns and r + k else None

    return draw


def hinged(rng):
    """An object with a cell at one side appears beyond that cell: mirrored, the same, or turned by a half."""
    show, kind, keeps, c = view(rng), between(rng, 0, 2), chance(rng, 0.4), between(rng, 0, 6)

    def draw(rng):
        grid = blank(rng, 9, 13)
        a, b = colors(rng, 2)
        h, w = between(rng, 2, 3), between(rng, 2, 3)
        r, k = between(rng, 0, len(grid) - h), between(rng, 0, grid.shape[1] - 2 * w - 1)
        if k + 2 * w + 1 > grid.shape[1]:
            return None
        mask = blob(rng, h, w)
        other = (mask[:, ::-1], mask, mask[::-1, ::-1])[kind]
        if (mask == mask[:, ::-1]).all() and chance(rng, 0.8):
            return None
        put(grid, mask, (r, k), a)
        out = grid.copy()
        grid[r + between(rng, 0, h - 1), k + w] = b
        if keeps:
            out = grid.copy()
        put(out, other, (r, k + w + keeps), c or a)
        return show(*spun(rng, grid, out))

    return draw


def frames_tiled(rng):
    """The small pattern that lies outside fills all frames, again and again from their corner."""
    show, lost, mirror = view(rng), chance(rng, 0.3), chance(rng, 0.3)

    def draw(rng):
        grid = blank(rng, 9, 14)
        a, *hues = colors(rng, 4)
        h, w = between(rng, 1, 2), between(rng, 1, 2)
        tile = np.array(hues + [hues[between(rng, 0, 1)]], np.uint8)[: h * w].reshape(h, w)
        if tile.size == 1:
            return None
        masks = [box(between(rng, 4, 6), between(rng, 4, 7), True) for _ in range(between(rng, 1, 2))]
        at = scatter(rng, grid, [(box(m.shape[0], m.shape[1]), a) for m in masks] + [(box(h, w), tile)])
        if at is None:
            return None
        out = grid.copy()
        if lost:
            put(out, box(h, w), at[-1], 0)
        big = np.concatenate([tile, tile[:, ::-1]], 1) if mirror else tile
        for mask, (r, k) in zip(masks, at, strict=False):
            size = mask.shape[0] - 2, mask.shape[1] - 2
            put(grid, box(*size), (r + 1, k + 1), 0)
            put(out, box(*size), (r + 1, k + 1), np.tile(big, (4, 5))[: size[0], : size[1]])
        return show(grid, out)

    return draw


def frame_scaled(rng):
    """The small pattern is enlarged to fill the frame; all is shown or the frame alone."""
    show, cut, c = view(rng), between(rng, 0, 1), between(rng, 0, 5)

    def draw(rng):
        n, times = between(rng, 2, 3), between(rng, 2, 3)
        a, *hues = colors(rng, 3)
        side = n * times + 2
        if side > 9:
            return None
        tile = patch(rng, n, n, hues)
        grid = np.zeros((side + between(rng, 0, 3), side + n + between(rng, 1, 3)), np.uint8)
        at = scatter(rng, grid, [(box(side, side), a), (tile > 0, tile)])
        if at is None:
            return None
        r, k = at[0]
        put(grid, box(side - 2, side - 2), (r + 1, k + 1), 0)
        out = grid.copy()
        big = tile.repeat(times, 0).repeat(times, 1)
        put(out, big > 0, (r + 1, k + 1), np.where(big > 0, c, 0) if c else big)
        return show(grid, out[r : r + side, k : k + side] if cut else out)

    return draw


def on_rope(rng):
    """An object on a rope is drawn to the rope's end, which is lost, lies behind it, or holds two."""
    show, kind, c = view(rng), between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        a, b = colors(rng, 2)
        grid = np.zeros((between(rng, 5, 11), between(rng, 8, 13)), np.uint8)
        out, row = grid.copy(), 0
        while True:
            h, w = int(rng.choice([1, 3])), between(rng, 1, 3)
            row += between(rng, 0, 2)
            if row + h > len(grid):
                break
            mask = blob(rng, h, w)
            mask[h // 2] = True
            k, n = between(rng, 0, 3), between(rng, 2, 5)
            if k + w + n > grid.shape[1]:
                return None
            put(grid, mask, (row, k), a)
            grid[row + h // 2, k + w : k + w + n] = b
            if kind:
                out[row + h // 2, k + (w if kind == 3 else 0) : k + w + n] = (0, b, c, b)[kind]
            if kind == 3:
                put(out, mask, (row, k), a)
            put(out, mask, (row, k + n), a)
            row += h + 1
        return show(*spun(rng, grid, out)) if grid.any() else None

    return draw


def along_path(rng):
    """A ball runs along the path to its other end; the path is lost, stays, or is coloured."""
    show, kind, c = view(rng), between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 7, 12)
        a, b = colors(rng, 2)
        spot = between(rng, 0, len(grid) - 1), between(rng, 0, grid.shape[1] - 1)
        path, way = [spot], WAYS[between(rng, 0, 3)]
        grid[spot] = a
        for _ in range(12):
            for _ in range(between(rng, 2, 4)):
                y, x = path[-1][0] + way[0], path[-1][1] + way[1]
                near = np.pad(grid, 1)[y : y + 3, x : x + 3] > 0
                if not free(grid, DOT, y, x) or near[[0, 1, 1, 2], [1, 0, 2, 1]].sum() != 1:
                    break
                grid[y, x] = a
                path.append((y, x))
            way = (way[1], way[0]) if chance(rng, 0.5) else (-way[1], -way[0])
            if len(path) > 14:
                break
        if len(path) < 6:
            return None
        out = grid.copy() if kind else np.zeros_like(grid)
        grid[path[0]] = b
        if kind == 2:
            out[out > 0] = c
        out[path[-1]] = b
        if kind == 3:
            for i, (y, x) in enumerate(path):
                out[y, x] = b if i % 2 == 0 else a
        return show(grid, out)

    return draw


def frames_matched(rng):
    """Full rectangles go into the empty frames that they fit; they leave their place or not."""
    show, keeps, c = view(rng), chance(rng, 0.3), between(rng, 1, 9) * chance(rng, 0.3)

    def draw(rng):
        a, *hues = colors(rng, 4)
        sizes = [(h, w) for h in (1, 2, 3) for w in (1, 2, 3)]
        sizes = [sizes[i] for i in rng.permutation(9)[: between(rng, 2, 3)]]
        grid = blank(rng, 10, 14)
        frames = [np.ones((h + 2, w + 2), bool) for h, w in sizes]
        at = scatter(rng, grid, [(f, a) for f in frames])
        loose = at and scatter(rng, grid, [(box(*s), hue) for s, hue in zip(sizes, hues, strict=False)])
        if not loose:
            return None
        out = grid.copy()
        for s, (r, k), old, hue in zip(sizes, at, loose, hues, strict=False):
            put(grid, box(*s), (r + 1, k + 1), 0)
            put(out, box(*s), (r + 1, k + 1), c or hue)
            if not keeps:
                put(out, box(*s), old, 0)
        return show(grid, out)

    return draw


def meeting(rng):
    """Two objects that face each other move until they meet; or one goes to the other; or the middle is marked."""
    show, kind, c = view(rng), between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        grid = np.zeros((between(rng, 5, 11), between(rng, 9, 14)), np.uint8)
        a, b = colors(rng, 2)
        out, row = grid.copy(), between(rng, 0, 2)
        while row + 2 <= len(grid):
            h = between(rng, 1, 2)
            one, two = box(h, between(rng, 1, 3)), box(h, between(rng, 1, 3))
            k, gap = between(rng, 0, 2), between(rng, 2, 8)
            gap += (gap % 2) if kind == 0 else 1 - gap % 2
            j = k + one.shape[1] + gap
            if j + two.shape[1] > grid.shape[1] or gap < 2:
                return None
            put(grid, one, (row, k), a)
            put(grid, two, (row, j), b)
            move = (gap // 2, gap, 0, 0)[kind]
            put(out, one, (row, k + move), a)
            put(out, two, (row, j - gap // 2 if kind == 0 else j), b)
            if kind > 1:
                mid = k + one.shape[1] + gap // 2
                out[row : row + h, mid if kind == 2 else slice(k + one.shape[1], mid)] = c
                if kind == 3:
                    out[row : row + h, mid + 1 : j] = c
            row += h + between(rng, 1, 2)
        return show(grid, out) if grid.any() else None

    return draw


def orbits(rng):
    """The cells around each centre move on around it: one place of eight, two, or to the opposite one."""
    show, steps, far, c = view(rng), int(rng.choice([1, 2, 4, 6, 7])), between(rng, 1, 2), between(rng, 0, 3)
    ring = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))

    def draw(rng):
        grid = blank(rng, 8, 13)
        a, *hues = colors(rng, 4)
        at = scatter(rng, grid, [(DOT, a)] * between(rng, 1, 3), 2 * far, far)
        if at is None:
            return None
        out = grid.copy()
        for r, k in at:
            for i in rng.permutation(8)[: between(rng, 1, 3)]:
                hue, (y, x), (v, u) = hues[between(rng, 0, 2)], ring[i], ring[(i + steps) % 8]
                grid[r + far * y, k + far * x] = hue
                out[r + far * v, k + far * u] = c or hue
        return show(grid, out)

    return draw


def route(rng):
    """The cells are joined from left to right: first along the row, then along the column (or the other way about)."""
    show, first, c, own = view(rng), chance(rng, 0.5), between(rng, 1, 9), chance(rng, 0.3)

    def draw(rng):
        grid = blank(rng, 7, 13)
        a = colors(rng, 1)[0]
        cols = np.sort(rng.permutation(np.arange(grid.shape[1]))[: between(rng, 2, 4)])
        if len(cols) < 2 or (np.diff(cols) < 2).any():
            return None
        rows = [between(rng, 0, len(grid) - 1) for _ in cols]
        out = grid.copy()
        for (r, k), (y, x) in zip(zip(rows, cols), list(zip(rows, cols))[1:], strict=False):
            bend_row, bend_col = (r, x) if first else (y, k)
            out[bend_row, k : x + 1] = a if own else c
            out[min(r, y) : max(r, y) + 1, bend_col] = a if own else c
        grid[rows, cols] = a
        out[rows, cols] = a
        return show(grid, out)

    return draw


def frame_keeps(rng):
    """A frame lies over scattered cells: only what is inside (outside) stays, or is coloured, or is cut out."""
    show, inside, kind, c = view(rng), chance(rng, 0.6), between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 8, 13)
        a, *hues = colors(rng, 4)
        h, w = between(rng, 4, len(grid) - 2), between(rng, 4, grid.shape[1] - 2)
        grid[:] = noise(rng, *grid.shape, hues, 0.25)
        at = between(rng, 0, len(grid) - h), between(rng, 0, grid.shape[1] - w)
        put(grid, box(h, w, True), at, a)
        within = np.zeros(grid.shape, bool)
        within[at[0] : at[0] + h, at[1] : at[1] + w] = True
        lost = (within != inside) & (grid != a) & (grid > 0)
        out = grid.copy()
        out[lost] = c if kind in (1, 3) else 0
        if kind == 2:
            out[grid == a] = 0
        if kind == 3 and inside:
            out = out[bounds(within)].copy()
            out[out == a] = 0
            out[(out != a) & (out > 0)] = c
        return show(grid, out)

    return draw


def smeared(rng):
    """The last cells of each object are drawn out to the border, to a wall, or by the object's own width."""
    show, kind = view(rng), between(rng, 0, 2)

    def draw(rng):
        wall, *hues = colors(rng, 4)
        grid = np.zeros((between(rng, 6, 11), between(rng, 9, 13)), np.uint8)
        end = grid.shape[1]
        if kind == 1:
            end -= between(rng, 1, 3)
            grid[:, end] = wall
        out, row = grid.copy(), between(rng, 0, 2)
        while row + 2 <= len(grid):
            h, w = between(rng, 1, 3), between(rng, 2, 3)
            h = min(h, len(grid) - row)
            tile, k = patch(rng, h, w, hues), between(rng, 0, end - 2 * w)
            put(grid, tile > 0, (row, k), tile)
            for i in range(h):
                last = np.flatnonzero(tile[i])[-1]
                out[row + i, k + last : k + 2 * w if kind == 2 else end] = tile[i, last]
            put(out, tile > 0, (row, k), tile)
            row += h + between(rng, 1, 2)
        return show(grid, out)

    return draw


def skewed(rng):
    """The rows of each object are shifted: each further than the one before, every other, the first, or half."""
    show, kind, way = view(rng), between(rng, 0, 3), int(rng.choice([-1, 1]))

    def draw(rng):
        grid = blank(rng, 9, 13)
        masks = [box(between(rng, 3, 5), between(rng, 2, 4), chance(rng, 0.5)) for _ in range(between(rng, 1, 2))]
        things = things_on(rng, grid, masks, colors(rng, 3), margin=1)
        if things is None:
            return None
        out = np.zeros_like(grid)
        for mask, (r, k), hue in things:
            for i, row in enumerate(mask):
                n = way * (i, i % 2, int(i == 0), int(i < len(mask) // 2))[kind]
                if not free(out, row[None], r + i, k + n):
                    return None
                put(out, row[None], (r + i, k + n), hue)
        return show(grid, out)

    return draw


def mirrored_place(rng):
    """Objects go to (or get copies at) the opposite place of the grid, their shape turned with it or not."""
    show, kind, turns, keeps, c = view(rng), between(rng, 0, 2), chance(rng, 0.5), chance(rng, 0.4), between(rng, 0, 6)

    def draw(rng):
        grid = blank(rng, 7, 12)
        things = things_on(rng, grid, blobs(rng, between(rng, 1, 3), 1, 3), colors(rng, 3))
        if things is None:
            return None
        out = grid.copy() if keeps else np.zeros_like(grid)
        for mask, (r, k), hue in things:
            h, w = mask.shape
            to = (len(grid) - h - r if kind != 1 else r), (grid.shape[1] - w - k if kind != 0 else k)
            new = (mask[::-1], mask[:, ::-1], mask[::-1, ::-1])[kind] if turns else mask
            if not free(out, new, *to):
                return None
            put(out, new, to, c or hue)
        return show(grid, out)

    return draw


def landing_color(rng):
    """Objects fall onto a floor of coloured stretches and take the colour they land on (or give it theirs)."""
    show, kind = view(rng), between(rng, 0, 2)

    def draw(rng):
        n = between(rng, 2, 3)
        a, *hues = colors(rng, n + 1)
        widths = [between(rng, 3, 5) for _ in range(n)]
        grid = np.zeros((between(rng, 7, 10), sum(widths)), np.uint8)
        grid[-1] = np.repeat(hues, widths)
        out, start, count = grid.copy(), 0, 0
        for width, hue in zip(widths, hues, strict=True):
            if chance(rng, 0.8):
                mask = blob(rng, between(rng, 1, 3), between(rng, 1, width - 1))
                r, k = between(rng, 0, len(grid) - 3 - len(mask)), start + between(rng, 0, width - mask.shape[1])
                if np.pad(grid, 1)[r : r + len(mask) + 2, k : k + 1].any():
                    return None
                put(grid, mask, (r, k), a)
                put(out, mask, (r if kind == 2 else len(grid) - 1 - len(mask), k), a if kind == 1 else hue)
                if kind == 1:
                    out[-1, start : start + width] = a
                count += 1
            start += width
        return show(grid, out) if count else None

    return draw


def jumps(rng):
    """A cell beside a block jumps over it to its other side, or goes into its middle, or through it."""
    show, kind, c = view(rng), between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 9, 14)
        a, b = colors(rng, 2)
        n = between(rng, 1, 3)
        at = scatter(rng, grid, [(box(3, 3), a)] * n, 2, 2)
        if at is None:
            return None
        out = grid.copy()
        for r, k in at:
            (y, x), far = WAYS[between(rng, 0, 3)], between(rng, 2, 3)
            spot, to = (r + 1 + far * y, k + 1 + far * x), (r + 1 - far * y, k + 1 - far * x)
            if not (free(grid, DOT, *spot) and free(out, DOT, *spot) and free(out, DOT, *to) and free(grid, DOT, *to)):
                return None
            grid[spot] = b
            if kind == 1:
                out[r + 1, k + 1] = b
            elif kind == 3:
                for i in range(-1, 2):
                    out[r + 1 + i * y, k + 1 + i * x] = c
                out[spot] = b
            else:
                out[to] = b
                if kind == 2:
                    out[spot] = c
        return show(grid, out)

    return draw


def lattice_mended(rng):
    """Copies stand on a regular lattice; the missing ones are added, in their colour or another."""
    show, c, own, checks = view(rng), between(rng, 1, 9), chance(rng, 0.4), chance(rng, 0.3)

    def draw(rng):
        a = colors(rng, 1)[0]
        h, w = between(rng, 1, 2), between(rng, 1, 3)
        mask, n, m = blob(rng, h, w), between(rng, 3, 4), between(rng, 3, 4)
        r, k = between(rng, 0, 2), between(rng, 0, 2)
        grid = np.zeros((r + n * (h + 1) + between(rng, -1, 1), k + m * (w + 1) + between(rng, -1, 1)), np.uint8)
        out = grid.copy()
        spots = [(i, j) for i in range(n) for j in range(m) if not (checks and (i + j) % 2)]
        lost = rng.permutation(len(spots))[: between(rng, 1, 3)]
        for i, (y, x) in enumerate(spots):
            at = r + y * (h + 1), k + x * (w + 1)
            put(out, mask, at, a if own or i not in lost else c)
            if i not in lost:
                put(grid, mask, at, a)
        return show(grid, out) if bounds(grid > 0) == bounds(out > 0) else None

    return draw


def pyramid(rng):
    """Under a bar (and above it, or both) come ever shorter, or longer, bars until they end."""
    show, kind, c, own = view(rng), between(rng, 0, 4), between(rng, 1, 9), chance(rng, 0.3)

    def draw(rng):
        grid = blank(rng, 7, 12)
        a, n = colors(rng, 1)[0], between(rng, 2, 8)
        n += (n + 1) % 2 if kind in (0, 1) else 0
        r = between(rng, 1, len(grid) - 2)
        if n > grid.shape[1]:
            return None
        k = 0 if kind > 1 else between(rng, 0, grid.shape[1] - n)
        grid[r, k : k + n] = a
        out, ink = grid.copy(), a if own else c
        for i in range(1, 14):
            less = i if kind in (0, 1) else 0
            if n - 2 * less > 0 and kind in (0, 1) or kind > 1 and n - i > 0:
                size = n - 2 * less if kind in (0, 1) else n - i
                dab(out, box(1, size), r + i, k + less, ink)
                if kind in (1, 3):
                    dab(out, box(1, size), r - i, k + less, ink)
            if kind == 4:
                dab(out, box(1, n + i), r - i, k, a)
        return show(grid, out) if (out != grid).any() else None

    return draw


def climbers(rng):
    """Blocks beside poles climb to the top, go down, change to the other side, or come level with the highest."""
    show, kind = view(rng), between(rng, 0, 3)

    def draw(rng):
        grid = np.zeros((between(rng, 8, 11), between(rng, 8, 14)), np.uint8)
        a, b = colors(rng, 2)
        col, things = between(rng, 1, 2), []
        while col < grid.shape[1] - 1:
            tall = between(rng, 5, len(grid))
            h, side = between(rng, 1, 2), 1 if chance(rng, 0.5) else -1
            r = between(rng, len(grid) - tall, len(grid) - h)
            grid[len(grid) - tall :, col] = a
            things.append((r, h, col, side, tall))
            col += between(rng, 4, 5)
        out, high = grid.copy(), min(t[0] for t in things)
        for r, h, col, side, tall in things:
            grid[r : r + h, col + side] = b
            to = (len(grid) - tall, len(grid) - h, r, high)[kind]
            if to < len(grid) - tall:
                return None
            out[to : to + h, col + (-side if kind == 2 else side)] = b
        return show(grid, out)

    return draw


def combs(rng):
    """Two rough edges face each other: one moves until they touch, or both; or the gap that stays is coloured."""
    show, kind, c = view(rng), between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        w, h = between(rng, 4, 8), between(rng, 8, 11)
        a, b = colors(rng, 2)
        top, foot = rng.integers(1, 4, w), rng.integers(1, 4, w)
        gap = int((h - top - foot).min())
        if gap < 1 or len(set(top.tolist())) < 2:
            return None
        rows = np.arange(h)[:, None]
        grid = np.where(rows < top, a, np.where(rows >= h - foot, b, 0)).astype(np.uint8)
        out = np.zeros_like(grid)
        out[gap:] = np.where(grid == a, a, 0)[:-gap]
        out = np.where(grid == b, b, out).astype(np.uint8)
        if kind == 1:
            out[:gap] = c
        if kind == 2:
            filled = (out == 0) & (np.cumsum(out == a, 0) > 0)
            out[filled] = c
        if kind == 3:
            out = out[gap:]
        return show(grid, out)

    return draw


def pushed(rng):
    """Where a pusher stands at the side, the row's blocks are pushed together at the far side; other rows stay."""
    show, follows, c = view(rng), between(rng, 0, 2), between(rng, 0, 4)

    def draw(rng):
        grid = np.zeros((between(rng, 5, 11), between(rng, 8, 13)), np.uint8)
        p, *hues = colors(rng, 4)
        out, n = grid.copy(), 0
        for row in range(between(rng, 0, 1), len(grid), 2):
            k, cells = 2, []
            while True:
                k, w = k + between(rng, 0, 3), between(rng, 1, 3)
                if k + w > grid.shape[1]:
                    break
                hue = hues[between(rng, 0, 2)]
                grid[row, k : k + w] = hue
                cells += [hue] * w
                k += w + 1
            out[row] = grid[row]
            if chance(rng, 0.6) and cells:
                grid[row, 0] = p
                out[row] = 0
                out[row, -len(cells) :] = cells
                out[row, (0, -len(cells) - 1, 0)[follows]] = p if follows < 2 else 0
                if c and follows == 1:
                    out[row, : -len(cells) - 1] = c
                n += 1
        return show(grid, out) if n else None

    return draw


def domino_chain(rng):
    """Beside the pushed bar all bars fall in turn, as long as the next is within reach: these are coloured, or lost."""
    show, c, falls = view(rng), between(rng, 1, 9), chance(rng, 0.3)

    def draw(rng):
        a, b = colors(rng, 2)
        high = between(rng, 3, 4)
        grid = np.zeros((high + between(rng, 1, 3), between(rng, 12, 20)), np.uint8)
        out, col, is_pushed = grid.copy(), 1, True
        grid[-high, 0] = b
        out[-high, 0] = b
        count = [0, 0]
        while col < grid.shape[1]:
            grid[-high:, col] = a
            out[-high:, col] = a if not is_pushed else 0 if falls else c
            count[is_pushed] += 1
            gap = between(rng, 1, high - 1) if chance(rng, 0.65) else between(rng, high, high + 1)
            is_pushed = is_pushed and gap < high
            col += gap + 1
        return show(grid, out) if min(count) else None

    return draw


def ring_by_mark(rng):
    """Rectangles with a marked middle grow by a ring, those without lose one (or stay)."""
    show, c, loses, swaps = view(rng), between(rng, 0, 6), chance(rng, 0.6), chance(rng, 0.3)

    def draw(rng):
        grid = blank(rng, 10, 14)
        a, b = colors(rng, 2)
        sizes = [((3, 3), (3, 5), (5, 3))[between(rng, 0, 2)] for _ in range(between(rng, 2, 3))]
        masks = [box(*size) for size in sizes]
        things = things_on(rng, grid, masks, [a], 2, 1)
        if things is None:
            return None
        out, kinds = grid.copy(), [True, False, chance(rng, 0.5)][: len(masks)]
        for (mask, (r, k), _), is_marked in zip(things, kinds, strict=True):
            h, w = mask.shape
            if is_marked:
                grid[r + h // 2, k + w // 2] = b
                out[r + h // 2, k + w // 2] = b
            if is_marked != swaps:
                put(out, box(h + 2, w + 2, True), (r - 1, k - 1), c or a)
            elif loses:
                put(out, box(h, w, True), (r, k), 0)
        return show(grid, out)

    return draw


def rejoined(rng):
    """The parts of an object that was cut apart are brought together: onto the first or the last."""
    show, kind, cut = view(rng), between(rng, 0, 1), chance(rng, 0.3)

    def draw(rng):
        h, w, n = between(rng, 2, 5), between(rng, 4, 8), between(rng, 1, 2)
        tile = patch(rng, h, w, colors(rng, between(rng, 1, 3)))
        cuts = sorted(rng.permutation(np.arange(1, w))[:n].tolist())
        pieces = np.split(tile, cuts, 1)
        gaps = [between(rng, 1, 3) for _ in cuts]
        if not all(p[:, 0].any() and p[:, -1].any() for p in pieces):
            return None
        row = [pieces[0]]
        for gap, piece in zip(gaps, pieces[1:], strict=True):
            row += [np.zeros((h, gap), np.uint8), piece]
        wide, total = np.concatenate(row, 1), sum(gaps)
        new = np.pad(tile, ((0, 0), (0, total) if kind == 0 else (total, 0)))
        margin = tuple((between(rng, 0, 3), between(rng, 0, 3)) for _ in (0, 1))
        return show(np.pad(wide, margin), tile if cut else np.pad(new, margin))

    return draw


def slots_sorted(rng):
    """Objects standing on the floor are put in the order of their heights, in the old places or close together."""
    show, kind, down, squeeze = view(rng), between(rng, 0, 1), chance(rng, 0.5), between(rng, 0, 1)

    def draw(rng):
        n = between(rng, 3, 4)
        highs = [int(i) for i in rng.permutation(np.arange(1, 7))[:n]]
        masks = [box(high, 1 if kind == 0 else 2, False) for high in highs]
        masks = [m if kind == 0 or chance(rng, 0.6) or len(m) < 3 else blob(rng, *m.shape) for m in masks]
        hues = colors(rng, n)
        order = sorted(range(n), key=lambda i: -highs[i] if down else highs[i])
        step = masks[0].shape[1] + 1
        grid = np.zeros((max(highs) + between(rng, 0, 2), n * step - 1), np.uint8)
        out = np.zeros((len(grid), n * step - 1 if not squeeze else n * (step - 1)), np.uint8)
        for i, k in enumerate(order):
            put(grid, masks[i], (len(grid) - len(masks[i]), i * step), hues[i])
            put(out, masks[k], (len(grid) - len(masks[k]), i * (step - squeeze)), hues[k])
        return show(grid, out)

    return draw


def folded(rng):
    """The grid is folded over the bar: what meets the other side's hides it, is hidden, or gets a new colour."""
    show, kind, c, keeps_bar = view(rng), between(rng, 0, 2), between(rng, 1, 9), chance(rng, 0.5)

    def draw(rng):
        h, w = between(rng, 3, 6), between(rng, 3, 9)
        bar, a, b = colors(rng, 3)
        top, foot = noise(rng, h, w, [a], 0.35), noise(rng, h, w, [b], 0.35)
        line = np.full((1, w), bar, np.uint8)
        flipped = top[::-1]
        out = np.where(flipped > 0, flipped, foot) if kind == 0 else np.where(foot > 0, foot, flipped)
        if kind == 2:
            out = np.where((flipped > 0) & (foot > 0), c, out)
        out = out.astype(np.uint8)
        return show(np.concatenate([top, line, foot]), np.concatenate([line, out]) if keeps_bar else out)

    return draw


def shadowed(rng):
    """Every object throws a shadow of its shape, so many cells down and aside, behind all objects."""
    show, down, aside, c = view(rng), between(rng, 0, 2), between(rng, 1, 2), between(rng, 1, 9)

    def draw(rng):
        grid = blank(rng, 7, 13)
        masks = [m if chance(rng, 0.5) else box(*m.shape) for m in blobs(rng, between(rng, 2, 4), 1, 4)]
        things = things_on(rng, grid, masks, colors(rng, 3))
        if things is None:
            return None
        out = grid.copy()
        for mask, (r, k), _ in things:
            dab(out, mask, r + down, k + aside, c, False)
        return show(grid, out)

    return draw


def middle_met(rng):
    """From two cells on opposite sides lines grow to the middle; the cell where they meet has a new colour."""
    show, c, kind = view(rng), between(rng, 1, 9), between(rng, 0, 2)

    def draw(rng):
        grid = np.zeros((between(rng, 4, 12), 2 * between(rng, 2, 6) + 1), np.uint8)
        half, hues = grid.shape[1] // 2, colors(rng, 4)
        out, n = grid.copy(), 0
        for row in rng.permutation(len(grid))[: between(rng, 1, max(1, len(grid) // 2))]:
            a, b = (int(x) for x in rng.choice(hues, 2, replace=False))
            grid[row, 0], grid[row, -1] = a, b
            if chance(rng, 0.25):
                grid[row, -1] = 0
                out[row] = grid[row]
                continue
            out[row, :half], out[row, half + 1 :] = (b, a) if kind == 1 else (a, b)
            if kind == 1:
                out[row, 0], out[row, -1] = a, b
            out[row, half] = c
            if kind == 2:
                out[row, [1, -2]] = c if half > 1 else out[row, [1, -2]]
            n += 1
        return show(grid, out) if n else None

    return draw


def one_fits(rng):
    """Only one of the loose pieces fits the hole: it is put in; the others stay, vanish, or get a colour."""
    show, kind, c = view(rng), between(rng, 0, 2), between(rng, 1, 9)

    def draw(rng):
        a, *hues = colors(rng, 4)
        pieces = blobs(rng, 3, 2, 3)
        if len({(p.shape, p.tobytes()) for p in pieces}) < 3:
            return None
        grid = blank(rng, 10, 14)
        wall = np.pad(~pieces[0], 1, constant_values=True)
        order = rng.permutation(3)
        at = scatter(rng, grid, [(box(*wall.shape), a)] + [(pieces[i], hues[i]) for i in order])
        if at is None:
            return None
        put(grid, pieces[0], (at[0][0] + 1, at[0][1] + 1), 0)
        out = grid.copy()
        for i, spot in zip(order, at[1:], strict=True):
            put(out, pieces[i], spot, 0 if i == 0 else (hues[i], 0, c)[kind])
        put(out, pieces[0], (at[0][0] + 1, at[0][1] + 1), hues[0])
        return show(grid, out)

    return draw


def windmill(rng):
    """The small grid is set four times, a quarter turned each time; some in another colour, or left out."""
    show, way, first, kind = view(rng), int(rng.choice([1, -1])), between(rng, 0, 3), between(rng, 0, 2)
    c = between(rng, 1, 9)

    def draw(rng):
        n = between(rng, 2, 5)
        tile = noise(rng, n, n, colors(rng, 3), 0.6)
        tiles = [np.rot90(tile, way * k) for k in range(4)]
        if kind == 1:
            tiles[1], tiles[3] = (np.where(t > 0, c, 0).astype(np.uint8) for t in (tiles[1], tiles[3]))
        if kind == 2:
            tiles[2] = 0 * tile
        a, b, d, e = tiles[first:] + tiles[:first]
        return show(tile, np.block([[a, b], [e, d]])) if tile.any() else None

    return draw


def diagonal_copies(rng):
    """As many copies as the small grid has cells (or colours) on the diagonal of a large grid."""
    show, by_color, back, flips = view(rng), chance(rng, 0.4), chance(rng, 0.5), chance(rng, 0.3)

    def draw(rng):
        n, count = between(rng, 2, 3), between(rng, 2, 4)
        hues, tile = colors(rng, 4), np.zeros(n * n, np.uint8)
        cells = between(rng, count, n * n) if by_color else count
        if cells > n * n:
            return None
        tile[rng.permutation(n * n)[:cells]] = [hues[i % count if by_color else 0] for i in range(cells)]
        tile = tile.reshape(n, n)
        out = np.zeros((count * n, count * n), np.uint8)
        for i in range(count):
            k = count - 1 - i if back else i
            out[i * n : i * n + n, k * n : k * n + n] = tile[:, ::-1] if flips and i % 2 else tile
        return show(tile, out)

    return draw


def hooks(rng):
    """Objects below a cell on the upper side are drawn up to it, or tied to it by a line; the others stay or fall."""
    show, line, others_fall, c = view(rng), chance(rng, 0.4), chance(rng, 0.4), between(rng, 1, 9)

    def draw(rng):
        grid = np.zeros((between(rng, 8, 12), between(rng, 9, 14)), np.uint8)
        hook, *hues = colors(rng, 4)
        col, things = between(rng, 0, 1), []
        while col < grid.shape[1] - 2:
            mask = blob(rng, between(rng, 1, 3), between(rng, 1, 3))
            if col + mask.shape[1] > grid.shape[1]:
                break
            row = between(rng, 3, len(grid) - len(mask))
            things.append((mask, row, col, chance(rng, 0.5), hues[between(rng, 0, 2)]))
            col += mask.shape[1] + between(rng, 1, 2)
        out = grid.copy()
        for mask, row, col, is_hooked, hue in things:
            put(grid, mask, (row, col), hue)
            to = row
            if is_hooked:
                at = col + int(np.flatnonzero(mask[0])[0])
                grid[0, at] = hook
                out[0, at] = hook
                if line:
                    out[1:row, at] = c
                else:
                    to = 1
            elif others_fall:
                to = len(grid) - len(mask)
            put(out, mask, (to, col), hue)
        return show(grid, out) if any(t[3] for t in things) else None

    return draw


def on_own_base(rng):
    """All loose cells are stacked on the base of their colour; those without one vanish or stay."""
    show, lost, bases = view(rng), between(rng, 0, 2), chance(rng, 0.7)

    def draw(rng):
        hues = colors(rng, 4)
        n = between(rng, 2, 3)
        grid = np.zeros((between(rng, 7, 10), 3 * n + between(rng, 0, 3)), np.uint8)
        cols = [1 + 3 * i for i in range(n)]
        for col, hue in zip(cols, hues, strict=False):
            grid[-1, max(0, col - bases) : col + 1 + bases] = hue
        out, rows = grid.copy(), [0] * n
        spots = rng.permutation((len(grid) - 3) * grid.shape[1])[: between(rng, 3, 8)]
        for spot in spots:
            i = between(rng, 0, n if lost else n - 1)
            at = spot // grid.shape[1], spot % grid.shape[1]
            grid[at] = hues[i]
            if i < n:
                rows[i] += 1
            elif lost == 2:
                out[at] = hues[i]
        for col, hue, count in zip(cols, hues, rows, strict=False):
            if count > len(grid) - 2 or out[-1 - count : -1, col].any():
                return None
            out[len(grid) - 1 - count : -1, col] = hue
        return show(grid, out)

    return draw


def quarters_turned(rng):
    """A cross parts the grid in four: their contents move on around it, or to the opposite one, turned or not."""
    show, steps, turns, keeps = view(rng), between(rng, 1, 3), chance(rng, 0.4), chance(rng, 0.8)

    def draw(rng):
        n = between(rng, 2, 5)
        line, *hues = colors(rng, 4)
        grid = np.full((2 * n + 1, 2 * n + 1), line, np.uint8)
        out = np.full_like(grid, line if keeps else 0)
        spots = [(0, 0), (0, n + 1), (n + 1, n + 1), (n + 1, 0)]
        for i, at in enumerate(spots):
            tile = noise(rng, n, n, hues, 0.5) if chance(rng, 0.7) else np.zeros((n, n), np.uint8)
            put(grid, box(n, n), at, tile)
            put(out, box(n, n), spots[(i + steps) % 4], np.rot90(tile, -steps) if turns else tile)
        return show(grid, out)

    return draw


def taken_apart(rng):
    """The coloured layers of an object are drawn apart, with a gap (or two), or a step aside, between them."""
    show, gap, aside, cut = view(rng), between(rng, 1, 2), between(rng, 0, 2), chance(rng, 0.3)

    def draw(rng):
        n, w = between(rng, 2, 4), between(rng, 2, 5)
        hues, highs = colors(rng, n), [between(rng, 1, 2) for _ in range(n)]
        if aside and gap > 1:
            highs = [1] * n
        size = sum(highs) + (n - 1) * gap
        grid = np.zeros((size + between(rng, 0, 2), w + (n - 1) * aside + between(rng, 0, 3)), np.uint8)
        out, row, to = grid.copy(), 0, 0
        for i, (hue, high) in enumerate(zip(hues, highs, strict=True)):
            grid[row : row + high, :w] = hue
            out[to : to + high, i * aside : i * aside + w] = hue
            row, to = row + high, to + high + gap
        return show(grid, out[bounds(out > 0)] if cut else out)

    return draw


def wrapped_move(rng):
    """Every object moves by its own width (or its number of cells), and comes in again on the other side."""
    show, kind, c = view(rng), between(rng, 0, 2), between(rng, 0, 5)

    def draw(rng):
        grid = np.zeros((between(rng, 6, 12), between(rng, 7, 12)), np.uint8)
        hues, row, out = colors(rng, 4), between(rng, 0, 1), grid.copy()
        while row < len(grid):
            mask = blob(rng, min(between(rng, 1, 3), len(grid) - row), between(rng, 1, 4))
            hue, k = hues[between(rng, 0, 3)], between(rng, 0, grid.shape[1] - mask.shape[1])
            n = (mask.shape[1], int(mask.sum()), 2 * mask.shape[1])[kind]
            for y, x in np.argwhere(mask):
                grid[row + y, k + x] = hue
                out[row + y, (k + x + n) % grid.shape[1]] = c if c and k + x + n >= grid.shape[1] else hue
            row += len(mask) + 1
        return show(grid, out)

    return draw


def legs(rng):
    """Blocks get legs down to the floor or the next block: below their ends, their middle, or all their width."""
    show, kind, c, own = view(rng), between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.25)

    def draw(rng):
        grid = blank(rng, 7, 13)
        masks = [box(between(rng, 1, 2), 2 * between(rng, 1, 2) + 1) for _ in range(between(rng, 1, 3))]
        things = things_on(rng, grid, masks, colors(rng, 3))
        if things is None:
            return None
        out = grid.copy()
        for mask, (r, k), hue in things:
            w = mask.shape[1]
            for x in ((0, w - 1), (w // 2,), range(w), (0, w // 2, w - 1))[kind]:
                y = r + len(mask)
                while y < len(grid) and not grid[y, k + x]:
                    out[y, k + x] = hue if own else c
                    y += 1
        return show(grid, out)

    return draw


def pattern_passed(rng):
    """The pattern of the one painted block is passed on to all the plain ones: as it is, mirrored, or in one colour."""
    show, kind, c, lost = view(rng), between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.2)

    def draw(rng):
        n, m = between(rng, 3, 4), between(rng, 3, 4)
        a, b, *hues = colors(rng, 5)
        grid = blank(rng, 9, 14)
        count = between(rng, 2, 4)
        plain = [(box(n, m), hues[i % 3] if kind < 2 else a) for i in range(count - 1)]
        at = scatter(rng, grid, [(box(n, m), a), *plain])
        marks = rng.random((n, m)) < 0.3
        if at is None or not 1 < marks.sum() < n * m // 2 or (marks == marks[:, ::-1]).all():
            return None
        put(grid, marks, at[0], b)
        out = grid.copy()
        for spot in at[1:]:
            put(out, marks[:, ::-1] if kind == 1 else marks, spot, c if kind == 3 else b)
        if lost:
            put(out, box(n, m), at[0], 0)
        return show(grid, out)

    return draw


def projected(rng):
    """The wall takes on the colours of what is before it, nearest first; the objects stay, go, or are cut off."""
    show, kind, c = view(rng), between(rng, 0, 2), between(rng, 0, 3)

    def draw(rng):
        grid = blank(rng, 7, 12)
        wall, *hues = colors(rng, 4)
        things = things_on(rng, grid[:-2], blobs(rng, between(rng, 2, 4), 1, 3), hues)
        if things is None:
            return None
        grid[-1] = wall
        out = grid.copy()
        for k, col in enumerate(grid[:-1].T):
            if col.any():
                out[-1, k] = c or col[col > 0][-1]
        if kind == 1:
            out[:-1] = 0
        return show(grid, out[-1:] if kind == 2 else out)

    return draw


CONCEPTS = (
    falling, wall_drawn, own_side, tip_points, marks_tell_steps, dots_tell_steps, anchor_pulls, called, out_of_frame,
    contents_swapped, joined, aligned, tower, over_bar, around_pivot, anchored_copies, stamped, scaled_by_dots,
    symmetry_mended, copies_mended, holes_plugged, notches_plugged, gap_beams, sieve, line_goes_on, corner_tiled,
    hits_and_pushes, exploded, assembled, nest_turned, hollowed, rings_by_count, bridged, lids, group_framed,
    corner_rays, at_intervals, tipped, row_reordered, cut_apart, crops_in_order, overlaid, bounced, ring_turned, belt,
    to_border, cannon, flowing, deflected, hinged, frames_tiled, frame_scaled, on_rope, along_path, frames_matched,
    meeting, orbits, route, frame_keeps, smeared, skewed, mirrored_place, landing_color, jumps, lattice_mended, pyramid,
    climbers, combs, pushed, domino_chain, ring_by_mark, rejoined, slots_sorted, folded, shadowed, middle_met, one_fits,
    windmill, diagonal_copies, hooks, on_own_base, quarters_turned, taken_apart, wrapped_move, legs, pattern_passed,
    projected,
)  # fmt: skip
