"""LoRA against PEFT as oracle: outputs, gradients, files; then reset, merge, remove and every error."""

import copy
import json

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

from ttt_core.errors import CheckpointError, ModelError
from ttt_core.model import adapter_files, lora
from ttt_core.model.gridlm import GridLM, GridLMConfig

pytestmark = pytest.mark.usefixtures("no_torchao")
SMALL = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=15)
CONFIGS = {
    "gpt2": GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=15, n_positions=64, bos_token_id=0, eos_token_id=0),
    "llama": LlamaConfig(**SMALL, num_key_value_heads=2, bos_token_id=0, eos_token_id=0),
    "qwen3": Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8, bos_token_id=0, eos_token_id=0),
}
SOME = {"gpt2": ["c_attn", "c_proj"], "llama": ["q_proj", "down_proj"], "qwen3": ["k_proj", "gate_proj"]}


def base(name="gpt2", dtype=torch.float32):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], dtype=dtype).eval()


def ids():
    return torch.randint(0, 15, (3, 12), generator=torch.Generator().manual_seed(1))


def logits(model):
    with torch.no_grad():
        return model(input_ids=ids()).logits


def loss(model):
    return model(input_ids=ids(), labels=ids()).loss


def shake(model):
    """Random adapters, as after training; B is no longer zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in lora.adapter_parameters(model):
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
    return model


def shaken(name="gpt2", **options):
    model = base(name)
    lora.inject(model, **({"rank": 4, "alpha": 8} | options))
    return shake(model)


def through_peft(model, directory, name="gpt2"):
    """The same adapter in PEFT, by way of our files."""
    adapter_files.save_adapter(model, directory)
    return PeftModel.from_pretrained(base(name), directory, is_trainable=True)


def test_gpt2_small_anchor():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(GPT2Config())
    assert lora.inject(model, rank=8, alpha=16, targets=["c_attn", "c_proj"]) == 36
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 811_008
    assert sum(p.numel() for p in lora.adapter_parameters(model)) == 811_008


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_and_gradients_equal_pefts(name, rslora, tmp_path):
    ours = shaken(name, rank=4, alpha=6, rslora=rslora, targets=SOME[name])
    theirs = through_peft(ours, tmp_path, name)
    assert (logits(ours) - logits(base(name))).abs().max() > 1e-2, "an adapter without effect would pass"
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)
    loss(ours).backward()
    loss(theirs).backward()
    grads = {k: p.grad for k, p in theirs.named_parameters() if p.requires_grad}
    assert len(grads) == len(lora.adapter_parameters(ours))
    for path, layer in lora.adapter_layers(ours).items():
        for side in "AB":
            expected = grads[f"base_model.model.{path}.lora_{side}.default.weight"]
            torch.testing.assert_close(getattr(layer, f"lora_{side}").grad, expected, atol=1e-5, rtol=1e-5)


def test_a_training_step_keeps_agreement_with_peft(tmp_path):
    ours = shaken()
    theirs = through_peft(ours, tmp_path)
    for model in (ours, theirs):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        loss(model).backward()
        optimizer.step()
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name, targets", [*SOME.items(), ("gpt2", r".*\.1\.attn\.c_(attn|proj)")])
def test_pefts_files_load_here(name, targets, rslora, tmp_path):
    config = LoraConfig(r=3, lora_alpha=7, use_rslora=rslora, target_modules=targets, init_lora_weights=False)
    theirs = get_peft_model(base(name), config)
    theirs.save_pretrained(tmp_path)
    ours = base(name)
    assert adapter_files.load_adapter(ours, tmp_path) == len(lora.adapter_layers(ours)) > 0
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-5, rtol=1e-5)


def test_own_files_round_trip_into_an_adapted_model(tmp_path):
    ours = shaken(rank=4, alpha=5.5)
    adapter_files.save_adapter(ours, tmp_path)
    other = shaken(rank=2, alpha=1, targets=["c_fc"])
    adapter_files.load_adapter(other, tmp_path)
    assert torch.equal(logits(other), logits(ours))


def test_paths_are_written_where_last_names_would_say_too_much(tmp_path):
    ours = shaken(targets=["attn.c_proj"])
    assert torch.allclose(logits(through_peft(ours, tmp_path)), logits(ours), atol=1e-5)
    assert len(json.loads((tmp_path / adapter_files.CONFIG_FILE).read_text())["target_modules"]) == 2


def test_auto_adapts_every_block_matrix_and_no_head():
    grid = GridLM(GridLMConfig(width=32, layers=3, heads=2, hidden=64))
    assert [lora.inject(m, rank=2, alpha=2) for m in (*map(base, CONFIGS), grid)] == [8, 14, 14, 21]
    assert not any("lm_head" in path for path in lora.adapter_layers(grid))


def test_only_the_adapter_is_trainable_and_float32():
    model = base(dtype=torch.bfloat16)
    lora.inject(model, rank=4, alpha=8)
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in lora.adapter_parameters(model)}
    assert {p.dtype for p in lora.adapter_parameters(model)} == {torch.float32}
    loss(shake(model)).backward()
    assert logits(model).dtype == torch.bfloat16
    assert all(p.grad.dtype == torch.float32 and p.grad.abs().sum() > 0 for p in lora.adapter_parameters(model))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reset_gives_the_base_back_bit_for_bit(dtype):
    model = base(dtype=dtype)
    before = logits(model)
    lora.inject(model, rank=4, alpha=8, seed=3)
    first = [p.clone() for p in lora.adapter_parameters(model)]
    assert torch.equal(logits(model), before)
    shake(model)
    assert not torch.equal(logits(model), before)
    lora.merge(model)
    lora.reset(model, seed=3)
    assert torch.equal(logits(model), before)
    assert all(torch.equal(a, b) for a, b in zip(first, lora.adapter_parameters(model), strict=True))
    lora.reset(model, seed=4)
    assert not torch.equal(first[0], lora.adapter_parameters(model)[0])
    assert torch.equal(logits(model), before)


def test_a_starts_uniform_within_its_bound():
    model = base()
    lora.inject(model, rank=64, alpha=8, targets=["c_attn"])
    A = lora.adapter_parameters(model)[0]  # (64, 32)
    assert A.abs().max() <= 32**-0.5 < A.abs().max() * 1.05
    assert abs(A.mean()) < 0.02


def test_merging_twice_is_merging_once_and_unmerging_is_exact():
    model = shaken()
    before, weights = logits(model), {k: v.clone() for k, v in model.state_dict().items()}
    lora.merge(model)
    merged = {k: v.clone() for k, v in model.state_dict().items()}
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)
    assert not torch.equal(logits(model), before), "merged and unmerged ways must both run"
    lora.merge(model)
    assert all(torch.equal(merged[k], v) for k, v in model.state_dict().items())
    for path, layer in lora.adapter_layers(model).items():
        delta = layer.scaling * layer.lora_B.detach() @ layer.lora_A.detach()  # (out, in); Conv1D holds (in, out)
        torch.testing.assert_close(merged[f"{path}.base.weight"], weights[f"{path}.base.weight"] + delta.t())
    lora.unmerge(model)
    lora.unmerge(model)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert torch.equal(logits(model), before)


def test_merging_a_tied_head_leaves_the_embedding():
    model = base()
    embedding = model.transformer.wte.weight.clone()
    lora.inject(model, rank=2, alpha=4, targets=["lm_head"])
    before = logits(shake(model))
    lora.merge(model)
    assert torch.equal(model.transformer.wte.weight, embedding)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=1e-5)
    lora.remove(model)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_remove_puts_the_modules_back():
    model = base()
    before, modules = logits(model), dict(model.named_modules())
    lora.inject(model, rank=4, alpha=8)
    lora.merge(shake(model))
    lora.remove(model)
    assert dict(model.named_modules()) == modules
    assert torch.equal(logits(model), before)


def test_forward_multiplies_three_matrices_only():
    layer = lora.LoRALayer(nn.Linear(32, 48), 4, 8, False, torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        layer(torch.randn(5, 32))
    assert sum(e.count for e in profile.key_averages() if e.key in ("aten::addmm", "aten::addmm_", "aten::mm")) == 3


def test_layers_of_one_input_give_at_once_what_each_gives_by_itself():
    layers = [layer for layer in lora.adapter_layers(shaken("llama", rank=3)).values() if layer.base.in_features == 32][
        :5
    ]
    assert len({layer.base.out_features for layer in layers}) == 3
    x, results = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(3)), []
    for apply in (lora.apply, lambda x, layers: [layer(x) for layer in layers]):
        given = x.clone().requires_grad_()
        outs = apply(given, layers)
        parameters = [p for layer in layers for p in (layer.lora_A, layer.lora_B)]
        gradients = torch.autograd.grad(
            sum((k + 1) * out.sin().sum() for k, out in enumerate(outs)), [given, *parameters]
        )
        results.append([*outs, *gradients])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    layers[0].rank, layers[0].scaling = 3, 9.0  # of another kind: each by itself
    assert torch.equal(lora.apply(x, layers)[0], layers[0](x))


def test_autocast_computes_the_adapter_in_bfloat16():
    layer = lora.LoRALayer(nn.Linear(32, 48), 4, 8, False, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(torch.randn(2, 5, 32))
    assert y.dtype == torch.bfloat16 and y.shape == (2, 5, 48)
    y.sum().backward()
    assert layer.lora_B.grad.dtype == torch.float32


@pytest.mark.parametrize("kind", ["Phi3", "Phi", "OPT", "GPTNeoX"])
def test_by_default_every_linear_layer_of_the_blocks_is_adapted(kind):
    sizes = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    inner = {"ffn_dim": 48, "word_embed_proj_dim": 32} if kind == "OPT" else {"intermediate_size": 48}
    model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes, **inner))
    left = {path for path in lora.linear_layers(model) if "layers." in path}
    assert lora.inject(model, rank=2, alpha=4) == len(left) >= 4


def test_unmatched_targets_list_what_there_is():
    model = base()
    untouched = dict(model.named_modules())
    with pytest.raises(ModelError, match=r"q_proj.*choose among c_attn \(Conv1D\), .*lm_head \(Linear\)"):
        lora.inject(model, rank=4, alpha=8, targets=["c_attn", "q_proj"])
    assert dict(model.named_modules()) == untouched and all(p.requires_grad for p in model.parameters())
    with pytest.raises(ModelError, match=r"choose among 0 \(Linear\)"):
        lora.inject(nn.Sequential(nn.Linear(2, 2)), rank=4, alpha=8)
    with pytest.raises(ModelError, match="rank 0"):
        lora.inject(model, rank=0, alpha=8)
    lora.inject(model, rank=4, alpha=8)
    with pytest.raises(ModelError, match="already"):
        lora.inject(model, rank=4, alpha=8)
    with pytest.raises(ModelError, match="no adapter to save"):
        adapter_files.save_adapter(base(), "nowhere")


OTHER_KINDS = [{"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]}, {"rank_pattern": {"c_attn": 2}}]
OTHER_KINDS += [{"init_lora_weights": "pissa"}, {"peft_type": "LOHA"}, {"some_future_kind": True}]


@pytest.mark.parametrize("field", OTHER_KINDS)
def test_other_kinds_of_adapter_are_refused(field, tmp_path):
    adapter_files.save_adapter(shaken(), tmp_path)
    edit(tmp_path, **field)
    refuses(ModelError, f"{next(iter(field))}.*not implemented", tmp_path)


def test_torn_or_altered_files_are_refused(tmp_path):
    tensors, config = tmp_path / adapter_files.TENSOR_FILE, tmp_path / adapter_files.CONFIG_FILE
    adapter_files.save_adapter(shaken(), tmp_path)
    whole = tensors.read_bytes()
    for content, message in (
        (whole[:-8], "cannot be read"),
        (b"\x80\x04pickle", "cannot be read"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "checksum"),
    ):
        tensors.write_bytes(content)
        refuses(CheckpointError, message, tmp_path)
    tensors.unlink()
    refuses(CheckpointError, "cannot be read", tmp_path)
    adapter_files.save_adapter(shaken(), tmp_path)
    edit(tmp_path, r="4")
    refuses(CheckpointError, "no rank", tmp_path)
    edit(tmp_path, r=4, target_modules=[])
    refuses(CheckpointError, "target_modules", tmp_path)
    config.write_text(config.read_text()[:40])
    refuses(CheckpointError, "cannot be read", tmp_path)


def test_tensors_that_do_not_fit_are_refused(tmp_path):
    adapter_files.save_adapter(shaken(), tmp_path)
    tensors = load_file(tmp_path / adapter_files.TENSOR_FILE)
    key = "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"
    wrong_shape = tensors | {key: torch.zeros(5, 4)}
    lacking = {k: v for k, v in tensors.items() if k != key}
    extra = tensors | {"base_model.model.other.lora_A.weight": torch.zeros(4, 4)}
    for content, message in ((wrong_shape, r"shape \(5, 4\)"), (lacking, "1 missing"), (extra, "1 unexpected")):
        save_file(content, tmp_path / adapter_files.TENSOR_FILE)
        refuses(CheckpointError, message, tmp_path)
    adapter_files.save_adapter(shaken("llama"), tmp_path)
    refuses(CheckpointError, "unexpected", tmp_path)


def edit(directory, **fields):
    path = directory / adapter_files.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refuses(error, message, directory):
    """A refused adapter leaves the model, and the adapter it had, as they were."""
    model = shaken(rank=2, alpha=3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        adapter_files.load_adapter(model, directory)
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], v) for k, v in after.items())
