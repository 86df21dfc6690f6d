"""LoRA, injected in place: low-rank adapters beside the frozen linear layers of any model.

One implementation for `nn.Linear` (weight (out, in)) and transformers' `Conv1D` (weight (in, out)). Not here: its files
(`adapter_files.py`), optimisers, losses, embeddings trained in full.

Shapes: R rank, in / out features of the base layer; lora_A (R, in), lora_B (out, R).
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ttt_core.errors import ModelError
from ttt_core.model import kernels

# Last names of the linear layers inside the blocks of GPT-2, Llama, Qwen, GridLM, Phi, OPT and GPT-NeoX; never the output head.
AUTO_TARGETS = (
    "c_attn", "c_proj", "c_fc", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    "qkv_proj", "gate_up_proj", "dense", "fc1", "fc2", "out_proj", "query_key_value", "dense_h_to_4h", "dense_4h_to_h",
)  # fmt: skip


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
        return self.base(x) if self.original else _at_once(x, [self])[0]

    def merged_weight(self) -> Tensor:
        """W + scaling * B A in W's layout and dtype, added in float32."""
        delta = self.scaling * (self.lora_B.float() @ self.lora_A.float())  # (out, in)
        delta = delta.t() if isinstance(self.base, Conv1D) else delta
        return (self.base.weight.float() + delta).to(self.base.weight.dtype)


def apply(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """What each of `layers` makes of the same x; adapters of one kind at once, for what is common to them is done once then."""
    adapted = all(isinstance(layer, LoRALayer) and not layer.original for layer in layers)
    if adapted and len({(layer.scaling, type(layer.base), layer.lora_A.dtype) for layer in layers}) == 1:
        return _at_once(x, layers)
    return tuple(layer(x) for layer in layers)


def _at_once(x: Tensor, layers: Sequence[LoRALayer]) -> tuple[Tensor, ...]:
    first, bases = layers[0], [layer.base for layer in layers]
    weights, biases = [base.weight for base in bases], [base.bias for base in bases]
    adapters = [(layer.lora_A, layer.lora_B) for layer in layers]
    return kernels.linears(x, weights, biases, adapters, first.scaling, isinstance(first.base, Conv1D))


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
    linears = linear_layers(model)
    wanted = AUTO_TARGETS if targets == "auto" else [targets] if isinstance(targets, str) else targets
    unmatched = [target for target in wanted if not matching(linears, [target])]
    if len(unmatched) == len(wanted) or (unmatched and targets != "auto"):
        kinds = sorted({f"{path.rpartition('.')[2]} ({type(module).__name__})" for path, module in linears.items()})
        raise ModelError(
            f"LoRA targets {', '.join(unmatched)}: no linear module of {type(model).__name__} is called so; "
            f"choose among {', '.join(kinds) or 'none, it has no linear modules'}"
        )
    paths = matching(linears, wanted)
    wrap(model, paths, rank=rank, alpha=alpha, rslora=rslora, dtype=dtype)
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


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every Linear and Conv1D by its path in the model without adapter."""
    linears = {}
    for path, module in model.named_modules():
        if isinstance(module, LoRALayer):
            linears[path] = module.base
        elif isinstance(module, nn.Linear | Conv1D) and path.removesuffix(".base") not in linears:
            linears[path] = module
    return linears


def matching(paths: Iterable[str], targets: Sequence[str]) -> list[str]:
    """The paths that are, or end in, one of the targets; PEFT's rule."""
    return [path for path in paths if any(f".{path}".endswith(f".{target}") for target in targets)]


def wrap(model: nn.Module, paths: Sequence[str], **options) -> None:
    """Freeze `model` and put an adapter, whose B A is zero, on the modules at `paths`."""
    model.requires_grad_(False)
    for path in paths:
        base = model.get_submodule(path)
        model.set_submodule(path, LoRALayer(base, **options).train(base.training))
