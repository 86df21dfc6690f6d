"""Adaptations on disk: what was trained for a task, best and last, to go on from after a stop.

Each has a folder by itself, named by the first digits of its identity: one of another base, task or configuration, such
as that of a task's further pass, touches none. It holds `last/` and `best/`, each a PEFT adapter directory where LoRA is trained, `trained.safetensors` for what
else is (with adapt.embedding_lr the embeddings and the head, without which the PEFT directory is another model), and
`state.json`, written last, with the checksums of both. What does not match its checksums is set aside by
name and never loaded. Optimiser moments are not kept: a resumed adaptation warms them up anew.
"""

import dataclasses
import json
import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ttt_core.arc.tasks import Task
from ttt_core.config import AdaptConfig
from ttt_core.errors import CheckpointError
from ttt_core.model import adapter_files, lora
from ttt_core.model.checkpoint import digest, sha256_of
from ttt_core.model.load import LoadedModel

LAST, BEST = "last", "best"
STATE, TENSORS = "state.json", "trained.safetensors"
SAVE_S = 60.0  # seconds between two savings
RECENT = 8  # steps whose mean loss is told

Watch = Callable[[int, float], bool]  # step, its loss; true ends the adaptation


@dataclass(frozen=True)
class Saved:
    """step: how many were taken; loss: nats per target, of the last ones."""

    step: int
    loss: float


def identity(model: LoadedModel, task: Task, config: AdaptConfig, seed: int) -> str:
    """A digest of all that an adaptation depends on, besides time, and so besides the steps of a trial."""
    pairs = [[pair.input.tolist(), pair.output.tolist()] for pair in task.train]
    options = dataclasses.asdict(config) | ({"steps": None} if config.early_stop else {})
    told = [model.sha256, task.id, pairs, options, seed]
    return digest(told)


def save(directory: Path, name: str, net: nn.Module, parameters: list, saved: Saved, identity: str) -> None:
    """Write the trained `parameters` of `net` as `directory/name`; it appears whole or not at all."""
    part, place = directory / f"{name}.part", directory / name
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    adapter, rest = _split(net, parameters)
    if adapter:
        adapter_files.save_adapter(net, part)
    if rest:
        save_file({key: p.detach().cpu().contiguous() for key, p in rest.items()}, part / TENSORS)
    files = {file.name: sha256_of(file) for file in sorted(part.iterdir())}
    state = {**dataclasses.asdict(saved), "identity": identity, "files": files}
    state["sha256"] = digest(state)
    (part / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    part.rename(place)


def keep(directory: Path, net: nn.Module, parameters: list, saved: Saved, identity: str) -> str:
    """Save as last, and as best unless a better one is there.

    A full disk ends no adaptation: returned is why it is not kept, or "".
    """
    try:
        save(directory, LAST, net, parameters, saved, identity)
        if _is_best(directory, saved):
            save(directory, BEST, net, parameters, saved, identity)
    except (OSError, SafetensorError) as error:
        for name in (LAST, BEST):
            shutil.rmtree(directory / f"{name}.part", ignore_errors=True)
        return f"the adaptation is not kept: {error}"
    return ""


def _is_best(directory: Path, saved: Saved) -> bool:
    try:
        return saved.loss < float(json.loads((directory / BEST / STATE).read_text(encoding="utf-8"))["loss"])
    except (OSError, ValueError, LookupError, TypeError):
        return True


def keeping(directory: Path, net: nn.Module, parameters: list, identity: str, watch: Watch) -> Watch:
    """`watch`, which also keeps what is trained every SAVE_S seconds."""
    recent: deque[float] = deque(maxlen=RECENT)
    written = time.monotonic()

    def after(step: int, loss: float) -> bool:
        nonlocal written
        recent.append(loss)
        if time.monotonic() - written >= SAVE_S:
            keep(directory, net, parameters, Saved(step, sum(recent) / len(recent)), identity)
            written = time.monotonic()
        return watch(step, loss)

    return after


def resume(directory: Path, net: nn.Module, parameters: list, identity: str) -> tuple[Saved | None, str]:
    """Load the last good adaptation into `parameters`, and a note of what was set aside.

    None where there is none of this identity: then nothing was changed.
    """
    notes, found = [], None
    for name in (LAST, BEST):
        place = directory / name
        if found is None and place.is_dir():
            try:
                found = _load(place, net, parameters, identity)
            except CheckpointError as error:
                notes.append(f"{error}; set aside as {_set_aside(place).name}")
    return found, "; ".join(notes)


def _load(place: Path, net: nn.Module, parameters: list, identity: str) -> Saved | None:
    """CheckpointError where anything is torn or does not fit, before any parameter is changed."""
    adapter, rest = _split(net, parameters)
    try:
        state = json.loads((place / STATE).read_text(encoding="utf-8"))
        if state.pop("sha256") != digest(state):
            raise CheckpointError(f"adapter {place.name}: {STATE} does not match its checksum")
        for file, expected in state["files"].items():
            if sha256_of(place / Path(file).name) != expected:
                raise CheckpointError(f"adapter {place.name}: {file} does not match its checksum")
        saved, owner = Saved(int(state["step"]), float(state["loss"])), state["identity"]
        if owner != identity:
            return None
        tensors = load_file(place / TENSORS) if rest else {}
        pairs = [(parameter, tensors[key]) for key, parameter in rest.items()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"adapter {place.name}: cannot be read ({error})") from error
    pairs += zip(adapter, adapter_files.read_adapter(net, place), strict=True) if adapter else []
    for parameter, tensor in pairs:
        if parameter.shape != tensor.shape:
            raise CheckpointError(f"adapter {place.name}: a tensor {tuple(tensor.shape)} for {tuple(parameter.shape)}")
        if not tensor.isfinite().all():
            raise CheckpointError(f"adapter {place.name}: it has diverged")
    with torch.no_grad():
        for parameter, tensor in pairs:
            parameter.copy_(tensor)
    return saved


def _split(net: nn.Module, parameters: list) -> tuple[list[nn.Parameter], dict[str, nn.Parameter]]:
    """The parameters of the adapter, in its order, and the others by name."""
    wanted, adapter = {id(p) for p in parameters}, lora.adapter_parameters(net)
    ours = {id(p) for p in adapter}
    return adapter, {key: p for key, p in net.named_parameters() if id(p) in wanted - ours}


def _set_aside(place: Path) -> Path:
    """Rename a folder to a name that nothing reads."""
    number = 1
    while (aside := place.with_name(f"{place.name}.broken-{number}")).exists():
        number += 1
    return place.rename(aside)
