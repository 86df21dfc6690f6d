"""Every option of adapting, decoding, re-scoring and voting, and the presets that bundle them.

One frozen dataclass per stage; units stand in the names. Not here: anything about files, devices or time
limits of a run (`run/`). Unknown names are rejected with the nearest known one.
"""

import dataclasses
import difflib
import math
import typing
from dataclasses import dataclass, field

from ttt_core.errors import InputError


def _require_amounts(stage, of: str, *names: str):
    for name in names:
        _require(0 <= getattr(stage, name) < math.inf, f"{of}.{name}", getattr(stage, name), "give 0 or more")


def _require(holds: bool, name: str, value, remedy: str):
    if not holds:
        raise InputError(f"{name}={value}: {remedy}")


@dataclass(frozen=True)
class ModelConfig:
    """How a model directory is read."""

    format: typing.Literal["auto", "grid", "digits", "qwen-chat", "io-letters"] = "auto"  # auto: grid or digits
    dtype: typing.Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # of computation; auto: by the device


@dataclass(frozen=True)
class AdaptConfig:
    """How a model is adapted to one task."""

    method: typing.Literal["none", "vectors", "lora", "full"] = "lora"  # vectors: GridLM's task vectors alone
    targets: typing.Literal["all_outputs", "leave_one_out", "leave_two_out", "both"] = (
        "leave_one_out"  # of a TextFormat
    )
    steps: int = 64  # optimiser steps at most; the deadline may end it earlier
    long_steps: int = 0  # steps at most where the mean sequence is longer than batch_tokens; 0: as many as else
    batch_tokens: int = 2048  # tokens of one optimiser step at most, at least batch_sequences
    batch_sequences: int = 1  # of one optimiser step, whatever their tokens
    sequences: int = 0  # drawn once and repeated; 0: others in every step
    lr: float = 1e-4  # peak learning rate of the adapter, or of the weights under "full"
    vector_lr: float = 1e-2  # peak learning rate of GridLM's fresh task vectors
    # muon: matrices of more than 16 rows and columns, so none of LoRA up to rank 16; AdamW at a tenth of lr for the rest
    optimizer: typing.Literal["adamw", "adamw8bit", "muon"] = "adamw"
    muon_steps: int = 5  # Newton-Schulz iterations of one orthogonalisation
    warmup: float = 0.1  # share of the steps in which the rate rises linearly; then it falls (see decay)
    decay: typing.Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    clip_norm: float = 1.0  # gradient norm; 0 switches clipping off
    rank: int = 32  # of LoRA
    alpha: float = 16.0  # of LoRA: scaling = alpha / rank, or alpha / sqrt(rank) with rslora
    rslora: bool = False
    embedding_lr: float = 0.0  # above 0, LoRA also trains input embeddings and output head in full, at this rate
    time_share: float = 0.6  # of the task's seconds, at most this share goes into adaptation
    color_permutations: bool = True  # colours permuted in training views
    early_stop: bool = False  # a trial with one demonstration held out says how many of the steps are taken
    save: bool = False  # what was trained is kept in the run's folder, and gone on from
    max_memory_gib: float = 0.0  # of weights and training together; 0: by memory_share
    memory_share: float = 0.8  # of the memory that is free on the device, what training may take

    def steps_at(self, tokens: float) -> int:
        """Steps where the mean sequence has so many tokens."""
        return min(self.steps, self.long_steps) if self.long_steps and tokens > self.batch_tokens else self.steps

    def __post_init__(self):
        _require_amounts(
            self, "adapt", "steps", "long_steps", "sequences", "lr", "vector_lr", "embedding_lr", "weight_decay", "clip_norm",
            "alpha", "max_memory_gib",
        )  # fmt: skip
        _require(self.batch_tokens > 0, "adapt.batch_tokens", self.batch_tokens, "give 1 or more")
        _require(self.batch_sequences > 0, "adapt.batch_sequences", self.batch_sequences, "give 1 or more")
        _require(self.muon_steps > 0, "adapt.muon_steps", self.muon_steps, "give 1 or more")
        _require(self.rank > 0, "adapt.rank", self.rank, "give 1 or more")
        _require(0 <= self.warmup < 1, "adapt.warmup", self.warmup, "give a share in [0, 1)")
        _require(0 < self.time_share <= 1, "adapt.time_share", self.time_share, "give a share in (0, 1]")
        _require(0 < self.memory_share <= 1, "adapt.memory_share", self.memory_share, "give a share in (0, 1]")


@dataclass(frozen=True)
class DecodeConfig:
    """How candidates are searched."""

    search: typing.Literal["dfs", "greedy"] = "dfs"
    views: int = 16  # augmented views of the task that are searched
    floor: float = 0.1  # a candidate's cumulative probability at least; branches below it are cut
    max_branches: int = 64  # live branches of one view at most; the least probable are cut
    max_tokens: int = 8192  # tokens visited in one view; after that only its most probable branch goes on
    answer_tokens: int = 931  # of one answer at most, its end included; a grid of 30 x 30 has 931
    same_shape: bool = True  # answers have the input's shape where all demonstrations do
    constant_shape: bool = False  # else the outputs' shape where they have one; misleads in ARC-AGI-2 (arc/prior.py)
    palette: bool = True  # only the input's and the outputs' colours, where these explain all demonstrations
    logprobs: typing.Literal["model", "renormalised"] = "model"  # renormalised: shared out among what the grammar allows
    batch_tokens: int = 16384  # prefix tokens of one batch of views at most, at least one view; cached: twice as many
    draft_views: int = 4  # views searched first; what they find is drafted in the others
    drafts: int = 256  # tokens of a view that one pass takes for a draft, at most, on a CPU 32; 0 or 1: no drafts

    def __post_init__(self):
        _require(self.views > 0, "decode.views", self.views, "give 1 or more")
        _require(0 < self.floor < 1, "decode.floor", self.floor, "give a probability in (0, 1)")
        _require(self.max_branches > 0, "decode.max_branches", self.max_branches, "give 1 or more")
        _require(self.max_tokens > 0, "decode.max_tokens", self.max_tokens, "give 1 or more")
        _require(self.answer_tokens > 2, "decode.answer_tokens", self.answer_tokens, "give 3 or more: a cell takes 3")
        _require(self.batch_tokens > 0, "decode.batch_tokens", self.batch_tokens, "give 1 or more")
        _require(self.draft_views > 0, "decode.draft_views", self.draft_views, "give 1 or more")
        _require(self.drafts >= 0, "decode.drafts", self.drafts, "give 0 or more")


@dataclass(frozen=True)
class RescoreConfig:
    """How candidates are scored again."""

    views: int = 16  # views under which every candidate is scored; the first ones of the decoding views
    max_candidates: int = 32  # of one test input; the ones found in most views, then the most probable
    logprobs: typing.Literal["model", "renormalised"] = "model"  # as decode.logprobs; the record says which it holds
    batch_tokens: int = 16384  # tokens of one scoring batch at most, at least one candidate

    def __post_init__(self):
        _require(self.views > 0, "rescore.views", self.views, "give 1 or more")
        _require(self.batch_tokens > 0, "rescore.batch_tokens", self.batch_tokens, "give 1 or more")
        _require(self.max_candidates > 0, "rescore.max_candidates", self.max_candidates, "give 1 or more")


@dataclass(frozen=True)
class VoteConfig:
    """How two attempts are chosen."""

    selector: typing.Literal["sum_logprob", "count_minus_nll", "majority", "hierarchical"] = "sum_logprob"


@dataclass(frozen=True)
class SecondConfig:
    """What tasks in doubt get once every task had its first pass and time is left; all passes' candidates are voted on."""

    passes: int = 2  # of one task at most; 1: no second pass. Each has its own views and adaptation
    margin: float = 1.0  # nats of mean log-prob; a task whose best candidate leads by less is in doubt
    probability: float = 0.5  # so is one whose best candidate has less, the views' geometric mean
    views: int = 2  # times the views of decode and rescore
    steps: int = 2  # times adapt.steps
    floor: float = 0.3  # times decode.floor

    def __post_init__(self):
        _require(self.passes >= 1, "second.passes", self.passes, "give 1 or more")
        _require_amounts(self, "second", "margin")
        _require(0 <= self.probability <= 1, "second.probability", self.probability, "give a share in [0, 1]")
        _require(self.views > 0, "second.views", self.views, "give 1 or more")
        _require(self.steps > 0, "second.steps", self.steps, "give 1 or more")
        _require(0 < self.floor <= 1, "second.floor", self.floor, "give a share in (0, 1]")


@dataclass(frozen=True)
class Config:
    """All of one task's options."""

    model: ModelConfig = field(default_factory=ModelConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    rescore: RescoreConfig = field(default_factory=RescoreConfig)
    vote: VoteConfig = field(default_factory=VoteConfig)
    second: SecondConfig = field(default_factory=SecondConfig)


PRESETS = {
    # The bundled GridLM: what solves most in least time in kaggle_dataset/model/MODEL_CARD.md.
    "grid": Config(
        adapt=AdaptConfig(
            method="lora", optimizer="muon", steps=90, long_steps=60, lr=2e-2, vector_lr=5e-2, batch_tokens=512,
            time_share=0.8,
        ),
        decode=DecodeConfig(views=16, floor=0.1, draft_views=16),  # to wait for others' answers gains nothing
        rescore=RescoreConfig(views=16),
        vote=VoteConfig("sum_logprob"),
        second=SecondConfig(passes=4),
    ),
    # The three below hold the published numbers of other teams, as starting points; batch_tokens=1: steps by sequences.
    "nvarc": Config(  # winner of ARC Prize 2025
        model=ModelConfig(format="qwen-chat"),
        adapt=AdaptConfig(
            method="lora", rank=256, alpha=32, rslora=True, lr=5e-5, embedding_lr=5e-5, decay="cosine", warmup=0.1,
            steps=128, batch_tokens=1, targets="all_outputs",
        ),
        decode=DecodeConfig(views=16, floor=0.2),
        rescore=RescoreConfig(views=8),
        vote=VoteConfig("count_minus_nll"),
    ),
    "architects": Config(  # winner of ARC Prize 2024; the sum of log-probs is its product of experts
        model=ModelConfig(format="io-letters"),
        adapt=AdaptConfig(
            method="lora", rank=32, alpha=16, rslora=True, lr=1e-4, embedding_lr=1e-5, decay="cosine", warmup=0.5,
            steps=64, batch_tokens=1, targets="all_outputs",
        ),
        decode=DecodeConfig(views=16, floor=0.09),
        rescore=RescoreConfig(views=16),
        vote=VoteConfig("sum_logprob"),
    ),
    "marc": Config(  # 250 sequences, two epochs, two a step
        adapt=AdaptConfig(
            method="lora", rank=128, alpha=16, lr=5e-5, decay="cosine", steps=250, sequences=250, batch_tokens=1,
            batch_sequences=2, targets="leave_two_out",
        ),
        decode=DecodeConfig(views=16, search="greedy"),
        rescore=RescoreConfig(views=16),
        vote=VoteConfig("hierarchical"),
    ),
}  # fmt: skip


def preset(name: str, overrides: typing.Sequence[str] = ()) -> Config:
    """The preset `name` with `overrides` such as `"adapt.rank=64"` applied in order; InputError if unknown."""
    config = PRESETS.get(name) or _unknown("preset", name, PRESETS)
    for override in overrides:
        config = _override(config, override)
    return config


def to_dict(config: Config) -> dict:
    """Plain nested dict, as it stands in a run's receipt."""
    return dataclasses.asdict(config)


def from_dict(values: dict) -> Config:
    """Inverse of `to_dict`; unknown keys are an InputError naming the nearest known one."""
    stages = {f.name: f.type for f in dataclasses.fields(Config)}
    built = {}
    for stage, options in values.items():
        kind = stages.get(stage) or _unknown("stage", stage, stages)
        known = [f.name for f in dataclasses.fields(kind)]
        for key in options:
            if key not in known:
                _unknown(f"option {stage}.", key, known)
        built[stage] = kind(**options)
    return Config(**built)


def _override(config: Config, text: str) -> Config:
    path, _, value = text.partition("=")
    stage, _, key = path.partition(".")
    if not value or not key:
        raise InputError(f"override {text!r}: write it as STAGE.OPTION=VALUE, for example adapt.rank=64")
    if stage not in {f.name for f in dataclasses.fields(Config)}:
        _unknown("stage", stage, [f.name for f in dataclasses.fields(Config)])
    options = getattr(config, stage)
    kinds = {f.name: f.type for f in dataclasses.fields(options)}
    kind = kinds.get(key) or _unknown(f"option {stage}.", key, kinds)
    return dataclasses.replace(config, **{stage: dataclasses.replace(options, **{key: _parse(path, value, kind)})})


def _parse(path: str, value: str, kind):
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        return value if value in choices else _unknown(f"value of {path}:", value, choices)
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise InputError(f"override {path}={value}: give true or false")
        return value.lower() == "true"
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"override {path}={value}: give a value of type {kind.__name__}") from None


def _unknown(what: str, name: str, known) -> typing.NoReturn:
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.0)
    gap = "" if what.endswith(".") else " "
    raise InputError(f"unknown {what}{gap}{name}: the nearest known name is {near[0]}; known: {', '.join(known)}")
