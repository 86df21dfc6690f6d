"""Which devices a run has.

In: `auto` (every GPU, else `cpu`), `cpu` (as many workers as suit the model), `cpu:2`, `cuda` (every GPU), `cuda:0,1` (a GPU named
twice has two workers), or `ray://HOST:PORT` of a cluster. Out: places. Not here: how what devices are told reaches them
(`backends.py`), what one does (`supervise.py`).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ttt_core.errors import InputError
from ttt_core.model import host
from ttt_core.run.environment import is_old, nvidia_smi

SMALL_BYTES = 2**28  # of weights: two workers of one thread solve half as much again as one of two threads
WORKER_BYTES = 3 * 2**30  # that a worker with a small model takes at most
MOST_WORKERS = 16
SPEC = re.compile(r"auto|cpu(:(?P<n>[1-9][0-9]?))?|cuda(:(?P<ids>[0-9]+(,[0-9]+)*))?|ray://\S+")


@dataclass(frozen=True)
class Place:
    """name: of the device in records and logs. device: what its worker calls it. environ: its own variables."""

    name: str
    device: str
    environ: dict = field(default_factory=dict)


def places(spec: str, environ: Mapping[str, str], workers: int = 1) -> tuple[Place, ...]:
    """The devices of this machine that `spec` names; InputError unless it names some. A cluster has none here.

    workers: on the CPU, where `spec` does not say.
    """
    if not (match := SPEC.fullmatch(spec)):
        raise InputError(
            f"devices {spec}: give auto, cpu, cpu:N with N from 1 to 99, cuda, cuda:0,1 or ray://HOST:PORT"
        )
    if spec.startswith("ray://"):
        return ()
    gpus = visible_gpus(environ) if spec in ("auto", "cuda") else ()
    is_cpu = spec == "cpu" or (spec == "auto" and not gpus and not has_driver(environ))
    if match["n"] or (is_cpu and workers > 1):
        n = int(match["n"] or workers)
        return tuple(Place(f"cpu:{i}", "cpu", _share(n, environ) | {"CUDA_VISIBLE_DEVICES": ""}) for i in range(n))
    if match["ids"]:
        ids = match["ids"].split(",")
        shown = _named(spec, ids, environ)
    else:
        ids = shown = gpus
    if not ids or (ids is gpus and len(ids) == 1):
        is_limited = host.cores() < (os.cpu_count() or 1)  # torch counts the machine's cores, not a container's share
        return (Place(spec, spec, _share(1, environ) if is_limited else {}),)  # its worker decides what that is
    again = [ids[:n].count(i) for n, i in enumerate(ids)]
    names = [f"cuda:{i}" + (f"#{n + 1}" if n else "") for i, n in zip(ids, again, strict=True)]
    share = _share(len(ids), environ)
    environs = [share | {"CUDA_VISIBLE_DEVICES": one} for one in shown]
    return tuple(Place(name, "cuda", own) for name, own in zip(names, environs, strict=True))


def _share(workers: int, environ: Mapping[str, str]) -> dict[str, str]:
    """A worker's share of the threads, where nobody has said how many."""
    return {"OMP_NUM_THREADS": environ.get("OMP_NUM_THREADS", str(max(1, host.cores() // workers)))}


def cpu_workers(model: Path, tasks: int) -> int:
    """Workers that the model in folder `model` is run with on this CPU for so many tasks: one a core if it is small, and one else."""
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    if not 0 < size <= SMALL_BYTES:
        return 1
    return max(1, int(min(host.cores(), tasks, MOST_WORKERS, host.free_bytes() / WORKER_BYTES)))


def has_driver(environ: Mapping[str, str]) -> bool:
    """Whether a GPU may be here of which `nvidia-smi` tells nothing."""
    return Path("/dev/nvidiactl").exists() and "CUDA_VISIBLE_DEVICES" not in environ


def _named(spec: str, numbers: list[str], environ: Mapping[str, str]) -> list[str]:
    """The GPUs that `spec` names by number, as CUDA_VISIBLE_DEVICES will tell of each; counted, as torch does, among those shown."""
    if "CUDA_VISIBLE_DEVICES" not in environ:
        return numbers
    shown = visible_gpus(environ)
    if missing := [i for i in numbers if int(i) >= len(shown)]:
        told = f"CUDA_VISIBLE_DEVICES={environ['CUDA_VISIBLE_DEVICES']} shows {len(shown)}"
        raise InputError(f"devices {spec}: there is no GPU {missing[0]}, for {told}; number them from 0")
    return [shown[int(i)] for i in numbers]


def visible_gpus(environ: Mapping[str, str], query: str = "nvidia-smi") -> tuple[str, ...]:
    """Ids of the GPUs that programs may use here, without those too old for torch; a driver that does not answer has none."""
    if "CUDA_VISIBLE_DEVICES" in environ:
        listed = (i.strip() for i in environ["CUDA_VISIBLE_DEVICES"].split(","))
        return tuple(i for i in listed if i and i != "-1")
    numbers = (line.split(",")[0].strip() for line in nvidia_smi(query) if not is_old(line))
    return tuple(number for number in numbers if number.isdigit())  # else a driver's complaint
