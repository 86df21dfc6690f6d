"""The adaptation engine: the same gradient however a step is cut, memory known beforehand, and what is done without it."""

import contextlib
import dataclasses
import itertools
import math
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    NanoChatConfig,
    NanoChatForCausalLM,
)

from ttt_core.arc.augment import Augmentation, task_rng, view
from ttt_core.arc.encode import DIGITS, GridFormat, Sequence
from ttt_core.arc.result import OUT_OF_TIME
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import PRESETS, AdaptConfig, preset
from ttt_core.errors import ModelError
from ttt_core.model import kernels, lora, memory, optim, packing
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.load import LoadedModel
from ttt_core.run import passes
from ttt_core.run.worker import load_solver
from ttt_core.solve import adapt, fit
from ttt_core.solve.adapt import adapted, for_inference, trainable
from ttt_core.solve.feed import (
    batch_of,
    context_tokens,
    lengths_of,
    micro_batches,
    packed_of,
    step_rows,
    stream,
    target_logits,
)
from ttt_core.solve.prefix import Query, batches, refuse_windows

CPU = torch.device("cpu")


def gpt2(dtype, layers, width):
    config = GPT2Config(vocab_size=15, n_positions=4096, n_embd=width, n_layer=layers, n_head=2)
    return GPT2LMHeadModel._from_config(config, dtype=dtype, attn_implementation="sdpa")


def llama(dtype, layers, width):
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers, "vocab_size": 15}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096)
    return LlamaForCausalLM._from_config(config, dtype=dtype, attn_implementation="sdpa")


def grid(dtype, layers, width):
    net = GridLM(GridLMConfig(width=width, layers=layers, heads=2, task_ids=["a", "b"]))
    for layer in net.layers:  # else zero: a block without effect would hide its errors
        nn.init.normal_(layer.attn.o_proj.weight, std=0.1), nn.init.normal_(layer.mlp.down_proj.weight, std=0.1)
    return net


KINDS = {"conv1d": gpt2, "linear": llama, "grid": grid}


def loaded(kind, dtype=torch.float32, layers=2, width=32):
    torch.manual_seed(0)
    net = KINDS[kind](dtype, layers, width).eval()
    format = GridFormat() if kind == "grid" else DIGITS
    return LoadedModel(net, format, CPU, dtype, path="", sha256="")


def a_task(sides=(2, 3, 5), seed=0):
    rng = np.random.default_rng(seed)
    pairs = (Pair(*(rng.integers(0, 10, (n, n + i)).astype(np.uint8) for i in (0, 1))) for n in sides)
    return Task("t", tuple(pairs), (Pair(np.zeros((2, 2), np.uint8)),))


def some_rows(model, count=7):
    rows = stream(model, a_task(), AdaptConfig(), task_rng(0, "rows"))
    return [next(rows) for _ in range(count)]


def shaken(groups):
    """The parameters of `groups` away from where an adapter has no effect."""
    generator = torch.Generator().manual_seed(1)
    parameters = [p for group in groups for p in group["params"]]
    with torch.no_grad():
        for p in parameters:
            p.requires_grad_(True).add_(0.1 * torch.randn(p.shape, generator=generator))
    return parameters


def plain_gradient(model, rows, parameters):
    """The gradient by the model's own forward over one padded batch."""
    F.cross_entropy(*target_logits(model, batch_of(model, *map(list, zip(*rows, strict=True))))).backward()
    gradient = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return gradient


def engine_gradient(model, rows, parameters, micro_tokens=1 << 20, checkpoint=False, weigh=True):
    batches = [packed_of(model, part) for part in micro_batches(rows, micro_tokens)]
    count = sum(len(batch.targets) for batch in batches)
    with packing.packed(model.net, model.dtype, checkpoint):
        for batch in batches:
            each = count if weigh else len(batch.targets) * len(batches)
            (packing.target_loss(model.net, batch) / each).backward()
    gradient = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    return gradient


def far(left, right):
    """The largest difference between two gradients, relative to the largest element."""
    scale = max(float(a.abs().max()) for a in left)
    return max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True)) / scale


CUTS = {
    "packed": {},
    "accumulated": {"micro_tokens": 120},
    "checkpointed": {"checkpoint": True},
    "one by one, checkpointed": {"micro_tokens": 1, "checkpoint": True},
}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_plain_one_however_the_step_is_cut(kind, method, monkeypatch):
    model = loaded(kind)
    rows = some_rows(model)
    assert len({len(row) for row, _ in rows}) > 1
    with trainable(model, "t", AdaptConfig(method=method, rank=4, embedding_lr=1e-3), 0) as groups:
        parameters = shaken(groups)
        expected = plain_gradient(model, rows, parameters)
        for cut in CUTS.values():
            assert far(expected, engine_gradient(model, rows, parameters, **cut)) < 1e-5
        monkeypatch.setattr(packing, "CHUNK_LOGITS", 15 * 10)
        assert far(expected, engine_gradient(model, rows, parameters)) < 1e-5
        # A mean of means is what accumulation gets wrong.
        assert far(expected, engine_gradient(model, rows, parameters, micro_tokens=120, weigh=False)) > 1e-3


def test_sequences_of_one_row_do_not_see_each_other_and_those_of_one_sequence_do():
    model = loaded("linear")
    rows = some_rows(model, 3)
    other = dataclasses.replace(rows[1][0], ids=rows[1][0].ids[::-1].copy())
    with packing.packed(model.net, torch.float32), torch.no_grad():
        alone = float(packing.target_loss(model.net, packed_of(model, [rows[0]])))
        for neighbour in (rows[1][0], other):
            both = packing.target_loss(model.net, packed_of(model, [rows[0], (neighbour, 0)]))
            rest = packing.target_loss(model.net, packed_of(model, [(neighbour, 0)]))
            assert float(both - rest) == pytest.approx(alone, rel=1e-5)
        one = dataclasses.replace(packed_of(model, rows[:2]), runs=(packing.Run(1, sum(len(r) for r, _ in rows[:2])),))
        assert abs(float(packing.target_loss(model.net, one) - both)) > 1e-2, "one long sequence would pass"


def test_no_gradient_goes_below_the_lowest_adapted_layer():
    model = loaded("linear", layers=4)
    lora.inject(model.net, rank=4, alpha=4, targets=["layers.2.mlp.up_proj", "layers.3.mlp.up_proj"])
    seen = []
    for layer in model.net.model.layers:
        layer.register_forward_hook(lambda module, args, out: seen.append(out if torch.is_tensor(out) else out[0]))
    with packing.packed(model.net, torch.float32):
        packing.target_loss(model.net, packed_of(model, some_rows(model, 2))).backward()
    assert [out.requires_grad for out in seen] == [False, False, True, True]
    assert all((p.grad is not None) == ("lora" in name) for name, p in model.net.named_parameters())


LEARNT = [("conv1d", {}), ("linear", {}), ("linear", {"embedding_lr": 1e-3}), ("grid", {})]
LEARNT += [("grid", {"method": "full", "optimizer": "muon"})]


@pytest.mark.parametrize(("name", "learnt"), LEARNT)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_estimate_is_within_15_percent_of_the_measured_peak(name, learnt, checkpoint):
    model = loaded(name, torch.bfloat16, layers=6, width=64)
    config = AdaptConfig(rank=8, steps=2, **learnt)
    rows = stream(model, a_task(sides=(11, 11, 11)), config, task_rng(0, "rows"))
    micro_tokens = 900
    steps = [[next(rows) for _ in range(8 if name == "grid" else 3)]] * 2
    size = max(sum(len(row) for row, _ in part) for part in micro_batches(steps[0], micro_tokens))
    before = sum(p.nbytes for p in model.net.parameters())
    guess = adapt.estimate_of(model, config, checkpoint)
    with memory.Meter() as meter, trainable(model, "t", config, 0) as groups:
        plan = fit.Plan(micro_tokens, checkpoint, 4096)
        fit.fit(model, lambda _: iter(steps), groups, config, plan, float("inf"))
    assert before + meter.peak == pytest.approx(guess.total(size), rel=0.15)
    assert abs(guess.total(size // 2) / (before + meter.peak) - 1) > 0.15, "half the tokens would pass"


@pytest.mark.parametrize(("steps", "seconds", "note"), [(10**6, 0.5, OUT_OF_TIME), (2, math.inf, ""), (2, 600.0, "")])
def test_an_adaptation_says_whether_the_clock_ended_it(steps, seconds, note):
    config = AdaptConfig(rank=4, steps=steps, batch_tokens=64)
    model = loaded("grid")
    adapt.estimate_of(model, adapt.weighed(config), False)  # which takes most of half a second
    with adapted(model, a_task(), config, task_rng(0, "t"), time.monotonic() + seconds) as done:
        assert done.note == note and 0 < done.steps <= steps


def test_the_plan_gives_up_speed_before_it_gives_up_demonstrations():
    model, config = loaded("linear", layers=6, width=64), AdaptConfig(rank=8)
    plain, thrifty = (adapt.estimate_of(model, adapt.weighed(config), c) for c in (False, True))
    assert thrifty.per_token < 0.7 * plain.per_token

    def plan(limit, longest):
        return adapt.plan_of(model, dataclasses.replace(config, max_memory_gib=limit / 2**30), longest)

    assert plan(plain.total(10_000), 3_000) == fit.Plan(3_000, False, 4096)
    assert plan(plain.total(10_000), 300) == fit.Plan(adapt.CPU_MICRO_TOKENS, False, 4096)
    smaller = plan(plain.total(1_000), 300)  # micro-batches
    assert not smaller.checkpoint and 990 < smaller.micro_tokens <= 1_000
    tight = plan(plain.total(2_500), 3_000)  # a plain step would hold more of the micro-batch of 2048 than it needs
    assert tight.checkpoint and tight.micro_tokens == 3_000 and tight.max_tokens > 3_000
    short = plan(thrifty.total(1_000), 3_000)
    assert short.checkpoint and 990 < short.max_tokens == short.micro_tokens <= 1_000


@pytest.mark.parametrize("name", PRESETS)
def test_one_estimate_serves_all_passes_of_a_task(name):
    first, further = PRESETS[name], passes.wider(PRESETS[name])
    assert (
        adapt.weighed(first.adapt)
        == adapt.weighed(further.adapt)
        != adapt.weighed(dataclasses.replace(first.adapt, rank=7))
    )


@pytest.mark.parametrize("kind", ["linear", "grid"])
def test_the_longest_sequence_counts_grids_on_their_side(kind):
    model = loaded(kind)
    wide = Task("t", (Pair(np.zeros((2, 9), np.uint8), np.zeros((2, 9), np.uint8)),), ())
    longest = {seen.dihedral: len(row) for seen, row in views_of(model, wide)}
    assert longest[1] > longest[0] and max(lengths_of(model, wide, AdaptConfig())) == max(longest.values())


@pytest.mark.parametrize(("side", "long_steps", "steps"), [(2, 2, 3), (9, 2, 2), (9, 0, 3), (9, 5, 3)])
def test_where_each_sequence_is_a_step_of_its_own_fewer_are_taken(side, long_steps, steps):
    square = np.zeros((side, side), np.uint8)
    task, config = Task("t", (Pair(square, square),), ()), AdaptConfig(steps=3, long_steps=long_steps, batch_tokens=20)
    with adapted(loaded("grid"), task, config, np.random.default_rng(0), float("inf")) as done:
        assert done.steps == steps


def views_of(model, task):
    for dihedral in range(8):
        seen = Augmentation(dihedral)
        yield from ((seen, row) for row in model.format.training(view(seen, task)))


def out_of_memory_above(monkeypatch, tokens, checkpointed_tokens):
    """Training steps fail as CPU and CUDA do where a row has more tokens than that."""
    real, seen = fit.target_loss, []

    def limited(net, batch):
        is_checkpointed = any("forward" in block.__dict__ for block in packing.blocks_of(net))
        seen.append((len(batch.ids), is_checkpointed))
        if len(batch.ids) > (checkpointed_tokens if is_checkpointed else tokens):
            kinds = [
                torch.OutOfMemoryError("CUDA out of memory"),
                RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            ]
            raise kinds[len(seen) % 2]
        return real(net, batch)

    monkeypatch.setattr(fit, "target_loss", limited)
    return seen


def rows_taken(monkeypatch):
    """Of every step that is tried from now on, the tokens of its rows."""
    real, taken = fit.train_step, []

    def noted(model, rows, *rest):
        taken.append([row.ids.tobytes() for row, _ in rows])
        return real(model, rows, *rest)

    monkeypatch.setattr(fit, "train_step", noted)
    return taken


def test_a_step_that_failed_is_taken_again_with_the_same_sequences(monkeypatch):
    model, taken = loaded("linear"), rows_taken(monkeypatch)
    config = AdaptConfig(steps=3, batch_tokens=4000, rank=4, max_memory_gib=100)
    for limit in (1 << 20, 1500):
        out_of_memory_above(monkeypatch, limit, limit)
        with adapted(model, LONG, config, task_rng(0, "a"), float("inf")) as adaptation:
            assert adaptation.steps == 3
    assert taken[3] == taken[4] and taken[:3] == taken[-3:]


def test_memory_that_ends_in_the_first_optimizer_step_leaves_the_weights_as_they_were(monkeypatch):
    model = loaded("linear", torch.float16)
    config = AdaptConfig(method="full", optimizer="muon", steps=3, batch_tokens=300, lr=1e-2, max_memory_gib=100)
    before = {name: p.detach().clone() for name, p in model.net.named_parameters()}
    real, calls = optim.Muon.step, []

    def once_out_of_memory(self, closure=None):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, closure)

    moved = []
    for step in (None, once_out_of_memory):
        with monkeypatch.context() as patch:
            if step:
                patch.setattr(optim.Muon, "step", step)
            with adapted(model, LONG, dataclasses.replace(config, batch_tokens=4000), task_rng(0, "a"), 1e18) as done:
                assert done.steps == 3
                norms = {name: p for name, p in model.net.named_parameters() if p.ndim == 1}  # AdamW's
                moved.append(torch.cat([p - before[name].float() for name, p in norms.items()]))
    assert len(calls) == 4 and (moved[0] - moved[1]).norm() < 0.1 * moved[0].norm(), "AdamW took a step too many"
    monkeypatch.setattr(optim.Muon, "step", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA error: out of memory")))
    with adapted(model, a_task(sides=(2, 3)), config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.steps == 0 and "memory" in adaptation.note
        assert all(torch.equal(p.half(), before[name]) for name, p in model.net.named_parameters()), "AdamW stepped"


def test_in_float16_an_overflow_holds_back_every_optimizer(monkeypatch):
    model, steps = loaded("linear", torch.float16), []
    config = AdaptConfig(method="full", optimizer="muon", steps=2, batch_tokens=300, lr=1e-2, clip_norm=0.0)
    for kind in (optim.Muon, torch.optim.AdamW):
        monkeypatch.setattr(kind, "step", lambda self, real=kind.step, kind=kind: [steps.append(kind), real(self)])
    real, calls = fit.target_loss, []

    def once_infinite(net, batch):
        calls.append(1)
        if len(calls) == 2:  # in the gradient of one matrix, which is Muon's
            weight = net.model.layers[0].mlp.up_proj.weight
            return real(net, batch) + 0 * weight.sum() + (weight.detach().float() - weight.float()).sum() * 1e36
        return real(net, batch)

    monkeypatch.setattr(fit, "target_loss", once_infinite)
    with adapted(model, a_task(), config, task_rng(0, "a"), float("inf")) as adaptation:
        assert len(adaptation.losses) == 2 and sorted(map(str, steps)) == sorted(
            map(str, (optim.Muon, torch.optim.AdamW))
        )
        assert all(torch.isfinite(p).all() for p in model.net.parameters())


@pytest.mark.parametrize("count", [3, 0])
def test_sequences_are_repeated_where_the_preset_says_how_many(count, monkeypatch):
    model, taken = loaded("linear"), rows_taken(monkeypatch)
    config = AdaptConfig(steps=6, batch_tokens=1, rank=4, sequences=count)
    with adapted(model, a_task(), config, task_rng(0, "a"), float("inf")):
        assert len({ids for [ids] in taken}) == (count or 6) and (taken[:3] == taken[3:]) == bool(count)


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_sees_the_places_of_targets_alone(kind):
    model, seen = loaded(kind), []
    if kind == "grid":
        model.net.set_tasks(torch.zeros(8, 32))
    model.net.get_output_embeddings().register_forward_hook(lambda module, args, out: seen.append(out.shape))
    batch = packed_of(model, some_rows(model))
    with packing.packed(model.net, torch.float32):
        packing.target_loss(model.net, batch)
    assert seen == [(len(batch.targets), 15)] and len(batch.targets) < 0.8 * len(batch.ids)


@pytest.mark.parametrize(
    ("kind", "names"), [("linear", {"LlamaMLP", "LlamaRMSNorm"}), ("conv1d", {"NewGELUActivation"})]
)
def test_the_slow_parts_of_a_transformers_model_are_replaced(kind, names):
    net = loaded(kind).net
    with packing.packed(net, torch.float32):
        assert {type(module).__name__ for module in net.modules() if "forward" in module.__dict__} == names
    assert not any("forward" in module.__dict__ for module in net.modules())


@pytest.fixture
def granite():
    """A model that divides its logits by 8."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = GraniteConfig(vocab_size=15, num_key_value_heads=2, logits_scaling=8.0, **sizes)
    return GraniteForCausalLM._from_config(config, attn_implementation="sdpa").eval()


def test_a_model_with_logits_of_its_own_is_refused_before_it_is_trained_on_others(granite, monkeypatch):
    with pytest.raises(ModelError, match="GraniteForCausalLM: packed logits differ"):
        packing.refuse_unequal(granite, torch.float32)
    for kind in KINDS:
        for dtype in (torch.float32, torch.bfloat16):
            packing.refuse_unequal(loaded(kind, dtype).net, dtype)
    monkeypatch.setattr(
        packing, "_attention", lambda module, query, key, value, *_, **__: (value.transpose(1, 2), None)
    )
    with pytest.raises(ModelError, match="GPT2LMHeadModel: packed logits differ"):
        packing.refuse_unequal(loaded("conv1d").net, torch.float32)


def test_in_float32_a_packed_pass_differs_by_no_more_than_float32_rounds():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = NanoChatConfig(vocab_size=15, num_key_value_heads=2, final_logit_softcapping=15.0, **sizes)
    net = NanoChatForCausalLM._from_config(config, attn_implementation="sdpa").eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.3)
    with pytest.raises(ModelError, match=r"NanoChatForCausalLM: packed logits differ by 0\.01"):
        packing.refuse_unequal(net, torch.float32)


def test_the_worker_refuses_such_a_model_when_it_is_loaded(granite, tmp_path):
    granite.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="adapt.method=none"):
        load_solver(str(tmp_path), "cpu", preset("marc"))
    load_solver(str(tmp_path), "cpu", preset("marc", ["adapt.method=none"]))


def test_a_worker_refuses_at_its_start_what_no_task_could_be_solved_with(tmp_path):
    loaded("conv1d").net.save_pretrained(tmp_path / "gpt2")
    loaded("grid").net.save_pretrained(tmp_path / "grid")
    for model, settings, told in [
        ("gpt2", ["adapt.method=vectors"], "has no task vectors; set it to lora or full"),
        ("grid", ["adapt.optimizer=adamw8bit"], "bitsandbytes is not installed"),
        ("grid", ["adapt.optimizer=adamw8bit", "adapt.method=full"], "bitsandbytes is not installed"),
    ]:
        with pytest.raises(ModelError, match=told):
            load_solver(str(tmp_path / model), "cpu", preset("grid", settings))


def test_layers_and_limits_are_those_of_a_multimodal_models_text_part():
    model = loaded("linear")
    text = model.net.config
    model.net.config = SimpleNamespace(get_text_config=lambda: text)
    text.sliding_window = 300
    assert context_tokens(model) == 300
    refuse_windows(model)
    text.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ModelError, match="layers with sliding_attention; search needs full attention"):
        refuse_windows(model)


def test_longrope_is_used_as_long_as_it_was_before_it_was_extended():
    model = loaded("linear")
    assert context_tokens(model) == 4096
    model.net.config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 700}
    assert context_tokens(model) == 700
    model.net.config.rope_parameters = {"rope_type": "yarn", "original_max_position_embeddings": 700}
    assert context_tokens(model) == 4096


def test_a_sliding_window_bounds_what_is_trained_on_and_asked():
    model = loaded("linear")
    model.net.config.sliding_window = 512
    assert context_tokens(model) == 512
    query = Query(Sequence(*np.zeros((3, 512), np.int64)), 0)  # no room is left for an answer
    assert not list(batches(model, [query], 4096, Counter()))
    model.net.config.use_sliding_window = False
    assert context_tokens(model) == 4096


LONG = a_task(sides=(12, 12, 12))  # of 938 and 940 tokens
RUNGS = {
    "halve": (1500, 1500, lambda plan: plan.micro_tokens <= 1500 and not plan.checkpoint and plan.max_tokens == 4096),
    "checkpoint": (600, 2000, lambda plan: plan.checkpoint and plan.max_tokens == 4096),
    "shorten": (100, 700, lambda plan: plan.checkpoint and plan.max_tokens <= 700),
    "unadapted": (50, 50, lambda plan: True),
}


def test_a_context_that_becomes_too_short_for_all_sequences_leaves_what_was_learnt(monkeypatch):
    real, calls = fit.less, []

    def much_less(plan, rows):
        calls.append(plan)
        return dataclasses.replace(real(plan, rows) or plan, max_tokens=8)

    real_step, steps = fit.train_step, []

    def failing(*args):
        steps.append(args)
        if len(steps) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return real_step(*args)

    monkeypatch.setattr(fit, "less", much_less)
    monkeypatch.setattr(fit, "train_step", failing)
    config = AdaptConfig(steps=5, batch_tokens=4000, rank=4, max_memory_gib=100)
    with adapted(loaded("linear"), LONG, config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.steps == 2 and adaptation.note == fit.OUT_OF_MEMORY and len(calls) == 1


@pytest.mark.parametrize("rung", RUNGS)
def test_each_rung_of_the_back_off_is_climbed_when_memory_ends(rung, monkeypatch):
    model = loaded("linear")
    tokens, checkpointed, holds = RUNGS[rung]
    seen = out_of_memory_above(monkeypatch, tokens, checkpointed)
    before = {name: p.detach().clone() for name, p in model.net.named_parameters()}
    config = AdaptConfig(steps=3, batch_tokens=4000, rank=4, max_memory_gib=100)
    with adapted(model, LONG, config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.steps == (0 if rung == "unadapted" else 3) and holds(adaptation.plan), adaptation
        assert max(len_ for len_, _ in seen) > tokens, "nothing failed"
        if rung == "unadapted":
            assert "memory" in adaptation.note
            assert all(not layer.lora_B.any() for layer in lora.adapter_layers(model.net).values())
    assert all(torch.equal(p, before[name]) for name, p in model.net.named_parameters())


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    model = loaded("linear")

    def broken(net, batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(fit, "target_loss", broken)
    with pytest.raises(RuntimeError, match="mat1"), adapted(model, LONG, AdaptConfig(steps=1), task_rng(0), 1e18):
        pass


def test_a_failed_step_is_retried_when_its_tensors_are_gone(monkeypatch):
    """Inside the except block the traceback would still hold what filled the memory."""
    import weakref

    model, real, refs, alive = loaded("linear"), fit.target_loss, [], []

    def once(net, batch):
        if not refs:
            activations = torch.zeros(1000)
            refs.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")
        alive.append(refs[0]() is not None)
        return real(net, batch)

    monkeypatch.setattr(fit, "target_loss", once)
    with adapted(model, LONG, AdaptConfig(steps=1, rank=4, batch_tokens=2000), task_rng(0, "a"), 1e18) as adaptation:
        assert adaptation.steps == 1 and not any(alive)
    error = torch.OutOfMemoryError("held")
    try:  # the naive twin: retrying inside the except block
        held = torch.zeros(1000)
        raise error
    except torch.OutOfMemoryError as caught:
        assert caught.__traceback__.tb_frame.f_locals["held"] is held


@pytest.mark.parametrize(("steps", "at", "kept"), [(30, 16, 0), (30, 17, 16), (4, 4, 0)])
def test_an_update_that_spoils_the_weights_is_neither_kept_nor_the_result(steps, at, kept, monkeypatch):
    model, config = loaded("linear"), AdaptConfig(method="full", steps=steps, batch_tokens=300, lr=1e-4)
    real = fit.train_step

    def spoiling(model, rows, state, *rest):
        loss = real(model, rows, state, *rest)
        if len(state.losses) + 1 == at:
            with torch.no_grad():
                state.parameters[0].fill_(math.inf)
        return loss

    monkeypatch.setattr(fit, "train_step", spoiling)
    with adapted(model, a_task(), config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.rolled_back and adaptation.steps == kept and adaptation.note == fit.DIVERGED
        assert all(torch.isfinite(p).all() for p in model.net.parameters())


def test_without_room_for_the_estimate_the_task_goes_on_unadapted(monkeypatch):
    def full(*_):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(adapt, "estimate_of", full)
    with adapted(loaded("linear"), a_task(), AdaptConfig(), task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.steps == 0 and adaptation.note == f"{fit.OUT_OF_MEMORY}: could not create a primitive"


def test_where_what_is_trained_finds_no_room_nothing_is_taken_and_the_task_goes_on_unadapted():
    model = loaded("linear")
    config = AdaptConfig(method="full", max_memory_gib=1e-4, steps=2)
    with adapted(model, a_task(), config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.steps == 0 and adaptation.plan is None
        assert "alone take" in adaptation.note and "of 0.0001 GiB; set adapt.method=lora" in adaptation.note
        assert not any(p.requires_grad for p in model.net.parameters())


@pytest.mark.parametrize("place", ["lora.wrap", "fit._keep", "fit.make_optimizers"])
def test_memory_that_ends_before_the_first_step_leaves_the_task_unadapted(place, monkeypatch):
    model, config = loaded("linear"), AdaptConfig(steps=2, rank=4, batch_tokens=200)
    before = {name: p.detach().clone() for name, p in model.net.named_parameters()}
    adapt.estimate_of(model, adapt.weighed(config), False)

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    module, name = place.split(".")
    monkeypatch.setattr({"lora": lora, "fit": fit}[module], name, full)
    with adapted(model, a_task(), config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.steps == 0 and adaptation.note.startswith(f"{fit.OUT_OF_MEMORY}: CUDA out of memory")
        assert not lora.adapter_layers(model.net)
    after = dict(model.net.named_parameters())
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_step_has_at_least_so_many_sequences():
    model, task = loaded("linear"), a_task()
    for tokens, sequences, counts in ((1, 1, {1}), (1, 3, {3}), (1000, 3, set(range(3, 99)))):
        steps = itertools.islice(step_rows(stream(model, task, AdaptConfig(), task_rng(0, "a")), tokens, sequences), 6)
        assert {len(step) for step in steps} <= counts


def test_a_model_whose_own_logits_overflow_is_refused():
    net = loaded("linear").net
    with torch.no_grad():
        net.get_output_embeddings().weight.fill_(float("inf"))
    with pytest.raises(ModelError, match="not finite in float32; take model.dtype=float32"):
        packing.refuse_unequal(net, torch.float32)


def test_float16_scales_its_loss_and_survives_an_overflow(monkeypatch):
    model = loaded("linear", torch.float16)
    config = AdaptConfig(steps=4, rank=4, batch_tokens=300, lr=1e-2)
    real, scales = fit.target_loss, []

    def once_infinite(net, batch):
        scales.append(1)
        loss = real(net, batch)
        return loss * 1e8 if len(scales) == 2 else loss  # finite, but its scaled gradient is not

    monkeypatch.setattr(fit, "target_loss", once_infinite)
    with adapted(model, a_task(), config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.steps == 4 and not adaptation.rolled_back
        parameters = lora.adapter_parameters(model.net)
        assert {p.dtype for p in parameters} == {torch.float32}
        assert any(p.any() for p in parameters) and all(torch.isfinite(p).all() for p in parameters)
    monkeypatch.setattr(fit, "target_loss", lambda net, batch: real(net, batch) * float("nan"))
    with adapted(model, a_task(), config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.rolled_back and adaptation.steps == 0


def test_contexts_longer_than_the_models_positions_lose_demonstrations():
    model = loaded("conv1d")
    model.net.config.n_positions = 300
    config = AdaptConfig(steps=2, rank=4, batch_tokens=1)
    with adapted(model, a_task(sides=(8, 8, 8)), config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.steps == 2 and adaptation.plan.max_tokens == 300
    rows = stream(model, a_task(sides=(8, 8, 8)), config, task_rng(0, "a"))
    assert len(next(rows)[0]) > 300, "without the limit"


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_for_inference_computes_the_same_and_gives_every_weight_back(kind, method):
    model = loaded(kind)
    with trainable(model, "t", AdaptConfig(method=method, rank=4), 0) as groups:
        shaken(groups)
        batch = batch_of(model, *map(list, zip(*some_rows(model), strict=True)))
        before = {name: p.clone() for name, p in model.net.state_dict().items()}
        plain, _ = target_logits(model, batch)
        with for_inference(model):
            within, _ = target_logits(model, batch)
            assert not lora.adapter_layers(model.net), "merged into plain layers"
        assert all(torch.equal(before[name], p) for name, p in model.net.state_dict().items())
        torch.testing.assert_close(within, plain, rtol=1e-4, atol=1e-4)
        assert torch.equal(target_logits(model, batch)[0], plain)
        assert bool(lora.adapter_layers(model.net)) == (method == "lora")


def test_for_inference_gives_the_weights_back_after_an_error(monkeypatch):
    model = loaded("grid", torch.bfloat16)
    with trainable(model, "t", AdaptConfig(rank=4), 0) as groups:
        shaken(groups)
        before = {name: p.clone() for name, p in model.net.state_dict().items()}
        real = lora.merge
        monkeypatch.setattr(lora, "merge", lambda net: [real(net), 1 / 0])
        with pytest.raises(ZeroDivisionError), for_inference(model):
            pass
        assert {name: p.dtype for name, p in model.net.state_dict().items()} == {n: p.dtype for n, p in before.items()}
        assert all(torch.equal(before[name], p) for name, p in model.net.state_dict().items())


@pytest.mark.parametrize("method", ["none", "lora", "full"])
def test_matrices_are_cast_once_where_autocast_would_cast_them_in_every_pass(method, monkeypatch):
    model, outcomes = loaded("grid", torch.bfloat16), []
    for is_cast in (True, False):
        if not is_cast:
            monkeypatch.setattr(adapt, "narrowed", lambda *args, **named: contextlib.nullcontext())
        config, rng = AdaptConfig(method=method, steps=3, rank=4, lr=1e-2), task_rng(0, "t")
        with adapted(model, a_task(), config, rng, math.inf) as adaptation:
            kinds = {layer.weight.dtype for layer in lora.linear_layers(model.net).values()}
            assert kinds == {torch.bfloat16 if is_cast and method != "full" else torch.float32}
            batch = batch_of(model, *map(list, zip(*some_rows(model), strict=True)))
            with for_inference(model):
                kinds = {layer.weight.dtype for layer in lora.linear_layers(model.net).values()}
                assert kinds == {torch.bfloat16 if is_cast else torch.float32}
                outcomes.append((*adaptation.losses, target_logits(model, batch)[0]))
        assert {p.dtype for p in model.net.parameters()} == {torch.float32}
    assert outcomes[0][:-1] == outcomes[1][:-1]
    torch.testing.assert_close(outcomes[0][-1], outcomes[1][-1], rtol=0, atol=0.05 if method == "lora" else 0)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("embedding_lr", [0.0, 1e-3])
def test_for_inference_does_not_round_an_adapter_into_bfloat16_weights(embedding_lr, kind):
    model = loaded(kind, torch.bfloat16)
    with trainable(model, "t", AdaptConfig(rank=4, embedding_lr=embedding_lr), 0) as groups:
        shaken(groups)
        with for_inference(model):
            layers = lora.adapter_layers(model.net).values()
            assert layers and not any(layer.original for layer in layers)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("embedding_lr", [0.0, 1e-3])
def test_for_inference_casts_an_adapter_once_and_gives_its_float32_back(embedding_lr, dtype):
    model = loaded("linear", dtype)
    with trainable(model, "t", AdaptConfig(rank=4, embedding_lr=embedding_lr), 0) as groups:
        shaken(groups)
        batch = batch_of(model, *map(list, zip(*some_rows(model), strict=True)))
        before, plain = [p.clone() for p in lora.adapter_parameters(model.net)], target_logits(model, batch)[0]
        with pytest.raises(ZeroDivisionError), for_inference(model):
            assert {p.dtype for p in lora.adapter_parameters(model.net)} == {dtype}
            assert torch.equal(target_logits(model, batch)[0], plain)
            1 / 0
        assert all(map(torch.equal, lora.adapter_parameters(model.net), before))
        assert {p.dtype for p in lora.adapter_parameters(model.net)} == {torch.float32}


def test_float16_norms_do_not_lose_gradients_that_the_plain_ones_keep():
    torch.manual_seed(0)
    x, weight = torch.randn(4, 64), torch.ones(64)
    x[:, 0] = 8000.0  # what large models have in some channels
    gradients = []
    for dtype in (torch.float32, torch.float16):
        given = x.detach().clone().to(dtype).requires_grad_()
        (kernels.rms_norm(given, weight.to(dtype), 1e-6, dtype) * 30).sum().backward()
        gradients.append(given.grad.double())
    assert gradients[1].isfinite().all()
    assert (gradients[1] - gradients[0]).norm() < 0.01 * gradients[0].norm()


def test_trained_embeddings_go_with_layer_norms_of_fewer_bits():
    model = loaded("conv1d", torch.bfloat16)
    before = {name: p.clone() for name, p in model.net.named_parameters()}
    config = AdaptConfig(steps=2, embedding_lr=1e-3, targets="all_outputs")
    with adapted(model, a_task(), config, task_rng(0, "a"), math.inf) as done:
        assert done.steps == 2 and all(map(math.isfinite, done.losses))
    assert all(torch.equal(p, before[name]) and p.dtype == torch.bfloat16 for name, p in model.net.named_parameters())


def test_rates_and_scaling_are_those_of_the_settings():
    config = AdaptConfig(rank=4, alpha=6.0, lr=1e-3, vector_lr=5e-2, embedding_lr=2e-4)
    for rslora, scaling in ((False, 1.5), (True, 3.0)):
        for kind, rates in (("grid", [1e-3, 2e-4, 5e-2]), ("linear", [1e-3, 2e-4])):
            model = loaded(kind)
            with trainable(model, "t", dataclasses.replace(config, rslora=rslora), 0) as groups:
                assert [group["lr"] for group in groups] == rates
                assert {layer.scaling for layer in lora.adapter_layers(model.net).values()} == {scaling}


def test_training_takes_its_share_of_the_free_memory(monkeypatch):
    model, config = loaded("linear"), AdaptConfig(rank=2)
    guess = adapt.estimate_of(model, adapt.weighed(config), False)
    monkeypatch.setattr(adapt.memory, "free_bytes", lambda device: 2 * (guess.total(400) - guess.weights))
    tokens = {
        share: adapt.plan_of(model, dataclasses.replace(config, memory_share=share), 300).micro_tokens
        for share in (0.5, 1.0)
    }
    assert tokens[0.5] == pytest.approx(400, abs=2) and tokens[1.0] > 700
