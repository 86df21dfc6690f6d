"""Made tasks with scenes of their own.

A concept is a function of a random generator that draws a task's rule: `concept(rng) -> draw`, and `draw(rng) -> (input, output)`
draws one of its pairs, None where the drawn scene does not suit. No rule names a colour of the input, since views exchange these.
"""

import importlib

import numpy as np

MODULES = ("choices", "moves", "patterns", "panels")
PAIRS = 12  # of each made task
CELLS = 400  # of a pair's two grids at most


def pairs_of(concept, rng) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """The pairs of one task of the concept, all different; None if its rule gives too few, or too few that tell it."""
    draw = concept(rng)
    made = {}
    for _ in range(5 * PAIRS) if draw else ():
        pair = draw(rng)
        if (
            pair is None
            or not all(0 < g.size and max(g.shape) <= 30 for g in pair)
            or sum(g.size for g in pair) > CELLS
        ):
            continue
        a, b = (np.ascontiguousarray(g, np.uint8) for g in pair)
        if not np.array_equal(a, b):
            made.setdefault((a.shape, a.tobytes()), (a, b))
        if len(made) == PAIRS:
            break
    different = {(b.shape, b.tobytes()) for _, b in made.values()}
    return list(made.values()) if len(made) == PAIRS and len(different) > 2 else None


def all_concepts() -> dict:
    """{"module-name": concept} of all modules."""
    modules = {name: importlib.import_module(f"tests.bench.concepts.{name}") for name in MODULES}
    return {f"{name}-{c.__name__}": c for name, module in modules.items() for c in module.CONCEPTS}
