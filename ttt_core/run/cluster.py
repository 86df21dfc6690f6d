"""The devices of a Ray cluster: an actor for each. The one file that imports Ray.

An actor only supervises (`supervise.Device`); the model lives in the actor's child process, which is killed where it
hangs, whatever Ray thinks of it. An actor that does not answer in time, or whose machine is gone, is replaced.
The library and the model lie at the same paths on every machine.
"""

import contextlib
import os
import signal
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


class Cluster:
    """The backend for the cluster at `spec`, an address ray://HOST:PORT."""

    def __init__(self, spec: str, setup: Mapping, run_dir: Path):
        self.setup, self.run_dir = setup, run_dir.resolve()
        try:
            with _untouched():
                ray.init(address=spec, log_to_driver=False, configure_logging=False)
        except (RayError, ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
            self.close()
            told = " ".join(str(error).split())[-300:]  # of a traceback its end
            raise InputError(f"devices {spec}: Ray cannot be reached ({told}); give devices of this machine") from None
        remote = ray.remote(max_restarts=0, max_concurrency=1)(Device)
        self.options = _devices()
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
        """End all actors, whose workers end with them, and leave the cluster."""
        for actor in getattr(self, "actors", {}).values():
            with contextlib.suppress(RayError):
                ray.kill(actor)
        with _untouched():
            ray.shutdown()

    def _outcome(self, reference) -> tuple[str, Outcome]:
        name, method, argument, _ = self.waiting.pop(reference)
        try:
            return name, ray.get(reference, timeout=0)
        except RayError as error:
            with contextlib.suppress(RayError):
                ray.kill(self.actors.pop(name))
            return name, Outcome.unheard(method, argument, f"was lost ({type(error).__name__})")


def _devices() -> dict[str, tuple[Place, dict]]:
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
    """Ray sees an environment without secrets but its own, and the handlers of signals stay as they were."""
    environ, numbers = dict(os.environ), (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    os.environ.clear()
    own = {name: value for name, value in environ.items() if name.startswith("RAY_")}
    os.environ.update(worker_environment(environ) | own)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environ)
        for number, handler in handlers.items():
            with contextlib.suppress(ValueError):  # not the main thread, which alone may set them
                signal.signal(number, handler)
