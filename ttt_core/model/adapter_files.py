"""Adapters on disk: PEFT adapter directories, in both directions.

PEFT itself is not imported (with the torchao of Kaggle its LoRA does not import). Not here: the adapter (`lora.py`), what
else an adaptation keeps (`solve/saved.py`).

Shapes: R rank, in / out features of the base layer; lora_A (R, in), lora_B (out, R).
"""

import hashlib
import json
import os
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ttt_core.errors import CheckpointError, ModelError
from ttt_core.model.lora import adapter_layers, linear_layers, matching, remove, wrap

CONFIG_FILE, TENSOR_FILE = "adapter_config.json", "adapter_model.safetensors"
# Fields of adapter_config.json that are read here or do not change what the adapter computes after training.
# Every other field that is set means an adapter of another kind, and is refused rather than ignored.
READ = {"peft_type", "r", "lora_alpha", "use_rslora", "target_modules", "bias", "init_lora_weights"}
NEUTRAL = {"fan_in_fan_out", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "task_type"}
NEUTRAL |= {"auto_mapping", "peft_version", "runtime_config", "megatron_core", "qalora_group_size", "loftq_config"}
NEUTRAL |= {"eva_config", "ensure_weight_tying"}


def save_adapter(model: nn.Module, directory: str | Path) -> None:
    """Write the adapter as a PEFT adapter directory; each file appears whole or not at all."""
    layers = adapter_layers(model)
    if not layers:
        raise ModelError(f"model {type(model).__name__} has no adapter to save: inject one first")
    directory, first = Path(directory), next(iter(layers.values()))
    names = sorted({path.rpartition(".")[2] for path in layers})
    is_exact = matching(linear_layers(model), names) == list(layers)
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
    config, tensors, linears = _read_config(directory), _read_tensors(directory), linear_layers(model)
    names, rank = config["target_modules"], config["r"]
    paths = [p for p in linears if re.fullmatch(names, p)] if isinstance(names, str) else matching(linears, names)
    shapes = {}
    for path in paths:
        rows, cols = linears[path].weight.shape
        rows, cols = (cols, rows) if isinstance(linears[path], Conv1D) else (rows, cols)
        shapes |= {_key(path, "A"): (rank, cols), _key(path, "B"): (rows, rank)}
    _check_tensors(directory, tensors, shapes)
    remove(model)
    wrap(model, paths, rank=rank, alpha=config["lora_alpha"], rslora=config.get("use_rslora", False), dtype=dtype)
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
