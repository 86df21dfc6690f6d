"""Augmentations: exactly invertible, seeded by name and not by order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ttt_core.arc import augment
from ttt_core.arc.tasks import Pair, Task

GRIDS = arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 9))
AUGMENTATIONS = st.builds(augment.Augmentation, st.integers(0, 7), st.permutations(range(10)).map(tuple))


@settings(deadline=None)
@given(GRIDS, AUGMENTATIONS)
def test_invert_undoes_apply(grid, augmentation):
    assert np.array_equal(augment.invert(augmentation, augment.apply(augmentation, grid)), grid)


def test_the_eight_dihedrals_differ():
    grid = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    seen = {
        augment.apply(augment.Augmentation(d), grid).tobytes()
        + bytes(augment.apply(augment.Augmentation(d), grid).shape)
        for d in range(8)
    }
    assert len(seen) == 8


def test_views_depend_on_seed_and_id_alone():
    task = Task("a", (Pair(np.eye(3, dtype=np.uint8), np.eye(3, dtype=np.uint8)),) * 3, ())
    draw = lambda seed, name: augment.draw_views(task, 16, augment.task_rng(seed, name))  # noqa: E731
    assert draw(0, "a") == draw(0, "a")
    assert draw(0, "a") != draw(1, "a") and draw(0, "a") != draw(0, "b")


@pytest.mark.parametrize("colors", ["none", "free", "all"])
def test_the_first_view_is_the_task_and_zero_is_never_moved(colors):
    task = Task("a", (Pair(np.array([[0, 3]], np.uint8), np.array([[4, 0]], np.uint8)),) * 2, ())
    views = augment.draw_views(task, 9, augment.task_rng(0, "a"), colors)
    assert views[0] == augment.Augmentation()
    assert all(v.colors[0] == 0 for v in views)
    assert [v.dihedral for v in views] == [0, 1, 2, 3, 4, 5, 6, 7, 0]


def test_colours_in_every_pair_are_not_free():
    pairs = (
        Pair(np.array([[1, 5]], np.uint8), np.array([[2, 0]], np.uint8)),
        Pair(np.array([[3, 5]], np.uint8), np.array([[2]], np.uint8)),
    )
    assert augment.free_colors(pairs) == (1, 3, 4, 6, 7, 8, 9)


def test_no_colour_is_free_where_the_rule_says_which_one_an_output_gets():
    def pairs(*rows):
        return tuple(Pair(np.array([a], np.uint8), np.array([b], np.uint8)) for a, b in rows)

    swapped = pairs(([8, 0], [2, 0]), ([3, 0], [1, 0]), ([5, 0], [4, 0]))  # 8 becomes 2, 3 becomes 1
    assert augment.free_colors(swapped) == ()
    moved = pairs(([8, 0], [0, 8]), ([3, 0], [0, 3]))  # any colour moves alike
    assert augment.free_colors(moved) == tuple(range(1, 10))


def test_a_view_has_its_own_order_and_drawn_views_their_own_colours():
    grids = [np.full((1, 2), color, np.uint8) for color in (1, 2, 3)]
    task = Task("t", tuple(Pair(g, g) for g in grids), (Pair(grids[0]),))
    assert [pair.input[0, 0] for pair in augment.view(augment.Augmentation(order=(2, 0, 1)), task).train] == [3, 1, 2]
    drawn = augment.draw_views(task, 16, augment.task_rng(0, "t"))
    assert len({v.colors for v in drawn}) > 8 and drawn[0] == augment.Augmentation()
    assert {v.colors for v in augment.draw_views(task, 16, augment.task_rng(0, "t"), "none")} == {
        augment.IDENTITY_COLORS
    }
