"""Augmentations: the same puzzle seen rotated, mirrored, recoloured and with its demonstrations reordered.

A *view* is a task under one Augmentation. Every augmentation is exactly invertible on grids. Not here: tokens.
Grids are uint8 (H, W) in, uint8 (H, W) or (W, H) out.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from ttt_core.arc.tasks import N_COLORS, Pair, Task

IDENTITY_COLORS = tuple(range(N_COLORS))


@dataclass(frozen=True)
class Augmentation:
    """dihedral: 0..7, d % 4 quarter turns, then a transposition if d >= 4. colors: colour c becomes colors[c].
    order: permutation of the demonstrations; empty keeps them."""

    dihedral: int = 0
    colors: tuple[int, ...] = IDENTITY_COLORS
    order: tuple[int, ...] = ()

    def __str__(self):
        return f"d{self.dihedral} c{''.join(map(str, self.colors))}"


def task_rng(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on `seed` and `names` alone: not on task order, process, device or time."""
    digest = hashlib.blake2b("\0".join((str(seed), *names)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def apply(augmentation: Augmentation, grid: np.ndarray) -> np.ndarray:
    """`grid` as it looks in the view."""
    grid = np.asarray(augmentation.colors, np.uint8)[grid]
    grid = np.rot90(grid, augmentation.dihedral % 4)
    return np.ascontiguousarray(grid.T if augmentation.dihedral >= 4 else grid)


def invert(augmentation: Augmentation, grid: np.ndarray) -> np.ndarray:
    """The grid of the original task that looks like `grid` in the view."""
    grid = grid.T if augmentation.dihedral >= 4 else grid
    grid = np.rot90(grid, -(augmentation.dihedral % 4))
    return np.argsort(augmentation.colors).astype(np.uint8)[grid]


def view(augmentation: Augmentation, task: Task) -> Task:
    """The task under `augmentation`; test inputs keep their order."""
    order = augmentation.order or range(len(task.train))
    return Task(
        task.id,
        tuple(_pair(augmentation, task.train[i]) for i in order),
        tuple(_pair(augmentation, pair) for pair in task.test),
    )


def free_colors(pairs: tuple[Pair, ...]) -> tuple[int, ...]:
    """Colours that can be exchanged without changing the rule: not 0, and not in every pair of the task.

    A colour that occurs in every demonstration may be a constant of the rule ("paint it red"), and a model that
    knows the task only by its vector could not follow if it changed from view to view. None is free where an output has
    another colour that its input lacks: then the rule says which ("red becomes green", "three cells become blue").
    """
    shown = [set(np.unique(p.input).tolist()) for p in pairs]
    made = [set(np.unique(p.output).tolist()) if p.output is not None else set() for p in pairs]
    constant = set.intersection(*(a | b for a, b in zip(shown, made, strict=True)))
    if any(b - a - constant - {0} for a, b in zip(shown, made, strict=True)):
        return ()
    return tuple(c for c in range(1, N_COLORS) if c not in constant)


def permute_colors(free: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    """A colour map that shuffles the `free` colours among themselves and fixes all others."""
    colors = np.arange(N_COLORS)
    colors[list(free)] = rng.permutation(free)
    return tuple(int(c) for c in colors)


def draw_views(task: Task, n: int, rng: np.random.Generator, colors: str = "free") -> tuple[Augmentation, ...]:
    """`n` augmentations: the eight dihedrals in turn, the first view being the task as it stands.

    colors: "none", "free" (see `free_colors`) or "all" (all but 0). The identity's colours are kept in view 0.
    """
    free = {"none": (), "free": free_colors(task.train), "all": tuple(range(1, N_COLORS))}[colors]
    views = []
    for i in range(n):
        order = tuple(int(j) for j in rng.permutation(len(task.train))) if i else ()
        views.append(Augmentation(i % 8, permute_colors(free, rng) if i else IDENTITY_COLORS, order))
    return tuple(views)


def _pair(augmentation: Augmentation, pair: Pair) -> Pair:
    output = None if pair.output is None else apply(augmentation, pair.output)
    return Pair(apply(augmentation, pair.input), output)
