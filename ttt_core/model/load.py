"""Loading a base model from a local directory, with its vocabulary cut to what a format uses.

Safetensors only, nothing from the network, no code from the directory: what could run code is refused before
transformers sees it. Not here: adapters (`lora.py`), tokens (`arc/encode.py`), caches and positions.

In: a directory in transformers' layout. Out: a `LoadedModel`, whose token ids are those of its format: V is
format.vocab_size, input embedding (V, D), output head (V, D).
"""

import hashlib
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ttt_core.arc.encode import Format, format_named
from ttt_core.errors import InputError, ModelError
from ttt_core.model.access import INDEX, PICKLES, WHOLE, shards
from ttt_core.model.gridlm import GridLM

SPECIAL = {"<bos>": ("bos_token_id", "eos_token_id"), "<eos>": ("eos_token_id", "bos_token_id")}  # symbols by role
# What transformers raises on a directory that is complete but wrong.
LOADING_ERRORS = (OSError, ValueError, TypeError, AttributeError, LookupError, RuntimeError, ImportError)
LOADING_ERRORS += (ArithmeticError, StrictDataclassError)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A base model in eval mode, and what is needed to use it."""

    net: nn.Module
    format: Format
    device: torch.device
    dtype: torch.dtype  # of computation (autocast); a causal LM's weights have it too, GridLM's are float32
    path: str
    sha256: str  # of the safetensors files that are loaded, one after the other in order of name


def load_model(
    path: str | Path, *, device: str = "auto", dtype: str = "auto", format: str | None = None
) -> LoadedModel:
    """The model in directory `path`. ModelError names what is wrong with it, before anything in it is used.

    device: "auto" is "cuda" where there is one, else "cpu". dtype: one of DTYPES, or "auto" (see `compute_dtype`).
    format: name of a format of `arc/encode.py`; without one, "grid" for GridLM and "digits" for any other model.
    """
    path = Path(path)
    config = check_directory(path)
    is_grid = config.get("model_type") == "gridlm"
    chosen = format_named(format or ("grid" if is_grid else "digits"))
    if is_grid != (chosen.name == "grid"):
        kind = config.get("model_type")
        raise ModelError(f"model {path}: format {chosen.name} does not go with a {kind} model; leave the format out")
    where = _device(device)
    compute = compute_dtype(where, dtype)
    net = _load(path, GridLM, torch.float32) if is_grid else _load(path, AutoModelForCausalLM, compute)
    if not is_grid and (path / "tokenizer.json").is_file():
        trim_vocabulary(net, _token_ids(path, chosen, net.config))
    size = net.config.get_text_config().vocab_size
    if size != chosen.vocab_size:
        raise ModelError(
            f"model {path}: {size} tokens, format {chosen.name} has {chosen.vocab_size}; "
            "put the model's tokenizer.json beside it, or give the format it was trained with"
        )
    net = net.to(where).eval()
    return LoadedModel(net, chosen, where, compute, str(path), sha256_of_weights(path))


def check_directory(path: Path) -> dict:
    """The directory's config.json, once nothing in the directory can run code and all weights are safetensors."""
    if not path.is_dir():
        raise ModelError(f"model {path}: no such directory; give one with config.json and model.safetensors")
    if not (path / "config.json").is_file():
        raise ModelError(f"model {path}: no config.json; give a directory written by save_pretrained")
    if (path / "adapter_config.json").exists():
        raise ModelError(f"model {path}: is an adapter directory; give the base model's, and load the adapter into it")
    config = _json(path / "config.json")
    tokenizer = path / "tokenizer_config.json"
    for name, content in [("config.json", config), (tokenizer.name, _json(tokenizer) if tokenizer.exists() else {})]:
        if "auto_map" in content:
            raise ModelError(f"model {path}: {name} has auto_map, that is remote code; give a model without it")
    # Adapters multiply the stored weights, which are not those that a quantised layer computes with.
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and (quantised := part.get("quantization_config")):
            kind = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
            raise ModelError(f"model {path}: is quantised ({kind}); give a checkpoint of the model that is not")
    # A file named here is loaded whatever its suffix, a pickle by torch.load.
    if "transformers_weights" in config:
        raise ModelError(f"model {path}: config.json has transformers_weights; remove it and name the file as usual")
    _check_weights(path)
    return config


def compute_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """bfloat16 where the hardware multiplies in it, else float16 on CUDA (T4, P100) and float32 elsewhere.

    name: another choice, one of DTYPES; float16 on a CPU is none.
    """
    if name != "auto":
        if name not in DTYPES:
            raise InputError(f"dtype {name}: choose auto, {', '.join(DTYPES)}")
        if device.type != "cpu" or name != "float16":
            return DTYPES[name]
        warnings.warn("dtype float16: a CPU has no products in it; what `auto` takes is taken", stacklevel=3)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    # torch has no public name for this in 2.10; without AVX-512 BF16 bfloat16 products are emulated and slow.
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if device.type == "cpu" and has_bf16() else torch.float32


def dtype_on(device: torch.device) -> torch.dtype:
    """Of a training's products: bfloat16 where the hardware multiplies in it, else float32."""
    return torch.bfloat16 if compute_dtype(device) == torch.bfloat16 else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Within the context products are computed in `dtype`; it does nothing for float32."""
    is_low = dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(device.type, dtype if is_low else torch.bfloat16, enabled=is_low)


def trim_vocabulary(net: nn.Module, token_ids: list[int]) -> None:
    """Cut the input embedding and output head (tied or not) of `net` to the rows `token_ids`, in this order, in place.

    Token i is then what token_ids[i] was; special token ids in the configs follow, or become None if they are cut.
    ModelError, before anything is changed, if the model looks tokens up in a second table too.
    """
    embedding, head = net.get_input_embeddings(), net.get_output_embeddings()
    for name, module in net.named_modules():
        is_of_positions = re.search("pos|wpe", name)  # can have as many rows where the vocabulary is small
        if isinstance(module, nn.Embedding) and module is not embedding and not is_of_positions:
            if 2 * module.num_embeddings > embedding.num_embeddings:  # Gemma 3n has some rows fewer
                told = f"{name}, a second table of {module.num_embeddings} tokens, cannot be cut with the first"
                raise ModelError(f"model {type(net).__name__}: {told}; take a model without one")
    is_tied = head.weight is embedding.weight
    embedding.weight = _rows(embedding.weight, token_ids)  # (V, D)
    embedding.num_embeddings, embedding.padding_idx = len(token_ids), None
    head.weight = embedding.weight if is_tied else _rows(head.weight, token_ids)  # (V, D)
    head.out_features = len(token_ids)
    if getattr(head, "bias", None) is not None:
        head.bias = _rows(head.bias, token_ids)  # (V,)
    for module in net.modules():  # transformers' models keep a copy of the number
        if isinstance(getattr(module, "vocab_size", None), int):
            module.vocab_size = len(token_ids)
    for config in {id(c): c for c in (net.config, net.config.get_text_config())}.values():
        if hasattr(config, "vocab_size"):
            config.vocab_size = len(token_ids)
        _follow_special_tokens(config, token_ids)
    if getattr(net, "generation_config", None) is not None:
        _follow_special_tokens(net.generation_config, token_ids)


def sha256_of_weights(path: Path) -> str:
    """Hex digest over the safetensors files that transformers loads; of a single file it is what sha256sum prints."""
    sha = hashlib.sha256()
    for name in [WHOLE] if (path / WHOLE).is_file() else sorted(shards(path)):
        with open(path / name, "rb") as stream:
            while chunk := stream.read(1 << 22):
                sha.update(chunk)
    return sha.hexdigest()


def _load(path: Path, kind: type, dtype: torch.dtype) -> nn.Module:
    options = dict(local_files_only=True, use_safetensors=True, attn_implementation="sdpa", output_loading_info=True)
    if kind is AutoModelForCausalLM:
        options["trust_remote_code"] = False
    try:
        net, report = kind.from_pretrained(path, dtype=dtype, **options)
    except LOADING_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"model {path}: transformers cannot load it: {reason}") from error
    # transformers fills tensors that the files lack with random numbers, and only warns.
    if lacking := sorted(report["missing_keys"]):
        raise ModelError(f"model {path}: its files lack {len(lacking)} tensors, first {lacking[0]}; copy it again")
    return net


def _token_ids(path: Path, format: Format, config) -> list[int]:
    """The one token id of each symbol of `format` in the tokenizer of `path`."""
    _json(path / "tokenizer.json")
    try:  # the generic class takes tokenizer.json as it is; the models' own rebuild parts of it
        tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"model {path}: tokenizer.json cannot be used ({error}); copy it again") from error
    size = config.get_text_config().vocab_size
    token_ids = [
        _special_id(path, tokenizer, config, symbol) if symbol in SPECIAL else _symbol_id(path, tokenizer, symbol)
        for symbol in format.symbols
    ]
    for i, token_id in enumerate(token_ids):
        if token_id >= size:
            raise ModelError(f"model {path}: symbol {format.symbols[i]!r} is token {token_id}, the model has {size}")
        if token_id in token_ids[:i]:
            both = f"{format.symbols[token_ids.index(token_id)]!r} and {format.symbols[i]!r}"
            raise ModelError(f"model {path}: symbols {both} are both token {token_id}; format {format.name} needs two")
    return token_ids


def _symbol_id(path: Path, tokenizer, symbol: str) -> int:
    ids = tokenizer.encode(symbol, add_special_tokens=False)
    if len(ids) > 1:  # tokenizers of the SentencePiece kind put a space before a text: look behind another token
        before = tokenizer.encode("\n", add_special_tokens=False)
        after = tokenizer.encode("\n" + symbol, add_special_tokens=False)
        ids = after[len(before) :] if after[: len(before)] == before else ids
    unknown = getattr(tokenizer.backend_tokenizer.model, "unk_token", None)  # named in tokenizer.json alone
    if len(ids) != 1 or ids[0] in (tokenizer.unk_token_id, unknown and tokenizer.convert_tokens_to_ids(unknown)):
        raise ModelError(f"model {path}: symbol {symbol!r} is not one token but {ids}; choose another format or model")
    return ids[0]


def _special_id(path: Path, tokenizer, config, symbol: str) -> int:
    text = config.get_text_config()
    for name in SPECIAL[symbol]:
        for owner in (tokenizer, text):
            token_id = getattr(owner, name, None)
            token_id = token_id[0] if isinstance(token_id, list) and token_id else token_id
            if isinstance(token_id, int) and 0 <= token_id < text.vocab_size:
                return token_id
    raise ModelError(f"model {path}: neither tokenizer nor config.json names a bos or eos token; name one there")


def _rows(weight: Tensor, token_ids: list[int]) -> nn.Parameter:
    return nn.Parameter(weight.detach()[token_ids].clone(), requires_grad=weight.requires_grad)


def _follow_special_tokens(config, token_ids: list[int]) -> None:
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        old = getattr(config, name, None)
        kept = [token_ids.index(i) for i in (old if isinstance(old, list) else [old]) if i in token_ids]
        setattr(config, name, (kept if isinstance(old, list) else kept[0]) if kept else None)


def _check_weights(path: Path) -> None:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickles = sorted(p.name for p in path.iterdir() if p.suffix in PICKLES)
        found = f"only {pickles[0]}, a pickle, which can run code" if pickles else "none"
        raise ModelError(f"model {path}: no safetensors weights, {found}; convert it with save_pretrained")
    for file in files:
        try:
            safe_open(file, framework="pt").__exit__(None, None, None)
        except (OSError, SafetensorError) as error:
            with open(file, "rb") as stream:
                start = stream.read(2)
            what = "a pickle or zip" if start[:1] == b"\x80" or start == b"PK" else "torn"
            raise ModelError(f"model {path}: {file.name} is no safetensors file but {what} ({error})") from error
    # transformers loads a shard that is called otherwise by torch.load, also where safetensors are asked for.
    if missing := sorted(shards(path) - {file.name for file in files}):
        raise ModelError(f"model {path}: {INDEX} names {missing[0]}, no safetensors file of it; copy it again")


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"model {path.parent}: {path.name} cannot be read ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise ModelError(f"model {path.parent}: {path.name} holds no object; copy it again")
    return content


def has_gpu() -> bool:
    """Whether there is a GPU that torch has kernels for: its wheels leave old ones out."""
    if not torch.cuda.is_available():
        return False
    kernels = [int(number) for number in re.findall(r"sm_(\d+)", " ".join(torch.cuda.get_arch_list()))]
    major, minor = torch.cuda.get_device_capability()
    return not kernels or 10 * major + minor >= min(kernels)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if has_gpu() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {name}: choose auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {name}: {torch.cuda.device_count()} CUDA devices here; give cpu or auto as device")
    return device
