"""Checkpoints of a training: weights, optimiser states and progress, checksummed and replaced as a whole.

A checkpoint is written beside the old one as `checkpoint.tmp` and takes its place by renaming; the old one stays as
`checkpoint.old`. One of the three is whole at every moment after the first save; one that is torn is stepped over.
Safetensors and JSON only.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ttt_core.errors import CheckpointError, is_out_of_memory
from ttt_core.model.access import INDEX

SHARD_SIZE = "16MB"  # 16e6 bytes at most: a shard travels where files are limited to 16 MiB
NAMES = ("checkpoint", "checkpoint.tmp", "checkpoint.old")
HELD_S = 10.0  # a training that was killed holds its folder 5 s longer: so long its data process outlives it
FAULTS = (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError)  # of a torn one


@contextlib.contextmanager
def held(out: Path) -> Iterator[None]:
    """Keep `out`, made if missing, from other trainings; CheckpointError if one is at it or `out` cannot be written."""
    with writable(out, "give an --out that can be written"):
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY)
    until = time.monotonic() + HELD_S
    try:
        with contextlib.suppress(OSError):  # network drives may know no locks
            while not _locked(folder):
                if time.monotonic() > until:
                    raise CheckpointError(f"{out}: another training is at it; wait for it or give another --out")
                time.sleep(0.2)
        yield
    finally:
        os.close(folder)


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def writable(out: Path, remedy: str) -> Iterator[None]:
    """A disk that fails inside the context is a CheckpointError about `out`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{out}: {getattr(error, 'strerror', None) or error}; {remedy}") from None


def save_model(net: nn.Module, out: Path, weights: dict[str, Tensor] | None = None) -> None:
    """The weights (of `net`, or those given) in bf16 as a transformers directory in shards.

    The shards' index goes first and comes back last: a process killed in between leaves no model rather than a mixed one.
    """
    state = {name: tensor.to(torch.bfloat16) for name, tensor in (weights or net.state_dict()).items()}
    temporary = out / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    net.save_pretrained(temporary, state_dict=state, max_shard_size=SHARD_SIZE)
    names = sorted((file.name for file in temporary.iterdir()), key=lambda name: name == INDEX)
    for old in [out / INDEX, *out.glob("model*.safetensors")]:
        if old.name == INDEX or old.name not in names:
            old.unlink(missing_ok=True)
    for name in names:
        os.replace(temporary / name, out / name)
    temporary.rmdir()


def save_checkpoint(out: Path, net: nn.Module, optimizers, ema: dict[str, Tensor] | None, progress: dict) -> None:
    """Replace `out/checkpoint`; progress: plain JSON values."""
    temporary = out / NAMES[1]
    with contextlib.suppress(*FAULTS):  # left by a process that was killed: it may be the only whole one
        _verified(temporary)
        _put_in_place(out)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    parts = {"model": net.state_dict(), **({"ema": ema} if ema else {})}
    for i, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()["state"]
        parts[f"optimizer-{i}"] = {f"{p}.{k}": torch.as_tensor(v) for p, vs in state.items() for k, v in vs.items()}
    for name, tensors in parts.items():
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary / f"{name}.safetensors")
    sums = {file.name: sha256_of(file) for file in sorted(temporary.iterdir())} | {"progress": digest(progress)}
    (temporary / "progress.json").write_text(json.dumps({"progress": progress, "sha256": sums}))
    for file in temporary.iterdir():
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
    _put_in_place(out)


def _put_in_place(out: Path) -> None:
    new, temporary, old = (out / name for name in NAMES)
    if new.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(new, old)
    os.replace(temporary, new)


def exists(out: Path) -> bool:
    """Whether a training has left a checkpoint in `out`; the beginning of a first one is none."""
    return any((out / name).exists() for name in NAMES[::2])


def load_checkpoint(
    out: Path, net: nn.Module, optimizers, ema: dict[str, Tensor] | None, check: Callable[[dict], None]
) -> dict:
    """Put weights and states back from the first whole one of NAMES; returns the progress. CheckpointError if none is whole.

    check: called with the progress before anything is put back; what it raises is no fault of the files. Nor is it one
    that memory ends.
    """
    faults = []
    for folder in (out / name for name in NAMES if (out / name).exists()):
        try:
            progress = _verified(folder)
            check(progress)
            _restore(folder, net, optimizers, ema)
        except FAULTS as error:
            if is_out_of_memory(error):
                raise
            faults.append(f"{folder}: {error}")
            continue
        if faults:
            warnings.warn(f"checkpoint {faults[0]}; {folder.name} is taken, step {progress['step']}", stacklevel=2)
        return progress
    raise CheckpointError(f"checkpoint {'; '.join(faults)}; give another --out")


def _verified(folder: Path) -> dict:
    told = json.loads((folder / "progress.json").read_text())
    for name, expected in told["sha256"].items():
        if (digest(told["progress"]) if name == "progress" else sha256_of(folder / name)) != expected:
            raise ValueError(f"{name} does not match its checksum")
    return told["progress"]


def _restore(folder: Path, net: nn.Module, optimizers, ema: dict[str, Tensor] | None) -> None:
    device = str(next(net.parameters()).device)
    net.load_state_dict(load_file(folder / "model.safetensors", device=device))
    for name, tensor in load_file(folder / "ema.safetensors", device=device).items() if ema is not None else ():
        ema[name].copy_(tensor)
    for i, optimizer in enumerate(optimizers):
        state: dict = {}
        for key, tensor in load_file(folder / f"optimizer-{i}.safetensors").items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def digest(told: dict | list) -> str:
    """The checksum of plain JSON values."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """The checksum of a file."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
