"""Whatever the bytes of a challenge file: InputError, or challenges that hold their promises."""

import copy
import json

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttt_core.arc import submission
from ttt_core.arc.tasks import cells, read_challenges
from ttt_core.errors import InputError

COMMON = settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])

FILE = {
    "aa": {"train": [{"input": [[1, 2]], "output": [[3], [4]]}], "test": [{"input": [[5]]}, {"input": [[6]]}]},
    "bb": {"train": [{"input": [[1]], "output": [[2]]}] * 2, "test": [{"input": [[5]], "output": [[7]]}]},
}
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 12), st.floats(), st.text(max_size=3), st.just(10**40))
KEYS = st.one_of(st.sampled_from(["train", "test", "input", "output", "aa"]), st.text(max_size=3))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3))
GRIDS = st.integers(0, 32).flatmap(lambda width: st.lists(st.just([0] * width), max_size=32))


def places(value, path=()):
    """Every path into a JSON value."""
    yield path
    for key, child in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(child, (*path, key))


@st.composite
def mutated_files(draw):
    value = copy.deepcopy(FILE)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(sorted(places(value), key=repr)))
        target = draw(VALUES | GRIDS)
        if not path:
            value = target
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        if draw(st.booleans()):
            parent[path[-1]] = target
        elif isinstance(parent, dict):
            parent[draw(KEYS)] = parent.pop(path[-1])
        else:
            del parent[path[-1]]
    return json.dumps(value).encode()


@st.composite
def damaged_bytes(draw):
    data = bytearray(json.dumps(FILE).encode())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        piece = draw(st.binary(max_size=3) | st.sampled_from([b'"', b"[", b"}", b"NaN", b"\\"]))
        data[at : at + draw(st.integers(0, 3))] = piece
    return bytes(data)


def holds_its_promises(path, data):
    path.write_bytes(data)
    try:
        challenges = read_challenges(path)
    except InputError as error:
        assert path.name in str(error)
        return
    good = [task.id for task in challenges.tasks]
    assert not set(good) & set(challenges.bad) and set(good) | set(challenges.bad) == set(challenges.n_test)
    for task in challenges.tasks:
        assert task.train and len(task.test) == challenges.n_test[task.id] and cells(task) > 0
        shown = [side for pair in task.train for side in (pair.input, pair.output)] + [pair.input for pair in task.test]
        for grid in shown + [pair.output for pair in task.test if pair.output is not None]:
            assert grid.dtype == np.uint8 and grid.ndim == 2 and not grid.flags.writeable
            assert 1 <= min(grid.shape) and max(grid.shape) <= 30 and grid.max() <= 9
    for reason in challenges.bad.values():
        assert reason.startswith("task ") and reason.endswith("it gets the placeholder attempt")
    written = submission.dumps(submission.build(challenges, {}))
    path.write_bytes(written)
    submission.check(submission.read(path), challenges)


@COMMON
@given(mutated_files())
def test_mutated_values(tmp_path_factory, data):
    holds_its_promises(tmp_path_factory.getbasetemp() / "mutated.json", data)


@COMMON
@given(damaged_bytes())
def test_damaged_bytes(tmp_path_factory, data):
    holds_its_promises(tmp_path_factory.getbasetemp() / "damaged.json", data)
