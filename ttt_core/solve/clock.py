"""Whether a long pass would end before a deadline. A worker that is in one when its time is up is killed, with all it has found.

Not here: what a search gives up between its many short passes (`hurry.py`).
"""

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from ttt_core.model.load import LoadedModel

KEPT = 3  # passes whose pace is remembered; the best counts, so that a stall does not keep all that follow from being begun
_paces: WeakKeyDictionary = WeakKeyDictionary()  # by model and kind, seconds a token of its last passes


def fits(model: LoadedModel, kind: str, tokens: int, deadline: float, share: float = 1.0) -> bool:
    """Whether a pass over so many tokens would take this share of the time to the deadline, at the best pace of the model's last ones of its kind.

    The first two would: the first one is slow, for it loads kernels and takes memory, and tells nothing of the others.
    """
    takes = min(_paces.get(model, {}).get(kind, ()), default=0.0) * tokens
    return takes < share * (deadline - time.monotonic())


def fitting_size(
    model: LoadedModel, kind: str, widest: Sequence[int], size: int, deadline: float, share: float = 1.0
) -> int:
    """How many of `size` rows a pass should have, halved until it would take `share` of the time; 0 if one row alone would end too late.

    widest: tokens of the widest of the first rows, by their number less one.
    """
    while size > 1 and not fits(model, kind, size * int(widest[size - 1]), deadline, share):
        size = (size + 1) // 2
    return size if fits(model, kind, size * int(widest[size - 1]), deadline) else 0


@contextlib.contextmanager
def timed(model: LoadedModel, kind: str, tokens: int):
    """What is done within the context is a pass of its kind over so many tokens; it tells the pace of the next."""
    began = time.monotonic()
    yield
    paces = _paces.setdefault(model, {})
    if kind in paces:
        paces[kind].append((time.monotonic() - began) / max(1, tokens))
    else:
        paces[kind] = deque(maxlen=KEPT)
