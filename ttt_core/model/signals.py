"""What SIGTERM and SIGINT do while something must be ended well. No torch."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def caught_signals() -> Iterator[list[str]]:
    """SIGTERM and SIGINT put their name in the list instead of ending the process; handlers restored at the end."""
    caught: list[str] = []
    with _handled(lambda number, frame: caught.append(signal.Signals(number).name)):
        yield caught


@contextlib.contextmanager
def deferred_signals() -> Iterator[list[str]]:
    """`caught_signals`, of which the first has its effect after all where the context ends without an error."""
    with caught_signals() as caught:
        yield caught
    for name in caught[:1]:
        signal.raise_signal(signal.Signals[name])


@contextlib.contextmanager
def leaving_on_signals(stands: Callable[[], bool]) -> Iterator[None]:
    """SIGTERM and SIGINT end the process, with exit code 0 once a valid file `stands`: for the time before a run."""

    def leave(number, frame):
        raise SystemExit(0 if stands() else 128 + number)

    with _handled(leave):
        yield


@contextlib.contextmanager
def _handled(handler: Callable) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; elsewhere a signal does what it did
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
