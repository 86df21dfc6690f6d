"""Formats and grammar: grids to tokens and back, and no answer that is no grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ttt_core.arc import encode
from ttt_core.arc.grammar import Grammar
from ttt_core.arc.tasks import Pair, Task
from ttt_core.errors import InputError

GRIDS = arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 9))
GRAMMARS = [Grammar(15, 10, 13), Grammar(15, 10, 13, terminated=False)]


@pytest.mark.parametrize("grammar", GRAMMARS, ids=["terminated", "separated"])
@given(grid=GRIDS)
def test_the_grammar_allows_every_token_of_every_grid_and_it_reads_back(grammar, grid):
    ids, state = encode.answer_ids(grammar, grid), grammar.start(1)
    for token in ids:
        assert grammar.allowed(state)[0, token]
        state = grammar.advance(state, np.array([token]))
    assert np.array_equal(encode.answer_grid(grammar, ids), grid)


@pytest.mark.parametrize("grammar", GRAMMARS, ids=["terminated", "separated"])
@given(seed=st.integers(0, 2**32 - 1))
def test_any_walk_the_grammar_allows_ends_in_a_grid(grammar, seed):
    rng, state, ids = np.random.default_rng(seed), grammar.start(1), []
    for _ in range(grammar.max_tokens()):
        ids.append(int(rng.choice(np.nonzero(grammar.allowed(state)[0])[0])))
        if ids[-1] == grammar.end:
            break
        state = grammar.advance(state, np.array(ids[-1:]))
    assert ids[-1] == grammar.end
    assert max(encode.answer_grid(grammar, np.array(ids)).shape) <= 30


def test_ragged_tokens_are_no_grid():
    with pytest.raises(InputError, match="unequal"):
        encode.answer_grid(GRAMMARS[0], np.array([1, 2, 10, 3, 10, 13]))


@pytest.mark.parametrize("name", encode.FORMATS)
def test_a_query_with_its_answer_is_the_training_sequence(name):
    """What is asked at test time is what was trained: the same tokens and positions."""
    form, rng = encode.format_named(name), np.random.default_rng(0)
    pairs = tuple(Pair(rng.integers(0, 9, (2, 3)).astype(np.uint8), rng.integers(0, 9, (3, 2)).astype(np.uint8)) for _ in range(3))
    trained = form.training(Task("t", pairs, ()))[-1]
    query = form.query(Task("t", pairs[:-1], pairs[-1:]), 0)
    answer = encode.answer_ids(form.grammar, pairs[-1].output)
    assert np.array_equal(trained.ids, np.concatenate([query.ids, answer]))
    assert np.array_equal(trained.positions[: len(query)], query.positions)
    assert np.array_equal(trained.ids[trained.labels != encode.IGNORE], answer)
