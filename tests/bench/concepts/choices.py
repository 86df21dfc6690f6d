"""Concepts of choosing, comparing, counting and recolouring objects."""

from functools import wraps

import numpy as np

from tests.bench.concepts.scenes import between, blank, blob, box, chance, colors, noise, pick, put, room, scatter
from tests.bench.more_tasks import box as around
from tests.bench.more_tasks import grown, parts

ACTS = ("crop", "keep", "paint", "drop", "others", "frame", "stamp", "double", "spread", "name")
PLAIN = ("spread", "name")  # of no use where all objects have one colour
SEVERAL = ("crop", "stamp", "double")  # of no use where several different objects are chosen


def tinted(concept):
    """At times the whole task has its background exchanged with another colour."""

    @wraps(concept)
    def made(rng):
        draw, order, k = concept(rng), np.arange(10), between(rng, 1, 9)
        if not chance(rng, 0.12):
            return draw
        order[[0, k]] = k, 0

        def swapped(rng):
            pair = draw(rng)
            return pair and tuple(order[np.asarray(g, int)] for g in pair)

        return swapped

    return made


def again(draw, times=6):
    """For scenes that often do not suit."""
    return lambda rng: next((pair for _ in range(times) if (pair := draw(rng)) is not None), None)


def hues(rng, count, *but):
    """Different colours of an input, none of `but`."""
    return [int(c) for c in rng.permutation([c for c in range(1, 10) if c not in but])[:count]]


def some(rng, low, high, count):
    """Different numbers from `low` to `high`."""
    return [int(n) for n in rng.permutation(np.arange(low, high + 1))[:count]]


def shape(rng, low=2, high=3):
    return blob(rng, between(rng, low, high), between(rng, low, high))


def turns(mask):
    return [np.rot90(m, k) for m in (mask, mask.T) for k in range(4)]


def any_turn(rng, mask):
    return pick(rng, turns(mask))


def canon(mask):
    """Equal for shapes that are turned or mirrored copies."""
    return min((m.shape, m.tobytes()) for m in turns(mask))


def unlike(rng, count, low=2, high=3):
    """Shapes none of which is a turned copy of another."""
    found = {}
    while len(found) < count:
        mask = shape(rng, low, high)
        found.setdefault(canon(mask), mask)
    return list(found.values())


def piece(rng, cells):
    """A connected shape of so many cells."""
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    while mask.sum() < cells:
        mask[tuple(pick(rng, np.argwhere(grown(mask, False) & ~mask)))] = True
    return mask[around(mask)]


def even(rng, upright=True):
    """A shape that is its own mirror image."""
    half = blob(rng, between(rng, 2, 4), 2)
    mask = np.concatenate([half[:, ::-1], half[:, between(rng, 0, 1) :]], 1)
    return mask if upright or chance(rng, 0.5) else mask.T


def lopsided(rng, low=3, high=4):
    while True:
        mask = shape(rng, low, high)
        if len({(m.shape, m.tobytes()) for m in turns(mask)}) == 8:
            return mask


def pierced(rng, holes):
    """A rectangle with so many holes of one cell."""
    a = between(rng, 1, 2)
    b = max(1, -(-holes // a)) + (chance(rng, 0.3) and a * holes < 4)
    mask = np.ones((2 * a + 1, 2 * b + 1), bool)
    for i in rng.permutation(a * b)[:holes]:
        mask[2 * (i // b) + 1, 2 * (i % b) + 1] = False
    return mask if chance(rng, 0.5) else mask.T


def slab(rng, low=2, high=5):
    return box(between(rng, low, high), between(rng, low, high))


def in_place(grid, masks, corners):
    """The masks in the grid's shape, where they stand."""
    placed = [np.zeros(grid.shape, bool) for _ in masks]
    for where, mask, at in zip(placed, masks, corners, strict=True):
        put(where, mask, at, True)
    return placed


def lay(rng, masks, old, low=9, high=14, gap=1, margin=0):
    """A grid with the masks in it, and where each is; None if there is no room."""
    order = sorted(range(len(masks)), key=lambda i: -masks[i].size)
    for _ in range(3):
        grid = blank(rng, low, high)
        corners = scatter(rng, grid, [(masks[i], old[i]) for i in order], gap, margin)
        if corners:
            placed = in_place(grid, [masks[i] for i in order], corners)
            return grid, [placed[order.index(i)] for i in range(len(masks))]
    return None


def act(rng, *without):
    """What happens to the chosen objects: the colour it paints with, and the function that does it."""
    what, c = pick(rng, [a for a in ACTS if a not in without]), between(rng, 1, 9)

    def done(grid, masks, chosen):
        first, out = masks[chosen[0]], grid.copy()
        mine = np.any([masks[i] for i in chosen], 0)
        others = np.any(masks, 0) & ~mine
        if what in ("crop", "double", "stamp"):
            view = grid[around(first)]
            view = np.where(view > 0, c, 0) if what == "stamp" else view
            return view.repeat(2, 0).repeat(2, 1) if what == "double" else view
        if what == "name":
            return np.full((1, 1), grid[first].max(), np.uint8)
        if what == "keep":
            return np.where(mine, grid, 0)
        if what == "frame":
            for i in chosen:
                ring = np.zeros(grid.shape, bool)
                ring[around(grown(masks[i], True))] = True
                ring[around(masks[i])] = False
                out[ring] = c
            return out
        where, color = {
            "paint": (mine, c), "drop": (mine, 0), "others": (others, c), "spread": (others, grid[first].max()),
        }[what]  # fmt: skip
        out[where] = color
        return out

    return c, done


def picked(rng, done, masks, old, chosen, **sizes):
    """A pair where something is done to the chosen objects."""
    made = lay(rng, masks, old, **sizes)
    return made and (made[0], done(*made, chosen))


def painted(rng, masks, old, new, **sizes):
    """A pair where objects change their colours."""
    made = lay(rng, masks, old, **sizes)
    if not made:
        return None
    out = made[0].copy()
    for mask, c in zip(made[1], new, strict=True):
        out[mask] = c
    return made[0], out


def line(values, is_row):
    out = np.array([values], np.uint8)
    return out if is_row else out.T


def walled(tiles, wall):
    """A grid from rows of panels of one size, with lines of `wall` between."""
    rows = []
    for row in tiles:
        cells = [x for t in row for x in (t, np.full((len(t), 1), wall, np.uint8))][:-1]
        rows.append(np.concatenate(cells, 1))
    cells = [x for r in rows for x in (r, np.full((1, r.shape[1]), wall, np.uint8))][:-1]
    return np.concatenate(cells, 0)


def in_turn(ends):
    """Whether it is plain which object is left of which."""
    return all(a.start < b.start and a.stop < b.stop for a, b in zip(ends, ends[1:], strict=False))


def best(values, is_most=True):
    """The index of the largest or smallest; None where two are."""
    top = max(values) if is_most else min(values)
    return values.index(top) if values.count(top) == 1 else None


# One object is chosen.


def odd_shape(rng):
    """Of objects of one shape one is another, or is turned: it is chosen."""
    (c, done), kind = act(rng), between(rng, 0, 2)

    def draw(rng):
        usual, odd = (lopsided(rng, 2, 3),) * 2 if kind == 2 else unlike(rng, 2)
        if kind == 2:
            odd = pick(rng, [m for m in turns(usual) if not np.array_equal(m, usual)])
        n = between(rng, 3, 5)
        masks = [any_turn(rng, usual) if kind == 1 else usual for _ in range(n)] + [odd]
        return picked(rng, done, masks, hues(rng, n + 1, c), [n])

    return draw


def odd_color(rng):
    """All objects but one have the same colour: the one is chosen."""
    c, done = act(rng)
    is_box = chance(rng, 0.3)

    def draw(rng):
        masks = [slab(rng, 1, 4) if is_box else shape(rng, 2, 4) for _ in range(between(rng, 3, 5))]
        a, b = hues(rng, 2, c)
        return picked(rng, done, masks, [b] + [a] * (len(masks) - 1), [0])

    return draw


def odd_symmetry(rng):
    """Among shapes without symmetry the one that has it is chosen, or the other way round."""
    is_even, one = chance(rng, 0.6), chance(rng, 0.4)
    c, done = act(rng, *PLAIN) if one else act(rng)

    def draw(rng):
        n = between(rng, 2, 3)
        masks = [even(rng) if is_even else lopsided(rng)] + [lopsided(rng) if is_even else even(rng) for _ in range(n)]
        old = hues(rng, n + 1, c)
        return picked(rng, done, masks, old[:1] * (n + 1) if one else old, [0], low=11, high=15)

    return draw


def odd_holes(rng):
    """All objects but one have equally many holes: the one is chosen."""
    c, done = act(rng)

    def draw(rng):
        few, other = some(rng, 0, 3, 2)
        masks = [pierced(rng, other)] + [pierced(rng, few) for _ in range(between(rng, 2, 4))]
        return picked(rng, done, masks, hues(rng, len(masks), c), [0], low=11, high=15)

    return draw


def most_holes(rng):
    """The object with most or fewest holes is chosen."""
    (c, done), is_most, one = act(rng, *PLAIN), chance(rng, 0.7), chance(rng, 0.5)

    def draw(rng):
        counts = some(rng, 0, 4, between(rng, 2, 3))
        masks, old = [pierced(rng, n) for n in counts], hues(rng, 3, c)
        return picked(rng, done, masks, old[:1] * 3 if one else old, [best(counts, is_most)], low=10, high=15)

    return draw


def odd_box(rng):
    """Of rectangles of one size, upright or lying, one has another size: it is chosen."""
    (c, done), is_hollow, lies = act(rng), chance(rng, 0.3), chance(rng, 0.5)

    def draw(rng):
        (a, b), (x, y) = some(rng, 2 + is_hollow, 5, 2), (between(rng, 2 + is_hollow, 5) for _ in range(2))
        if sorted((a, b)) == sorted((x, y)):
            return None
        masks = [box(x, y, is_hollow)] + [box(a, b, is_hollow) for _ in range(between(rng, 2, 4))]
        masks = [m.T if lies and chance(rng, 0.5) else m for m in masks]
        return picked(rng, done, masks, hues(rng, len(masks), c), [0], low=10, high=15)

    return draw


def odd_filled(rng):
    """One box is full among hollow ones, or hollow among full ones: it is chosen."""
    (c, done), kind, one = act(rng, *PLAIN), between(rng, 0, 2), chance(rng, 0.4)

    def draw(rng):
        is_full = chance(rng, 0.5) if kind == 2 else kind == 1
        n, old = between(rng, 3, 5), hues(rng, 5, c)
        masks = [box(between(rng, 3, 5), between(rng, 3, 5), is_full if i else not is_full) for i in range(n)]
        return picked(rng, done, masks, old[:1] * n if one else old[:n], [0], low=11, high=15)

    return draw


def common_shape(rng):
    """The shape that comes most often, or least often, is chosen."""
    is_most, is_turned = chance(rng, 0.6), chance(rng, 0.3)
    c, done = act(rng, "stamp", "crop", "double") if is_turned else act(rng)

    def draw(rng):
        kinds, old = unlike(rng, 3), hues(rng, 3, c)
        most, least = [(3, 1, 1), (3, 2, 1), (3, 2, 2), (4, 2, 1)], [(1, 2, 2), (1, 2, 3), (1, 3, 2)]
        counts = pick(rng, most if is_most else least)
        masks = [any_turn(rng, m) if is_turned else m for m, n in zip(kinds, counts, strict=True) for _ in range(n)]
        cols = [h for h, n in zip(old, counts, strict=True) for _ in range(n)]
        return picked(rng, done, masks, cols, range(counts[0]), low=10)

    return draw


def color_of_most(rng):
    """The colour that most objects have, however small they are, is chosen."""
    (c, done), is_most = act(rng, *SEVERAL), chance(rng, 0.7)

    def draw(rng):
        most, least = [(4, 2, 1), (3, 1, 1), (3, 2, 2), (4, 3, 1)], [(1, 2, 2), (1, 3, 2), (1, 2, 4)]
        counts = pick(rng, most if is_most else least)
        cols = [h for h, n in zip(hues(rng, 3, c), counts, strict=True) for _ in range(n)]
        small = [(i < counts[0]) == is_most for i in range(len(cols))]
        masks = [piece(rng, between(rng, 1, 3) if f else between(rng, 3, 5)) for f in small]
        return picked(rng, done, masks, cols, range(counts[0]), low=10)

    return draw


def middle_size(rng):
    """Of three or five objects the one of middle size is chosen."""
    c, done = act(rng)
    what = pick(rng, ["piece", "row", "column"])

    def draw(rng):
        sizes = some(rng, 1, 7, pick(rng, [3, 3, 5]))
        masks = [piece(rng, n) if what == "piece" else box(1, n) if what == "row" else box(n, 1) for n in sizes]
        return picked(rng, done, masks, hues(rng, len(sizes), c), [int(np.argsort(sizes)[len(sizes) // 2])], low=10)

    return draw


def most_specks(rng):
    """The rectangle with most or fewest specks of another colour is chosen."""
    is_most, two = chance(rng, 0.7), chance(rng, 0.5)
    c, done = act(rng, "stamp", "spread", "name", "others")

    def draw(rng):
        counts, (a, b) = some(rng, 0 if is_most else 1, 6, between(rng, 2, 4)), hues(rng, 2, c)
        masks = [box(between(rng, 3, 5), between(rng, 3, 5)) for _ in counts]
        old = []
        for mask, n in zip(masks, counts, strict=True):
            paint = np.full(mask.shape, a if not two else hues(rng, 1, b, c)[0], np.uint8)
            paint.ravel()[rng.permutation(mask.size)[:n]] = b
            old.append(paint)
        return picked(rng, done, masks, old, [best(counts, is_most)], low=10, high=15)

    return draw


def most_colors(rng):
    """The patch with most different colours, or with fewest, is chosen."""
    (c, done), is_most = act(rng, "stamp", "spread", "name", "others"), chance(rng, 0.7)

    def draw(rng):
        counts = some(rng, 1, 5, between(rng, 2, 4))
        masks = [box(between(rng, 2, 4), between(rng, 3, 4)) for _ in counts]
        old = []
        for mask, n in zip(masks, counts, strict=True):
            paint = np.resize(hues(rng, n, c), mask.size)
            old.append(rng.permutation(paint).reshape(mask.shape).astype(np.uint8))
        return picked(rng, done, masks, old, [best(counts, is_most)], low=10, high=15)

    return draw


def odd_patch(rng):
    """Of patches with one pattern one has another, or is upside down: it is chosen."""
    (c, done), side, is_turned = act(rng, "stamp", "spread", "name", "others"), between(rng, 2, 3), chance(rng, 0.4)

    def draw(rng):
        palette = hues(rng, between(rng, 2, 4), c)
        usual, odd = (rng.choice(palette, (side, side)).astype(np.uint8) for _ in range(2))
        odd = np.rot90(usual, between(rng, 1, 3)) if is_turned else odd
        n = between(rng, 2, 4)
        if np.array_equal(usual, odd):
            return None
        return picked(rng, done, [box(side, side)] * (n + 1), [odd] + [usual] * n, [0], low=8, high=13)

    return draw


def key_color(rng):
    """A cell in the corner has the colour of the object that is chosen."""
    c, done = act(rng)
    corner = pick(rng, [(0, 0), (0, -1), (-1, 0), (-1, -1)])

    def draw(rng):
        old = hues(rng, between(rng, 3, 5), c)
        masks = [shape(rng, 2, 4) for _ in old]
        grid = blank(rng, 10, 14)
        grid[corner] = old[0]
        at = scatter(rng, grid, list(zip(masks, old, strict=True)))
        if not at:
            return None
        return grid, done(grid, in_place(grid, masks, at), [0])

    return draw


def key_count(rng):
    """The number of single cells tells which object is chosen: the one with so many holes, or with so many cells."""
    (c, done), is_holes = act(rng, *PLAIN), chance(rng, 0.5)

    def draw(rng):
        counts = some(rng, 1, 4, 3) if is_holes else some(rng, 2, 6, 4)
        masks = [pierced(rng, n) if is_holes else piece(rng, n) for n in counts]
        a, b = hues(rng, 2, c)
        grid = blank(rng, 11, 15)
        grid[0, : 2 * counts[0] - 1 : 2] = b
        if grid.shape[1] < 12 and not is_holes:
            return None
        at = scatter(rng, grid, [(m, a) for m in masks])
        if not at:
            return None
        return grid, done(grid, in_place(grid, masks, at), [0])

    return draw


def key_shape(rng):
    """Objects with the shape of the one in the walled corner, or turned, are painted, or go, or only they stay."""
    is_turned, what, c = chance(rng, 0.4), between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        kinds, (wall, key, a) = unlike(rng, 3), hues(rng, 3, c)
        masks = [kinds[0]] * between(rng, 1, 2) + kinds[1:]
        masks = [any_turn(rng, m) if is_turned else m for m in masks]
        grid = blank(rng, 11, 14)
        grid[:5, 4] = grid[4, :5] = wall
        put(grid, kinds[0], (0, 0), key)
        start = grid.copy()
        at = scatter(rng, grid, [(m, a) for m in masks])
        if not at:
            return None
        out = start if what == 3 else grid.copy()
        for mask, xy in zip(masks, at, strict=True):
            if canon(mask) == canon(kinds[0]):
                put(out, mask, xy, (key, c, 0, a)[what])
        return grid, out

    return draw


def on_top(rng):
    """Of overlapping rectangles the one that lies on top is chosen."""
    what, c = between(rng, 0, 4), between(rng, 1, 9)

    def draw(rng):
        grid, cols = blank(rng, 8, 12), hues(rng, between(rng, 2, 4), c)
        for h in cols:
            a, b = between(rng, 3, 6), between(rng, 3, 6)
            before = grid.copy()
            r, k = between(rng, 0, grid.shape[0] - a), between(rng, 0, grid.shape[1] - b)
            put(grid, box(a, b), (r, k), h)
        # Every other one is cut by the last.
        covered = before[r : r + a, k : k + b]
        for h in cols[:-1]:
            seen = grid == h
            if not (covered == h).any() or not seen.any() or (seen[around(seen)]).all():
                return None
        top = grid == cols[-1]
        if what == 0:
            return grid, grid[top][:1].reshape(1, 1)
        out = np.where(top, grid, 0) if what == 1 else grid.copy()
        if what == 2:
            out[top] = c
        elif what == 3:
            out[(grid > 0) & ~top] = c
        elif what == 4:
            out = grid[around(top)]
        return grid, out

    return again(draw)


def unique_cell(rng):
    """In a scene of many cells one colour comes only once: its surroundings are cut out, or framed."""
    what, c, palette = between(rng, 0, 3), between(rng, 1, 9), between(rng, 2, 3)

    def draw(rng):
        h, w = between(rng, 6, 12), between(rng, 6, 12)
        one, *cols = hues(rng, palette + 1, c)
        grid = noise(rng, h, w, cols, 0.5)
        r, k = between(rng, 1, h - 2), between(rng, 1, w - 2)
        grid[r, k] = one
        if any((grid == x).sum() < 3 for x in cols):
            return None
        at = slice(r - 1, r + 2), slice(k - 1, k + 2)
        if what == 0:
            return grid, grid[at]
        out = np.zeros_like(grid) if what == 1 else grid.copy()
        if what == 3:
            out[r], out[:, k] = one, one
        else:
            out[at] = c
        out[r, k] = one
        return grid, out

    return draw


def fullest_box(rng):
    """The hollow box that holds most or fewest specks is chosen."""
    what, c, is_most = between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.7)

    def draw(rng):
        n, speck = between(rng, 2, 3), hues(rng, 1, c)[0]
        masks = [box(between(rng, 4, 6), between(rng, 4, 6), True) for _ in range(n)]
        made = lay(rng, masks, hues(rng, n, c, speck), 11, 15)
        if not made:
            return None
        grid, counts = made[0], some(rng, 0 if is_most else 1, 4, n)
        for mask, count in zip(made[1], counts, strict=True):
            at = around(mask)
            view = grid[at][1:-1, 1:-1]
            for i in rng.permutation(view.size)[:count]:
                view[i // view.shape[1], i % view.shape[1]] = speck
        free = np.ones(grid.shape, bool)
        for mask in made[1]:
            free[around(mask)] = False
        for at in rng.permutation(np.argwhere(free))[: between(rng, 0, 3)]:
            grid[tuple(at)] = speck
        mine = made[1][best(counts, is_most)]
        at, out = around(mine), grid.copy()
        if what == 0:
            return grid, grid[at]
        if what == 1:
            out[at][out[at] == 0] = c
        elif what == 2:
            out[mine] = c
        else:
            out[:] = 0
            out[at] = grid[at]
        return grid, out

    return draw


# All objects are recoloured.


def hole_colors(rng):
    """Objects get a colour by their number of holes."""
    new, low = colors(rng, 4), between(rng, 0, 1)
    palette, one = new[:3] + [0] if chance(rng, 0.3) else new, chance(rng, 0.7)

    def draw(rng):
        counts = [between(rng, low, low + 2) for _ in range(between(rng, 2, 4))]
        old = hues(rng, 4, *new)
        old = old[:1] * 4 if one else old
        return painted(rng, [pierced(rng, n) for n in counts], old, [palette[n] for n in counts], low=10, high=15)

    return draw


def parity_colors(rng):
    """Objects with an even number of cells get one colour, those with an odd number another, or go."""
    a, b = pick(rng, [colors(rng, 2), [0, between(rng, 1, 9)], [between(rng, 1, 9), 0]])
    what = pick(rng, ["piece", "row", "column", "both"])

    def draw(rng):
        counts = [between(rng, 1, 6) for _ in range(between(rng, 3, 6))]
        masks = [piece(rng, n) if what == "piece" else box(1, n) for n in counts]
        masks = [m.T if what == "column" or what == "both" and chance(rng, 0.5) else m for m in masks]
        h = hues(rng, 1, a, b)
        return painted(rng, masks, h * len(masks), [b if n % 2 else a for n in counts], low=10)

    return draw


def cells_colors(rng):
    """Objects get a colour by their number of cells."""
    new, low = colors(rng, 4), between(rng, 1, 3)
    flat = chance(rng, 0.3)

    def draw(rng):
        counts = [between(rng, low, low + 3) for _ in range(between(rng, 4, 6))]
        masks = [any_turn(rng, box(1, n)) if flat else piece(rng, n) for n in counts]
        return painted(rng, masks, hues(rng, 1, *new) * len(masks), [new[n - low] for n in counts], low=9)

    return draw


def bars_ranked(rng):
    """Of bars that stand on one side the longest gets a colour and the shortest another, or all between."""
    a, b = colors(rng, 2)
    kind, turn, thick = between(rng, 0, 3), between(rng, 0, 3), between(rng, 1, 2)

    def draw(rng):
        n = between(rng, 3, 5)
        heights, h = some(rng, 1, 8, n), hues(rng, 1, a, b)[0]
        grid = np.zeros((between(rng, 9, 11), (thick + 1) * n + between(rng, -1, 2)), np.uint8)
        out = grid.copy()
        for i, tall in enumerate(heights):
            new = {max(heights): (a, a, h, 0)[kind], min(heights): (b, h, b, 0)[kind]}.get(tall, a if kind == 3 else h)
            at = slice(len(grid) - tall, None), slice((thick + 1) * i, (thick + 1) * i + thick)
            grid[at], out[at] = h, new
        return np.rot90(grid, turn), np.rot90(out, turn)

    return draw


def touched(rng):
    """Objects that a single cell touches take its colour, or another, or go; the cells may go."""
    what, c, is_lost = between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.5)

    def draw(rng):
        n, h = between(rng, 3, 5), hues(rng, 1, c)[0]
        made = lay(rng, [shape(rng, 2, 4) for _ in range(n)], [h] * n, 10, 15, 2, 1)
        if not made:
            return None
        grid, masks = made
        out = np.zeros_like(grid) if what == 3 else grid.copy()
        one = hues(rng, 1, c, h)[0]
        for mask in masks[: between(rng, 1, n - 1)]:
            at = tuple(pick(rng, np.argwhere(grown(mask, False) & ~mask)))
            grid[at] = one if what else hues(rng, 1, c, h)[0]
            out[mask] = (grid[at], c, 0, h)[what]
            out[at] = 0 if is_lost else grid[at]
        return grid, out

    return draw


def inside_or_outside(rng):
    """Single cells within boxes change their colour, those outside go, or the other way round."""
    a, b = colors(rng, 2)
    kind = between(rng, 0, 4)

    def draw(rng):
        n = between(rng, 1, 3)
        frame, speck = hues(rng, 2, a, b)
        made = lay(rng, [box(between(rng, 4, 7), between(rng, 4, 7), True) for _ in range(n)], [frame] * n, 10, 15)
        if not made:
            return None
        grid, inside = made[0], np.zeros(made[0].shape, bool)
        for mask in made[1]:
            inside[around(mask)] = True
        grid[(grid == 0) & (rng.random(grid.shape) < 0.15)] = speck
        mine, other, out = inside & (grid == speck), ~inside & (grid == speck), grid.copy()
        if not mine.any() or not other.any():
            return None
        out[mine] = (a, speck, a, frame, 0)[kind]
        out[other] = (b, 0, speck, 0, a)[kind]
        return grid, out

    return draw


def nearest_cell(rng):
    """Objects take the colour of the single cell that is nearest."""
    is_lost, one = chance(rng, 0.4), chance(rng, 0.7)

    def draw(rng):
        h, *cols = hues(rng, between(rng, 3, 4))
        n = len(cols) + between(rng, -1, 1)
        masks = [piece(rng, between(rng, 3, 6)) for _ in range(n)] + [box(1, 1)] * len(cols)
        made = lay(rng, masks, [h] * n + cols, 10, 15)
        if not made:
            return None
        grid, placed = made
        out = grid.copy()
        for mask in placed[:n]:
            far = []
            for cell in placed[n:]:
                d = np.argwhere(mask) - np.argwhere(cell)
                far.append(float((d**2).sum(1).min()))
            first, second = sorted(far)[:2]
            if first * 2 > second or not one and first > 16:
                return None
            out[mask] = cols[far.index(first)]
        if is_lost:
            out[np.any(placed[n:], 0)] = 0
        return grid, out

    return again(draw)


def legend_shapes(rng):
    """Above or left of a line stand shapes in their colours: the objects beyond it take the colour of their shape."""
    is_row, is_left_out, is_turned, keeps = chance(rng, 0.5), chance(rng, 0.4), chance(rng, 0.3), chance(rng, 0.7)

    def draw(rng):
        kinds, (wall, h, *cols) = unlike(rng, 3), hues(rng, 5)
        legend = np.zeros((3, 11), np.uint8)
        for i in range(3):
            put(legend, kinds[i], (0, 4 * i), cols[i])
        which = [between(rng, 0, 2 if i or not is_left_out else 1) for i in range(between(rng, 3, 5))]
        masks = [any_turn(rng, kinds[i]) if is_turned else kinds[i] for i in which]
        grid = np.zeros((between(rng, 6, 10), 11), np.uint8)
        at = scatter(rng, grid, [(m, h) for m in masks])
        if not at:
            return None
        out = grid.copy()
        for i, mask, xy in zip(which, masks, at, strict=True):
            put(out, mask, xy, cols[i])
        a = walled([[legend], [grid]], wall)
        b = walled([[legend], [out]], wall) if keeps else out
        return (a, b) if is_row else (a.T, b.T)

    return draw


def legend_bars(rng):
    """Bars beside a line give a colour to every number of cells: objects take the colour of theirs."""
    turn, keeps = between(rng, 0, 3), chance(rng, 0.7)

    def draw(rng):
        counts = sorted(some(rng, 1, 5, 3))
        wall, h, *cols = hues(rng, 5)
        width = between(rng, 7, 11)
        legend = np.zeros((3, width), np.uint8)
        for row, n, x in zip(legend, counts, cols, strict=True):
            row[:n] = x
        grid = np.zeros((between(rng, 6, 10), width), np.uint8)
        which = [between(rng, 0, 2) for _ in range(between(rng, 3, 6))]
        masks = [piece(rng, counts[i]) for i in which]
        at = scatter(rng, grid, [(m, h) for m in masks])
        if not at:
            return None
        out = grid.copy()
        for i, mask, xy in zip(which, masks, at, strict=True):
            put(out, mask, xy, cols[i])
        a = walled([[legend], [grid]], wall)
        b = walled([[legend], [out]], wall) if keeps else out
        return np.rot90(a, turn), np.rot90(b, turn)

    return draw


def legend_pairs(rng):
    """Pairs of cells beside a line say which colour turns into which."""
    is_row, keeps, is_back = chance(rng, 0.5), chance(rng, 0.6), chance(rng, 0.3)

    def draw(rng):
        n = between(rng, 2, 3)
        wall, *cols = hues(rng, 2 * n + 1)
        size = between(rng, 6, 10)
        legend = np.zeros((size, 2), np.uint8)
        for i in range(n):
            legend[2 * i if size > 2 * n else i] = cols[2 * i : 2 * i + 2]
        which = [*range(n), *(between(rng, 0, n - 1) for _ in range(between(rng, 0, 2)))]
        grid = np.zeros((size, between(rng, 6, 11)), np.uint8)
        at = scatter(rng, grid, [(shape(rng, 2, 4), cols[2 * i + is_back]) for i in which])
        if not at:
            return None
        out = grid.copy()
        for i in range(n):
            out[grid == cols[2 * i + is_back]] = cols[2 * i + (not is_back)]
        a = walled([[legend, grid]], wall)
        b = walled([[legend, out]], wall) if keeps else out
        return (a.T, b.T) if is_row else (a, b)

    return again(draw)


def equal_pairs(rng):
    """Objects whose shape comes twice are painted, or kept, or those without a twin are."""
    kind, c, one, is_turned = between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.6), chance(rng, 0.3)

    def draw(rng):
        twins, single = between(rng, 1, 2), between(rng, 1, 2)
        kinds = unlike(rng, twins + single)
        masks = [m for m in kinds[:twins] for _ in range(2)] + kinds[twins:]
        masks = [any_turn(rng, m) if is_turned else m for m in masks]
        old = hues(rng, len(masks), c)
        old = old[:1] * len(masks) if one else old
        new = [((c, h), (h, 0), (h, c), (0, h))[kind][i >= 2 * twins] for i, h in enumerate(old)]
        return painted(rng, masks, old, new, low=10)

    return draw


def symmetry_colors(rng):
    """Objects that are their own mirror image get one colour, others another, or stay, or go."""
    a, b = colors(rng, 2)
    kind, upright = between(rng, 0, 3), chance(rng, 0.6)

    def draw(rng):
        h, n = hues(rng, 1, a, b)[0], between(rng, 2, 4)
        flags = [True, False] + [chance(rng, 0.5) for _ in range(n - 2)]
        masks = [even(rng, upright) if f else lopsided(rng) for f in flags]
        new = [(a, a, h, 0)[kind] if f else (b, h, 0, h)[kind] for f in flags]
        return painted(rng, masks, [h] * n, new, low=11, high=15)

    return draw


def square_colors(rng):
    """Squares get one colour and other rectangles another, or one of them stays or goes."""
    a, b = colors(rng, 2)
    kind, is_hollow, one = between(rng, 0, 4), chance(rng, 0.4), chance(rng, 0.7)

    def draw(rng):
        n = between(rng, 3, 5)
        masks = [box(x, x, is_hollow) for x in (between(rng, 2 + is_hollow, 5) for _ in range(n))]
        flags = [True, False] + [chance(rng, 0.5) for _ in range(n - 2)]
        for i in range(n):
            if not flags[i]:
                x, y = some(rng, 2 + is_hollow, 6, 2)
                masks[i] = box(x, y, is_hollow)
        old = hues(rng, n, a, b)
        old = old[:1] * n if one else old
        new = [((a, b), (a, h), (h, b), (0, h), (h, 0))[kind][not f] for f, h in zip(flags, old, strict=True)]
        return painted(rng, masks, old, new, low=11, high=15)

    return draw


def lying_colors(rng):
    """Objects that are wider than tall get one colour, taller ones another, and square ones a third."""
    a, b, c = colors(rng, 3)
    kind, solid = between(rng, 0, 3), chance(rng, 0.5)

    def draw(rng):
        n, h = between(rng, 3, 5), hues(rng, 1, a, b, c)[0]
        masks = [slab(rng, 1, 4) if solid else shape(rng, 2, 5) for _ in range(n)]
        side = [int(np.sign(m.shape[0] - m.shape[1])) for m in masks]
        if len(set(side)) < 2:
            return None
        new = [((a, c, b), (a, h, b), (a, 0, h), (h, 0, b))[kind][s + 1] for s in side]
        return painted(rng, masks, [h] * n, new, low=10, high=15)

    return draw


def line_or_blob(rng):
    """Lines are painted, kept or dropped, and broader objects are not; or single cells."""
    a, b = colors(rng, 2)
    kind, one = between(rng, 0, 4), chance(rng, 0.5)

    def draw(rng):
        n = between(rng, 3, 6)
        flags = [True, False] + [chance(rng, 0.5) for _ in range(n - 2)]
        masks = [any_turn(rng, box(1, between(rng, 2, 6))) if f else shape(rng, 2, 4) for f in flags]
        old = hues(rng, n, a, b)
        old = old[:1] * n if one else old
        new = [((a, b), (a, h), (h, a), (0, h), (h, 0))[kind][not f] for f, h in zip(flags, old, strict=True)]
        return painted(rng, masks, old, new, low=10)

    return draw


def closed_colors(rng):
    """Closed outlines get one colour, or are filled; outlines with a gap get another, or go."""
    a, b = colors(rng, 2)
    kind = between(rng, 0, 4)

    def draw(rng):
        n, h = between(rng, 2, 4), hues(rng, 1, a, b)[0]
        flags = [True, False] + [chance(rng, 0.5) for _ in range(n - 2)]
        masks = [box(between(rng, 3, 5), between(rng, 3, 6), True) for _ in flags]
        for mask, f in zip(masks, flags, strict=True):
            if not f:
                k = between(rng, 1, mask.shape[1] - 2)
                mask[pick(rng, [0, -1]), k] = False
        masks = [any_turn(rng, m) for m in masks]
        new = [((a, b), (h, 0), (0, h), (a, h), (h, b))[kind][not f] for f in flags]
        return painted(rng, masks, [h] * n, new, low=10, high=15)

    return draw


def shape_code(rng):
    """Every shape has its colour in this task: objects take it, or the grid tells it."""
    new, kinds, is_one = colors(rng, 3), unlike(rng, 3), chance(rng, 0.3)
    is_turned = chance(rng, 0.3)

    def draw(rng):
        which = [between(rng, 0, 2) for _ in range(1 if is_one else between(rng, 3, 5))]
        masks = [any_turn(rng, kinds[i]) if is_turned else kinds[i] for i in which]
        h = hues(rng, 1, *new)
        low, high = (5, 8) if is_one else (9, 13)
        pair = painted(rng, masks, h * len(masks), [new[i] for i in which], low=low, high=high)
        return pair and (pair[0], np.full((2, 2), new[which[0]]) if is_one else pair[1])

    return draw


def than_key(rng):
    """One object has another colour: those that are bigger get one colour, smaller ones another."""
    a, b = colors(rng, 2)
    kind, what = between(rng, 0, 3), pick(rng, ["piece", "row", "column"])

    def draw(rng):
        sizes, (key, h) = some(rng, 1, 8, between(rng, 3, 5)), hues(rng, 2, a, b)
        masks = [piece(rng, n) if what == "piece" else box(1, n) if what == "row" else box(n, 1) for n in sizes]
        if len({n > sizes[0] for n in sizes[1:]}) < 2:
            return None
        new = [((a, b), (a, h), (0, h), (h, 0))[kind][n < sizes[0]] for n in sizes[1:]]
        return painted(rng, masks, [key] + [h] * (len(sizes) - 1), [key, *new], low=10)

    return again(draw)


def contained_color(rng):
    """What lies in a box takes the box's colour, or the box takes its, or they exchange; or boxes that hold none go."""
    kind, fills = between(rng, 0, 3), chance(rng, 0.3)

    def draw(rng):
        n = between(rng, 1, 3)
        cols = hues(rng, 2 * n)
        made = lay(rng, [box(between(rng, 5, 6), between(rng, 5, 6), True) for _ in range(n)], cols[:n], 11, 14)
        if not made:
            return None
        grid, masks = made
        out = grid.copy()
        for i, mask in enumerate(masks):
            view, new = grid[around(mask)], out[around(mask)]
            inner = shape(rng, 1, 2) if chance(rng, 0.7) else box(1, 2)
            at = room(rng, view, inner, 0)
            if at is None:
                return None
            put(view, inner, at, cols[n + i])
            put(new, inner, at, (cols[i], cols[n + i], cols[i], 0)[kind])
            out[mask] = (cols[i], cols[n + i], cols[n + i], cols[n + i])[kind]
            if fills:
                new[new == 0] = out[mask][0]
        return grid, out

    return again(draw)


def majority_box(rng):
    """Every box takes the colour that most, or fewest, of the cells within it have, or is filled with it."""
    kind, is_most = between(rng, 0, 2), chance(rng, 0.7)

    def draw(rng):
        n, (h, *cols) = between(rng, 1, 2), hues(rng, 5)
        made = lay(rng, [box(between(rng, 5, 6), between(rng, 5, 7), True) for _ in range(n)], [h] * n, 9, 14)
        if not made:
            return None
        grid, masks = made
        out = grid.copy()
        for mask in masks:
            view, new = grid[around(mask)], out[around(mask)]
            count = pick(rng, [(3, 1), (2, 1), (4, 2), (3, 1, 1)] if is_most else [(1, 2), (1, 3), (1, 2, 3)])
            cells = [x for x, k in zip(rng.permutation(cols), count, strict=False) for _ in range(k)]
            inner = np.argwhere(view == 0)
            for at, x in zip(rng.permutation(inner), cells, strict=False):
                view[tuple(at)] = x
            new[:] = view
            if kind != 1:
                new[new == h] = cells[0]
            if kind != 0:
                new[1:-1, 1:-1] = cells[0]
        return grid, out

    return draw


def specks_color_box(rng):
    """A box is painted by how many cells it holds."""
    new, fills, is_lost = colors(rng, 4), chance(rng, 0.5), chance(rng, 0.3)

    def draw(rng):
        n, (h, speck) = between(rng, 2, 4), hues(rng, 2, *new)
        made = lay(rng, [box(between(rng, 4, 5), between(rng, 4, 6), True) for _ in range(n)], [h] * n, 11, 14)
        if not made:
            return None
        grid, masks = made
        out = grid.copy()
        for mask in masks:
            view, count = grid[around(mask)], between(rng, 0, 3)
            for at in rng.permutation(np.argwhere(view == 0))[:count]:
                view[tuple(at)] = speck
            out[around(mask)] = np.where(view == speck, 0 if is_lost else speck, view)
            if fills:
                out[around(mask)][out[around(mask)] == 0] = new[count]
            else:
                out[mask] = new[count]
        return grid, out

    return draw


def object_majority(rng):
    """Rectangles of two colours become all of the commoner one, or all of the rarer one."""
    is_most, solid = chance(rng, 0.6), chance(rng, 0.5)

    def draw(rng):
        n = between(rng, 2, 4)
        masks, cols = [slab(rng, 2, 5) if solid else shape(rng, 3, 5) for _ in range(n)], hues(rng, 6)
        made = lay(rng, masks, [1] * n, 10, 15)
        if not made:
            return None
        grid = made[0]
        out = grid.copy()
        for mask in made[1]:
            a, b = some(rng, 0, 5, 2)
            cells = np.argwhere(mask)
            few = between(rng, 1, max(1, (len(cells) - 1) // 3))
            grid[mask] = cols[a]
            for at in rng.permutation(cells)[:few]:
                grid[tuple(at)] = cols[b]
            out[mask] = cols[a if is_most else b]
        return grid, out

    return draw


def pointed_lines(rng):
    """Cells on one side point along their row: the objects there take their colour."""
    turn, is_lost = between(rng, 0, 3), chance(rng, 0.4)

    def draw(rng):
        grid, (h, *cols) = blank(rng, 9, 13), hues(rng, 6)
        n = between(rng, 3, 4)
        for _ in range(n):
            mask = shape(rng, 2, 3)
            at = room(rng, grid, mask, 1, 1)
            if at is None:
                return None
            put(grid, mask, at, h)
        out, start = grid.copy(), grid.copy()
        used = np.zeros(len(grid), bool)
        for mask in parts(start):
            rows, _ = around(mask)
            others = [m for m in parts(start) if not np.array_equal(m, mask)]
            free = [r for r in range(rows.start, rows.stop) if not any(m[r].any() for m in others)]
            if not free or chance(rng, 0.3):
                continue
            r = pick(rng, free)
            if used[max(0, r - 1) : r + 2].any():
                continue
            used[r] = True
            x = pick(rng, cols)
            grid[r, 0], out[r, 0], out[mask] = x, 0 if is_lost else x, x
        return np.rot90(grid, turn), np.rot90(out, turn)

    return draw


def nearest_corner(rng):
    """The four corners are coloured: an object takes the colour of the corner whose quarter it is in."""
    is_lost, thick = chance(rng, 0.4), between(rng, 1, 2)

    def draw(rng):
        side, (h, *cols) = 2 * between(rng, 5, 6) + 1, hues(rng, 5)
        half = side // 2
        grid, out = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
        for i in range(4):
            turned, new = np.rot90(grid, i), np.rot90(out, i)
            turned[:thick, :thick] = cols[i]
            new[:thick, :thick] = 0 if is_lost else cols[i]
            for _ in range(between(rng, 0, 2)):
                mask = shape(rng, 1, 2)
                at = room(rng, turned[:half, :half], mask)
                if at is not None:
                    put(turned, mask, at, h)
                    put(new, mask, at, cols[i])
        return (grid, out) if (grid == h).any() else None

    return draw


def swapped_extremes(rng):
    """The biggest and the smallest object exchange their colours, or all take the next smaller one's."""
    is_all, flat = chance(rng, 0.5), chance(rng, 0.4)

    def draw(rng):
        sizes = sorted(some(rng, 1, 9, between(rng, 3, 4)))
        masks = [box(1, min(n, 9)) if flat else piece(rng, n) for n in sizes]
        old = hues(rng, len(sizes))
        new = old[-1:] + old[:-1] if is_all else [old[-1], *old[1:-1], old[0]]
        return painted(rng, masks, old, new, low=9)

    return draw


def largest_of_color(rng):
    """Of every colour only the biggest, or only the smallest, object stays; or it is painted."""
    c, kind = between(rng, 1, 9), between(rng, 0, 2)

    def draw(rng):
        masks, old, new = [], [], []
        for h in hues(rng, between(rng, 2, 3), c):
            sizes = some(rng, 1, 7, between(rng, 2, 3))
            masks += [piece(rng, n) for n in sizes]
            old += [h] * len(sizes)
            new += [((h, 0), (h, 0), (c, h))[kind][n != (min(sizes) if kind == 1 else max(sizes))] for n in sizes]
        return painted(rng, masks, old, new, low=11, high=14)

    return draw


def color_twins(rng):
    """Objects whose colour no other object has go, or are painted, or only they stay."""
    kind, c = between(rng, 0, 3), between(rng, 1, 9)

    def draw(rng):
        a, *cols = hues(rng, between(rng, 2, 4), c)
        old = [a] * between(rng, 2, 3) + cols[:1] * between(rng, 1, 2) + cols[1:]
        new = [((h, 0), (0, h), (h, c), (c, h))[kind][old.count(h) == 1] for h in old]
        if len({old.count(h) == 1 for h in old}) < 2:
            return None
        return painted(rng, [shape(rng, 1, 3) for _ in old], old, new, low=9)

    return draw


def border_colors(rng):
    """Objects at the border get one colour and inner ones another, or one of them stays or goes."""
    a, b = colors(rng, 2)
    kind = between(rng, 0, 3)

    def draw(rng):
        n, h = between(rng, 3, 6), hues(rng, 1, a, b)[0]
        made = lay(rng, [shape(rng, 2, 4) for _ in range(n)], [h] * n, 9, 13)
        if not made:
            return None
        grid, out = made[0], made[0].copy()
        at_side = [bool(m[[0, -1]].any() or m[:, [0, -1]].any()) for m in made[1]]
        if len(set(at_side)) < 2:
            return None
        for mask, f in zip(made[1], at_side, strict=True):
            out[mask] = ((a, b), (0, a), (a, 0), (a, h))[kind][not f]
        return grid, out

    return draw


def fits_hole(rng):
    """A block has a hole: the object that has its shape fills it, and others stay, or go."""
    what, is_turned = between(rng, 0, 2), chance(rng, 0.3)

    def draw(rng):
        kinds, cols = unlike(rng, 3), hues(rng, 4)
        a, b = between(rng, 5, 6), between(rng, 5, 7)
        block = box(a, b)
        r, k = between(rng, 1, a - 1 - kinds[0].shape[0]), between(rng, 1, b - 1 - kinds[0].shape[1])
        block[r : r + kinds[0].shape[0], k : k + kinds[0].shape[1]] ^= kinds[0]
        masks = [block] + [any_turn(rng, m) if is_turned else m for m in kinds]
        made = lay(rng, masks, cols, 11, 14)
        if not made:
            return None
        grid, placed = made
        out = np.where(placed[0], grid, 0) if what == 1 else grid.copy()
        view = out[around(placed[0])]
        view[~block] = cols[1]
        if what == 0:
            out[placed[1]] = 0
        return (grid, view) if what == 2 else (grid, out)

    return draw


def winner_color(rng):
    """Two colours of cells: all take the commoner one, or the rarer ones go, or the whole grid tells it."""
    kind, is_most, n = between(rng, 0, 3), chance(rng, 0.6), between(rng, 2, 3)

    def draw(rng):
        h, w, cols = between(rng, 4, 9), between(rng, 4, 9), hues(rng, n)
        grid = noise(rng, h, w, cols + cols[:1], pick(rng, [0.4, 0.6]))
        counts = [int((grid == x).sum()) for x in cols]
        i = best(counts, is_most)
        if i is None or sorted(counts)[-2] + 2 > max(counts) or min(counts) == 0:
            return None
        out = np.where(grid > 0, cols[i], 0)
        if kind == 1:
            out = np.where(grid == cols[i], grid, 0)
        elif kind == 2:
            out = np.where(grid == cols[i], 0, grid)
        elif kind == 3:
            out = np.full_like(grid, cols[i])
        return grid, out

    return draw


def rarest_to_common(rng):
    """In a full grid the rarest colour's cells become the commonest colour, or the two are exchanged."""
    kind, n = between(rng, 0, 1), between(rng, 3, 5)

    def draw(rng):
        cols, order = hues(rng, n), np.arange(10)
        palette = cols + cols[:-1] + cols[:1] * 3
        grid = noise(rng, between(rng, 4, 9), between(rng, 4, 9), palette, 1.1)
        counts = [int((grid == x).sum()) for x in cols]
        a, b = best(counts), best(counts, False)
        if a is None or b is None or not counts[b]:
            return None
        order[cols[b]] = cols[a]
        if kind:
            order[cols[a]] = cols[b]
        return grid, order[grid]

    return draw


def line_majority(rng):
    """Every row, or column, takes its commonest colour."""
    is_row, tells = chance(rng, 0.5), chance(rng, 0.3)

    def draw(rng):
        grid, cols = np.zeros((between(rng, 3, 8), between(rng, 5, 9)), np.uint8), hues(rng, 7)
        main = []
        for row in grid:
            main.append(pick(rng, cols))
            others = [x for x in cols if x != main[-1]]
            row[:] = rng.choice(others, row.size)
            row[rng.permutation(row.size)[: row.size // 2 + 1]] = main[-1]
        out = np.array(main, np.uint8)[:, None]
        out = out if tells else out.repeat(grid.shape[1], 1)
        return (grid, out) if is_row else (grid.T, out.T)

    return draw


def fullest_line(rng):
    """The row or column with most cells is filled, painted, kept or told."""
    is_row, kind, c, is_most = chance(rng, 0.5), between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.7)

    def draw(rng):
        h = hues(rng, between(rng, 1, 3), c)
        grid = noise(rng, between(rng, 5, 11), between(rng, 5, 11), h, pick(rng, [0.3, 0.5]))
        i = best((grid > 0).sum(1).tolist(), is_most)
        if i is None or not grid[i].any():
            return None
        out = grid.copy()
        if kind == 0:
            out[i][out[i] == 0] = c
        elif kind == 1:
            out[i][out[i] > 0] = c
        elif kind == 2:
            out[np.arange(len(out)) != i] = 0
        else:
            out = grid[i : i + 1]
        return (grid, out) if is_row else (grid.T, out.T)

    return draw


# Counting.


def counted_scene(rng, kind, n, most=3):
    """(grid, colour): n objects of the kind that is counted, and at times others; None if there is no room."""
    h, other = hues(rng, 2)
    if kind == "boxes":  # 2 x 2 squares, not other shapes
        wrong = [box(1, 1), box(1, 2), box(2, 1), np.array([[1, 0], [1, 1]], bool)]
        masks = [box(2, 2)] * n + [pick(rng, wrong) for _ in range(between(rng, 0, most))]
        cols = [h] * len(masks)
    elif kind == "blobs":
        masks, cols = [shape(rng, 1, 3) for _ in range(n)], [h] * n
    elif kind == "cells":  # not bigger objects
        masks = [box(1, 1)] * n + [piece(rng, between(rng, 3, 5)) for _ in range(between(rng, 0, most))]
        cols = [h] * len(masks)
    else:  # those of the commonest colour; others are of another
        masks = [piece(rng, between(rng, 1, 3)) for _ in range(n)]
        cols = [h] * n
        for _ in range(between(rng, 0, n - 1)):
            masks.append(piece(rng, between(rng, 1, 3)))
            cols.append(other)
    made = lay(rng, masks, cols, 8, 13)
    return made and (made[0], h)


COUNTED = ("boxes", "blobs", "cells", "commonest")
ORDERS = {
    "rows": [0, 1, 2, 3, 4, 5, 6, 7, 8],
    "columns": [0, 3, 6, 1, 4, 7, 2, 5, 8],
    "snake": [0, 1, 2, 5, 4, 3, 6, 7, 8],
    "spiral": [0, 1, 2, 5, 8, 7, 6, 3, 4],
    "odd first": [0, 2, 4, 6, 8, 1, 3, 5, 7],
    "upwards": [6, 7, 8, 3, 4, 5, 0, 1, 2],
}


def count_nine(rng):
    """As many cells of 3 x 3 are filled, in an order, as there are objects of a kind."""
    kind, order, c = pick(rng, COUNTED), ORDERS[pick(rng, list(ORDERS))], between(rng, 0, 9)

    def draw(rng):
        n = between(rng, 1, 7)
        made = counted_scene(rng, kind, n)
        if not made:
            return None
        out = np.zeros(9, np.uint8)
        out[order[:n]] = c or made[1]
        return made[0], out.reshape(3, 3)

    return draw


def count_row(rng):
    """A row or column of fixed length has as many cells filled as there are objects of a kind."""
    kind, length, c = pick(rng, COUNTED), between(rng, 5, 7), between(rng, 0, 9)
    is_row, side, rest = chance(rng, 0.5), between(rng, 0, 2), between(rng, 0, 9) if chance(rng, 0.3) else 0

    def draw(rng):
        n = between(rng, 1, 5)
        made = counted_scene(rng, kind, n)
        if not made or c == rest:
            return None
        out = np.full(9 if side == 2 else length, rest, np.uint8)
        out[slice(0, 2 * n, 2) if side == 2 else slice(0, n)] = c or made[1]
        return made[0], line(out[::-1] if side == 1 else out, is_row)

    return draw if c != rest else count_row(rng)


def count_square(rng):
    """The output's side is the number of objects of a kind: a diagonal, a frame, steps, a cross or a chessboard."""
    kind, form, c = pick(rng, COUNTED), between(rng, 0, 6), between(rng, 0, 9)

    def draw(rng):
        n = between(rng, 2, 6)
        made = counted_scene(rng, kind, n)
        if not made:
            return None
        r, k = np.indices((n, n))
        on = (
            r == k, r + k == n - 1, (r % (n - 1) == 0) | (k % (n - 1) == 0), r >= k, (r == k) | (r + k == n - 1),
            (r + k) % 2 == 0, r % 2 == 0,
        )[form]  # fmt: skip
        return made[0], np.where(on, c or made[1], 0)

    return draw


def count_pattern(rng):
    """The number of objects tells which of the task's patterns comes out."""
    kind, c, side = pick(rng, COUNTED), between(rng, 0, 9), pick(rng, [2, 3, 3])
    patterns = rng.random((5, side, side)) < 0.5

    def draw(rng):
        n = between(rng, 1, 4)
        made = counted_scene(rng, kind, n)
        return made and (made[0], np.where(patterns[n], c or made[1], 0))

    return draw if len({p.tobytes() for p in patterns[1:]}) == 4 and patterns.any((1, 2)).all() else count_pattern(rng)


def count_parity(rng):
    """An even number of objects paints them in one way, an odd number in another; or single or several."""
    a, b = colors(rng, 2)
    kind, limit = between(rng, 0, 2), between(rng, 2, 4)

    def draw(rng):
        n, h = between(rng, 1, 6), hues(rng, 1, a, b)[0]
        is_first = n % 2 == 0 if kind == 0 else n > limit
        masks = [shape(rng, 1, 3) for _ in range(n)]
        return painted(rng, masks, [h] * n, [a if is_first else b] * n, low=8, high=12)

    return draw


def colors_scale(rng):
    """A small grid is scaled, or repeated, by the number of its colours, or of its cells of the rarest colour."""
    kind, by_rarest = between(rng, 0, 2), chance(rng, 0.3)

    def draw(rng):
        n, side = between(rng, 2, 4), between(rng, 2, 3)
        cols = hues(rng, 4)
        grid = noise(rng, side, side, cols[:n] if not by_rarest else cols[:1], 0.7)
        if by_rarest:
            n = min(n, 3)
            grid.ravel()[rng.permutation(grid.size)[:n]] = cols[1]
            if (grid == cols[0]).sum() <= n:
                return None
        elif len(set(grid[grid > 0].tolist())) != n:
            return None
        if kind == 0:
            return grid, grid.repeat(n, 0).repeat(n, 1)
        return grid, np.tile(grid, (n, n) if kind == 1 else (1, n))

    return draw


def object_bars(rng):
    """Bars tell how many objects every colour has, the longest first."""
    is_row, is_rising, is_right = chance(rng, 0.5), chance(rng, 0.4), chance(rng, 0.3)

    def draw(rng):
        counts, cols = sorted(some(rng, 1, 5, between(rng, 2, 3)), reverse=not is_rising), hues(rng, 3)
        old = [h for h, n in zip(cols, counts, strict=False) for _ in range(n)]
        made = lay(rng, [shape(rng, 1, 2) for _ in old], old, 8, 12)
        if not made:
            return None
        out = np.zeros((len(counts), max(counts)), np.uint8)
        for row, n, h in zip(out, counts, cols, strict=False):
            row[:n] = h
        out = out[:, ::-1] if is_right else out
        return made[0], out if is_row else out.T

    return draw


def count_inside(rng):
    """The cells within the box are counted, not those outside, and drawn as a line or within a square."""
    c, kind = between(rng, 1, 9), between(rng, 0, 2)

    def draw(rng):
        grid, (h, speck) = blank(rng, 8, 12), hues(rng, 2, c)
        mask = box(between(rng, 4, 6), between(rng, 4, 6), True)
        at = room(rng, grid, mask, 0)
        grid[rng.random(grid.shape) < 0.12] = speck
        view = grid[at[0] : at[0] + mask.shape[0], at[1] : at[1] + mask.shape[1]]
        view[:] = 0
        n = between(rng, 1, 6)
        for x in rng.permutation((mask.shape[0] - 2) * (mask.shape[1] - 2))[:n]:
            view[1 + x // (mask.shape[1] - 2), 1 + x % (mask.shape[1] - 2)] = speck
        n = int((view == speck).sum())
        put(grid, mask, at, h)
        if kind == 0:
            return grid, np.full((1, n), c)
        out = np.zeros(9, np.uint8)
        out[:n] = speck if kind == 2 else h
        return grid, out.reshape(3, 3)

    return draw


# Comparing.


def sides_winner(rng):
    """A line parts two sides: the one with more, or fewer, cells or objects comes out, or its colour."""
    by_cells, is_most, kind, is_row = chance(rng, 0.5), chance(rng, 0.7), between(rng, 0, 3), chance(rng, 0.5)

    def draw(rng):
        h, w = between(rng, 5, 9), between(rng, 4, 7)
        wall, *cols = hues(rng, 3)
        sides = [np.zeros((h, w), np.uint8) for _ in range(2)]
        for side, x in zip(sides, cols, strict=True):
            for _ in range(between(rng, 1, 5)):
                mask = piece(rng, between(rng, 1, 4))
                at = room(rng, side, mask)
                if at is not None:
                    put(side, mask, at, x)
        values = [int((s > 0).sum()) if by_cells else len(parts(s)) for s in sides]
        i = best(values, is_most)
        if i is None:
            return None
        grid = walled([sides], wall)
        out = (sides[i], np.full((1, 1), cols[i]), None, np.full((2, 2), cols[i]))[kind]
        if out is None:
            both = list(sides)
            both[1 - i] = np.zeros_like(sides[0])
            out = walled([both], wall)
        return (grid.T, out.T) if is_row else (grid, out)

    return draw


def duel_rows(rng):
    """Bars come from both sides in every row: the longer, or shorter, one fills it, or is told, or its colour is."""
    kind, is_long, is_row = between(rng, 0, 2), chance(rng, 0.7), chance(rng, 0.5)

    def draw(rng):
        h, w, cols = between(rng, 3, 7), between(rng, 7, 11), hues(rng, 2)
        grid, step = np.zeros((h, w), np.uint8), pick(rng, [1, 2])
        out, told = grid.copy(), []
        for r in range(0, h, step):
            a, b = some(rng, 1, w // 2, 2)
            grid[r, :a], grid[r, w - b :] = cols
            i = int((a > b) != is_long)
            told.append(cols[i])
            if kind == 0:
                out[r] = cols[i]
            else:
                out[r] = np.where(grid[r] == cols[i], grid[r], 0)
        out = line(told, False) if kind == 2 else out
        return (grid, out) if is_row else (grid.T, out.T)

    return draw


def panels_compared(rng):
    """Of walled panels one comes out: the one unlike the rest, with most or fewest cells, or the symmetric one."""
    prop, rows, side, is_mark = between(rng, 0, 3), between(rng, 1, 2), between(rng, 3, 4), chance(rng, 0.3)
    c, count = between(rng, 1, 9), between(rng, 3, 4)

    def draw(rng):
        n = 4 if rows == 2 else count
        wall, h = hues(rng, 2, c)
        tiles = [noise(rng, side, side, [h], pick(rng, [0.4, 0.5, 0.6])) for _ in range(n)]
        which = between(rng, 0, n - 1)
        if prop == 0:
            tiles = [tiles[which] if i == which else tiles[which - 1] for i in range(n)]
            if np.array_equal(tiles[which], tiles[which - 1]):
                return None
        elif prop < 3:
            i = best([int((t > 0).sum()) for t in tiles], prop == 1)
            if i is None:
                return None
            which = i
        else:
            tiles[which] = np.maximum(tiles[which], tiles[which][:, ::-1])
            flags = [any(np.array_equal(t, x) for x in (t[::-1], t[:, ::-1], t.T, t[::-1, ::-1].T)) for t in tiles]
            if sum(flags) != 1 or tiles[which].all():
                return None
        grid = walled([tiles] if rows == 1 else [tiles[:2], tiles[2:]], wall)
        if not is_mark:
            return grid, tiles[which]
        tiles[which] = np.where(tiles[which] > 0, c, 0)
        return grid, walled([tiles] if rows == 1 else [tiles[:2], tiles[2:]], wall)

    return draw


def panel_map(rng):
    """Every walled panel becomes a cell: its commonest colour, or whether it has most or fewest cells, or is empty."""
    kind, c, side = between(rng, 0, 3), between(rng, 1, 9), between(rng, 2, 3)

    def draw(rng):
        rows, cols = between(rng, 2, 3), between(rng, 2, 3)
        wall, *palette = hues(rng, 4, c)
        counts = rng.integers(0 if kind == 2 else 1, side * side, (rows, cols))
        if kind == 2:
            counts *= rng.random(counts.shape) < 0.5
        tiles, out = [], np.zeros((rows, cols), np.uint8)
        for r in range(rows):
            tiles.append([])
            for k in range(cols):
                tile, n = np.zeros(side * side, np.uint8), int(counts[r, k])
                main, other = some(rng, 0, 2, 2)
                few = (n - 1) // 2 if kind == 0 else 0
                tile[:n], tile[:few] = palette[main if kind == 0 else 0], palette[other]
                out[r, k] = palette[main] if kind == 0 else c if n == 0 else 0
                tiles[-1].append(rng.permutation(tile).reshape(side, side))
        if kind in (1, 3):
            top = counts.max() if kind == 1 else counts.min()
            out = np.where(counts == top, c, 0)
            if out.all():
                return None
        return (walled(tiles, wall), out) if out.any() else None

    return draw


def panel_vote(rng):
    """Panels show one pattern with mistakes: each cell of the output is what most panels have."""
    n, is_row, is_coloured = pick(rng, [3, 3, 5]), chance(rng, 0.5), chance(rng, 0.4)

    def draw(rng):
        h, w = between(rng, 3, 5), between(rng, 3, 5)
        wall, *cols = hues(rng, 4)
        right = noise(rng, h, w, cols if is_coloured else cols[:1], 0.55)
        tiles, used = [right.copy() for _ in range(n)], rng.permutation(h * w)
        for i, tile in enumerate(tiles):
            for at in used[2 * i : 2 * i + 2]:
                at = divmod(int(at), w)
                tile[at] = 0 if tile[at] else cols[0]
        grid = walled([tiles] if is_row else [[t] for t in tiles], wall)
        return grid, right

    return draw


def shared_thing(rng):
    """What occurs on both sides of the line, a shape or a colour, comes out."""
    by_shape, is_row, c, kind = chance(rng, 0.5), chance(rng, 0.5), between(rng, 0, 9), between(rng, 0, 1)

    def draw(rng):
        kinds, (wall, *cols) = unlike(rng, 5), hues(rng, 6, c)
        h = cols[0]
        sides = [np.zeros((between(rng, 8, 10), 7), np.uint8)]
        sides.append(np.zeros_like(sides[0]))
        for side, which in zip(sides, ([0, 1, 2], [0, 3, 4]), strict=True):
            which = which[: between(rng, 2, 3)]
            masks = [kinds[i] if by_shape else shape(rng, 1, 3) for i in which]
            if not scatter(rng, side, [(m, h if by_shape else cols[i]) for i, m in zip(which, masks, strict=True)]):
                return None
        grid = walled([sides], wall)
        if by_shape:
            out = np.where(kinds[0], c or h, 0)
        else:
            out = np.full((1, 1), h) if kind else np.where(grid == h, h, 0)
        if is_row:
            return grid.T, out.T
        return grid, out

    return draw


def missing_color(rng):
    """A row of colours at the side lists all; those that no object has come out, or those that some have."""
    is_missing, turn, is_row = chance(rng, 0.6), between(rng, 0, 3), chance(rng, 0.5)

    def draw(rng):
        cols = hues(rng, between(rng, 4, 6))
        used = [chance(rng, 0.5) for _ in cols]
        if len(set(used)) < 2:
            return None
        grid = np.zeros((between(rng, 7, 10), between(rng, len(cols) + 1, 10)), np.uint8)
        grid[0, : len(cols)] = cols
        mine = [h for h, u in zip(cols, used, strict=True) if u]
        mine += [pick(rng, mine) for _ in range(between(rng, 0, 1))]
        if not scatter(rng, grid, [(shape(rng, 1, 3), h) for h in mine]):
            return None
        told = [h for h, u in zip(cols, used, strict=True) if u != is_missing]
        return np.rot90(grid, turn), line(told, is_row)

    return draw


# Sorting and listing.


def sort_bars(rng):
    """Bars of different lengths are put below one another by their length."""
    is_rising, side, is_row = chance(rng, 0.5), between(rng, 0, 2), chance(rng, 0.5)

    def draw(rng):
        sizes = some(rng, 0, 3, between(rng, 2, 4)) if side == 2 else some(rng, 1, 7, between(rng, 2, 5))
        sizes = sorted([2 * n + 1 for n in sizes] if side == 2 else sizes, reverse=not is_rising)
        cols = hues(rng, len(sizes))
        made = lay(rng, [box(1, n) for n in sizes], cols, 8, 11, pick(rng, [0, 1]))
        if not made:
            return None
        out = np.zeros((len(sizes), max(sizes)), np.uint8)
        for row, n, h in zip(out, sizes, cols, strict=True):
            start = (0, max(sizes) - n, (max(sizes) - n) // 2)[side]
            row[start : start + n] = h
        return (made[0], out) if is_row else (made[0].T, out.T)

    return draw


def sort_objects(rng):
    """Objects are put side by side by their number of cells, or of holes."""
    by_holes, is_rising, is_row, gap = chance(rng, 0.3), chance(rng, 0.5), chance(rng, 0.5), between(rng, 0, 1)

    def draw(rng):
        counts = sorted(some(rng, 0, 3, 3) if by_holes else some(rng, 1, 8, 3), reverse=not is_rising)
        masks = [pierced(rng, n) if by_holes else piece(rng, n) for n in counts]
        tall = 5 if by_holes else 4
        if max(len(m) for m in masks) > tall or max(m.shape[1] for m in masks) > tall + by_holes * 2:
            return None
        cols = hues(rng, 3)
        made = lay(rng, masks, cols, 10, 13)
        if not made:
            return None
        cells = []
        for mask, h in zip(masks, cols, strict=True):
            cell = np.zeros((max(len(m) for m in masks), mask.shape[1] + gap), np.uint8)
            put(cell, mask, (0, 0), h)
            cells.append(cell)
        out = np.concatenate(cells, 1)
        out = out[:, : out.shape[1] - gap]
        return (made[0], out) if is_row else (made[0].T, out.T)

    return draw


def list_by_size(rng):
    """The objects' colours are listed by their number of cells."""
    is_rising, is_row, thick, what = chance(rng, 0.4), chance(rng, 0.5), between(rng, 1, 2), between(rng, 0, 2)

    def draw(rng):
        sizes = sorted(some(rng, 1, 9, between(rng, 2, 5)), reverse=not is_rising)
        if what == 2:
            sizes = sorted({min(n, 5) for n in sizes}, reverse=not is_rising)
        if len(sizes) < 2:
            return None
        masks = [piece(rng, n) if what == 0 else box(1, n) if what == 1 else box(n, n) for n in sizes]
        cols = hues(rng, len(sizes))
        made = lay(rng, masks, cols, 10, 14)
        if not made:
            return None
        out = line(cols, is_row)
        return made[0], out.repeat(thick, 0).repeat(thick, 1) if thick > 1 else out

    return draw


def list_by_place(rng):
    """The objects' colours are listed from left to right, or another way."""
    turn, is_row = between(rng, 0, 3), chance(rng, 0.5)
    fill = chance(rng, 0.3)

    def draw(rng):
        cols = hues(rng, between(rng, 2, 5))
        made = lay(rng, [shape(rng, 1, 3) for _ in cols], cols, 8, 13)
        if not made:
            return None
        ends = [around(m)[1] for m in made[1]]
        order = sorted(range(len(cols)), key=lambda i: ends[i].start)
        if not in_turn([ends[i] for i in order]):
            return None
        told = [cols[i] for i in order]
        out = line(told, is_row)
        if fill:
            out = np.array([told] * len(told))
            out = out if is_row else out.T
        return np.rot90(made[0], turn), out

    return again(draw)


def list_by_depth(rng):
    """Rectangles lie within one another: their colours are listed from outside or inside, or one of them is told."""
    kind, is_row = between(rng, 0, 4), chance(rng, 0.5)

    def draw(rng):
        grid = blank(rng, 10, 14)
        cols = hues(rng, between(rng, 2, 4))
        top, left = between(rng, 0, 2), between(rng, 0, 2)
        bottom, right = grid.shape[0] - between(rng, 0, 2), grid.shape[1] - between(rng, 0, 2)
        used = []
        for h in cols:
            if bottom - top < 2 or right - left < 2:
                break
            grid[top:bottom, left:right] = h
            used.append(h)
            top, left = top + between(rng, 1, 2), left + between(rng, 1, 2)
            bottom, right = bottom - between(rng, 1, 2), right - between(rng, 1, 2)
        if len(used) < 2:
            return None
        if kind == 2:
            return grid, np.full((1, 1), used[-1])
        if kind > 2:
            n = len(used)
            r, k = np.indices((2 * n - 1, 2 * n - 1))
            depth = np.minimum(np.minimum(r, k), np.minimum(2 * n - 2 - r, 2 * n - 2 - k))
            return grid, np.array(used if kind == 3 else used[::-1])[depth]
        return grid, line(used[:: -1 if kind else 1], is_row)

    return draw


def nest_by_size(rng):
    """Squares of different sizes are put within one another, the biggest outside, or by length as rings."""
    is_hollow, what = chance(rng, 0.4), between(rng, 0, 1)

    def draw(rng):
        sizes = sorted(some(rng, 1 + is_hollow, 5, between(rng, 2, 3)), reverse=True)
        cols = hues(rng, len(sizes))
        masks = [box(n, n, is_hollow) if what else piece(rng, n) for n in sizes]
        made = lay(rng, masks, cols, 9, 13)
        if not made:
            return None
        n = len(sizes)
        r, k = np.indices((2 * n - 1, 2 * n - 1))
        return made[0], np.array(cols)[np.minimum(np.minimum(r, k), np.minimum(2 * n - 2 - r, 2 * n - 2 - k))]

    return draw


# Regions.


def crop_markers(rng):
    """Four cells of one colour mark a rectangle: it is cut out with or without them, or painted, or kept alone."""
    kind, c, n = between(rng, 0, 4), between(rng, 1, 9), between(rng, 1, 3)

    def draw(rng):
        h, w = between(rng, 8, 13), between(rng, 8, 13)
        mark, *cols = hues(rng, n + 1, c)
        grid = noise(rng, h, w, cols, 0.35)
        r, k = between(rng, 0, h - 5), between(rng, 0, w - 5)
        a, b = between(rng, r + 3, h - 1), between(rng, k + 3, w - 1)
        grid[[r, r, a, a], [k, b, k, b]] = mark
        inner = slice(r + 1, a), slice(k + 1, b)
        out = grid.copy()
        if kind == 0:
            return grid, grid[inner]
        if kind == 1:
            return grid, grid[r : a + 1, k : b + 1]
        if kind == 2:
            out[inner][out[inner] == 0] = c
        elif kind == 3:
            out[inner][out[inner] > 0] = c
        else:
            out[:] = 0
            out[r : a + 1, k : b + 1] = grid[r : a + 1, k : b + 1]
        return grid, out

    return draw


def hidden_rectangle(rng):
    """In a full noisy grid one rectangle has only one colour: it is kept, painted, or its size is told."""
    kind, c, n = between(rng, 0, 3), between(rng, 1, 9), between(rng, 3, 5)

    def draw(rng):
        h, w = between(rng, 7, 13), between(rng, 7, 13)
        cols = hues(rng, n, c)
        grid = noise(rng, h, w, cols, 1.1)
        a, b = between(rng, 3, 6), between(rng, 3, 6)
        r, k = between(rng, 0, h - a), between(rng, 0, w - b)
        ring = grid[max(0, r - 1) : r + a + 1, max(0, k - 1) : k + b + 1]
        ring[ring == cols[0]] = cols[1]
        grid[r : r + a, k : k + b] = cols[0]
        out = np.zeros_like(grid) if kind == 0 else grid.copy()
        out[r : r + a, k : k + b] = c if kind in (1, 3) else cols[0]
        return grid, out[r : r + a, k : k + b] if kind > 1 else out

    return draw


def empty_rectangle(rng):
    """The largest empty rectangle of a noisy grid is painted, or framed."""
    c, is_frame, n = between(rng, 1, 9), chance(rng, 0.3), between(rng, 1, 2)

    def draw(rng):
        h, w = between(rng, 8, 13), between(rng, 8, 13)
        grid = noise(rng, h, w, hues(rng, n, c), 0.5)
        a, b = between(rng, 3, 6), between(rng, 3, 6)
        r, k = between(rng, 0, h - a), between(rng, 0, w - b)
        grid[r : r + a, k : k + b] = 0
        total = np.pad((grid > 0).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        for x in range(1, h + 1):
            for y in range(1, w + 1):
                if x * y >= a * b:
                    clear = total[x:, y:] - total[:-x, y:] - total[x:, :-y] + total[:-x, :-y] == 0
                    if clear.sum() != ((x, y) == (a, b)):
                        return None
        out = grid.copy()
        put(out, box(a, b, is_frame), (r, k), c)
        return grid, out

    return draw


def patch_in_noise(rng):
    """A rectangle of other colours lies in noise: it is cut out, kept, or mirrored where it is."""
    kind, density = between(rng, 0, 3), pick(rng, [0.5, 0.8, 1.1])

    def draw(rng):
        h, w = between(rng, 8, 13), between(rng, 8, 13)
        cols = hues(rng, 4)
        grid = noise(rng, h, w, cols[:1] if density < 1 else cols[:1] * 2 + [0], density)
        a, b = between(rng, 2, 5), between(rng, 2, 5)
        r, k = between(rng, 0, h - a), between(rng, 0, w - b)
        patch = rng.choice(cols[1:], (a, b))
        grid[r : r + a, k : k + b] = patch
        if kind == 0:
            return grid, patch
        out = np.zeros_like(grid) if kind == 1 else grid.copy()
        out[r : r + a, k : k + b] = (patch, patch, patch[:, ::-1], patch[::-1])[kind]
        return grid, out

    return draw


def cuts(rng, length, count):
    """Where lines go that leave at least one cell between them, and the ends."""
    for _ in range(20):
        at = sorted(some(rng, 1, length - 2, count))
        if all(b - a > 1 for a, b in zip(at, at[1:], strict=False)):
            return [-1, *at, length]
    return None


def rooms_of(rng, grid, wall):
    """Draws lines through the grid: the slices of the rooms between them; None if they did not fit."""
    rows, cols = cuts(rng, grid.shape[0], between(rng, 1, 2)), cuts(rng, grid.shape[1], between(rng, 1, 2))
    if rows is None or cols is None:
        return None
    grid[rows[1:-1]] = wall
    grid[:, cols[1:-1]] = wall
    pairs = [[slice(a + 1, b) for a, b in zip(x, x[1:], strict=False)] for x in (rows, cols)]
    return [(a, b) for a in pairs[0] for b in pairs[1]]


def rooms_by_size(rng):
    """Lines part the grid: the largest room gets one colour, the smallest another, at times the rest a third."""
    a, b, c = colors(rng, 3)
    kind = between(rng, 0, 3)

    def draw(rng):
        grid = blank(rng, 8, 13)
        rooms = rooms_of(rng, grid, hues(rng, 1, a, b, c)[0])
        if not rooms:
            return None
        sizes, out = [grid[x].size for x in rooms], grid.copy()
        big, small = best(sizes), best(sizes, False)
        if big is None and kind != 2 or small is None and kind != 1:
            return None
        if kind == 3:
            for x in rooms:
                out[x] = c
        if kind != 2:
            out[rooms[big]] = a
        if kind != 1:
            out[rooms[small]] = b
        return grid, out

    return draw


def rooms_marked(rng):
    """Rooms between lines are filled by the cell in them; or by how many cells are there."""
    new, kind = colors(rng, 3), between(rng, 0, 2)

    def draw(rng):
        grid = blank(rng, 9, 13)
        wall, *cols = hues(rng, 6, *new)
        rooms = rooms_of(rng, grid, wall)
        if not rooms:
            return None
        out, given = grid.copy(), cols if len(cols) > 3 else cols[:1]
        for x in rooms:
            view = grid[x]
            n = between(rng, 0, min(3 if kind == 1 else 1, view.size))
            h = cols[0] if kind == 1 else pick(rng, given)
            for i in rng.permutation(view.size)[:n]:
                view[i // view.shape[1], i % view.shape[1]] = h
            out[x] = view
            if n and kind == 1:
                out[x] = new[n - 1]
            elif n and kind == 0:
                out[x] = h
            elif kind == 2:
                out[x] = new[0] if not n else 0
        return grid, out

    return draw


def enclosed_sizes(rng):
    """The largest hollow box gets a colour, the smallest or all others another; or odd, even or square ones."""
    a, b = colors(rng, 2)
    kind = between(rng, 0, 3)

    def draw(rng):
        n, h = between(rng, 2, 4), hues(rng, 1, a, b)[0]
        sides = [(between(rng, 1, 4), between(rng, 1, 4)) for _ in range(n)]
        made = lay(rng, [box(x + 2, y + 2, True) for x, y in sides], [h] * n, 11, 15)
        sizes = [x * y for x, y in sides]
        big, small = best(sizes), best(sizes, False)
        if not made or kind < 2 and (big is None or small is None):
            return None
        out = made[0].copy()
        for i, mask in enumerate(made[1]):
            new = (a if i == big else b if i == small else 0) if kind < 2 else 0
            if kind == 1:
                new = a if i == big else b
            elif kind == 2:
                new = a if sizes[i] % 2 else b
            elif kind == 3:
                new = a if sides[i][0] == sides[i][1] else 0
            out[around(mask)][1:-1, 1:-1] = new
        return made[0], out

    return draw


# Relations.


def twin_color(rng):
    """Objects of one colour take that of the coloured one with their shape, or it turned; the coloured may go."""
    is_lost, is_turned = chance(rng, 0.3), chance(rng, 0.4)

    def draw(rng):
        n, (h, *cols) = between(rng, 2, 3), hues(rng, 4)
        kinds = unlike(rng, n)
        which = [between(rng, 0, n - 1) for _ in range(between(rng, 2, 3))]
        masks = kinds + [any_turn(rng, kinds[i]) if is_turned else kinds[i] for i in which]
        told = [cols[i] for i in which]
        return painted(rng, masks, cols[:n] + [h] * len(which), ([0] * n if is_lost else cols[:n]) + told, low=10)

    return draw


def same_size(rng):
    """Hollow boxes take the colour of the full rectangle of their size, or are filled with it; the full ones may go."""
    kind = between(rng, 0, 2)

    def draw(rng):
        h, *cols = hues(rng, 4)
        sizes = {(between(rng, 3, 5), between(rng, 3, 5)) for _ in range(3)}
        sizes = sorted(sizes)[: between(rng, 2, 3)]
        if len(sizes) < 2:
            return None
        own = [pick(rng, sizes) for _ in range(between(rng, 1, 2))]
        masks = [box(*s) for s in sizes] + [box(*s, True) for s in own]
        made = lay(rng, masks, cols[: len(sizes)] + [h] * len(own), 11, 14)
        if not made:
            return None
        out = made[0].copy()
        for mask, s in zip(made[1][len(sizes) :], own, strict=True):
            x, view = cols[sizes.index(s)], out[around(mask)]
            view[1:-1, 1:-1] = x if kind else 0
            if kind != 1:
                out[mask] = x
        if kind == 2:
            out[np.any(made[1][: len(sizes)], 0)] = 0
        return made[0], out

    return draw


def rank_legend(rng):
    """A row of colours at the side is dealt to the objects by their size, largest or smallest first."""
    is_rising, turn, is_lost, flat = chance(rng, 0.4), between(rng, 0, 3), chance(rng, 0.3), chance(rng, 0.4)

    def draw(rng):
        n, (h, *cols) = between(rng, 2, 4), hues(rng, 5)
        grid = np.zeros((between(rng, 8, 12), between(rng, 8, 12)), np.uint8)
        grid[0, :n] = cols[:n]
        sizes = sorted(some(rng, 1, 7, n), reverse=not is_rising)
        masks = [box(n, 1) if flat else piece(rng, n) for n in sizes]
        at = scatter(rng, grid, [(m, h) for m in masks])
        if not at:
            return None
        out = grid.copy()
        if is_lost:
            out[0] = np.where(out[0] == h, h, 0)
        for mask, xy, x in zip(masks, at, cols, strict=False):
            put(out, mask, xy, x)
        return np.rot90(grid, turn), np.rot90(out, turn)

    return draw


def dealt_colors(rng):
    """Objects get the task's colours by turns, from left to right or another way."""
    new, turn = colors(rng, between(rng, 2, 3)), between(rng, 0, 3)
    if chance(rng, 0.2):
        new[-1] = 0

    def draw(rng):
        h = hues(rng, 1, *new)[0]
        made = lay(rng, [shape(rng, 1, 3) for _ in range(between(rng, 3, 5))], [h] * 5, 9, 13)
        if not made:
            return None
        grid, masks = made
        masks.sort(key=lambda m: around(m)[1].start)
        ends = [around(m)[1] for m in masks]
        if not in_turn(ends):
            return None
        out = grid.copy()
        for i, mask in enumerate(masks):
            out[mask] = new[i % len(new)]
        return np.rot90(grid, turn), np.rot90(out, turn)

    return again(draw)


def odd_line(rng):
    """All rows of a full grid but one are equal: it is painted, told, taken out, or made like the rest."""
    kind, c, is_row, shifts = between(rng, 0, 3), between(rng, 1, 9), chance(rng, 0.5), chance(rng, 0.3)

    def draw(rng):
        h, w, cols = between(rng, 4, 9), between(rng, 4, 9), hues(rng, between(rng, 2, 4), c)
        usual, odd = rng.choice(cols, w), rng.choice(cols, w)
        odd = np.roll(usual, 1) if shifts else odd
        grid, i = np.tile(usual, (h, 1)), between(rng, 0, h - 1)
        grid[i] = odd
        if np.array_equal(usual, odd):
            return None
        out = grid.copy()
        if kind == 1:
            out = grid[i : i + 1]
        elif kind == 2:
            out = np.delete(grid, i, 0)
        else:
            out[i] = c if kind == 0 else usual
        return (grid, out) if is_row else (grid.T, out.T)

    return draw


def odd_cell(rng):
    """A chessboard or stripes have wrong cells: they are marked, or put right, or kept alone."""
    kind, c, form = between(rng, 0, 2), between(rng, 1, 9), between(rng, 0, 3)

    def draw(rng):
        h, w, n = between(rng, 5, 10), between(rng, 5, 10), 2 if form == 0 else between(rng, 2, 3)
        cols, (r, k) = hues(rng, n + 1, c), np.indices((h, w))
        right = np.array(cols)[(r + k, r, k, r - k)[form] % n]
        wrong = np.zeros((h, w), bool)
        wrong.ravel()[rng.permutation(h * w)[: between(rng, 1, 3)]] = True
        grid = np.where(wrong, cols[n], right)
        if kind == 0:
            return grid, np.where(wrong, c, right)
        return grid, right if kind == 1 else np.where(wrong, cols[n], 0)

    return draw


def panel_mode(rng):
    """Of walled panels the pattern that comes most often, or twice, comes out; or the single ones go."""
    kind, side, is_row = between(rng, 0, 2), between(rng, 2, 3), chance(rng, 0.5)

    def draw(rng):
        wall, *cols = hues(rng, between(rng, 2, 4))
        kinds = [noise(rng, side, side, cols, 0.6) for _ in range(4)]
        if len({k.tobytes() for k in kinds}) < 4 or not all(k.any() for k in kinds):
            return None
        most, twice = [[0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 1, 2], [0, 0, 0, 1, 2, 3]], [[0, 0, 1, 2], [0, 0, 1, 2, 3, 3]]
        which = pick(rng, (most, twice[:1], twice)[kind])
        order = [which[i] for i in rng.permutation(len(which))]
        half = len(order) // 2
        tiles = [[kinds[i] for i in order[:half]], [kinds[i] for i in order[half:]]]
        grid = walled(tiles, wall)
        if kind == 2:
            kept = [kinds[i] if which.count(i) > 1 else np.zeros_like(kinds[0]) for i in order]
            out = walled([kept[:half], kept[half:]], wall)
        else:
            out = kinds[0]
        return (grid, out) if is_row else (grid.T, out.T)

    return draw


def marked_one(rng):
    """The object with a cell of another colour is cut out, with the cell or without it, or kept, or painted."""
    what, c, one = between(rng, 0, 4), between(rng, 1, 9), chance(rng, 0.5)

    def draw(rng):
        speck, *cols = hues(rng, 5, c)
        n = between(rng, 3, 4)
        cols = cols[:1] * n if one else cols[:n]
        made = lay(rng, [shape(rng, 2, 4) for _ in range(n)], cols, 9, 13)
        if not made:
            return None
        grid, masks = made
        clean, mine = grid.copy(), masks[0]
        grid[tuple(pick(rng, np.argwhere(mine)))] = speck
        if what < 2:
            return grid, (grid, clean)[what][around(mine)]
        out = np.where(mine, clean, 0) if what == 2 else grid.copy()
        if what > 2:
            out[mine] = speck if what == 3 else c
        return grid, out

    return draw


def between_marks(rng):
    """Two cells of one colour stand beside an object, in its row: it takes their colour, or stays, or goes."""
    kind, is_lost, is_row = between(rng, 0, 2), chance(rng, 0.4), chance(rng, 0.6)

    def draw(rng):
        h, mark = hues(rng, 2)
        made = lay(rng, [shape(rng, 2, 3) for _ in range(between(rng, 3, 5))], [h] * 5, 10, 14, 2, 1)
        if not made:
            return None
        grid, masks = made
        out, rows, found = np.zeros_like(grid) if kind == 1 else grid.copy(), set(), 0
        for mask in masks[: between(rng, 1, 2)]:
            y, x = around(mask)
            others = grid.copy()
            others[mask] = 0
            free = [r for r in range(y.start, y.stop) if r not in rows and not others[r].any()]
            if not free:
                continue
            r, found = pick(rng, free), found + 1
            rows.update((r - 1, r, r + 1))
            ends = [between(rng, 0, x.start - 1), between(rng, x.stop, grid.shape[1] - 1)]
            grid[r, ends] = mark
            out[mask] = (mark, h, 0)[kind]
            out[r, ends] = 0 if is_lost else mark
        if not found:
            return None
        return (grid, out) if is_row else (grid.T, out.T)

    return draw


def sorted_in_place(rng):
    """Bars that stand on one side change places until they are sorted by height; their colours go with them or stay."""
    is_rising, turn, own, thick = chance(rng, 0.5), between(rng, 0, 3), chance(rng, 0.7), between(rng, 1, 2)
    gap = between(rng, 0, 1)

    def draw(rng):
        n = between(rng, 3, 5)
        heights, cols = some(rng, 1, 8, n), hues(rng, n)
        grid = np.zeros((between(rng, 8, 10), (thick + gap) * n - gap), np.uint8)
        out, order = grid.copy(), np.argsort(heights if is_rising else -np.array(heights))
        for i in range(n):
            at, j = slice((thick + gap) * i, (thick + gap) * i + thick), order[i]
            grid[-heights[i] :, at] = cols[i]
            out[-heights[j] :, at] = cols[j] if own else cols[i]
        return np.rot90(grid, turn), np.rot90(out, turn)

    return draw


def hole_total(rng):
    """All holes of the objects are counted: as many cells of a line or square are filled."""
    c, order, is_line = between(rng, 0, 9), ORDERS[pick(rng, list(ORDERS))], chance(rng, 0.3)

    def draw(rng):
        h, counts = hues(rng, 1)[0], [between(rng, 0, 3) for _ in range(between(rng, 1, 3))]
        n = sum(counts)
        made = lay(rng, [pierced(rng, k) for k in counts], [h] * 3, 9, 14)
        if not made or not 1 <= n <= 7:
            return None
        out = np.zeros(9, np.uint8)
        out[order[:n]] = c or h
        return made[0], np.full((1, n), c or h) if is_line else out.reshape(3, 3)

    return draw


def nth_object(rng):
    """The cells in the first row are counted: the object that is so many-th from the left is chosen."""
    (c, done), turn, apart = act(rng, *PLAIN), between(rng, 0, 3), between(rng, 1, 2)

    def draw(rng):
        n, (h, key) = between(rng, 2, 4), hues(rng, 2, c)
        made = lay(rng, [shape(rng, 1, 3) for _ in range(n)], [h] * n, 9, 13, 1, 1)
        if not made:
            return None
        grid, masks = made
        grid, masks = np.pad(grid, ((1, 0), (0, 0))), [np.pad(m, ((1, 0), (0, 0))) for m in masks]
        masks.sort(key=lambda m: around(m)[1].start)
        ends = [around(m)[1] for m in masks]
        if not in_turn(ends):
            return None
        k = between(rng, 1, n)
        grid[0, : apart * k : apart] = key
        return np.rot90(grid, turn), np.rot90(done(grid, masks, [k - 1]), turn)

    return again(draw)


CONCEPTS = tuple(
    tinted(concept)
    for concept in (
        odd_shape, odd_color, odd_symmetry, odd_holes, most_holes, odd_box, odd_filled, common_shape, color_of_most,
        middle_size, most_specks, most_colors, odd_patch, key_color, key_count, key_shape, on_top, unique_cell,
        fullest_box, hole_colors, parity_colors, cells_colors, bars_ranked, touched, inside_or_outside, nearest_cell,
        legend_shapes, legend_bars, legend_pairs, equal_pairs, symmetry_colors, square_colors, lying_colors,
        line_or_blob, closed_colors, shape_code, than_key, contained_color, majority_box, specks_color_box,
        object_majority, pointed_lines, nearest_corner, swapped_extremes, largest_of_color, color_twins,
        border_colors, fits_hole, winner_color, rarest_to_common, line_majority, fullest_line, count_nine, count_row,
        count_square, count_pattern, count_parity, colors_scale, object_bars, count_inside, sides_winner, duel_rows,
        panels_compared, panel_map, panel_vote, shared_thing, missing_color, sort_bars, sort_objects, list_by_size,
        list_by_place, list_by_depth, nest_by_size, crop_markers, hidden_rectangle, empty_rectangle, patch_in_noise,
        rooms_by_size, rooms_marked, enclosed_sizes, twin_color, same_size, rank_legend, dealt_colors, odd_line,
        odd_cell, panel_mode, marked_one, between_marks, sorted_in_place, hole_total, nth_object,
    )
)  # fmt: skip
