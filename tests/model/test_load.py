"""Loading: what comes in is what was saved, cut to the format's tokens; what could run code stays outside."""

import hashlib
import json
import pickle
import zipfile

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, Gemma4TextConfig, GPT2Config, LlamaConfig, PhiConfig

from ttt_core.arc.encode import format_named
from ttt_core.errors import InputError, ModelError
from ttt_core.model import load
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.load import compute_dtype, load_model

DIGITS = format_named("digits")
LLAMA = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
PHI = LLAMA | dict(partial_rotary_factor=0.5, pad_token_id=None)


def bytes_tokenizer():
    """Byte-level BPE without merges, as GPT-2's but for its size: 256 bytes and <eot>, token 0."""
    vocab = {text: i for i, text in enumerate(["<eot>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece_tokenizer():
    """As Llama 2's: a space before every text, unknown bytes as <0xNN>."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", *"0123456789IOE"]
    vocab = {text: i for i, text in enumerate(texts)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return tokenizer


def words_tokenizer(words):
    return Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))


def saved(path, config, tokenizer=None):
    """A random model saved in `path`, returned too; every parameter random, biases included."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(std=0.3)
    model.save_pretrained(path)
    if tokenizer:
        tokenizer.save(str(path / "tokenizer.json"))
    return model


def gpt2(path, tokenizer=None, **options):
    options = dict(n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0) | options
    return saved(path, GPT2Config(**{"vocab_size": 257, **options}), tokenizer)


def edit(path, name="config.json", **fields):
    content = json.loads((path / name).read_text()) if (path / name).exists() else {}
    (path / name).write_text(json.dumps(content | fields))


def expected_ids(tokenizer, bos):
    marks = {"\n": "\u010a", "<bos>": bos} if tokenizer.token_to_id("\u010a") else {"\n": "<0x0A>", "<bos>": bos}
    return [tokenizer.token_to_id(marks.get(symbol, symbol)) for symbol in DIGITS.symbols]


def assert_trimmed_equals_full(path, full, token_ids):
    loaded = load_model(path, device="cpu", dtype="float32")
    ids = torch.randint(0, 15, (2, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = full(input_ids=torch.tensor(token_ids)[ids]).logits[..., token_ids]
        found = loaded.net(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert loaded.net.config.vocab_size == 15 and loaded.format is DIGITS and not loaded.net.training
    return loaded


def test_tied_gpt2_is_cut_to_the_formats_tokens(tmp_path):
    tokenizer = bytes_tokenizer()
    full = gpt2(tmp_path, tokenizer)
    net = assert_trimmed_equals_full(tmp_path, full, expected_ids(tokenizer, "<eot>")).net
    assert net.lm_head.weight is net.transformer.wte.weight and net.lm_head.weight.shape == (15, 32)
    assert net.config.bos_token_id == net.config.eos_token_id == net.generation_config.bos_token_id == 14


def test_untied_llama_is_cut_to_the_formats_tokens(tmp_path):
    tokenizer = bytes_tokenizer()
    full = saved(tmp_path, LlamaConfig(**LLAMA, vocab_size=300, bos_token_id=0, eos_token_id=[5, 0]), tokenizer)
    net = assert_trimmed_equals_full(tmp_path, full, expected_ids(tokenizer, "<eot>")).net
    assert not torch.equal(net.lm_head.weight, net.model.embed_tokens.weight)
    assert net.config.eos_token_id == [14] and net.config.pad_token_id is None


def test_head_bias_is_cut_too(tmp_path):
    tokenizer = bytes_tokenizer()
    full = saved(tmp_path, PhiConfig(**PHI, vocab_size=257, bos_token_id=0, eos_token_id=0), tokenizer)
    assert full.lm_head.bias is not None
    assert_trimmed_equals_full(tmp_path, full, expected_ids(tokenizer, "<eot>"))


@pytest.mark.parametrize("rows", [257, 250])  # Gemma 3n's has fewer than the vocabulary
def test_a_second_table_of_tokens_is_refused_and_one_of_as_many_positions_is_not(rows, tmp_path):
    tokenizer = bytes_tokenizer()
    assert_trimmed_equals_full(tmp_path, gpt2(tmp_path, tokenizer, n_positions=257), expected_ids(tokenizer, "<eot>"))
    special = dict(bos_token_id=0, eos_token_id=0, pad_token_id=None, layer_types=["full_attention"] * 2)
    sizes = LLAMA | dict(num_key_value_heads=2, head_dim=8, global_head_dim=8, num_kv_shared_layers=0, vocab_size=257)
    per_layer = dict(vocab_size_per_layer_input=rows, hidden_size_per_layer_input=8)
    saved(tmp_path / "gemma", Gemma4TextConfig(**sizes, **special, **per_layer), tokenizer)
    refuses(tmp_path / "gemma", f"embed_tokens_per_layer, a second table of {rows} tokens, cannot be cut .*; take a")


def test_tokenizers_that_put_a_space_before_a_text(tmp_path):
    tokenizer = sentencepiece_tokenizer()
    full = saved(tmp_path, LlamaConfig(**LLAMA, vocab_size=273), tokenizer)
    edit(tmp_path, "tokenizer_config.json", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    assert_trimmed_equals_full(tmp_path, full, expected_ids(tokenizer, "<s>"))


def test_trimmed_model_saves_and_loads_as_what_it_is(tmp_path):
    gpt2(tmp_path / "full", bytes_tokenizer())
    first = load_model(tmp_path / "full", device="cpu", dtype="float32")
    first.net.save_pretrained(tmp_path / "cut")
    second = load_model(tmp_path / "cut", device="cpu", dtype="float32")
    ids = torch.arange(15)[None]
    assert torch.equal(first.net(input_ids=ids).logits, second.net(input_ids=ids).logits)


def test_gridlm_keeps_float32_weights(tmp_path):
    grid = GridLM(GridLMConfig(width=32, layers=2, heads=2, hidden=64, task_ids=("a", "b")))
    grid.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, device="cpu", dtype="bfloat16")
    assert isinstance(loaded.net, GridLM) and loaded.format.name == "grid" and not loaded.net.training
    assert loaded.dtype == torch.bfloat16
    weights, found = grid.state_dict(), loaded.net.state_dict()
    assert weights.keys() == found.keys() and all(torch.equal(weights[k], found[k]) for k in weights)
    assert {v.dtype for v in found.values()} == {torch.float32} and loaded.net.config.task_ids == ["a", "b"]
    assert loaded.sha256 == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()


def test_causal_lm_has_the_compute_dtype(tmp_path):
    gpt2(tmp_path, vocab_size=15)
    loaded = load_model(tmp_path, device="cpu", dtype="bfloat16")
    assert {p.dtype for p in loaded.net.parameters()} == {loaded.dtype} == {torch.bfloat16}


def test_shards_load_and_all_count_in_the_hash(tmp_path):
    full = gpt2(tmp_path / "one", vocab_size=15)
    full.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    shards = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(shards) > 1
    many = load_model(tmp_path / "many", device="cpu", dtype="float32")
    assert many.sha256 == hashlib.sha256(b"".join(s.read_bytes() for s in shards)).hexdigest()
    (tmp_path / "many/consolidated.safetensors").write_bytes(shards[0].read_bytes())  # Mistral's, not loaded
    assert load.sha256_of_weights(tmp_path / "many") == many.sha256
    ids = torch.arange(15)[None]
    assert torch.equal(many.net(input_ids=ids).logits, full(input_ids=ids).logits)
    shards[0].unlink()
    refuses(tmp_path / "many", "no safetensors file of it")


@pytest.mark.parametrize(
    "capability, expected", [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_cuda_profile(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert compute_dtype(torch.device("cuda", 0)) == expected
    assert compute_dtype(torch.device("cuda", 0), "float32") == torch.float32


@pytest.mark.parametrize(
    "capability, kernels, kind",
    [
        ((6, 1), ["sm_75", "sm_90a", "compute_90"], "cpu"),
        ((7, 5), ["sm_75", "sm_90"], "cuda"),
        ((6, 1), ["gfx90a"], "cuda"),
    ],
)
def test_a_gpu_that_torch_has_no_kernels_for_is_not_taken_by_itself(capability, kernels, kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: kernels)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    assert load._device("auto").type == kind


@pytest.mark.parametrize("native, expected", [(True, torch.bfloat16), (False, torch.float32)])
def test_cpu_profile(native, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    assert compute_dtype(torch.device("cpu")) == expected
    with pytest.warns(UserWarning, match="a CPU has no products in it"):
        assert compute_dtype(torch.device("cpu"), "float16") == expected


def refuses(path, message, error=ModelError, **options):
    with pytest.raises(error, match=message) as caught:
        load_model(path, device=options.pop("device", "cpu"), **options)
    assert "\n" not in str(caught.value)


class Bomb:
    """Unpickling it makes `path`: the proof that something was executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_refused_and_never_opened(tmp_path):
    bang = tmp_path / "bang"
    pickle.loads(pickle.dumps(Bomb(bang)))
    assert bang.exists(), "the bomb must work, or its silence would say nothing"
    bang.unlink()
    model = tmp_path / "model"
    gpt2(model, vocab_size=15)
    weights = model / "model.safetensors"
    weights.unlink()
    refuses(model, "none; convert")
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(bang)))
    refuses(model, "only pytorch_model.bin, a pickle")
    weights.write_bytes(pickle.dumps(Bomb(bang)))
    refuses(model, "is no safetensors file but a pickle or zip")
    with zipfile.ZipFile(weights, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(bang)))
    refuses(model, "is no safetensors file but a pickle or zip")
    assert not bang.exists()


def test_safetensors_that_lead_to_a_pickle_are_refused(tmp_path):
    gpt2(tmp_path, vocab_size=15)
    (tmp_path / "evil.bin").write_bytes(b"\x80\x04.")
    edit(tmp_path, "model.safetensors.index.json", weight_map={"lm_head.weight": "evil.bin"})
    refuses(tmp_path, "names evil.bin")
    (tmp_path / "model.safetensors.index.json").unlink()
    edit(tmp_path, transformers_weights="evil.bin")
    refuses(tmp_path, "transformers_weights")


@pytest.mark.parametrize("index", ["null", "[]", "{}", "{", '{"weight_map": []}', '{"weight_map": {"a": ["b"]}}'])
def test_a_damaged_index_is_refused(index, tmp_path):
    gpt2(tmp_path, vocab_size=15)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    refuses(tmp_path, "index.json cannot be used; copy it again")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(name, tmp_path):
    gpt2(tmp_path, bytes_tokenizer())
    edit(tmp_path, name, auto_map={"AutoModelForCausalLM": "evil.Model"})
    refuses(tmp_path, f"{name} has auto_map")


@pytest.mark.parametrize("method", ["bitnet", "fp8"])
@pytest.mark.parametrize("part", [None, "text_config"])
def test_quantised_weights_are_refused(method, part, tmp_path):
    gpt2(tmp_path, vocab_size=15)
    quantised = {"quantization_config": {"quant_method": method}}
    edit(tmp_path, **{part: quantised} if part else quantised)
    refuses(tmp_path, rf"is quantised \({method}\); give a checkpoint")


def test_directories_that_hold_no_model(tmp_path):
    refuses(tmp_path / "nowhere", "no such directory")
    refuses(tmp_path, "no config.json")
    gpt2(tmp_path, vocab_size=15)
    weights, config = (tmp_path / n for n in ("model.safetensors", "config.json"))
    whole, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[:-4])
    refuses(tmp_path, "torn")
    weights.write_bytes(whole)
    config.write_text(text[:-9])
    refuses(tmp_path, "config.json cannot be read")
    config.write_text("[]")
    refuses(tmp_path, "holds no object")
    config.write_text('{"model_type": "no-such-model"}')
    refuses(tmp_path, "transformers cannot load it")
    config.write_text(text)
    edit(tmp_path, n_layer=3)
    refuses(tmp_path, "lack 12 tensors, first transformer.h.2")
    for wrong in ({"n_inner": 64}, {"n_layer": "two"}, {"n_head": 0}, {"activation_function": "none"}):
        config.write_text(text)
        edit(tmp_path, **wrong)
        refuses(tmp_path, "transformers cannot load it")
    (tmp_path / "adapter_config.json").write_text("{}")
    refuses(tmp_path, "is an adapter directory")


def test_models_without_the_formats_tokens(tmp_path):
    gpt2(tmp_path)
    refuses(tmp_path, "257 tokens, format digits has 15; put the model's tokenizer.json")
    words = ["<unk>", "<eot>", *DIGITS.symbols[:-1]]
    words_tokenizer([w for w in words if w != "7"]).save(str(tmp_path / "tokenizer.json"))
    edit(tmp_path, "tokenizer_config.json", unk_token="<unk>")
    refuses(tmp_path, "symbol '7' is not one token")
    (tmp_path / "tokenizer_config.json").write_text("{}")  # tokenizer.json still names it
    refuses(tmp_path, "symbol '7' is not one token")
    words_tokenizer(words).save(str(tmp_path / "tokenizer.json"))
    edit(tmp_path, bos_token_id=2, eos_token_id=2)
    refuses(tmp_path, "'0' and '<bos>' are both token 2")
    edit(tmp_path, bos_token_id=None, eos_token_id=None)
    refuses(tmp_path, "neither tokenizer nor config.json names a bos")
    (tmp_path / "tokenizer.json").write_text('{"version"')
    refuses(tmp_path, "tokenizer.json cannot be read")


def test_tokenizer_larger_than_the_model(tmp_path):
    gpt2(tmp_path, bytes_tokenizer(), vocab_size=40)
    refuses(tmp_path, "is token 199, the model has 40")


def test_arguments(tmp_path):
    gpt2(tmp_path, vocab_size=15)
    refuses(tmp_path, "format grid does not go with a gpt2", format="grid")
    refuses(tmp_path, "unknown format", InputError, format="letters")
    refuses(tmp_path, "dtype int8: choose", InputError, dtype="int8")
    refuses(tmp_path, "device gpu: choose", InputError, device="gpu")
    refuses(tmp_path, "CUDA devices here", device=f"cuda:{torch.cuda.device_count()}")
    assert load.load_model(tmp_path).path == str(tmp_path)
