"""Presets and overrides: published numbers, strict names, and a way back from a receipt."""

import pytest

from ttt_core import config
from ttt_core.errors import InputError


@pytest.mark.parametrize("name", config.PRESETS)
def test_every_preset_survives_its_receipt(name):
    assert config.from_dict(config.to_dict(config.preset(name))) == config.preset(name)


def test_presets_hold_the_published_numbers():
    nvarc, architects, marc = (config.preset(name) for name in ("nvarc", "architects", "marc"))
    assert (nvarc.adapt.rank, nvarc.adapt.alpha, nvarc.adapt.rslora, nvarc.adapt.lr) == (256, 32, True, 5e-5)
    assert (nvarc.adapt.decay, nvarc.adapt.steps, nvarc.decode.floor, nvarc.rescore.views) == ("cosine", 128, 0.2, 8)
    assert (architects.adapt.rank, architects.adapt.alpha, architects.adapt.embedding_lr) == (32, 16, 1e-5)
    assert (architects.adapt.steps, architects.decode.floor, architects.vote.selector) == (64, 0.09, "sum_logprob")
    assert (marc.adapt.rank, marc.adapt.targets, marc.decode.search) == (128, "leave_two_out", "greedy")


def test_overrides_change_one_field():
    changed = config.preset("nvarc", ["adapt.rank=64", "adapt.rslora=false", "model.format=digits"])
    assert (changed.adapt.rank, changed.adapt.rslora, changed.model.format) == (64, False, "digits")
    assert changed.decode == config.preset("nvarc").decode


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("adapt.rnak=64", "rank"),
        ("adpat.rank=64", "adapt"),
        ("adapt.method=lroa", "lora"),
        ("model.format=qwen", "qwen-chat"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(override, near):
    with pytest.raises(InputError, match=f"nearest known name is {near}"):
        config.preset("grid", [override])


@pytest.mark.parametrize(
    "override", ["adapt.rank=0", "adapt.embedding_lr=-1", "decode.floor=2", "decode.draft_views=0"]
)
def test_a_value_out_of_range_names_field_value_and_remedy(override):
    name, value = override.split("=")
    with pytest.raises(InputError, match=rf"{name}={value}.*give"):
        config.preset("grid", [override])
