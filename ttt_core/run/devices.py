"""Which devices a run has, and how what they are told reaches them: one in this thread, several in threads of their own.

In: `auto` (every GPU, else `cpu`), `cpu` (as many workers as suit the model), `cpu:2`, `cuda`, `cuda:0,1`, or
`ray://HOST:PORT` of a cluster. Out: a backend with `names`, `begin`, `ended`, `close`. Ray is imported only for a cluster.
Not here: what a device does (`supervise.py`).
"""

import contextlib
import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ttt_core.errors import InputError
from ttt_core.model import host
from ttt_core.run import environment
from ttt_core.run.supervise import Device, Outcome

POLL_S = 0.1
CLOSE_S = 10.0  # a worker that has not ended by then hangs in the kernel, and is left to it
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
        raise InputError(f"devices {spec}: give auto, cpu, cpu:N, cuda, cuda:0,1 or ray://HOST:PORT")
    if spec.startswith("ray://"):
        return ()
    is_cpu = spec == "cpu" or (spec == "auto" and not has_driver(environ))
    if match["n"] or (is_cpu and workers > 1):
        n = int(match["n"] or workers)
        threads = environ.get("OMP_NUM_THREADS", str(max(1, host.cores() // n)))
        return tuple(
            Place(f"cpu:{i}", "cpu", {"OMP_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}) for i in range(n)
        )
    if match["ids"]:
        ids = _named(spec, match["ids"].split(","), environ)
    else:
        ids = {i: i for i in visible_gpus(environ)} if spec == "auto" else {}
    if not ids or (spec == "auto" and len(ids) == 1):
        return (Place(spec, spec),)  # its worker decides what that is
    return tuple(Place(f"cuda:{i}", "cuda", {"CUDA_VISIBLE_DEVICES": shown}) for i, shown in ids.items())


def cpu_workers(model: Path, tasks: int) -> int:
    """Workers that the model in folder `model` is run with on this CPU for so many tasks: one a core if it is small, and one else."""
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    if not 0 < size <= SMALL_BYTES:
        return 1
    return max(1, int(min(host.cores(), tasks, MOST_WORKERS, host.free_bytes() / WORKER_BYTES)))


def has_driver(environ: Mapping[str, str]) -> bool:
    """Whether a GPU may be here, if only one of which `nvidia-smi` knows nothing."""
    return bool(visible_gpus(environ)) or (Path("/dev/nvidiactl").exists() and "CUDA_VISIBLE_DEVICES" not in environ)


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
    """One device, in this thread: what it is told to do is done while it is waited for."""

    def __init__(self, place: Place, setup: Mapping, run_dir: Path, stopped: Callable[[], bool], show: Callable):
        self.names = (place.name,)
        self.device = Device({**setup, "device": place.device}, str(run_dir / "worker.log"), place.environ)
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


class Several:
    """Devices of this machine, each in a thread of its own; one that has not answered in time is replaced."""

    def __init__(self, places: tuple[Place, ...], setup: Mapping, run_dir: Path, stopped: Callable[[], bool]):
        self.places = {place.name: place for place in places}
        self.names, self.setup, self.run_dir = tuple(self.places), setup, run_dir
        self.closing, self.stopped = threading.Event(), stopped
        self.done: queue.SimpleQueue = queue.SimpleQueue()
        self.posts: dict[str, _Post] = {}
        self.waiting: dict[str, tuple] = {}  # device to (method, argument, when it is overdue)

    def begin(self, name: str, method: str, argument, overdue_s: float) -> None:
        """Tell a device to `start` or `solve`; one that has not answered after `overdue_s` is replaced."""
        if name not in self.posts:
            place = self.places[name]
            log = str(self.run_dir / f"worker-{name.replace(':', '-')}.log")
            device = Device({**self.setup, "device": place.device}, log, place.environ)
            device.stopped = lambda: self.closing.is_set() or self.stopped()
            self.posts[name] = _Post(name, device, self.done)
        self.posts[name].inbox.put((method, argument))
        self.waiting[name] = (method, argument, time.monotonic() + overdue_s)

    def ended(self) -> list[tuple[str, Outcome]]:
        """What ended within the next moment."""
        told, wait_s = [], POLL_S
        with contextlib.suppress(queue.Empty):
            while True:
                post, outcome = self.done.get(timeout=wait_s)
                wait_s = 0.0
                if self.posts.get(post.name) is not post:
                    continue
                method, argument, _ = self.waiting.pop(post.name)
                if isinstance(outcome, Exception):
                    del self.posts[post.name]
                    outcome = Outcome.unheard(method, argument, f"failed ({type(outcome).__name__}: {outcome})")
                told.append((post.name, outcome))
        for name in [name for name, (*_, at) in self.waiting.items() if time.monotonic() > at]:
            method, argument, _ = self.waiting.pop(name)
            self.posts.pop(name).inbox.put(None)
            told.append((name, Outcome.unheard(method, argument, "does not answer")))
        return told

    def close(self) -> None:
        """End all devices and their workers."""
        self.closing.set()
        for post in self.posts.values():
            post.inbox.put(None)
        until = time.monotonic() + CLOSE_S
        for post in self.posts.values():
            post.thread.join(max(0.0, until - time.monotonic()))


class _Post:
    """A device and its thread. It is one for as long as the device lives, since a worker dies with the thread that started it."""

    def __init__(self, name: str, device: Device, done: queue.SimpleQueue):
        self.name, self.device, self.inbox = name, device, queue.SimpleQueue()
        self.thread = threading.Thread(target=self._serve, args=(done,), name=name, daemon=True)
        self.thread.start()

    def _serve(self, done: queue.SimpleQueue) -> None:
        try:
            while call := self.inbox.get():
                method, argument = call
                done.put((self, getattr(self.device, method)(argument)))
        except Exception as error:
            done.put((self, error))
        self.device.end()


@contextlib.contextmanager
def opened(
    spec: str, setup: Mapping, run_dir: Path, stopped: Callable[[], bool], show: Callable[[str], None], workers: int = 1
) -> Iterator:
    """The backend for `spec`; its workers and all else that it started are gone when the context ends.

    stopped: whether a signal came. show: called with each stage of the work of a single device. workers: see `places`.
    """
    found = places(spec, os.environ, workers)
    if len(found) == 1:
        backend = Here(found[0], setup, run_dir, stopped, show)
    else:
        backend = Several(found, setup, run_dir, stopped) if found else _cluster(spec, setup, run_dir)
    try:
        yield backend
    finally:
        backend.close()


def _cluster(spec: str, setup: Mapping, run_dir: Path):
    if environment.version("ray") == "absent":
        raise InputError(
            f"devices {spec}: a cluster needs Ray; pip install 'ray[client]', or give devices of this machine"
        )
    from ttt_core.run.cluster import Cluster

    return Cluster(spec, setup, run_dir)
