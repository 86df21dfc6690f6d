"""The adaptation bench at toy size: both contestants train the same sequences to the same loss, and memory is counted."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("no_torchao")
FOLDER = Path(__file__).parents[1] / "bench"


def module_of(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench():
    return module_of("adapt")


@pytest.mark.parametrize("kind", ["gpt2", "grid"])
def test_both_contestants_reach_one_loss_from_the_same_sequences(bench, kind):
    ours, theirs = (bench.child(kind, who, "loss", True) for who in ("ours", "peft"))
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4) and len(ours["losses"]) == 2
    assert ours["losses"][0] != pytest.approx(ours["losses"][1], rel=1e-4)
    assert ours["tokens"] == theirs["tokens"] and 0 < ours["utilisation"] < 1


def test_memory_of_the_stock_vocabulary_is_counted(bench):
    ours, theirs = (bench.child("llama", who, "memory", True)["peak"] for who in ("ours", "peft"))
    assert ours < 0.4 * theirs


def test_one_task_is_timed_and_weighed(bench):
    timed, weighed = (bench.child("gpt2", "ours", what, True) for what in ("task", "task_memory"))
    assert timed["seconds"] > 0 and len(timed["losses"]) == 8 and weighed["beyond_weights"] > 0


def test_the_billion_is_weighed_as_it_is_estimated(monkeypatch):
    bench = module_of("billion")
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8}
    monkeypatch.setattr(bench, "BILLION", bench.BILLION | sizes)
    figures = bench.billion()
    for kind in ("plain", "checkpointed"):
        assert figures[f"{kind}_1024_measured_gib"] == pytest.approx(figures[f"{kind}_1024_estimate_gib"], rel=0.15)
        assert figures[f"{kind}_8192_estimate_gib"] > 3 * figures[f"{kind}_1024_estimate_gib"]
    assert not figures["plan_checkpointed"] and figures["plan_tokens"] == 8192  # so small a model fits
