"""What the concepts draw their scenes with: sizes, colours, shapes and where they go.

A grid is uint8 (H, W); an object is a boolean mask of its own box.
"""

import numpy as np

TRIES = 30


def colors(rng, count: int) -> list[int]:
    """Different colours, never 0."""
    return [int(c) for c in rng.choice(np.arange(1, 10), count, replace=False)]


def between(rng, low: int, high: int) -> int:
    """Both ends may come."""
    return int(rng.integers(low, high + 1))


def chance(rng, share: float) -> bool:
    return bool(rng.random() < share)


def pick(rng, things):
    return things[int(rng.integers(len(things)))]


def blank(rng, low: int = 7, high: int = 14, background: int = 0) -> np.ndarray:
    """An empty grid with sides from `low` to `high`."""
    return np.full((between(rng, low, high), between(rng, low, high)), background, np.uint8)


def noise(rng, height: int, width: int, palette, density: float) -> np.ndarray:
    """Cells of `palette` at random places, 0 elsewhere."""
    grid = rng.choice(np.array(palette, np.uint8), (height, width))
    return np.where(rng.random((height, width)) < density, grid, 0).astype(np.uint8)


def blob(rng, height: int, width: int, cells: int | None = None) -> np.ndarray:
    """A connected random shape (side by side) that touches all sides of its box (height, width)."""
    while True:
        mask = np.zeros((height, width), bool)
        at = between(rng, 0, height - 1), between(rng, 0, width - 1)
        mask[at] = True
        wanted = cells or between(rng, max(1, height + width - 1), max(height + width - 1, height * width * 3 // 4))
        for _ in range(20 * height * width):
            if mask.sum() >= wanted and mask.any(0).all() and mask.any(1).all():
                return mask
            places = np.argwhere(mask)
            r, c = places[int(rng.integers(len(places)))] + ((0, 1), (1, 0), (0, -1), (-1, 0))[int(rng.integers(4))]
            if 0 <= r < height and 0 <= c < width:
                mask[r, c] = True


def box(height: int, width: int, is_hollow: bool = False) -> np.ndarray:
    """A rectangle, or its border alone."""
    mask = np.ones((height, width), bool)
    if is_hollow:
        mask[1:-1, 1:-1] = False
    return mask


def room(rng, grid: np.ndarray, mask: np.ndarray, gap: int = 1, margin: int = 0, background: int = 0):
    """(row, column) where the box of `mask` has only background, `gap` cells around it too; None if no try found one."""
    height, width = mask.shape
    for _ in range(TRIES):
        r = int(rng.integers(margin, max(margin, grid.shape[0] - height - margin) + 1))
        c = int(rng.integers(margin, max(margin, grid.shape[1] - width - margin) + 1))
        if r + height + margin > grid.shape[0] or c + width + margin > grid.shape[1]:
            return None
        around = grid[max(0, r - gap) : r + height + gap, max(0, c - gap) : c + width + gap]
        if (around == background).all():
            return r, c
    return None


def put(grid: np.ndarray, mask: np.ndarray, at: tuple[int, int], color) -> None:
    """Paints the object with its box's corner at `at`; color: one, or a grid of the box's shape."""
    view = grid[at[0] : at[0] + mask.shape[0], at[1] : at[1] + mask.shape[1]]
    view[mask] = color if np.isscalar(color) else np.asarray(color)[mask]


def scatter(rng, grid: np.ndarray, objects, gap: int = 1, margin: int = 0, background: int = 0):
    """Puts all (mask, color) where there is room, in that order: their corners; None if one finds none."""
    corners = []
    for mask, color in objects:
        at = room(rng, grid, mask, gap, margin, background)
        if at is None:
            return None
        put(grid, mask, at, color)
        corners.append(at)
    return corners
