"""Presets and overrides: published numbers, strict names, and a way back from a receipt."""

import pytest

from ttt_core import config
from ttt_core.errors import InputError


@pytest.mark.parametrize("name", config.PRESETS)
def test_every_preset_survives_its_receipt(name):
    assert config.from_dict(config.to_dict(config.preset(name))) == config.preset(name)


PUBLISHED = {  # as the teams give them
    "nvarc": """adapt.method=lora adapt.rank=256 adapt.alpha=32 adapt.rslora=true adapt.lr=5e-5 adapt.embedding_lr=5e-5
        adapt.decay=cosine adapt.warmup=0.1 adapt.steps=128 adapt.batch_tokens=1 decode.search=dfs decode.views=16
        decode.floor=0.2 rescore.views=8 vote.selector=count_minus_nll model.format=qwen-chat""",
    "architects": """adapt.method=lora adapt.rank=32 adapt.alpha=16 adapt.rslora=true adapt.lr=1e-4 adapt.embedding_lr=1e-5
        adapt.decay=cosine adapt.warmup=0.5 adapt.steps=64 adapt.batch_tokens=1 adapt.batch_sequences=1 decode.search=dfs decode.views=16 decode.floor=0.09 rescore.views=16
        vote.selector=sum_logprob model.format=io-letters""",
    "marc": """adapt.method=lora adapt.targets=leave_two_out adapt.rank=128 adapt.alpha=16 adapt.lr=5e-5 adapt.steps=250
        adapt.sequences=250 adapt.batch_tokens=1 adapt.batch_sequences=2 adapt.decay=cosine decode.search=greedy vote.selector=hierarchical""",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_hold_the_published_numbers(name):
    """Setting a published number again changes nothing."""
    for number in PUBLISHED[name].split():
        assert config.preset(name, [number]) == config.preset(name), number


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
    "override",
    ["adapt.rank=0", "adapt.lr=nan", "adapt.lr=-1", "adapt.clip_norm=-1", "adapt.max_memory_gib=inf", "decode.floor=2"]
    + [
        "adapt.alpha=-1",
        "adapt.embedding_lr=-1",
        "decode.draft_views=0",
        "decode.batch_tokens=0",
        "rescore.batch_tokens=-5",
    ],
)
def test_a_value_out_of_range_names_field_value_and_remedy(override):
    name, value = override.split("=")
    with pytest.raises(InputError, match=rf"{name}={value}.*give"):
        config.preset("grid", [override])
