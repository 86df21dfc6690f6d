"""The adaptation bench at toy size: both contestants train the same sequences to the same loss, and memory is counted."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("no_torchao")
FILE = Path(__file__).parents[1] / "bench/adapt.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_adapt", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["gpt2", "grid"])
def test_both_contestants_reach_one_loss_from_the_same_sequences(bench, kind):
    ours, theirs = (bench.child(kind, who, "loss", True) for who in ("ours", "peft"))
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4) and len(ours["losses"]) == 2
    assert ours["losses"][0] != pytest.approx(ours["losses"][1], rel=1e-4)
    assert ours["tokens"] == theirs["tokens"] and 0 < ours["utilisation"] < 1


def test_memory_of_the_stock_vocabulary_is_counted(bench):
    ours, theirs = (bench.child("llama", who, "memory", True)["peak"] for who in ("ours", "peft"))
    assert ours < 0.4 * theirs
