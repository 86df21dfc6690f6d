"""Which devices a run has, and how what they are told reaches them: one in this process, several as Ray actors.

In: `auto`, `cpu`, `cpu:2`, `cuda`, `cuda:0,1`, or `ray://HOST:PORT` of a cluster. Out: a backend with `names`, `begin`,
`ended`, `close`. Ray is imported only for several devices. Not here: what a device does (`supervise.py`).
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ttt_core.errors import InputError
from ttt_core.run import environment
from ttt_core.run.supervise import Device, Outcome

SPEC = re.compile(r"auto|cpu(:(?P<n>[1-9][0-9]?))?|cuda(:(?P<ids>[0-9]+(,[0-9]+)*))?|ray://\S+")


@dataclass(frozen=True)
class Place:
    """name: of the device in records and logs. device: what its worker calls it. environ: its own variables."""

    name: str
    device: str
    environ: dict = field(default_factory=dict)


def places(spec: str, environ: Mapping[str, str]) -> tuple[Place, ...]:
    """The devices of this machine that `spec` names; InputError unless it names some. A cluster has none here."""
    if not (match := SPEC.fullmatch(spec)):
        raise InputError(f"devices {spec}: give auto, cpu, cpu:N, cuda, cuda:0,1 or ray://HOST:PORT")
    if spec.startswith("ray://"):
        return ()
    if match["n"]:
        share = max(1, (os.cpu_count() or 1) // int(match["n"]))
        threads = {"OMP_NUM_THREADS": environ.get("OMP_NUM_THREADS", str(share)), "CUDA_VISIBLE_DEVICES": ""}
        return tuple(Place(f"cpu:{i}", "cpu", threads) for i in range(int(match["n"])))
    if match["ids"]:
        ids = _named(spec, match["ids"].split(","), environ)
    else:
        ids = {i: i for i in visible_gpus(environ)} if spec == "auto" else {}
    if not ids or (spec == "auto" and len(ids) == 1):
        return (Place(spec, spec),)  # its worker decides what that is
    return tuple(Place(f"cuda:{i}", "cuda", {"CUDA_VISIBLE_DEVICES": shown}) for i, shown in ids.items())


def _named(spec: str, numbers: list[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The GPUs that `spec` names by number, as CUDA_VISIBLE_DEVICES will tell of each; counted, as torch does, among those shown."""
    if len(set(numbers)) < len(numbers):
        raise InputError(f"devices {spec}: names a GPU twice; give each once")
    if "CUDA_VISIBLE_DEVICES" not in environ:
        return {i: i for i in numbers}
    shown = visible_gpus(environ)
    if missing := [i for i in numbers if int(i) >= len(shown)]:
        told = f"CUDA_VISIBLE_DEVICES={environ['CUDA_VISIBLE_DEVICES']} shows {len(shown)}"
        raise InputError(f"devices {spec}: there is no GPU {missing[0]}, for {told}; number them from 0")
    return {i: shown[int(i)] for i in numbers}


def visible_gpus(environ: Mapping[str, str], query: str = "nvidia-smi") -> tuple[str, ...]:
    """Ids of the GPUs that programs may use here; a driver that does not answer has none."""
    if "CUDA_VISIBLE_DEVICES" in environ:
        listed = (i.strip() for i in environ["CUDA_VISIBLE_DEVICES"].split(","))
        return tuple(i for i in listed if i and i != "-1")
    try:
        asked = [query, "--query-gpu=index", "--format=csv,noheader"]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=30).stdout  # also where one fell off
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line for line in map(str.strip, told.splitlines()) if line.isdigit())  # else a driver's complaint


class Here:
    """One device, in this process: what it is told to do is done while it is waited for."""

    def __init__(self, place: Place, setup: Mapping, log: Path, stopped: Callable[[], bool], show: Callable):
        self.names = (place.name,)
        self.device = Device({**setup, "device": place.device}, str(log), place.environ)
        self.device.stopped, self.device.show = stopped, show
        self.told: tuple | None = None

    def begin(self, name: str, method: str, argument, overdue_s: float) -> None:
        """Tell the device to `start` or `solve`."""
        self.told = (method, argument)

    def ended(self) -> list[tuple[str, Outcome]]:
        """What ended, after a short wait at most where a signal came."""
        method, argument = self.told
        return [(self.names[0], getattr(self.device, method)(argument))]

    def close(self) -> None:
        self.device.end()


@contextlib.contextmanager
def opened(
    spec: str,
    setup: Mapping,
    run_dir: Path,
    stopped: Callable[[], bool],
    show: Callable[[str], None],
    say: Callable[[str], None],
) -> Iterator:
    """The backend for `spec`; its workers and all else that it started are gone when the context ends.

    stopped: whether a signal came. show: called with each stage of the work, say: with a line for people.
    """
    found = places(spec, os.environ)
    backend = None
    if len(found) != 1:
        try:
            backend = _several(found, spec, setup, run_dir)
        except InputError as error:
            if spec != "auto":
                raise
            say(f"{error}; going on with {found[0].name} alone")
    backend = backend or Here(found[0], setup, run_dir / "worker.log", stopped, show)
    try:
        yield backend
    finally:
        backend.close()


def _several(found: tuple[Place, ...], spec: str, setup: Mapping, run_dir: Path):
    if environment.version("ray") == "absent":
        raise InputError(f"devices {spec}: several devices need Ray; pip install 'ray[client]', or give one device")
    from ttt_core.run.cluster import Cluster

    return Cluster(found, spec, setup, run_dir)
