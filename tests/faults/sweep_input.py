"""10,000 generated challenge files: InputError or valid tasks, nothing else; `make faults`. tests/props has the properties."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

PROPS = Path(__file__).parents[1] / "props" / "test_tasks_props.py"
CASES = 5000  # of each of the two kinds of damage
MANY = settings(max_examples=CASES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def props():
    spec = importlib.util.spec_from_file_location("tasks_props", PROPS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sweep(strategy, check, options=MANY) -> int:
    """How many cases passed."""
    passed = [0]

    @options
    @given(strategy)
    def each(data):
        check(data)
        passed[0] += 1

    each()
    return passed[0]


@pytest.mark.parametrize("kind", ["mutated_files", "damaged_bytes"])
def test_only_input_errors_or_valid_tasks(props, tmp_path, kind):
    assert sweep(getattr(props, kind)(), lambda data: props.holds_its_promises(tmp_path / "file.json", data)) >= CASES


def naive_read(data: bytes) -> None:
    """json.loads and np.array, as notebooks do."""
    for task in json.loads(data).values():
        for pair in task["train"]:
            assert np.array(pair["input"], np.uint8).max() <= 9 and np.array(pair["output"], np.uint8).max() <= 9


@pytest.mark.parametrize("kind", ["mutated_files", "damaged_bytes"])
def test_the_naive_reader_falls(props, kind):
    with pytest.raises(Exception) as fallen:
        sweep(getattr(props, kind)(), naive_read, settings(MANY, phases=[Phase.generate]))  # not the smallest fault
    assert type(fallen.value).__name__ != "InputError"
