"""Choosing two attempts from candidates: short, named, pure scoring functions. numpy only.

A selector gives each candidate a score from all candidates of the test input; the two highest are submitted.
`Candidate.logprobs` are per scoring view, NaN where a view did not score it; `found_in` are decoding views, of which i
has dihedral i % 8, as `augment.draw_views` draws them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ttt_core.arc.result import Candidate
from ttt_core.arc.submission import PLACEHOLDER
from ttt_core.errors import InputError


def sum_logprob(candidates: Sequence[Candidate]) -> list[float]:
    """Sum of log-probs over the scoring views: a product of experts. A view that did not score counts the mean."""
    return [len(c.logprobs) * _mean(c) for c in candidates]


def count_minus_nll(candidates: Sequence[Candidate]) -> list[float]:
    """In how many views the candidate was found, minus its mean negative log-prob."""
    return [len(c.found_in) + _mean(c) for c in candidates]


def majority(candidates: Sequence[Candidate]) -> list[float]:
    """In how many views the candidate was found; ties by mean log-prob."""
    return [len(c.found_in) + _part(c) for c in candidates]


def hierarchical(candidates: Sequence[Candidate]) -> list[float]:
    """Votes within each dihedral first (views i and i + 8 share one), then one vote a dihedral; ties by mean log-prob."""
    score = [_part(c) for c in candidates]
    for dihedral in range(8):
        votes = [sum(view % 8 == dihedral for view in c.found_in) for c in candidates]
        for i, n in enumerate(votes):
            score[i] += n > 0 and n == max(votes)
    return [float(s) for s in score]


SELECTORS: dict[str, Callable[[Sequence[Candidate]], list[float]]] = {
    "sum_logprob": sum_logprob,
    "count_minus_nll": count_minus_nll,
    "majority": majority,
    "hierarchical": hierarchical,
}


def rank(candidates: Sequence[Candidate], selector: str, views: Sequence[str] = ()) -> list[Candidate]:
    """Best first; of equal scores what more views have found, then by grid bytes, so that the order of discovery does not matter.

    views: names of the decoding views as a record has them, "d3 c0192837465", where their dihedrals may stand in another order.
    """
    if selector not in SELECTORS:
        raise InputError(f"unknown selector {selector}: choose one of {', '.join(SELECTORS)}")
    dihedrals = [_dihedral(view, number) for number, view in enumerate(views)]
    seen = [replace(c, found_in=tuple(dihedrals[v] for v in c.found_in)) for c in candidates] if views else candidates
    scores = SELECTORS[selector](seen)
    keys = [(-s, -len(c.found_in), c.grid.shape, c.grid.tobytes()) for s, c in zip(scores, candidates, strict=True)]
    return [candidates[i] for i in sorted(range(len(keys)), key=keys.__getitem__)]


def select(
    candidates: Sequence[Candidate], selector: str, test_input: np.ndarray, views: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Two different grids: the best two candidates; where there are too few, the test input, then the placeholder."""
    grids = [c.grid for c in rank(candidates, selector, views)] + [test_input, np.array(PLACEHOLDER, np.uint8)]
    grids += [np.ones((2, 2), np.uint8)]  # differs from the placeholder, should the test input be equal to it
    first = grids[0]
    second = next(g for g in grids[1:] if not np.array_equal(g, first))
    return first, second


def _dihedral(view: str, number: int) -> int:
    return int(view[1]) if re.match(r"d[0-7]\b", view) else number % 8


def _part(candidate: Candidate) -> float:
    """Of a vote, at most half: the more, the higher the mean log-prob, however low all are."""
    return 0.5 / (1 - min(0.0, _mean(candidate)))


def _mean(candidate: Candidate) -> float:
    scored = [p for p in candidate.logprobs if not np.isnan(p)]
    return float(np.mean(scored)) if scored else -1e9
