"""LoRA, injected in place: low-rank adapters beside the frozen linear layers of any model, and their files.

One implementation for `nn.Linear` (weight (out, in)) and transformers' `Conv1D` (weight (in, out)). Files are PEFT
adapter directories, in both directions; PEFT itself is not imported (with the torchao of Kaggle its LoRA does not
import). Not here: optimisers, losses, embeddings trained in full.

Shapes: R rank, in / out features of the base layer; lora_A (R, in), lora_B (out, R).
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ttt_core.errors import CheckpointError, ModelError
from ttt_core.model import kernels

# Last names of the linear layers inside the blocks of GPT-2, Llama, Qwen2, Qwen3 and GridLM; never the output head.
AUTO_TARGETS = ("c_attn", "c_proj", "c_fc", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
# Fields of adapter_config.json that are read here or do not change what the adapter computes after training.
# Every other field that is set means an adapter of another kind, and is refused rather than ignored.
READ = {"peft_type", "r", "lora_alpha", "use_rslora", "target_modules", "bias", "init_lora_weights"}
NEUTRAL = {"fan_in_fan_out", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "task_type"}
NEUTRAL |= {"auto_mapping", "peft_version", "runtime_config", "megatron_core", "qalora_group_size", "loftq_config"}
NEUTRAL |= {"eva_config", "ensure_weight_tying"}


class LoRALayer(nn.Module):
    """y = W x + b + scaling * B(A x), with W and b frozen in `base`.

    x (..., in), y (..., out), A = lora_A (R, in), B = lora_B (out, R). scaling = alpha / R, or alpha / sqrt(R) with
    rslora (arXiv:2312.03732). A is Kaiming-uniform and B zero, so a fresh adapter changes no bit of y. The adapter may
    be wider than the base (float32 beside bfloat16): it is kept so for the optimiser, and applied in the base's dtype.
    """

    def __init__(self, base: nn.Module, rank: int, alpha: float, rslora: bool, dtype: torch.dtype):
        super().__init__()
        rows, cols = base.weight.shape
        features_out, features_in = (cols, rows) if isinstance(base, Conv1D) else (rows, cols)
        self.base, self.rank, self.alpha, self.rslora = base, rank, alpha, rslora
        self.scaling = alpha / math.sqrt(rank) if rslora else alpha / rank
        self.lora_A = nn.Parameter(torch.zeros(rank, features_in, dtype=dtype, device=base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(features_out, rank, dtype=dtype, device=base.weight.device))
        self.original: tuple[nn.Parameter, ...] = ()  # W while merged; in a tuple, so that it is no parameter of this

    def forward(self, x: Tensor) -> Tensor:
        if self.original:
            return self.base(x)
        weight, bias = self.base.weight, self.base.bias
        return kernels.linear(x, weight, bias, self.lora_A, self.lora_B, self.scaling, isinstance(self.base, Conv1D))

    def merged_weight(self) -> Tensor:
        """W + scaling * B A in W's layout and dtype, added in float32."""
        delta = self.scaling * (self.lora_B.float() @ self.lora_A.float())  # (out, in)
        delta = delta.t() if isinstance(self.base, Conv1D) else delta
        return (self.base.weight.float() + delta).to(self.base.weight.dtype)


def inject(
    model: nn.Module,
    *,
    rank: int,
    alpha: float,
    rslora: bool = False,
    targets: str | Sequence[str] = "auto",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Freeze `model` and put a fresh adapter on its target modules, in place; returns how many.

    targets: last names or dotted ends of module paths ("c_attn", "attn.c_proj"), or "auto". ModelError, before
    anything is changed, if a target matches no linear module or an adapter is there already.
    """
    if rank < 1:
        raise ModelError(f"rank {rank}: give 1 or more")
    if adapter_layers(model):
        raise ModelError(f"model {type(model).__name__} has an adapter already: reset it, or remove it first")
    linears = _linears(model)
    wanted = AUTO_TARGETS if targets == "auto" else [targets] if isinstance(targets, str) else targets
    unmatched = [target for target in wanted if not _matching(linears, [target])]
    if len(unmatched) == len(wanted) or (unmatched and targets != "auto"):
        kinds = sorted({f"{path.rpartition('.')[2]} ({type(module).__name__})" for path, module in linears.items()})
        raise ModelError(
            f"LoRA targets {', '.join(unmatched)}: no linear module of {type(model).__name__} is called so; "
            f"choose among {', '.join(kinds) or 'none, it has no linear modules'}"
        )
    paths = _matching(linears, wanted)
    _wrap(model, paths, rank=rank, alpha=alpha, rslora=rslora, dtype=dtype)
    reset(model, seed)
    return len(paths)


def reset(model: nn.Module, seed: int) -> None:
    """A fresh adapter in place of the present one, the base as it was loaded. Same seed, same A on every device."""
    generator = torch.Generator().manual_seed(seed)
    unmerge(model)
    with torch.no_grad():
        for layer in adapter_layers(model).values():
            A = nn.init.kaiming_uniform_(torch.empty(layer.lora_A.shape), a=math.sqrt(5), generator=generator)
            layer.lora_A.copy_(A)
            layer.lora_B.zero_()
            layer.lora_A.grad = layer.lora_B.grad = None


def remove(model: nn.Module) -> None:
    """Put the original modules back; they stay frozen."""
    unmerge(model)
    for path, layer in adapter_layers(model).items():
        model.set_submodule(path, layer.base)


def merge(model: nn.Module) -> None:
    """Add the adapter into new base weights, for faster inference; the originals are kept aside. Idempotent.

    New parameters, not new values: a weight tied to a target (an embedding to an adapted head) stays what it was.
    """
    with torch.no_grad():
        for layer in adapter_layers(model).values():
            if not layer.original:
                merged = nn.Parameter(layer.merged_weight(), requires_grad=False)
                layer.original, layer.base.weight = (layer.base.weight,), merged


def unmerge(model: nn.Module) -> None:
    """Put the very weights back that `merge` replaced: equal bit for bit."""
    for layer in adapter_layers(model).values():
        if layer.original:
            layer.base.weight, layer.original = layer.original[0], ()


def adapter_layers(model: nn.Module) -> dict[str, LoRALayer]:
    """The adapted modules by path, in the model's order."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoRALayer)}


def adapter_parameters(model: nn.Module) -> list[nn.Parameter]:
    """lora_A (R, in) and lora_B (out, R) of every adapted module, in the model's order."""
    return [p for layer in adapter_layers(model).values() for p in (layer.lora_A, layer.lora_B)]


def trainable_count(model: nn.Module) -> int:
    """Number of scalars that would receive a gradient."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def save_adapter(model: nn.Module, directory: str | Path) -> None:
    """Write the adapter as a PEFT adapter directory; each file appears whole or not at all."""
    layers = adapter_layers(model)
    if not layers:
        raise ModelError(f"model {type(model).__name__} has no adapter to save: inject one first")
    directory, first = Path(directory), next(iter(layers.values()))
    names = sorted({path.rpartition(".")[2] for path in layers})
    is_exact = _matching(_linears(model), names) == list(layers)
    config = {
        "peft_type": "LORA",
        "r": first.rank,
        "lora_alpha": int(first.alpha) if first.alpha == int(first.alpha) else first.alpha,
        "use_rslora": first.rslora,
        "target_modules": names if is_exact else list(layers),
        "fan_in_fan_out": all(isinstance(layer.base, Conv1D) for layer in layers.values()),
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
        "base_model_name_or_path": None,
        "task_type": None,
    }
    tensors = {_key(path, side): getattr(layer, f"lora_{side}") for path, layer in layers.items() for side in "AB"}
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / (TENSOR_FILE + ".part")
    save_file(tensors, part, metadata={"format": "pt", "sha256": _digest(tensors)})
    os.replace(part, directory / TENSOR_FILE)
    part = directory / (CONFIG_FILE + ".part")
    part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    os.replace(part, directory / CONFIG_FILE)


def load_adapter(model: nn.Module, directory: str | Path, dtype: torch.dtype = torch.float32) -> int:
    """Give `model` the adapter of a PEFT adapter directory in place of any it has; returns the adapted modules.

    CheckpointError if the files are torn or do not fit the model, ModelError if the adapter is of a kind that is not
    implemented here; the model is unchanged then.
    """
    directory = Path(directory)
    config, tensors, linears = _read_config(directory), _read_tensors(directory), _linears(model)
    names, rank = config["target_modules"], config["r"]
    paths = [p for p in linears if re.fullmatch(names, p)] if isinstance(names, str) else _matching(linears, names)
    shapes = {}
    for path in paths:
        rows, cols = linears[path].weight.shape
        rows, cols = (cols, rows) if isinstance(linears[path], Conv1D) else (rows, cols)
        shapes |= {_key(path, "A"): (rank, cols), _key(path, "B"): (rows, rank)}
    _check_tensors(directory, tensors, shapes)
    remove(model)
    _wrap(model, paths, rank=rank, alpha=config["lora_alpha"], rslora=config.get("use_rslora", False), dtype=dtype)
    with torch.no_grad():
        for path, layer in adapter_layers(model).items():
            layer.lora_A.copy_(tensors[_key(path, "A")])
            layer.lora_B.copy_(tensors[_key(path, "B")])
    return len(paths)


def read_adapter(model: nn.Module, directory: str | Path) -> list[Tensor]:
    """The tensors of a PEFT directory, in the order of `adapter_parameters(model)`; CheckpointError if they do not fit."""
    tensors, layers = _read_tensors(Path(directory)), adapter_layers(model)
    shapes = {_key(path, s): tuple(getattr(layer, f"lora_{s}").shape) for path, layer in layers.items() for s in "AB"}
    _check_tensors(Path(directory), tensors, shapes)
    return [tensors[key] for key in shapes]


def _linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every Linear and Conv1D by its path in the model without adapter."""
    linears = {}
    for path, module in model.named_modules():
        if isinstance(module, LoRALayer):
            linears[path] = module.base
        elif isinstance(module, nn.Linear | Conv1D) and path.removesuffix(".base") not in linears:
            linears[path] = module
    return linears


def _matching(paths: Iterable[str], targets: Sequence[str]) -> list[str]:
    """The paths that are, or end in, one of the targets; PEFT's rule."""
    return [path for path in paths if any(f".{path}".endswith(f".{target}") for target in targets)]


def _wrap(model: nn.Module, paths: Sequence[str], **options) -> None:
    model.requires_grad_(False)
    for path in paths:
        base = model.get_submodule(path)
        model.set_submodule(path, LoRALayer(base, **options).train(base.training))


def _key(path: str, side: str) -> str:
    return f"base_model.model.{path}.lora_{side}.weight"


def _digest(tensors: dict[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for key in sorted(tensors):
        sha.update(key.encode())
        sha.update(tensors[key].contiguous().view(torch.uint8).numpy())
    return sha.hexdigest()


def _read_config(directory: Path) -> dict:
    path = directory / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"adapter {path}: cannot be read ({error}); save the adapter again") from error
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ModelError(f"adapter {path}: peft_type {kind} is not implemented; give a LORA adapter")
    unsupported = sorted(key for key, value in config.items() if value and key not in READ | NEUTRAL)
    if config.get("bias", "none") != "none":
        unsupported.append(f"bias={config['bias']}")
    # PiSSA, OLoRA and their like change the base weights, which are not in the adapter's file.
    if config.get("init_lora_weights", True) not in (True, False, "gaussian", "eva", "orthogonal"):
        unsupported.append(f"init_lora_weights={config['init_lora_weights']}")
    if unsupported:
        raise ModelError(f"adapter {path}: {', '.join(unsupported)} not implemented; give a plain LoRA adapter")
    numbers = [config.get("r"), config.get("lora_alpha")]
    if not all(isinstance(n, int | float) and n > 0 for n in numbers) or not isinstance(numbers[0], int):
        raise CheckpointError(f"adapter {path}: r={numbers[0]}, lora_alpha={numbers[1]} are no rank and alpha")
    if not config.get("target_modules"):
        raise CheckpointError(f"adapter {path}: names no target_modules; save the adapter again")
    return config


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    path = directory / TENSOR_FILE
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, it is no dict
            digest = (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"adapter {path}: cannot be read ({error}); save the adapter again") from error
    if digest not in (None, _digest(tensors)):
        raise CheckpointError(f"adapter {path}: tensors do not match their checksum {digest}; save the adapter again")
    return tensors


def _check_tensors(directory: Path, tensors: dict[str, Tensor], shapes: dict[str, tuple[int, int]]) -> None:
    remedy = "load it into the model it was trained on"
    for what, keys in (("unexpected", tensors.keys() - shapes.keys()), ("missing", shapes.keys() - tensors.keys())):
        if keys:
            raise CheckpointError(f"adapter {directory}: {len(keys)} {what} tensors, first {min(keys)}; {remedy}")
    for key, shape in shapes.items():
        if tuple(tensors[key].shape) != shape:
            found = tuple(tensors[key].shape)
            raise CheckpointError(f"adapter {directory}: {key} has shape {found}, the model needs {shape}; {remedy}")
