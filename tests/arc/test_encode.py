"""Formats and grammar: grids to tokens and back, and no answer that is no grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ttt_core.arc import encode
from ttt_core.arc.grammar import Grammar
from ttt_core.arc.tasks import Pair, Task
from ttt_core.errors import InputError

GRIDS = arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 9))
GRAMMARS = [Grammar(15, 10, 13), Grammar(15, 10, 13, terminated=False)]


@pytest.mark.parametrize("grammar", GRAMMARS, ids=["terminated", "separated"])
@settings(deadline=None)  # a loaded machine is slow, not wrong
@given(grid=GRIDS)
def test_the_grammar_allows_every_token_of_every_grid_and_it_reads_back(grammar, grid):
    ids, state = encode.answer_ids(grammar, grid), grammar.start(1)
    for token in ids:
        assert grammar.allowed(state)[0, token]
        state = grammar.advance(state, np.array([token]))
    assert np.array_equal(encode.answer_grid(grammar, ids), grid)


@pytest.mark.parametrize("grammar", GRAMMARS, ids=["terminated", "separated"])
@settings(deadline=None)  # a loaded machine is slow, not wrong
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
    pairs = tuple(
        Pair(rng.integers(0, 9, (2, 3)).astype(np.uint8), rng.integers(0, 9, (3, 2)).astype(np.uint8)) for _ in range(3)
    )
    trained = form.training(Task("t", pairs, ()))[-1]
    query = form.query(Task("t", pairs[:-1], pairs[-1:]), 0)
    answer = encode.answer_ids(form.grammar, pairs[-1].output)
    assert np.array_equal(trained.ids, np.concatenate([query.ids, answer]))
    assert np.array_equal(trained.positions[: len(query)], query.positions)
    assert np.array_equal(trained.ids[trained.labels != encode.IGNORE], answer)


def text(form, sequence) -> str:
    return "".join(form.symbols[i] for i in sequence.ids)


TWO = Task(
    "t",
    (
        Pair(np.array([[1, 2], [3, 4]], np.uint8), np.array([[5, 6]], np.uint8)),
        Pair(np.array([[7]], np.uint8), np.array([[8], [9]], np.uint8)),
    ),
    (Pair(np.array([[0]], np.uint8), None),),
)
GOLDEN = {
    "digits": "<bos>I12\n34\nO56\nEI7\nO8\n9\nEI0\nO",
    "qwen-chat": "<|im_start|>user\n12\n34<|im_end|><|im_start|>assistant\n56<|im_end|>"
    "<|im_start|>user\n7<|im_end|><|im_start|>assistant\n8\n9<|im_end|><|im_start|>user\n0<|im_end|><|im_start|>assistant\n",
    "io-letters": "<bos>ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjklmnpqrstuvwxyz"
    "I12\n34\n+/-=O56\n<eos>I7\n+/-=O8\n9\n<eos>I0\n+/-=O",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_queries_are_golden_strings(name):
    form = encode.format_named(name)
    assert text(form, form.query(TWO, 0)) == GOLDEN[name]
    assert len(set(form.symbols)) == form.vocab_size == form.grammar.vocab_size


@pytest.mark.parametrize(
    ("targets", "contexts"),
    [
        ("leave_one_out", [2, 2, 2]),
        ("leave_two_out", [2, 2, 2] + [1] * 6),
        ("all_outputs", [2]),
        ("both", [2, 2, 2, 2]),
    ],
)
def test_targets_name_which_demonstrations_are_left_out(targets, contexts):
    pairs = tuple(Pair(np.array([[i]], np.uint8), np.array([[i + 5]], np.uint8)) for i in range(3))
    form = encode.format_named("digits")
    sequences = form.training(Task("t", pairs, ()), targets)
    shown = [text(form, sequence).count("I") - 1 for sequence in sequences]
    assert sorted(shown, reverse=True) == sorted(contexts, reverse=True)
    asked = [len(set(sequence.labels) & set(range(10))) for sequence in sequences]  # outputs that are targets
    several = [max(1, n) for n in shown] if targets in ("leave_two_out", "all_outputs") else None
    assert several is None or asked == several
    queried = [int(text(form, sequence)[-3]) - 5 for sequence in sequences if targets.startswith("leave")]
    assert all(queried.count(i) == len(queried) / 3 for i in range(3))
