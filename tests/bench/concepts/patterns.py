"""Concepts of lines, paths, patterns, symmetry, filling and noise."""

from functools import wraps

import numpy as np

from tests.bench.concepts.scenes import between, blank, blob, box, chance, colors, noise, put, room, scatter
from tests.bench.more_tasks import box as box_of
from tests.bench.more_tasks import enclosed, grown, parts

ONE = box(1, 1)
SIDES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # clockwise
SLANTS = ((-1, 1), (1, 1), (1, -1), (-1, -1))


def any_way(concept):
    """All its pairs turned or flipped alike, and at times 0 and another colour exchanged."""

    @wraps(concept)
    def varied(rng):
        draw, turns, flips = concept(rng), between(rng, 0, 3), chance(rng, 0.5)
        new, ground = np.arange(10, dtype=np.uint8), between(rng, 1, 9) if chance(rng, 0.12) else 0
        new[[0, ground]] = ground, 0

        def pair(rng):
            made = draw(rng)
            return made and tuple(new[np.rot90(g.T if flips else g, turns)] for g in made)

        return pair

    return varied


def hues(rng, count, *taken):
    """Different colours that are none of `taken`."""
    return [x for x in colors(rng, 9) if x not in taken][:count]


def inside(g, at):
    return 0 <= at[0] < g.shape[0] and 0 <= at[1] < g.shape[1]


def ray(g, at, step):
    """The cells after `at` until the border."""
    at = at[0] + step[0], at[1] + step[1]
    while inside(g, at):
        yield at
        at = at[0] + step[0], at[1] + step[1]


def cells(mask):
    return [(int(r), int(k)) for r, k in np.argwhere(mask)]


def dots(rng, g, palette, gap=1, margin=0):
    """Single cells of these colours: their places, or None."""
    return scatter(rng, g, [(ONE, x) for x in palette], gap, margin)


def travel(g, start, step, turn):
    """The cells after `start`; before a full cell the step becomes turn(cell, step), None ends it. None if endless."""
    at, path, seen = start, [], set()
    while (at, step) not in seen:
        seen.add((at, step))
        ahead = at[0] + step[0], at[1] + step[1]
        if not inside(g, ahead):
            return path
        if ahead == start:
            return None
        if not g[ahead]:
            at = ahead
            path.append(at)
        else:
            step = turn(ahead, step)
            if step is None:
                return path
    return None


def right_of(step):
    return step[1], -step[0]


def left_of(step):
    return -step[1], step[0]


def steps_from(free, starts, is_diagonal=False):
    """How many steps through free cells from the nearest start, -1 where none leads."""
    far = np.full(free.shape, -1)
    edge = list(starts)
    for at in edge:
        far[at] = 0
    for r, k in edge:
        for a, b in SIDES + SLANTS * is_diagonal:
            at = r + a, k + b
            if inside(free, at) and free[at] and far[at] < 0:
                far[at] = far[r, k] + 1
                edge.append(at)
    return far


def areas(free):
    """The parts of the free cells, joined side by side."""
    return parts(free.astype(np.uint8), False)


def maze(rng, height, width):
    """Free cells of a maze without loops; sides must be odd."""
    free = np.zeros((height, width), bool)
    stack = [(1, 1)]
    free[1, 1] = True
    while stack:
        r, k = stack[-1]
        ways = [(a, b) for a, b in SIDES if inside(free, (r + 2 * a, k + 2 * b)) and not free[r + 2 * a, k + 2 * b]]
        if not ways:
            stack.pop()
            continue
        a, b = ways[int(rng.integers(len(ways)))]
        free[r + a, k + b] = free[r + 2 * a, k + 2 * b] = True
        stack.append((r + 2 * a, k + 2 * b))
    return free


def patches(rng, height, width, count):
    """Which of `count` random places is nearest to each cell."""
    r, k = np.indices((height, width))
    far = [abs(r - between(rng, 0, height - 1)) + abs(k - between(rng, 0, width - 1)) * 1.01 for _ in range(count)]
    return np.argmin(far, 0)


def rooms(rng, height, width, count, is_straight):
    """Free cells, the rest being walls that part them."""
    free = np.ones((height, width), bool)
    if is_straight:
        todo = [(0, height, 0, width)]
        for _ in range(count - 1):
            todo.sort(key=lambda x: (x[1] - x[0]) * (x[3] - x[2]))
            top, low, left, right = todo.pop()
            if low - top >= right - left and low - top > 4:
                cut = between(rng, top + 1, low - 2)
                free[cut, left:right] = False
                todo += [(top, cut, left, right), (cut + 1, low, left, right)]
            elif right - left > 4:
                cut = between(rng, left + 1, right - 2)
                free[top:low, cut] = False
                todo += [(top, low, left, cut), (top, low, cut + 1, right)]
        return free
    own = patches(rng, height, width, count)
    free[:-1] &= own[:-1] == own[1:]
    free[:, :-1] &= own[:, :-1] == own[:, 1:]
    return free


def frames(rng, g, count, low=3, high=6, palette=None):
    """Hollow rectangles: (corner, height, width, colour) of those that find room, or None."""
    found = []
    for i in range(count):
        h, w = between(rng, low, high), between(rng, low, high)
        color = palette[i % len(palette)] if palette else colors(rng, 1)[0]
        at = room(rng, g, box(h, w), 1)
        if at is not None:
            put(g, box(h, w, True), at, color)
            found.append((at, h, w, color))
    return found or None


def picture(rng, height, width, kind):
    """A busy symmetric picture: kind 0 left and right, 1 all four quarters, 2 turned, 3 both diagonals too."""
    palette = colors(rng, between(rng, 3, 5))
    g = rng.choice(np.array(palette, np.uint8), (height, width))
    if kind == 2:
        half = g.copy()
        g.ravel()[: g.size // 2] = half[::-1, ::-1].ravel()[: g.size // 2]
        return g
    g[:, : width // 2] = g[:, ::-1][:, : width // 2]
    if kind:
        g[: height // 2] = g[::-1][: height // 2]
    if kind == 3:
        upper = np.triu(np.ones(g.shape, bool))
        g = np.where(upper, g, g.T)
        g[:, : width // 2] = g[:, ::-1][:, : width // 2]
        g[: height // 2] = g[::-1][: height // 2]
        g = np.where(upper, g, g.T)
    return g


@any_way
def bounces(rng):
    """A cell at the bottom sends a slanted line up that bounces off the sides."""
    (c, d), kind, first, paints = hues(rng, 2), between(rng, 0, 3), 1 if chance(rng, 0.5) else -1, chance(rng, 0.3)

    def draw(rng):
        h, w = between(rng, 7, 16), between(rng, 3, 8)
        g, own = np.zeros((h, w), np.uint8), hues(rng, 1, c, d)[0]
        r, k, step = h - 1, between(rng, 0, w - 1), first
        g[r, k] = own
        out = g.copy()
        while r:
            step = step if 0 <= k + step < w else -step
            r, k = r - 1, k + step
            out[r, k] = (own, c, c if k in (0, w - 1) else own, c if (h - r) % 2 == 0 else own)[kind]
        return g, np.where(out == 0, d, out) if paints else out

    return draw


@any_way
def turning_ray(rng):
    """A cell at the border sends a line inwards that turns at every block it meets."""
    c, own, turn, marks = hues(rng, 1)[0], chance(rng, 0.5), (right_of, left_of)[between(rng, 0, 1)], chance(rng, 0.4)

    def draw(rng):
        g, (x, y) = blank(rng, 8, 14), hues(rng, 2, c)
        start = g.shape[0] - 1, between(rng, 1, g.shape[1] - 2)
        g[start] = x
        g[between(rng, 1, len(g) - 4), start[1]] = y
        dots(rng, g, [y] * between(rng, 5, 9))
        hit = []
        path = travel(g, start, (-1, 0), lambda at, step: hit.append(at) or turn(step))
        if not path:
            return None
        out = g.copy()
        for at in path:
            out[at] = x if own else c
        for at in hit if marks else ():
            out[at] = x if not own else c
        return g, out

    return draw


@any_way
def sized_turns(rng):
    """The line from the border turns one way at single cells and the other way at blocks."""
    c, own, ways = hues(rng, 1)[0], chance(rng, 0.5), (right_of, left_of)[:: 1 if chance(rng, 0.5) else -1]
    big = box(*((2, 2), (1, 2), (2, 1))[between(rng, 0, 2)])
    ends = chance(rng, 0.3)

    def draw(rng):
        g, (x, y) = blank(rng, 9, 14), hues(rng, 2, c)
        start = g.shape[0] - 1, between(rng, 2, g.shape[1] - 3)
        g[start] = x
        put(g, big if chance(rng, 0.5) else ONE, (between(rng, 2, len(g) - 5), start[1]), y)
        scatter(rng, g, [(big if i % 2 else ONE, y) for i in range(between(rng, 5, 8))])
        size = {at: int(mask.sum()) for mask in parts(g, False) for at in cells(mask)}
        path = travel(g, start, (-1, 0), lambda at, step: ways[size[at] > 1](step))
        if not path:
            return None
        out = g.copy()
        for at in path:
            out[at] = x if own else c
        if ends:
            out[path[-1]] = c if own else x
        return g, out

    return draw


@any_way
def mirrors(rng):
    """A beam from the border is thrown aside by slanted mirrors."""
    c, own, marks = hues(rng, 1)[0], chance(rng, 0.6), chance(rng, 0.4)

    def draw(rng):
        g, (x, y) = blank(rng, 9, 14), hues(rng, 2, c)
        start, slant = (g.shape[0] - 1, between(rng, 1, g.shape[1] - 2)), np.zeros(g.shape, int)
        g[start] = x
        places = [(between(rng, 2, len(g) - 4), start[1])]
        for i in range(between(rng, 3, 6)):
            rising = chance(rng, 0.5)
            mask = np.eye(3, dtype=bool)[:: -1 if rising else 1]
            at = (places[0][0] - 1, places[0][1] - 1) if i == 0 else room(rng, g, mask, 1)
            if at is not None:
                put(g, mask, at, y)
                put(slant, mask, at, -1 if rising else 1)
        hit = set()
        path = travel(g, start, (-1, 0), lambda at, s: hit.add(at) or (s[1] * slant[at], s[0] * slant[at]))
        if not path:
            return None
        out = g.copy()
        for at in path:
            out[at] = x if own else c
        for at in hit if marks else ():
            out[at] = c if own else x
        return g, out

    return draw


@any_way
def zigzags(rng):
    """Cells at the left edge draw zigzag lines to the right edge."""
    c, height, kind, starts_up = hues(rng, 1)[0], between(rng, 1, 3), between(rng, 0, 2), chance(rng, 0.5)

    def draw(rng):
        g = blank(rng, 2 * height + 4, 14)
        rows = [r for r in range(height, len(g) - height) if chance(rng, 0.4)]
        rows = [r for i, r in enumerate(rows) if i == 0 or r - rows[i - 1] > height + 1][: between(rng, 1, 2)]
        if not rows or any(b - a <= height + 1 for a, b in zip(rows, rows[1:], strict=False)):
            return None
        wave = [*range(height), *range(height, 0, -1)]
        out = g.copy()
        for r, own in zip(rows, hues(rng, len(rows), c), strict=True):
            g[r, 0] = own
            for k in range(g.shape[1]):
                rise = wave[k % len(wave)]
                out[r + (-rise if starts_up else rise), k] = (own, c, c if rise == height else own)[kind] if k else own
        return g, out

    return draw


@any_way
def spirals(rng):
    """From a corner cell, or along the wall of an empty frame, a spiral winds inwards."""
    c, own, turn, framed = hues(rng, 1)[0], chance(rng, 0.4), (right_of, left_of)[between(rng, 0, 1)], chance(rng, 0.3)

    def draw(rng):
        h, w, x = between(rng, 5, 14), between(rng, 5, 14), hues(rng, 1, c)[0]
        g = np.zeros((h, w), np.uint8)
        at, step = (0, 0) if turn is right_of else (0, w - 1), (0, 1) if turn is right_of else (0, -1)
        if framed:
            at, step = (h - 1, 0) if turn is right_of else (h - 1, w - 1), (-1, 0)
        g[at] = x
        line = [at]
        while True:
            for _ in range(2):
                one, two = (at[0] + step[0], at[1] + step[1]), (at[0] + 2 * step[0], at[1] + 2 * step[1])
                if inside(g, one) and one not in line and two not in line:
                    break
                step = turn(step)
            else:
                break
            side = [(one[0] + s[0], one[1] + s[1]) for s in SIDES]
            if sum(s in line for s in side) > 1:
                break
            line.append(at := one)
        out = g.copy()
        for at in line[1:]:
            out[at] = x if own else c
        return g, out

    return draw


@any_way
def stairs(rng):
    """Every single cell draws a staircase to the border."""
    c, rise, run, kind, both = (
        hues(rng, 1)[0], between(rng, 1, 2), between(rng, 1, 3), between(rng, 0, 2), chance(rng, 0.3),
    )  # fmt: skip

    def draw(rng):
        g = blank(rng, 8, 14)
        palette = hues(rng, between(rng, 1, 2), c)
        places = dots(rng, g, palette, 3)
        if places is None:
            return None
        out, seen = g.copy(), set()
        for start, own in zip(places, palette, strict=True):
            for sign in (1, -1) if both else (1,):
                at, n = start, 0
                while True:
                    is_up = n % (rise + run) < rise
                    at = (at[0] - sign, at[1]) if is_up else (at[0], at[1] + sign)
                    n += 1
                    if not inside(g, at):
                        break
                    if g[at] or at in seen:
                        return None
                    seen.add(at)
                    out[at] = (own, c, c if is_up else own)[kind]
        return (g, out) if len(seen) > 3 else None

    return draw


@any_way
def line_sizes(rng):
    """Under a bar further bars follow, each longer or shorter than the one before."""
    c, kind, alternates, leaves = hues(rng, 1)[0], between(rng, 0, 5), chance(rng, 0.4), chance(rng, 0.4)
    factor, more = ((1, -1), (1, -2), (1, 1), (1, 2), (2, 0), (0.5, 0))[kind]

    def draw(rng):
        g, own = blank(rng, 6, 14), hues(rng, 1, c)[0]
        r = between(rng, 0, len(g) - 5)
        n = between(rng, 1, 3) if kind in (2, 3, 4) else between(rng, 4, g.shape[1])
        g[r, :n] = own
        out, i = g.copy(), 0
        for r in range(r + 1, len(g)):
            n, i = int(n * factor) + more, i + 1
            if n < 1:
                break
            out[r, :n] = (c if i % 2 else own) if alternates else (own if leaves else c)
        return g, out

    return draw


@any_way
def crossings(rng):
    """Cells at the top send lines down, cells at the left send lines across; where they cross something happens."""
    c, kind, d = hues(rng, 1)[0], between(rng, 0, 5), hues(rng, 1)[0]

    def draw(rng):
        g = blank(rng, 6, 14)
        cols = [k for k in range(1, g.shape[1] - 1, 2) if chance(rng, 0.35)]
        rows = [r for r in range(1, g.shape[0] - 1, 2) if chance(rng, 0.35)]
        if not cols or not rows or len(cols) + len(rows) > 6:
            return None
        palette = hues(rng, len(cols) + len(rows), c, d)
        out = g.copy()
        for k, x in zip(cols, palette, strict=False):
            g[0, k] = out[0, k] = x
            out[:, k] = x
        for r, x in zip(rows, palette[::-1], strict=False):
            g[r, 0] = x
            held = out[r, cols].copy()
            out[r] = x
            out[r, cols] = (held, x, c, 0, c, held)[kind]
        if kind in (4, 5):
            cross = np.zeros(g.shape, bool)
            cross[np.ix_(rows, cols)] = True
            out[grown(cross, kind == 4) & (out == 0)] = d
        return g, out

    return draw


@any_way
def slanted_pairs(rng):
    """Two equal cells that lie on one slanted line are joined; other pairs are left alone."""
    c, kind, also_straight = hues(rng, 1)[0], between(rng, 0, 3), chance(rng, 0.4)

    def draw(rng):
        g, lines = blank(rng, 8, 14), []
        for own in hues(rng, between(rng, 2, 4), c):
            n, slant = between(rng, 2, 6), chance(rng, 0.7)
            a, b = (n, n if chance(rng, 0.5) else -n) if slant else ((0, n) if chance(rng, 0.5) else (n, 0))
            start = between(rng, 0, g.shape[0] - 1), between(rng, 0, g.shape[1] - 1)
            end = start[0] + a, start[1] + b
            line = [(start[0] + i * np.sign(a), start[1] + i * np.sign(b)) for i in range(n + 1)]
            if inside(g, end) and not any(g[at] for at in line):
                g[start] = g[end] = own
                lines.append((line, own, slant))
        out = g.copy()
        for line, own, slant in lines:
            if slant or also_straight:
                middle = line[1:-1]
                if any(out[at] for at in middle):
                    return None
                if kind == 3:
                    middle = middle[(len(middle) - 1) // 2 : len(middle) // 2 + 1]
                for i, at in enumerate(middle):
                    out[at] = (own, c, c if i % 2 else own, c)[kind]
        return g, out

    return draw


@any_way
def elbows(rng):
    """Two equal cells are joined by a line that leaves the upper one downwards and has one corner."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 3)

    def draw(rng):
        g = blank(rng, 7, 13)
        out = g.copy()
        for own in hues(rng, between(rng, 1, 4), c):
            r, s = sorted(rng.permutation(g.shape[0])[:2].tolist())
            k, m = rng.permutation(g.shape[1])[:2].tolist()
            if s - r < 2 or abs(m - k) < 2:
                continue
            line = [(y, k) for y in range(r, s + 1)] + [(s, x) for x in range(min(k, m), max(k, m) + 1) if x != k]
            if any(out[at] for at in line):
                continue
            for at in line:
                out[at] = (own, c, c if at == (s, k) else own, own if at == (s, k) else c)[kind]
            g[r, k] = g[s, m] = out[r, k] = out[s, m] = own
        return g, out

    return draw


@any_way
def mazes(rng):
    """In a maze: the way between two cells, what lies beside it, how far one flows, its dead ends or its forks."""
    (c, d), kind = hues(rng, 2), between(rng, 0, 4)

    def draw(rng):
        h, w = 2 * between(rng, 3, 6) + 1, 2 * between(rng, 3, 6) + 1
        free, (wall, x) = maze(rng, h, w), hues(rng, 2, c, d)
        g = np.where(free, 0, wall).astype(np.uint8)
        at = cells(free)
        start, end = at[int(rng.integers(len(at)))], at[int(rng.integers(len(at)))]
        far = steps_from(free, [start])
        if kind < 2:
            if far[end] < 5:
                return None
            way = (far + steps_from(free, [end]) == far[end]) & free
            g[start] = g[end] = x
            out = np.where((way if kind == 0 else ~way) & (g == 0), c, g)
        elif kind == 2:
            g[start] = x
            out = np.where((g == 0) & (far % 2 == 1), c, np.where((g == 0), d, g))
        else:
            wide = np.pad(free, 1).astype(int)
            ways = sum(np.roll(wide, s, (0, 1)) for s in SIDES)[1:-1, 1:-1]
            out = np.where(free & (ways == 1 if kind == 3 else ways > 2), c, g)
        return g, out.astype(np.uint8)

    return draw


@any_way
def seeds_flood(rng):
    """Seeds fill the rooms they lie in; rooms without any stay or get a colour."""
    c, is_straight, fills, wall_too = hues(rng, 1)[0], chance(rng, 0.5), chance(rng, 0.4), chance(rng, 0.2)

    def draw(rng):
        h, w = between(rng, 8, 14), between(rng, 8, 14)
        free, (wall, *palette) = rooms(rng, h, w, between(rng, 3, 6), is_straight), hues(rng, 5, c)
        found = areas(free)
        if len(found) < 3:
            return None
        g = np.where(free, 0, wall).astype(np.uint8)
        out, seeded = g.copy(), 0
        for mask in found:
            if chance(rng, 0.6) and mask.sum() > 3:
                at, x = cells(mask)[int(rng.integers(mask.sum()))], palette[int(rng.integers(4))]
                g[at] = x
                out[mask] = x
                seeded += 1
            elif fills:
                out[mask] = c
        if wall_too:
            out[~free] = 0
        return (g, out) if 0 < seeded < len(found) else None

    return draw


@any_way
def rooms_by_size(rng):
    """The biggest, the smallest or both of the rooms are filled, or all rooms by whether they are big or small."""
    (c, d), kind, is_straight, n = hues(rng, 2), between(rng, 0, 3), chance(rng, 0.6), between(rng, 10, 24)

    def draw(rng):
        h, w = between(rng, 8, 14), between(rng, 8, 14)
        free, wall = rooms(rng, h, w, between(rng, 3, 6), is_straight), hues(rng, 1, c, d)[0]
        found = sorted(areas(free), key=lambda m: m.sum())
        if len(found) < 3 or found[0].sum() == found[1].sum() or found[-1].sum() == found[-2].sum():
            return None
        g = np.where(free, 0, wall).astype(np.uint8)
        out = g.copy()
        if kind in (0, 2):
            out[found[-1]] = c
        if kind in (1, 2):
            out[found[0]] = d
        for mask in found if kind == 3 else ():
            out[mask] = c if mask.sum() > n else d
        return g, out

    return draw


@any_way
def edge_rooms(rng):
    """Empty places are filled by whether they reach the border, or by whether they are single cells."""
    (c, d), kind = hues(rng, 2), between(rng, 0, 3)

    def draw(rng):
        h, w = between(rng, 6, 13), between(rng, 6, 13)
        g = noise(rng, h, w, [hues(rng, 1, c, d)[0]], 0.5)
        out, closed = g.copy(), 0
        for mask in areas(g == 0):
            sides = sum(bool(m.any()) for m in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
            closed += not sides
            out[mask] = (c if sides else 0, 0 if sides else c, c if sides else d, c if mask.sum() == 1 else 0)[kind]
        return (g, out) if closed else None

    return draw


@any_way
def leaks(rng):
    """Frames with one gap are filled, and what fills them flows straight out through the gap."""
    c, kind, n = hues(rng, 1)[0], between(rng, 0, 3), between(rng, 2, 3)

    def draw(rng):
        g = blank(rng, 9, 14)
        made = frames(rng, g, between(rng, 1, 2), 4, 6, hues(rng, 1, c))
        if made is None:
            return None
        gaps = []
        for (r, k), h, w, _ in made:
            side = between(rng, 0, 3)
            y, x = between(rng, r + 1, r + h - 2), between(rng, k + 1, k + w - 2)
            gap = ((r, x), (y, k + w - 1), (r + h - 1, x), (y, k))[side]
            g[gap] = 0
            gaps.append((gap, side))
        out = g.copy()
        for ((r, k), h, w, _), (gap, side) in zip(made, gaps, strict=True):
            if kind != 2:
                out[r + 1 : r + h - 1, k + 1 : k + w - 1] = c
            out[gap] = c
            for i, at in enumerate(ray(g, gap, SIDES[side])):
                if g[at]:
                    return None
                if kind != 1 and not (kind == 3 and i >= n):
                    out[at] = c
        return g, out

    return draw


@any_way
def textured(rng):
    """Rectangles, or the insides of frames, get a texture that starts at their corner."""
    c, kind, hollow, n = hues(rng, 1)[0], between(rng, 0, 4), chance(rng, 0.5), between(rng, 2, 3)

    def draw(rng):
        g = blank(rng, 8, 14)
        made = frames(rng, g, between(rng, 1, 3), 4, 7, hues(rng, 2, c))
        if made is None:
            return None
        out = g.copy()
        for (r, k), h, w, x in made:
            if not hollow:
                g[r : r + h, k : k + w] = out[r : r + h, k : k + w] = x
            y, z = np.indices((h, w))
            on = ((y + z) % n == 0, y % n == 0, z % n == 0, (y % 2 == 0) & (z % 2 == 0), (y + z) % 2 == 1)[kind]
            on = on & ((y > 0) & (z > 0) & (y < h - 1) & (z < w - 1) if hollow else True)
            out[r : r + h, k : k + w][on] = c
        return g, out

    return draw


@any_way
def rings_from_list(rng):
    """A list of colours along the top becomes rings, the first outermost or innermost."""
    outward, fills = chance(rng, 0.5), chance(rng, 0.5)

    def draw(rng):
        n = between(rng, 2, 5)
        palette = [hues(rng, 1)[0]]
        while len(palette) < n:
            palette += hues(rng, 1, palette[-1])
        order = palette[::-1] if outward else palette
        side = 2 * n - fills
        r, k = np.indices((side, side))
        depth = np.minimum(np.minimum(r, k), np.minimum(side - 1 - r, side - 1 - k))
        return np.array([palette], np.uint8), np.array(order, np.uint8)[depth]

    return draw


@any_way
def ringed_boxes(rng):
    """Solid rectangles are painted ring by ring from their edge inwards."""
    (c, d), kind = hues(rng, 2), between(rng, 0, 4)

    def draw(rng):
        g = blank(rng, 9, 14)
        made = frames(rng, g, between(rng, 1, 2), 4, 9, hues(rng, 2, c, d))
        if made is None:
            return None
        out = g.copy()
        for (r, k), h, w, x in made:
            y, z = np.indices((h, w))
            depth = np.minimum(np.minimum(y, z), np.minimum(h - 1 - y, w - 1 - z))
            order = ((x, c), (c, x), (x, c, d), (x, 0), (c, d))[kind]
            g[r : r + h, k : k + w] = x
            out[r : r + h, k : k + w] = np.array(order, np.uint8)[depth % len(order)]
        return g, out

    return draw


@any_way
def stripes_go_on(rng):
    """Two or three cells at the edge become full lines that repeat to the right end at the same distance."""
    count, kind, c = between(rng, 2, 3), between(rng, 0, 2), hues(rng, 1)[0]

    def draw(rng):
        h, w = between(rng, 5, 9), between(rng, 10, 20)
        g, gap, start = np.zeros((h, w), np.uint8), between(rng, 1, 3), between(rng, 0, 3)
        palette = hues(rng, count, c)
        if start + gap * (count + 1) >= w:
            return None
        out = g.copy()
        for i, k in enumerate(range(start, w, gap)):
            out[:, k] = palette[i % count]
            if kind == 1 and i % 2:
                out[[0, -1], k] = c
            if kind == 2:
                out[1:-1, k] = c
        for i in range(count):
            g[0 if chance(rng, 0.5) else -1, start + i * gap] = palette[i]
        return g, out

    return draw


@any_way
def rows_go_on(rng):
    """The sequence at the beginning of every row is repeated until its end, forth or forth and back."""
    back, below = chance(rng, 0.35), chance(rng, 0.3)

    def draw(rng):
        h, w = between(rng, 3, 11), between(rng, 8, 16)
        g = np.zeros((h, w), np.uint8)
        out = g.copy()
        for r in range(between(rng, 0, 1), h, between(rng, 1, 3)):
            n = between(rng, 2, 4)
            first = colors(rng, n) if chance(rng, 0.5) else [colors(rng, 2)[i % 2] for i in range(n)]
            period = first + first[-2:0:-1] if back else first
            if len(set(first)) < 2:
                return None
            g[r, :n] = first
            out[r] = (period * w)[:w]
            if below and r + 1 < h:
                out[r + 1] = 0
        return g, out

    return draw


@any_way
def slants_go_on(rng):
    """Some slanted lines of different colours are shown; all slanted lines repeat them in order."""
    count, step = between(rng, 2, 4), (1, -1)[between(rng, 0, 1)]

    def draw(rng):
        h, w = between(rng, 5, 12), between(rng, 5, 12)
        r, k = np.indices((h, w))
        number = r + k if step == 1 else r - k + w - 1
        full = np.array(colors(rng, count), np.uint8)[number % count]
        if chance(rng, 0.5):
            first = between(rng, 0, int(number.max()) - count)
            seen = (number >= first) & (number < first + count)
        else:
            seen = np.zeros((h, w), bool)
            for i in range(count):
                at = cells(number % count == i)
                for j in rng.permutation(len(at))[: between(rng, 2, 4)]:
                    seen[at[j]] = True
        return np.where(seen, full, 0).astype(np.uint8), full

    return draw


def tiling(rng, h, w):
    """A grid that repeats a small tile, at times shifted from row to row of tiles."""
    a, b, palette = between(rng, 2, 4), between(rng, 2, 4), colors(rng, between(rng, 2, 5))
    tile, shift = rng.choice(np.array(palette, np.uint8), (a, b)), between(rng, 0, 1) * chance(rng, 0.3)
    r, k = np.indices((h, w))
    return tile[r % a, (k + shift * (r // a)) % b], palette


@any_way
def tiling_holes(rng):
    """Masked rectangles of a repeating pattern are restored; the answer is the whole, or the one patch."""
    only_patch = chance(rng, 0.4)

    def draw(rng):
        h, w = between(rng, 10, 14), between(rng, 10, 14)
        full, _ = tiling(rng, h, w)
        g = full.copy()
        for _ in range(1 if only_patch else between(rng, 1, 4)):
            a, b = between(rng, 2, 4), between(rng, 2, 4)
            r, k = between(rng, 0, h - a), between(rng, 0, w - b)
            g[r : r + a, k : k + b] = 0
        return g, full[r : r + a, k : k + b] if only_patch else full

    return draw


@any_way
def tiling_faults(rng):
    """A repeating pattern has faults: they are mended, or marked, or left alone on empty ground."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 2)

    def draw(rng):
        h, w = between(rng, 9, 14), between(rng, 9, 14)
        full, palette = tiling(rng, h, w)
        if c in palette and kind == 1 or len(set(full.ravel().tolist())) < 2:
            return None
        g, bad = full.copy(), hues(rng, 1, c, *palette)[0]
        for _ in range(between(rng, 3, 7)):
            g[between(rng, 0, h - 1), between(rng, 0, w - 1)] = bad
        out = (full, np.where(g == full, g, c), np.where(g == full, 0, g))[kind]
        return g, out.astype(np.uint8)

    return draw


@any_way
def tiling_grown(rng):
    """The repeating pattern in one corner is carried on over the whole empty grid."""
    slides = chance(rng, 0.3)

    def draw(rng):
        a, b = between(rng, 2, 3), between(rng, 2, 4)
        tile = rng.choice(np.array(colors(rng, 3), np.uint8), (a, b))
        if (tile == tile[0, 0]).all():
            return None
        h, w = between(rng, 2 * a + 2, 13), between(rng, 2 * b + 2, 13)
        r, k = np.indices((h, w))
        full = tile[r % a, (k + (r // a if slides else 0)) % b]
        return np.where((r < 2 * a) & (k < 2 * b), full, 0).astype(np.uint8), full

    return draw


@any_way
def symmetric_holes(rng):
    """A masked part of a symmetric picture is restored; the answer is the whole, or only that part."""
    kind, only_patch = between(rng, 0, 3), chance(rng, 0.45)

    def draw(rng):
        h = between(rng, 8, 14)
        w = h if kind == 3 else between(rng, 8, 14)
        full = picture(rng, h, w, kind)
        a, b = between(rng, 2, 4), between(rng, 2, 4)
        r, k = between(rng, 0, h - a), between(rng, 0, w - b)
        g = full.copy()
        g[r : r + a, k : k + b] = 0
        views = (
            [g[:, ::-1]], [g[:, ::-1], g[::-1], g[::-1, ::-1]], [g[::-1, ::-1]],
            [g[:, ::-1], g[::-1], g.T, g[::-1, ::-1]],
        )[kind]  # fmt: skip
        if ((g == 0) & np.all([v == 0 for v in views], 0)).any():
            return None
        return g, full[r : r + a, k : k + b] if only_patch else full

    return draw


@any_way
def axes_marked(rng):
    """The axis of a shape that equals its mirror image is drawn, in the shape or through the whole grid."""
    c, kind, among = hues(rng, 1)[0], between(rng, 0, 2), chance(rng, 0.5)

    def draw(rng):
        g, x = blank(rng, 8, 13), hues(rng, 1, c)[0]
        for _ in range(between(rng, 1, 2) if among else 1):
            n, h = between(rng, 2, 4), between(rng, 3, 5)
            half = blob(rng, h, n)
            mask = np.concatenate([half, half[:, -2::-1]], 1)
            mask = mask.T if chance(rng, 0.5) else mask
            flat, tall = (mask == mask[::-1]).all(), (mask == mask[:, ::-1]).all()
            if flat == tall or (at := room(rng, g, mask)) is None:
                return None
            put(g, mask, at, x)
        out = g.copy()
        for mask in parts(g):
            rows, cols = box_of(mask)
            shape, view = mask[rows, cols], out[rows, cols]
            flat = (shape == shape[::-1]).all()
            middle = (shape.shape[0] // 2, slice(None)) if flat else (slice(None), shape.shape[1] // 2)
            if kind == 0:
                view[middle] = np.where(shape[middle], c, 0)
            elif kind == 1:
                view[middle] = c
            elif flat:
                line = out[rows.start + middle[0]]
                line[line == 0] = c
            else:
                line = out[:, cols.start + middle[1]]
                line[line == 0] = c
        return g, out

    return draw


@any_way
def specks(rng):
    """Rectangles lie among specks, single cells; the specks go, or change, outside or inside or both."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 4)

    def draw(rng):
        g, (bad, *palette) = blank(rng, 9, 14), hues(rng, 3, c)
        objects = [(box(between(rng, 3, 6), between(rng, 3, 6)), palette[i % 2]) for i in range(between(rng, 1, 3))]
        if scatter(rng, g, objects, 1) is None:
            return None
        clean = g.copy()
        for _ in range(between(rng, 5, 12)):
            g[between(rng, 0, g.shape[0] - 1), between(rng, 0, g.shape[1] - 1)] = bad
        is_bad = g == bad
        out = (
            clean, np.where(is_bad & (clean == 0), 0, g), np.where(is_bad & (clean > 0), clean, g),
            np.where(is_bad & (clean > 0), c, clean), np.where(is_bad, np.where(clean > 0, c, g), clean),
        )[kind]  # fmt: skip
        inner = is_bad & (clean > 0)
        return (g, out.astype(np.uint8)) if inner.any() and (is_bad & (clean == 0)).any() else None

    return draw


@any_way
def solid_in_noise(rng):
    """Among scattered cells of one colour lie solid rectangles: they stay, are painted, or are cleared."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 3)

    def draw(rng):
        g, x = blank(rng, 9, 14), hues(rng, 1, c)[0]
        objects = [(box(between(rng, 3, 5), between(rng, 3, 5)), x) for _ in range(between(rng, 1, 3))]
        if scatter(rng, g, objects, 1) is None:
            return None
        solid = g > 0
        for _ in range(between(rng, 6, 14)):
            at = between(rng, 0, g.shape[0] - 1), between(rng, 0, g.shape[1] - 1)
            if not grown(solid, False)[at]:
                g[at] = x
        wide = np.pad(g > 0, 1)
        big = np.zeros(g.shape, bool)  # what a 2 x 2 block of full cells covers
        for a in range(g.shape[0] - 1):
            for b in range(g.shape[1] - 1):
                if wide[a + 1 : a + 3, b + 1 : b + 3].all():
                    big[a : a + 2, b : b + 2] = True
        if (big != solid).any():
            return None
        out = (np.where(solid, g, 0), np.where(solid, c, g), np.where(solid, 0, g), np.where(solid, c, 0))[kind]
        return g, out.astype(np.uint8)

    return draw


@any_way
def holes_in_boxes(rng):
    """Rectangles that lost some cells are made whole again, in their own or in a new colour."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 2)

    def draw(rng):
        g = blank(rng, 8, 14)
        objects = [(box(between(rng, 3, 6), between(rng, 3, 7)), x) for x in hues(rng, between(rng, 1, 3), c)]
        corners = scatter(rng, g, objects, 1)
        if corners is None:
            return None
        full = g.copy()
        for (r, k), (mask, _) in zip(corners, objects, strict=True):
            h, w = mask.shape
            for _ in range(between(rng, 1, 4)):
                g[r + between(rng, 0, h - 1), k + between(rng, 0, w - 1)] = 0
            view = g[r : r + h, k : k + w]
            if not (view[0].any() and view[-1].any() and view[:, 0].any() and view[:, -1].any()):
                return None
        lost = (full > 0) & (g == 0)
        return g, (full, np.where(lost, c, full), np.where(lost, c, 0))[kind].astype(np.uint8)

    return draw


@any_way
def broken_lattice(rng):
    """A lattice of lines with holes: holes are mended, or marked, or mended only at crossings."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 3)

    def draw(rng):
        h, w, (x,) = between(rng, 8, 14), between(rng, 8, 14), hues(rng, 1, c)
        a, b, r, k = between(rng, 3, 4), between(rng, 3, 4), between(rng, 0, 2), between(rng, 0, 2)
        rows, cols = np.zeros((h, 1), bool), np.zeros((1, w), bool)
        rows[r::a], cols[:, k::b] = True, True
        on = rows | cols
        lost = on & (rng.random((h, w)) < 0.12)
        g = np.where(on & ~lost, x, 0)
        cross = rows & cols
        out = (
            np.where(on, x, 0), np.where(lost, c, g), np.where(lost, np.where(cross, c, x), g),
            np.where(lost & ~cross, c, g),
        )[kind]  # fmt: skip
        return (g.astype(np.uint8), out.astype(np.uint8)) if lost.sum() > 2 and (lost & cross).any() else None

    return draw


@any_way
def cross_hairs(rng):
    """A single cell draws its row and column, and a mark around itself."""
    (c, d), kind, own, n = hues(rng, 2), between(rng, 0, 4), chance(rng, 0.5), between(rng, 1, 2)

    def draw(rng):
        g, x = blank(rng, 7, 13), hues(rng, 1, c, d)[0]
        places = dots(rng, g, [x] * between(rng, 1, 2), 2 * n + 1, 0)
        if places is None:
            return None
        out = g.copy()
        for r, k in places:
            out[r], out[:, k] = x if own else c, x if own else c
        y, z = np.indices(g.shape)
        for r, k in places:
            a, b = abs(y - r), abs(z - k)
            ring = np.maximum(a, b)
            slant = (a == b) & (a > 0)
            on = (ring == n, slant & (a <= n), (ring <= n) & (ring > 0), (a + b <= n) & (ring > 0), slant)[kind]
            out[on] = d
            out[r, k] = x
        return g, out

    return draw


@any_way
def stamps(rng):
    """Around every single cell the same small pattern is stamped."""
    c, d = hues(rng, 2)
    n = between(rng, 1, 2)
    r, k = np.indices((2 * n + 1, 2 * n + 1)) - n
    quarter = rng.choice(np.array([0, c, d], np.uint8), (n + 1, n + 1), p=[0.4, 0.4, 0.2])
    stamp, keeps_blocks = quarter[abs(r), abs(k)], between(rng, 0, 2)
    stamp[n, n] = 0

    def draw(rng):
        g, (x, y) = blank(rng, 8, 13), hues(rng, 2, c, d)
        places = dots(rng, g, [x] * between(rng, 1, 3), 2 * n)
        blocks = [(blob(rng, 2, 2), y) for _ in range(2)] if keeps_blocks else []
        if not stamp.any() or places is None or scatter(rng, g, blocks, n + 1) is None:
            return None
        out = np.pad(np.where(g == y, 0, g) if keeps_blocks == 2 else g, n)
        for a, b in places:
            view = out[a : a + 2 * n + 1, b : b + 2 * n + 1]
            view[stamp > 0] = stamp[stamp > 0]
        return g, out[n:-n, n:-n]

    return draw


@any_way
def expansions(rng):
    """Single cells grow into diamonds, squares, stars or crosses of some radius."""
    c, kind, n, look = hues(rng, 1)[0], between(rng, 0, 3), between(rng, 1, 3), between(rng, 0, 2)

    def draw(rng):
        g = blank(rng, 8, 14)
        out, taken = g.copy(), np.zeros(g.shape, bool)
        y, z = np.indices(g.shape)
        for x in hues(rng, between(rng, 2, 4), c):
            r, k = between(rng, 0, g.shape[0] - 1), between(rng, 0, g.shape[1] - 1)
            a, b = abs(y - r), abs(z - k)
            ring = np.maximum(a, b)
            far = (a + b, ring, np.where((a == b) | (a * b == 0), ring, 99), np.where(a == b, a, 99))[kind]
            on = far <= n
            if (on & taken).any():
                continue
            taken |= grown(on, True)
            out[on] = x if look == 0 else c
            if look == 2:
                out[on & (far % 2 == 0)] = x
            g[r, k] = out[r, k] = x
        return g, out

    return draw


@any_way
def distance_bands(rng):
    """Every empty cell is coloured by its distance to the nearest seed, around walls where there are some."""
    palette, square, walls = hues(rng, between(rng, 2, 3)), chance(rng, 0.4), chance(rng, 0.5)
    once, far_to = chance(rng, 0.3), between(rng, 2, 4)

    def draw(rng):
        g, (x, y) = blank(rng, 6, 13), hues(rng, 2, *palette)
        if dots(rng, g, [x] * between(rng, 1, 2), 2) is None:
            return None
        if walls:
            shapes = [box(1, 3), box(3, 1), box(1, 4), box(4, 1)]
            scatter(rng, g, [(shapes[between(rng, 0, 3)], y) for _ in range(between(rng, 2, 4))])
        far = steps_from((g == 0) | (g == x), cells(g == x), square)
        out = np.where((far > 0) & ((far <= far_to) | (not once)), np.array(palette)[(far - 1) % len(palette)], g)
        return g, out.astype(np.uint8)

    return draw


@any_way
def cones(rng):
    """Below every cell a cone opens, row by row, with alternating colours."""
    c, kind, slope, length = hues(rng, 1)[0], between(rng, 0, 4), between(rng, 1, 2), between(rng, 3, 15)

    def draw(rng):
        g = blank(rng, 6, 13)
        y, z = np.indices(g.shape)
        r, k, x = between(rng, 0, max(0, len(g) - 5)), between(rng, 0, g.shape[1] - 1), hues(rng, 1, c)[0]
        g[r, k] = x
        down, aside = y - r, abs(z - k)
        on = (down > 0) & (aside <= slope * down) & (down < length)
        paint = (
            np.full(g.shape, c), np.where(down % 2, c, x), np.where(aside % 2, c, x),
            np.where(aside == slope * down, x, c), np.where((down + aside) % 2, 0, c),
        )[kind]  # fmt: skip
        return g, np.where(on, paint, g).astype(np.uint8)

    return draw


@any_way
def automata(rng):
    """The first row develops downwards: each cell follows from the three above it."""
    table, wraps, c = int(rng.choice([90, 250, 254, 60, 102, 150, 18, 126, 50, 222])), chance(rng, 0.5), hues(rng, 1)[0]
    recolors = chance(rng, 0.5)

    def draw(rng):
        h, w, x = between(rng, 5, 10), between(rng, 7, 17), hues(rng, 1, c)[0]
        row = np.zeros(w, bool)
        row[[between(rng, 0, w - 1) for _ in range(between(rng, 1, 4))]] = True
        rows = [row]
        for _ in range(h - 1):
            wide = np.pad(rows[-1], 1, mode="wrap") if wraps else np.pad(rows[-1], 1)
            code = wide[:-2] * 4 + wide[1:-1] * 2 + wide[2:]
            rows.append((table >> code & 1).astype(bool))
        full = np.array(rows)
        g = np.zeros((h, w), np.uint8)
        g[0, row] = x
        return g, np.where(full & (g == 0), c if recolors else x, g).astype(np.uint8)

    return draw


@any_way
def snakes(rng):
    """Along a winding line every n-th cell from its marked end changes, or its other end, or its bends."""
    (c, d), n, kind = hues(rng, 2), between(rng, 2, 3), between(rng, 0, 3)

    def draw(rng):
        g, (x, head) = blank(rng, 7, 13), hues(rng, 2, c, d)
        at = between(rng, 0, g.shape[0] - 1), between(rng, 0, g.shape[1] - 1)
        line, step = [at], SIDES[between(rng, 0, 3)]
        for _ in range(between(rng, 10, 26)):
            ways = []
            for s in (step, step, left_of(step), right_of(step)):
                to = at[0] + s[0], at[1] + s[1]
                if inside(g, to) and sum((to[0] + a, to[1] + b) in line for a, b in SIDES) == 1 and to not in line:
                    ways.append((to, s))
            if not ways:
                break
            at, step = ways[between(rng, 0, len(ways) - 1)]
            line.append(at)
        if len(line) < 7:
            return None
        for i, at in enumerate(line):
            g[at] = x if i else head
        out = g.copy()
        for i, at in enumerate(line[1:], 1):
            is_last = i == len(line) - 1
            bends = not is_last and line[i - 1][0] != line[i + 1][0] and line[i - 1][1] != line[i + 1][1]
            if (i % n == 0, is_last, bends, True)[kind]:
                out[at] = (c, c, c, (c, d, head)[i % 3])[kind]
        return g, out

    return draw


@any_way
def striped_bars(rng):
    """Bars that stand on the ground change every n-th cell counted from the ground, or from their top."""
    c, n, from_top, kind = hues(rng, 1)[0], between(rng, 2, 3), chance(rng, 0.5), between(rng, 0, 2)

    def draw(rng):
        g, x = blank(rng, 7, 13), hues(rng, 1, c)[0]
        out = g.copy()
        for k in range(between(rng, 0, 1), g.shape[1], 2):
            h = between(rng, 2, len(g))
            i = np.arange(h) if from_top else np.arange(h)[::-1]
            g[-h:, k] = x
            out[-h:, k] = np.where((i % n == n - 1, i < n, i % (2 * n) < n)[kind], c, x)
        return g, out

    return draw


@any_way
def patch_borders(rng):
    """A patchwork of regions: where two meet is drawn, at times at the border only, or all but that is cleared."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 3)

    def draw(rng):
        h, w, n = between(rng, 7, 14), between(rng, 7, 14), between(rng, 2, 5)
        own = patches(rng, h, w, n)
        g = np.array(hues(rng, n, c), np.uint8)[own]
        wide = np.pad(own, 1, mode="edge")
        meets = np.zeros(g.shape, bool)
        for a, b in SIDES:
            meets |= wide[1 + a : h + 1 + a, 1 + b : w + 1 + b] != own
        edge = np.zeros(g.shape, bool)
        edge[[0, -1]], edge[:, [0, -1]] = True, True
        out = (
            np.where(meets, c, g), np.where(meets, g, 0), np.where(meets | edge, g, 0), np.where(meets & edge, c, g),
        )[kind]  # fmt: skip
        return g, out.astype(np.uint8)

    return draw


@any_way
def corner_marks(rng):
    """Every rectangle's corners are marked: in it, beside it, or with slanted lines to the border."""
    c, kind, hollow, own = hues(rng, 1)[0], between(rng, 0, 4), chance(rng, 0.4), chance(rng, 0.3)

    def draw(rng):
        g = blank(rng, 9, 14)
        made = frames(rng, g, between(rng, 1, 2), 3, 5, hues(rng, 2, c))
        if made is None:
            return None
        for (r, k), h, w, x in made if not hollow else ():
            g[r : r + h, k : k + w] = x
        out = g.copy()
        for (r, k), h, w, x in made:
            for (a, b), s in zip(((r, k + w - 1), (r + h - 1, k + w - 1), (r + h - 1, k), (r, k)), SLANTS, strict=True):
                line = list(ray(g, (a, b), s))
                sides = [at for at in ((a + s[0], b), (a, b + s[1])) if inside(g, at)]
                for at in ([(a, b)], line[:1], line, line[1:2], sides)[kind]:
                    if kind and out[at]:
                        return None
                    out[at] = x if own and kind else c
        return g, out

    return draw


@any_way
def water(rng):
    """Water falls from the top, runs along what it meets to both ends and falls on."""
    c, own, one_way, basin = hues(rng, 1)[0], chance(rng, 0.5), chance(rng, 0.4), chance(rng, 0.3)

    def draw(rng):
        g, (x, y) = blank(rng, 9, 14), hues(rng, 2, c)
        k = between(rng, 1, g.shape[1] - 2)
        g[0, k] = x
        n = between(rng, 2, 4)
        g[between(rng, 3, 5), max(0, k - between(rng, 1, 3)) : k + between(rng, 1, 4)] = y
        scatter(rng, g, [(box(1, between(rng, 2, 5)), y) for _ in range(n)], 1)
        out, todo = g.copy(), [(0, k)]
        while todo:
            r, k = todo.pop()
            if r + 1 == len(g) and not basin:
                continue
            below = (r + 1, k)
            if r + 1 < len(g) and not g[below]:
                ahead = [below]
            else:
                ahead = [(r, k + 1)] if one_way else [(r, k + 1), (r, k - 1)]
            for at in ahead:
                if inside(g, at) and not out[at]:
                    out[at] = x if own else c
                    todo.append(at)
        return g, out

    return draw


@any_way
def shadows(rng):
    """Objects throw shadows downwards, as long as they are high, some cells long, or until something is met."""
    c, kind, n, slant = hues(rng, 1)[0], between(rng, 0, 2), between(rng, 1, 3), between(rng, 0, 1)

    def draw(rng):
        g = blank(rng, 8, 14)
        palette = hues(rng, 3, c)
        objects = [(blob(rng, between(rng, 1, 3), between(rng, 1, 4)), x) for x in palette[: between(rng, 2, 3)]]
        corners = scatter(rng, g, objects, 1)
        if corners is None:
            return None
        out = g.copy()
        for (r, k), (mask, _) in zip(corners, objects, strict=True):
            length = (mask.shape[0], n, 30)[kind]
            for a, b in cells(mask):
                for i, at in enumerate(ray(g, (r + a, k + b), (1, slant))):
                    if i >= length or g[at]:
                        break
                    out[at] = c
        return g, out

    return draw


@any_way
def lamps(rng):
    """A lamp, the only cell of its kind, lights the cells it sees along lines until something stops them."""
    (c, d), kind, own, hits = hues(rng, 2), between(rng, 0, 3), chance(rng, 0.5), between(rng, 0, 2)
    ways = (SIDES, SLANTS, SIDES + SLANTS, ((0, 1), (0, -1)))[kind]

    def draw(rng):
        g, (x, y) = blank(rng, 7, 13), hues(rng, 2, c, d)
        places = dots(rng, g, [x], 1, 2)
        if dots(rng, g, [y] * between(rng, 5, 12), 0) is None:
            return None
        out, stopped = g.copy(), 0
        for way in ways:
            for at in ray(g, places[0], way):
                if g[at]:
                    stopped += 1
                    out[at] = (y, d, 0)[hits]
                    break
                out[at] = x if own else c
        return (g, out) if stopped else None

    return draw


@any_way
def elbow_shots(rng):
    """Three cells around a corner shoot a slanted line away through that corner, or through the open side."""
    c, opens, own, length = hues(rng, 1)[0], chance(rng, 0.5), chance(rng, 0.6), between(rng, 2, 20)

    def draw(rng):
        g, shots = blank(rng, 8, 14), []
        for x in hues(rng, between(rng, 1, 3), c):
            i, mask = between(rng, 0, 3), box(2, 2)
            missing = [(0, 1), (1, 1), (1, 0), (0, 0)][i]
            mask[missing] = False
            at = room(rng, g, mask, 1)
            if at is None:
                return None
            put(g, mask, at, x)
            start = missing if opens else (1 - missing[0], 1 - missing[1])
            step = SLANTS[i] if opens else SLANTS[(i + 2) % 4]
            start = at[0] + start[0] - step[0] * opens, at[1] + start[1] - step[1] * opens
            shots.append((start, step, x))
        out = g.copy()
        for start, step, x in shots:
            for at in list(ray(g, start, step))[:length]:
                if out[at]:
                    return None
                out[at] = x if own else c
        return g, out

    return draw


@any_way
def arrow_shots(rng):
    """Arrow heads shoot a line the way they point, or leave a trail, until the border or an object."""
    c, own, back, stamps_end = hues(rng, 1)[0], chance(rng, 0.5), chance(rng, 0.3), chance(rng, 0.3)
    head = np.array(([0, 1, 0, 1, 0, 1], [0, 1, 0, 1, 1, 1])[between(rng, 0, 1)], bool).reshape(2, 3)

    def draw(rng):
        g, shots = blank(rng, 8, 14), []
        for x in hues(rng, between(rng, 1, 3), c):
            i = between(rng, 0, 3)
            mask = np.rot90(head, -i)
            at = room(rng, g, mask, 1)
            if at is None:
                return None
            put(g, mask, at, x)
            tip = [(0, 1), (1, 1), (1, 1), (1, 0)][i]
            start, step = (at[0] + tip[0], at[1] + tip[1]), SIDES[i]
            if back:
                step = SIDES[(i + 2) % 4]
                start = (start[0] + step[0], start[1] + step[1]) if head[1, 1] else start
            shots.append((start, step, x))
        out = g.copy()
        for start, step, x in shots:
            line = []
            for at in ray(g, start, step):
                if g[at]:
                    break
                if out[at]:
                    return None
                line.append(at)
                out[at] = x if own else c
            if stamps_end and line:
                out[line[-1]] = c if own else x
        return g, out

    return draw


@any_way
def plants(rng):
    """Seeds on the ground grow stems up to what hangs above, with leaves or a flower."""
    (c, d), kind, n = hues(rng, 2), between(rng, 0, 4), between(rng, 2, 5)

    def draw(rng):
        g, (x, y) = blank(rng, 8, 13), hues(rng, 2, c, d)
        cols = [k for k in range(1, g.shape[1] - 1, 4) if chance(rng, 0.7)]
        if not cols:
            return None
        shift = between(rng, 0, min(2, g.shape[1] - 2 - cols[-1]))
        tops = {}
        for k in (k + shift for k in cols):
            g[-1, k] = x
            roof = between(rng, 0, len(g) - 5)
            tops[k] = 0
            if chance(rng, 0.6):
                g[roof, max(0, k - 1) : k + 2] = y
                tops[k] = roof + 1
        out = g.copy()
        for k, top in tops.items():
            if kind in (3, 4):
                top = max(top, len(g) - 1 - n)
            out[top : len(g) - 1, k] = c
            if kind in (1, 3):
                out[top, k] = d
            if kind == 2:
                for i, r in enumerate(range(len(g) - 3, top, -2)):
                    out[r, k + (1 if i % 2 else -1)] = d
            if kind == 4:
                out[top, k - 1 : k + 2] = d
        return g, out

    return draw


@any_way
def doublings(rng):
    """The corner's pattern is copied beside itself, then both, again and again; copies are flipped or painted anew."""
    c, kind, turns_down = hues(rng, 1)[0], between(rng, 0, 3), chance(rng, 0.6)

    def draw(rng):
        n, times = between(rng, 1, 3), between(rng, 1, 3)
        a = noise(rng, n, n + (n == 1), colors(rng, 3), 0.8)
        if not a.any() or n * (n + (n == 1)) * 4**times > 340:
            return None
        full = a
        for _ in range(times):
            new = (full[:, ::-1], np.where(full > 0, c, 0).astype(np.uint8), full[::-1], np.zeros_like(full))[kind]
            full = np.concatenate([full, new], 1)
            full = np.concatenate([full, full[::-1] if turns_down else np.flip(full, 1)], 0)
        g = np.zeros_like(full)
        g[: a.shape[0], : a.shape[1]] = a
        return (g, full) if g.size * 2 <= 400 else None

    return draw


@any_way
def bridges(rng):
    """Where two rectangles face each other a bridge is built between them: full width, middle, sides or dashes."""
    c, kind, own = hues(rng, 1)[0], between(rng, 0, 3), chance(rng, 0.3)

    def draw(rng):
        g, x = blank(rng, 8, 14), hues(rng, 1, c)[0]
        h, w = g.shape
        a, b, gap = between(rng, 2, 3), between(rng, 2, 3), between(rng, 2, 4)
        if a + b + gap > w:
            return None
        left = between(rng, 0, w - a - b - gap)
        spans = []
        for k, n in ((left, a), (left + a + gap, b)):
            high = between(rng, 3, h - 2)
            top = between(rng, 0, h - high)
            g[top : top + high, k : k + n] = x
            spans.append((top, top + high))
        top, low = max(s[0] for s in spans), min(s[1] for s in spans)
        if low - top < 3 or kind == 1 and (low - top) % 2 == 0:
            return None
        rows = (range(top, low), [(top + low) // 2], (top, low - 1), range(top, low, 2))[kind]
        out = g.copy()
        for r in rows:
            out[r, left + a : left + a + gap] = x if own else c
        return g, out

    return draw


@any_way
def to_own_wall(rng):
    """Cells draw a line to the wall of their colour, or move to it; cells of other colours go or stay."""
    moves, loses = between(rng, 0, 1), chance(rng, 0.5)

    def draw(rng):
        g, (a, b, x) = blank(rng, 7, 13), hues(rng, 3)
        g[:, 0], g[:, -1] = a, b
        rows = [r for r in range(len(g)) if chance(rng, 0.6)]
        out = g.copy()
        for r in rows:
            k, y = between(rng, 2, g.shape[1] - 3), (a, b, x)[between(rng, 0, 2)]
            g[r, k] = y
            if y == x:
                out[r, k] = 0 if loses else x
            elif moves:
                out[r, 1 if y == a else -2] = y
            else:
                out[r, 1 : k + 1] = a if y == a else out[r, 1 : k + 1]
                out[r, k:-1] = b if y == b else out[r, k:-1]
        return (g, out) if len(rows) > 1 else None

    return draw


@any_way
def odd_cell_shoots(rng):
    """A rectangle has one odd cell in its side: a line leaves from there, or from the opposite side."""
    c, opposite, own, hollow = hues(rng, 1)[0], chance(rng, 0.4), chance(rng, 0.6), chance(rng, 0.3)

    def draw(rng):
        g, shots = blank(rng, 9, 14), []
        made = frames(rng, g, between(rng, 1, 2), 3, 5, hues(rng, 1, c))
        if made is None:
            return None
        y = hues(rng, 1, c, made[0][3])[0]
        for (r, k), h, w, x in made:
            if not hollow:
                g[r : r + h, k : k + w] = x
            i, a, b = between(rng, 0, 3), between(rng, r + 1, r + h - 2), between(rng, k + 1, k + w - 2)
            sides = [(r, b), (a, k + w - 1), (r + h - 1, b), (a, k)]
            g[sides[i]] = y
            j = (i + 2) % 4 if opposite else i
            shots.append((sides[j], SIDES[j]))
        out = g.copy()
        for start, step in shots:
            for at in ray(g, start, step):
                if out[at]:
                    return None
                out[at] = y if own else c
        return g, out

    return draw


@any_way
def rows_shifted(rng):
    """The first row is repeated below, each time shifted on, and what leaves comes back or is lost."""
    step, wraps, sways = between(rng, 1, 2), chance(rng, 0.5), chance(rng, 0.3)

    def draw(rng):
        h, w = between(rng, 4, 10), between(rng, 5, 15)
        row = noise(rng, 1, w, colors(rng, 3), 0.35)[0]
        if not 0 < (row > 0).sum() < w - 1:
            return None
        g, full = np.zeros((h, w), np.uint8), []
        g[0] = row
        for i in range(h):
            n = step * (i % 2 if sways else i)
            moved = np.roll(row, n)
            if not wraps:
                moved[: min(n, w)] = 0
            full.append(moved)
        return g, np.array(full)

    return draw


@any_way
def mountains(rng):
    """Beside a bar on the ground further bars follow, lower and lower."""
    (c, d), drop, one_side, own = hues(rng, 2), between(rng, 1, 2), chance(rng, 0.3), chance(rng, 0.3)
    every = between(rng, 1, 2)

    def draw(rng):
        g, x = blank(rng, 6, 14), hues(rng, 1, c, d)[0]
        high, k = between(rng, 3, len(g)), between(rng, 1, g.shape[1] - 2)
        g[-high:, k] = x
        out = g.copy()
        for side, color in ((-1, x if own else c), (1, x if own else d))[one_side:]:
            n = high
            for _, at in ray(g, (0, k), (0, side)):
                n -= drop
                if n < 1:
                    break
                if abs(at - k) % every == 0:
                    out[-n:, at] = color
        return g, out

    return draw


@any_way
def lattice_joined(rng):
    """Rooms of a lattice: those between two equal rooms in a row, or in a column, get their colour."""
    ways, c, own = ((0,), (0, 1))[between(rng, 0, 1)], hues(rng, 1)[0], chance(rng, 0.7)

    def draw(rng):
        n, side = between(rng, 4, 7), 1
        side = 2 if n < 6 and chance(rng, 0.6) else 1
        line, *palette = hues(rng, 4, c)
        small = noise(rng, n, n, palette, 0.25)
        full, changed = small.copy(), 0
        for way in ways:
            for a, b in zip(small if way == 0 else small.T, full if way == 0 else full.T, strict=True):
                at = np.flatnonzero(a)
                for i, j in zip(at, at[1:], strict=False):
                    if a[i] == a[j] and j - i > 1:
                        if b[i + 1 : j].any():
                            return None
                        b[i + 1 : j] = a[i] if own else c
                        changed += 1
        grids = []
        for x in (small, full):
            wide = np.full((n * (side + 1) - 1,) * 2, line, np.uint8)
            for i in range(side):
                for j in range(side):
                    wide[i :: side + 1, j :: side + 1] = x
            grids.append(wide)
        return tuple(grids) if changed else None

    return draw


@any_way
def around_centre(rng):
    """A pattern beside a centre is turned or mirrored around it until all four sides have it."""
    mirrored, c, kind = chance(rng, 0.5), hues(rng, 1)[0], between(rng, 0, 2)

    def draw(rng):
        n = between(rng, 2, 4)
        g, (x, *palette) = np.zeros((2 * n + 1,) * 2, np.uint8), hues(rng, 4, c)
        part = noise(rng, n, n, palette, 0.5)
        if (part > 0).sum() < 2 or (part == part.T).all():
            return None
        g[n, n] = x
        if kind:
            g[n - 1 : n + 2, n] = g[n, n - 1 : n + 2] = x
        full, part = g.copy(), np.pad(part, ((0, n + 1), (0, n + 1)))  # in one quarter
        for i in range(4):
            if mirrored:
                part = part[:, ::-1] if i % 2 else part[::-1]
            else:
                part = np.rot90(part, -1)
            full = np.where(part > 0, np.where(i < 3, c, part) if kind == 2 else part, full)
        g = np.where(part > 0, part, g)
        pad = [(between(rng, 0, 2), between(rng, 0, 2)) for _ in range(2)]
        return np.pad(g.astype(np.uint8), pad), np.pad(full.astype(np.uint8), pad)

    return draw


@any_way
def over_the_line(rng):
    """A line parts the grid: what is on one side appears mirrored, or shifted, on the other, or moves there."""
    kind, c, moves = between(rng, 0, 3), hues(rng, 1)[0], chance(rng, 0.3)

    def draw(rng):
        h, n, (x, *palette) = between(rng, 4, 11), between(rng, 3, 6), hues(rng, 4, c)
        g = np.zeros((h, 2 * n + 1), np.uint8)
        g[:, n] = x
        half = np.zeros((h, n), np.uint8)
        shapes = [(blob(rng, between(rng, 1, 3), between(rng, 1, 3)), y) for y in palette[: between(rng, 1, 3)]]
        if scatter(rng, half, shapes, 0) is None or (half == half[:, ::-1]).all():
            return None
        g[:, :n], out = half, g.copy()
        out[:, :n] = 0 if moves else half
        out[:, n + 1 :] = (half[:, ::-1], half, half[::-1, ::-1], np.where(half > 0, c, 0)[:, ::-1])[kind]
        return g, out

    return draw


@any_way
def gathered_frame(rng):
    """A frame is drawn around all scattered cells, close to them or at a distance."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 2)
    n = between(rng, kind == 2, 2)

    def draw(rng):
        g, x = blank(rng, 8, 14), hues(rng, 1, c)[0]
        h, w = between(rng, 2, g.shape[0] - 2 * n - 1), between(rng, 2, g.shape[1] - 2 * n - 1)
        mask = rng.random((h, w)) < 0.3
        if mask.sum() < 3:
            return None
        mask = mask[box_of(mask)]
        at = room(rng, g, mask, 0, n)
        if at is None or min(mask.shape) < 2:
            return None
        put(g, mask, at, x)
        area = np.zeros(g.shape, bool)
        area[at[0] - n : at[0] + mask.shape[0] + n, at[1] - n : at[1] + mask.shape[1] + n] = True
        frame = area & grown(np.pad(~area, 1, constant_values=True), True)[1:-1, 1:-1]
        out = (np.where(frame & (g == 0), c, g), np.where(area & (g == 0), c, g), np.where(frame, c, 0))[kind]
        return g, out.astype(np.uint8)

    return draw


@any_way
def four_corners(rng):
    """Equal cells are the corners of a rectangle: its edges or inside are painted, or a lacking corner is."""
    c, kind, own = hues(rng, 1)[0], between(rng, 0, 3), chance(rng, 0.4)

    def draw(rng):
        g, made = blank(rng, 8, 14), []
        for x in hues(rng, between(rng, 1, 3), c):
            h, w = between(rng, 3, 6), between(rng, 3, 6)
            at = room(rng, g, box(h, w), 1)
            if at is None:
                continue
            put(g, box(h, w), at, x)
            made.append((at, h, w, x))
        g[:] = 0
        out = g.copy()
        for (r, k), h, w, x in made:
            corners = [(r, k), (r, k + w - 1), (r + h - 1, k), (r + h - 1, k + w - 1)]
            lost = between(rng, 0, 3)
            if kind in (0, 2):
                put(out, box(h, w, True), (r, k), x if own else c)
            if kind in (1, 2):
                out[r + 1 : r + h - 1, k + 1 : k + w - 1] = c
            for i, at in enumerate(corners):
                if kind != 3 or i != lost:
                    g[at] = out[at] = x
                else:
                    out[at] = x if own else c
        return (g, out) if made else None

    return draw


@any_way
def dots_go_on(rng):
    """Dots at equal distances along a line go on until the border, both ways or on one side."""
    both, c, own, count = chance(rng, 0.5), hues(rng, 1)[0], chance(rng, 0.6), between(rng, 2, 3)

    def draw(rng):
        g = blank(rng, 8, 14)
        full = g.copy()
        for x in hues(rng, between(rng, 1, 2), c):
            a, b = between(rng, -2, 2), between(rng, 1, 2)
            start = between(rng, 0, g.shape[0] - 1), between(rng, 0, g.shape[1] // 2)
            ahead = list(ray(g, start, (a, b)))
            behind = list(ray(g, start, (-a, -b)))
            line, shown = [start, *ahead, *(behind if both else ())], [start, *ahead[: count - 1]]
            if len(ahead) < count or abs(a) + b < 2 or any(full[at] for at in line):
                continue
            for at in line:
                full[at] = x if own or at in shown else c
            for at in shown:
                g[at] = x
        return g, full

    return draw


@any_way
def tails(rng):
    """A short line has a head of another colour: from the head a line goes on to the border."""
    dashed, c, loses = chance(rng, 0.3), hues(rng, 1)[0], between(rng, 0, 2)

    def draw(rng):
        g, x = blank(rng, 8, 14), hues(rng, 1, c)[0]
        lines = []
        for y in hues(rng, between(rng, 1, 3), c, x):
            step, n = (SIDES + SLANTS)[between(rng, 0, 7)], between(rng, 2, 3)
            start = between(rng, 1, g.shape[0] - 2), between(rng, 1, g.shape[1] - 2)
            body = [start, *ray(g, start, step)][: n + 1]
            if len(body) <= n or any(g[max(0, r - 1) : r + 2, max(0, k - 1) : k + 2].any() for r, k in body):
                continue
            for at in body:
                g[at] = x
            g[body[-1]] = y
            lines.append((body, step, y))
        out = g.copy()
        for body, step, y in lines:
            for i, at in enumerate(ray(g, body[-1], step)):
                if out[at]:
                    return None
                if not (dashed and i % 2 == 0):
                    out[at] = y if loses != 2 else c
            for at in body[:-1] if loses == 1 else ():
                out[at] = 0
        return (g, out) if lines else None

    return draw


@any_way
def streets(rng):
    """Rows and columns without any cell are painted as streets, or only rows; crossings may differ."""
    (c, d), kind = hues(rng, 2), between(rng, 0, 3)

    def draw(rng):
        h, w = between(rng, 7, 14), between(rng, 7, 14)
        g = noise(rng, h, w, hues(rng, between(rng, 1, 3), c, d), 0.45)
        g[[between(rng, 0, h - 1) for _ in range(between(rng, 1, 2))]] = 0
        g[:, [between(rng, 0, w - 1) for _ in range(between(rng, 1, 2))]] = 0
        rows, cols = ~g.any(1, keepdims=True), ~g.any(0, keepdims=True)
        both = rows & cols
        if kind == 1:
            out = np.where(rows, c, g)
        elif kind == 2:
            out = np.where(both, d, np.where(rows | cols, c, g))
        elif kind == 3:
            out = np.where(both, c, g)
        else:
            out = np.where(rows | cols, c, g)
        return (g, out.astype(np.uint8)) if both.any() else None

    return draw


@any_way
def empty_squares(rng):
    """The largest empty square among scattered cells is filled, framed, or everything else is cleared."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 2)

    def draw(rng):
        h, w = between(rng, 7, 13), between(rng, 7, 13)
        g = noise(rng, h, w, hues(rng, between(rng, 1, 2), c), 0.5)
        n, r, k = between(rng, 3, 5), between(rng, 0, h - 3), between(rng, 0, w - 3)
        g[r : r + n, k : k + n] = 0
        side = np.zeros((h + 1, w + 1), int)
        for i in range(h):
            for j in range(w):
                side[i + 1, j + 1] = 0 if g[i, j] else 1 + min(side[i, j], side[i, j + 1], side[i + 1, j])
        n = int(side.max())
        best = cells(side == n)
        if len(best) > 1 or n < 3:
            return None
        out, (i, j) = g.copy(), best[0]
        put(out, box(n, n, kind == 1), (i - n, j - n), c)
        return g, np.where(out == c, c, 0).astype(np.uint8) if kind == 2 else out

    return draw


@any_way
def frames_by_seed(rng):
    """A cell in a frame fills it, paints the frame or draws lines; empty frames go, stay or are filled."""
    c, kind, empty = hues(rng, 1)[0], between(rng, 0, 3), between(rng, 0, 2)

    def draw(rng):
        g = blank(rng, 9, 14)
        made = frames(rng, g, between(rng, 2, 4), 4, 6, hues(rng, 1, c))
        if made is None:
            return None
        out, seeds = g.copy(), 0
        for (r, k), h, w, x in made:
            full, frame = box(h, w), box(h, w, True)
            if chance(rng, 0.7):
                y = hues(rng, 1, c, x)[0]
                at = between(rng, r + 1, r + h - 2), between(rng, k + 1, k + w - 2)
                g[at] = out[at] = y
                seeds += 1
                if kind == 0:
                    put(out, full & ~frame, (r, k), y)
                elif kind == 1:
                    put(out, frame, (r, k), y)
                    out[at] = x
                elif kind == 2:
                    put(out, full, (r, k), y)
                else:
                    out[at[0], k + 1 : k + w - 1] = y
                    out[r + 1 : r + h - 1, at[1]] = y
            elif empty:
                put(out, full if empty == 1 else full & ~frame, (r, k), 0 if empty == 1 else c)
        return (g, out) if seeds else None

    return draw


@any_way
def frames_by_inside(rng):
    """Frames are filled by their side, by whether they are square, tall or wide, or by whether one cell is inside."""
    palette, kind = hues(rng, 3), between(rng, 0, 2)

    def draw(rng):
        g, x = blank(rng, 10, 14), hues(rng, 1, *palette)[0]
        out, used = g.copy(), set()
        for _ in range(between(rng, 3, 5)):
            h, w = between(rng, 3, 5), between(rng, 3, 5)
            w = h if kind == 0 else w
            at = room(rng, g, box(h, w), 1)
            if at is None:
                continue
            which = (h - 3, 0 if h == w else 1 if h > w else 2, min(1, (h - 2) * (w - 2) - 1))[kind]
            put(out, box(h, w), at, palette[which])
            put(out, box(h, w, True), at, x)
            put(g, box(h, w, True), at, x)
            used.add(which)
        return (g, out) if len(used) > 1 else None

    return draw


@any_way
def dodging(rng):
    """A line goes across; where a block stands in its way it steps aside until it can go on."""
    c, own, comes_back = hues(rng, 1)[0], chance(rng, 0.5), chance(rng, 0.3)

    def draw(rng):
        g, (x, y) = blank(rng, 8, 14), hues(rng, 2, c)
        r = between(rng, 4, g.shape[0] - 2)
        g[r, 0] = x
        put(g, box(between(rng, 1, 3), 1), (r - 1, between(rng, 2, g.shape[1] - 3)), y)
        if not (g[r] == y).any():
            g[r, np.flatnonzero(g[r - 1] == y)] = y
        if not comes_back:
            scatter(rng, g, [(box(between(rng, 1, 3), between(rng, 1, 2)), y) for _ in range(between(rng, 2, 5))], 1)
        home, at, out = r, (r, 0), g.copy()
        while at[1] < g.shape[1] - 1:
            ahead, up, down = (at[0], at[1] + 1), (at[0] - 1, at[1]), (at[0] + 1, at[1])
            if comes_back and at[0] < home and not g[down] and not out[down]:
                at = down
            elif not g[ahead]:
                at = ahead
            elif inside(g, up) and not g[up]:
                at = up
            else:
                return None
            out[at] = x if own else c
        return g, out

    return draw


@any_way
def cups(rng):
    """Water stands in cups that are open at the top; in others none."""
    c, kind, d = hues(rng, 1)[0], between(rng, 0, 2), hues(rng, 1)[0]

    def draw(rng):
        g = blank(rng, 9, 14)
        made = frames(rng, g, between(rng, 2, 4), 3, 6, hues(rng, 2, c, d))
        if made is None:
            return None
        out, cupped = g.copy(), 0
        for (r, k), h, w, _ in made:
            side = 0 if chance(rng, 0.5) else between(rng, 1, 3)
            hole = [(r, slice(k + 1, k + w - 1)), (slice(r + 1, r + h - 1), k + w - 1),
                    (r + h - 1, slice(k + 1, k + w - 1)), (slice(r + 1, r + h - 1), k)][side]  # fmt: skip
            g[hole] = out[hole] = 0
            if side == 0:
                cupped += 1
                out[r + (kind == 0) : r + h - 1, k + 1 : k + w - 1] = c
                if kind == 2:
                    out[r : r + h - 2, k + 1 : k + w - 1] = 0
        return (g, out) if 0 < cupped < len(made) else None

    return draw


@any_way
def color_taken(rng):
    """A line runs along each row from its first cell and takes the colour of every cell it passes."""
    ends, c, keeps = chance(rng, 0.4), hues(rng, 1)[0], chance(rng, 0.3)

    def draw(rng):
        h, w = between(rng, 4, 12), between(rng, 7, 14)
        g = np.zeros((h, w), np.uint8)
        for r in range(between(rng, 0, 1), h, 2):
            for k in sorted(rng.permutation(w)[: between(rng, 1, 4)].tolist()):
                g[r, k] = hues(rng, 1, c)[0]
        out = g.copy()
        for line, made in zip(g, out, strict=True):
            at = np.flatnonzero(line)
            for i, k in enumerate(at):
                stop = at[i + 1] if i + 1 < len(at) else (k + 1 if ends else w)
                made[k + keeps : stop] = line[k]
            if keeps and len(at):
                made[at] = c
        return g, out

    return draw


@any_way
def spans(rng):
    """Gaps between a colour's first and last cell of a column, or of a row, of both or of either are filled."""
    c, kind, own = hues(rng, 1)[0], between(rng, 0, 3), chance(rng, 0.4)

    def draw(rng):
        g = blank(rng, 7, 13)
        palette = hues(rng, between(rng, 1, 3), c)
        objects = [(rng.random((between(rng, 3, 6), between(rng, 3, 6))) < 0.4, x) for x in palette]
        if scatter(rng, g, objects, 1) is None:
            return None
        out = g.copy()
        for x in palette:
            on = [np.maximum.accumulate(g == x, axis) for axis in (0, 1)]
            on = [a & np.flip(np.maximum.accumulate(np.flip(g == x, axis), axis), axis) for axis, a in enumerate(on)]
            out[(on[0], on[1], on[0] & on[1], on[0] | on[1])[kind] & (g == 0)] = x if own else c
        return g, out

    return draw


@any_way
def rims(rng):
    """A line is drawn around every object: of two colours in turn, at a distance, twice, or with other corners."""
    (c, d), kind = hues(rng, 2), between(rng, 0, 3)

    def draw(rng):
        g, x = blank(rng, 8, 14), hues(rng, 1, c, d)[0]
        objects = [(blob(rng, between(rng, 2, 5), between(rng, 2, 5)), x) for _ in range(between(rng, 1, 2))]
        if scatter(rng, g, objects, 3, 1) is None:
            return None
        mask = g > 0
        ring = grown(mask, True) & ~mask
        inner = enclosed(g)
        outer, second = ring & ~inner, grown(grown(mask, True), True) & ~grown(mask, True)
        r, k = np.indices(g.shape)
        out = (
            np.where(outer, np.where((r + k) % 2, c, d), g), np.where(second, c, g),
            np.where(outer, c, np.where(second, d, g)), np.where(ring & ~grown(mask, False), c, np.where(ring, d, g)),
        )[kind]  # fmt: skip
        return g, out.astype(np.uint8)

    return draw


@any_way
def marked_of_kind(rng):
    """Of many single cells only those that share a row or column with another, or none, change, or get lines."""
    (c, d), kind = hues(rng, 2), between(rng, 0, 4)

    def draw(rng):
        g = blank(rng, 6, 12)
        if dots(rng, g, [hues(rng, 1, c, d)[0]] * between(rng, 4, 7), 1) is None:
            return None
        full = g > 0
        in_row, in_col = full.sum(1, keepdims=True), full.sum(0, keepdims=True)
        shared, lone = full & ((in_row > 1) | (in_col > 1)), full & (in_row == 1) & (in_col == 1)
        lines = (in_row > 1) | (in_col > 1)
        out = (
            np.where(shared, c, g), np.where(lone, c, g), np.where(lone, 0, g),
            np.where(lines & ~full, c, g), np.where(full & (in_row > 1), c, np.where(full & (in_col > 1), d, g)),
        )[kind]  # fmt: skip
        return (g, out.astype(np.uint8)) if shared.any() and lone.any() else None

    return draw


@any_way
def weaves(rng):
    """Lines cross: those below come to the top, or those of one direction do, or crossings are marked."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 3)

    def draw(rng):
        h, w = between(rng, 6, 13), between(rng, 6, 13)
        rows = [r for r in range(1, h - 1, 2) if chance(rng, 0.4)]
        cols = [k for k in range(1, w - 1, 2) if chance(rng, 0.4)]
        if not 0 < len(rows) < 5 or not 0 < len(cols) < 5 or len(rows) * len(cols) < 2:
            return None
        palette = hues(rng, len(rows) + len(cols), c)
        lying, standing = np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8)
        for r, x in zip(rows, palette, strict=False):
            lying[r] = x
        for k, x in zip(cols, palette[::-1], strict=False):
            standing[:, k] = x
        cross, up = (lying > 0) & (standing > 0), rng.random((h, w)) < 0.5
        g = np.where(cross, np.where(up, standing, lying), lying + standing)
        other = np.where(up, lying, standing)
        out = np.where(cross, (other, standing, np.where(up, c, g), 0)[kind], g)
        return g.astype(np.uint8), out.astype(np.uint8)

    return draw


@any_way
def ends_meet(rng):
    """Cells at both ends of a row fill it: whole if they are equal, else each its half, with a mark in the middle."""
    c, only_equal, other = hues(rng, 1)[0], between(rng, 0, 2), chance(rng, 0.3)

    def draw(rng):
        h, n = between(rng, 4, 11), between(rng, 2, 6)
        g = np.zeros((h, 2 * n + 1), np.uint8)
        out, kinds = g.copy(), set()
        for r in range(between(rng, 0, 2), h, between(rng, 2, 3)):
            a, b = hues(rng, 2, c)
            b = a if chance(rng, 0.4) else b
            g[r, 0], g[r, -1] = a, b
            out[r, 0], out[r, -1] = a, b
            kinds.add(a == b)
            if a == b and only_equal != 2:
                out[r] = c if other else a
                out[r, [0, -1]] = a
            elif a != b and only_equal != 1:
                out[r, :n], out[r, n + 1 :], out[r, n] = a, b, c
        return (g, out) if len(kinds) > 1 or only_equal == 0 else None

    return draw


@any_way
def territories(rng):
    """Every empty cell takes the colour of the nearest seed, those as near to two get a colour or stay."""
    c, square, kind = hues(rng, 1)[0], chance(rng, 0.4), between(rng, 0, 2)

    def draw(rng):
        g = blank(rng, 6, 12)
        palette = hues(rng, between(rng, 2, 3), c)
        places = dots(rng, g, palette, 2)
        if places is None:
            return None
        y, z = np.indices(g.shape)
        far = np.array([np.maximum(abs(y - r), abs(z - k)) if square else abs(y - r) + abs(z - k) for r, k in places])
        tied = (far == far.min(0)).sum(0) > 1
        full = np.array(palette)[far.argmin(0)]
        out = (np.where(tied, c, full), np.where(tied, 0, full), np.where(tied, c, g))[kind]
        return (g, out.astype(np.uint8)) if tied.any() else None

    return draw


@any_way
def bands(rng):
    """Solid rectangles stretch as bands to the borders, across, down or both; where bands cross something is seen."""
    (c, d), kind, own, crossing = hues(rng, 2), between(rng, 0, 2), chance(rng, 0.4), chance(rng, 0.6)

    def draw(rng):
        g = blank(rng, 8, 14)
        palette = hues(rng, 1, c, d) * 2
        objects = [(box(between(rng, 2, 4), between(rng, 2, 4)), x) for x in palette[: between(rng, 1, 2)]]
        corners = scatter(rng, g, objects, 2)
        if corners is None:
            return None
        across, down = np.zeros(g.shape, bool), np.zeros(g.shape, bool)
        for (r, k), (mask, _) in zip(corners, objects, strict=True):
            across[r : r + mask.shape[0]] = True
            down[:, k : k + mask.shape[1]] = True
        on = (across, down, across | down)[kind]
        out = np.where(on & (g == 0), palette[0] if own else c, g)
        if crossing and kind == 2:
            out[across & down & (g == 0)] = d
        return g, out.astype(np.uint8)

    return draw


@any_way
def peels(rng):
    """Every cell of a solid shape is coloured by its distance from the outside."""
    palette, square, core = hues(rng, between(rng, 2, 3)), chance(rng, 0.5), chance(rng, 0.3)

    def draw(rng):
        g, x = blank(rng, 8, 14), hues(rng, 1, *palette)[0]
        for _ in range(between(rng, 2, 4)):
            h, w = between(rng, 3, 7), between(rng, 3, 7)
            put(g, box(h, w), (between(rng, 0, len(g) - h), between(rng, 0, g.shape[1] - w)), x)
        wide = np.pad(g > 0, 1)
        depth = steps_from(wide, cells(~wide), square)[1:-1, 1:-1]
        if depth.max() < 2 or (g > 0).all():
            return None
        paint = np.where(depth == depth.max(), palette[0], x) if core else np.array(palette)[(depth - 1) % len(palette)]
        return g, np.where(g > 0, paint, 0).astype(np.uint8)

    return draw


@any_way
def noisy_bands(rng):
    """Bands of colours are strewn with noise: clean bands, or one cell for each, or the noise marked."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 2)

    def draw(rng):
        w, rows = between(rng, 6, 14), []
        palette = [colors(rng, 1)[0]]
        for _ in range(between(rng, 2, 4)):
            rows += [palette[-1]] * between(rng, 2, 4)
            palette += hues(rng, 1, palette[-1])
        palette.pop()
        h = len(rows)
        full = np.array(rows, np.uint8)[:, None].repeat(w, 1)
        bad = rng.random((h, w)) < 0.12
        if bad.sum() < 3 or (bad.sum(1) > w // 3).any() or h > 14 or kind == 2 and c in palette:
            return None
        spot = hues(rng, 1, c, *palette)[0] if kind == 2 or chance(rng, 0.7) else 0
        g = np.where(bad, spot, full).astype(np.uint8)
        return g, (full, np.array(palette, np.uint8)[:, None], np.where(bad, c, full).astype(np.uint8))[kind]

    return draw


@any_way
def ripples(rng):
    """Around a seed lie rings with gaps between them until the border; walls keep them out, or they keep some rings."""
    c, kind, gap, look = hues(rng, 1)[0], between(rng, 0, 2), between(rng, 2, 3), between(rng, 0, 2)

    def draw(rng):
        g, (x, y) = blank(rng, 7, 14), hues(rng, 2, c)
        r, k = between(rng, 0, g.shape[0] - 1), between(rng, 0, g.shape[1] - 1)
        g[r, k] = x
        b, d = (abs(v) for v in np.indices(g.shape) - np.array([r, k])[:, None, None])
        far = (np.maximum(b, d), b + d, b)[kind]
        blocks = [(box(between(rng, 2, 3), between(rng, 2, 3)), y)] * between(rng, 0, 2)
        if scatter(rng, g, blocks, 1) is None:
            return None
        on = (far % gap == 0) & (g == 0) & (far > 0)
        return g, np.where(on, (x, c, np.where(far // gap % 2, c, x))[look], g).astype(np.uint8)

    return draw


@any_way
def broken_frames(rng):
    """Frames that lost cells are mended, in their own or a new colour; or only whole ones get something inside."""
    c, kind = hues(rng, 1)[0], between(rng, 0, 3)

    def draw(rng):
        g = blank(rng, 8, 14)
        made = frames(rng, g, between(rng, 2, 5), 4, 6, hues(rng, 1, c))
        if made is None:
            return None
        out, broken = g.copy(), 0
        for (r, k), h, w, x in made:
            edge = [at for at in cells(box(h, w, True)) if at[0] not in (0, h - 1) or at[1] not in (0, w - 1)]
            lost = [edge[i] for i in rng.permutation(len(edge))[: between(rng, 1, 2) * chance(rng, 0.6)]]
            broken += bool(lost)
            for a, b in lost:
                g[r + a, k + b] = 0
                out[r + a, k + b] = (x, c, 0, 0)[kind]
            if kind == 2 + bool(lost):
                out[r + 1 : r + h - 1, k + 1 : k + w - 1] = c
        return (g, out) if 0 < broken < len(made) or kind < 2 and broken else None

    return draw


CONCEPTS = (
    bounces,
    turning_ray,
    sized_turns,
    mirrors,
    zigzags,
    spirals,
    stairs,
    line_sizes,
    crossings,
    slanted_pairs,
    elbows,
    mazes,
    seeds_flood,
    rooms_by_size,
    edge_rooms,
    leaks,
    textured,
    rings_from_list,
    ringed_boxes,
    stripes_go_on,
    rows_go_on,
    slants_go_on,
    tiling_holes,
    tiling_faults,
    tiling_grown,
    symmetric_holes,
    axes_marked,
    specks,
    solid_in_noise,
    holes_in_boxes,
    broken_lattice,
    cross_hairs,
    stamps,
    expansions,
    distance_bands,
    cones,
    automata,
    snakes,
    striped_bars,
    patch_borders,
    corner_marks,
    water,
    shadows,
    lamps,
    elbow_shots,
    arrow_shots,
    plants,
    doublings,
    bridges,
    to_own_wall,
    odd_cell_shoots,
    rows_shifted,
    mountains,
    lattice_joined,
    around_centre,
    over_the_line,
    gathered_frame,
    four_corners,
    dots_go_on,
    tails,
    streets,
    empty_squares,
    frames_by_seed,
    frames_by_inside,
    dodging,
    cups,
    color_taken,
    spans,
    rims,
    marked_of_kind,
    weaves,
    ends_meet,
    territories,
    bands,
    peels,
    noisy_bands,
    ripples,
    broken_frames,
)
