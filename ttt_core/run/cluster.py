"""Several devices through Ray: an actor for each, on this machine or on those of a cluster. The one file that imports Ray.

An actor only supervises (`supervise.Device`); the model lives in the actor's child process, which is killed where it
hangs, whatever Ray thinks of it. An actor that does not answer in time, or whose machine is gone, is replaced.
On a cluster the library and the model lie at the same paths on every machine. A Ray started here listens, as Ray does, on
all interfaces where there are some, and lets in only those who have its token.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ttt_core.errors import InputError
from ttt_core.run.devices import Place
from ttt_core.run.environment import worker_environment
from ttt_core.run.supervise import Device, Outcome

POLL_S = 0.1
STORE_BYTES = 80 * 2**20  # of Ray's object store, which holds only tasks and results; Ray's least is 75 MiB
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # a task out of memory costs itself, not a supervisor
    "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Cluster:
    """The backend for several devices. places: of this machine; none of them for a cluster, which is asked for its own."""

    def __init__(self, places: tuple[Place, ...], spec: str, setup: Mapping, run_dir: Path):
        self.setup, self.run_dir = setup, run_dir.resolve()
        self.folder = None if spec.startswith("ray://") else tempfile.mkdtemp(prefix="ray-")
        try:
            with _untouched():
                _connect(spec, self.folder, len(places))
        except (RayError, ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
            self.close()
            told = " ".join(str(error).split())[-300:]  # of a traceback its end
            raise InputError(f"devices {spec}: Ray cannot be started or reached ({told}); give one device") from None
        remote = ray.remote(max_restarts=0, max_concurrency=1)(Device)
        self.options = {place.name: (place, {"num_cpus": 0}) for place in places} or _of_cluster()
        self.names = tuple(self.options)
        self.remote, self.actors, self.waiting = remote, {}, {}

    def begin(self, name: str, method: str, argument, overdue_s: float) -> None:
        """Tell a device to `start` or `solve`; one that has not answered after `overdue_s` is replaced."""
        if name not in self.actors:
            place, options = self.options[name]
            log = str(self.run_dir / f"worker-{name.replace(':', '-')}.log")
            setup = {**self.setup, "device": place.device}
            self.actors[name] = self.remote.options(**options).remote(setup, log, place.environ)
        reference = getattr(self.actors[name], method).remote(argument)
        self.waiting[reference] = (name, method, argument, time.monotonic() + overdue_s)

    def ended(self) -> list[tuple[str, Outcome]]:
        """What ended within the next moment."""
        done, _ = ray.wait(list(self.waiting), num_returns=1, timeout=POLL_S)
        late = [ref for ref, (*_, at) in self.waiting.items() if ref not in done and time.monotonic() > at]
        return [self._outcome(reference) for reference in (*done, *late)]

    def close(self) -> None:
        """End all actors, whose workers end with them, and Ray where it was started here."""
        for actor in getattr(self, "actors", {}).values():
            with contextlib.suppress(RayError):
                ray.kill(actor)
        with _untouched():
            ray.shutdown()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _outcome(self, reference) -> tuple[str, Outcome]:
        name, method, argument, _ = self.waiting.pop(reference)
        try:
            return name, ray.get(reference, timeout=0)
        except RayError as error:
            with contextlib.suppress(RayError):
                ray.kill(self.actors.pop(name))
            told = f"{method}: the device's supervisor was lost ({type(error).__name__})"
        if method == "start":
            return name, Outcome("dead", told)
        return name, Outcome.failed(argument.tasks, told, is_system=True)


def _connect(spec: str, folder: str | None, devices: int) -> None:
    """A cluster, or a Ray of this machine alone: no dashboard, no statistics."""
    if folder is None:
        ray.init(address=spec, log_to_driver=False, configure_logging=False)
        return
    ray.init(
        num_cpus=devices,
        num_gpus=0,  # the workers get theirs by CUDA_VISIBLE_DEVICES
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        object_store_memory=STORE_BYTES,
        _temp_dir=folder,
        _node_ip_address="127.0.0.1",
    )


def _of_cluster() -> dict[str, tuple[Place, dict]]:
    """A device for every GPU, which Ray shows its actor alone; without any, one for every machine."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if gpus:
        return {f"gpu:{i}": (Place(f"gpu:{i}", "cuda"), {"num_cpus": 0, "num_gpus": 1}) for i in range(gpus)}
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return {
        f"node:{i}": (
            Place(f"node:{i}", "cpu"),
            {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)},
        )
        for i, node in enumerate(nodes)
    }


@contextlib.contextmanager
def _untouched() -> Iterator[None]:
    """Ray inherits an environment without secrets but its own, and the handlers of signals stay as they were."""
    environ, numbers = dict(os.environ), (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    os.environ.clear()
    own = {name: value for name, value in environ.items() if name.startswith("RAY_")}
    os.environ.update(worker_environment(environ) | QUIET | own)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environ)
        for number, handler in handlers.items():
            with contextlib.suppress(ValueError):  # not the main thread, which alone may set them
                signal.signal(number, handler)
