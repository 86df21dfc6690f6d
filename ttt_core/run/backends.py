"""How what devices are told reaches them: one in this thread, several in threads of their own, a cluster's through Ray.

In: the devices that `devices.py` finds. Out: a backend with `names`, `begin`, `ended`, `close`. Ray is imported only for a
cluster (`cluster.py`). Not here: what a device does (`supervise.py`), what it is told (`dispatch.py`).
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ttt_core.errors import InputError
from ttt_core.run import environment
from ttt_core.run.devices import Place, places
from ttt_core.run.supervise import Device, Outcome

POLL_S = 0.1
CLOSE_S = 10.0  # a worker that has not ended by then hangs in the kernel, and is left to it


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
