"""What a search gives up where its time is short, by the pace of its last levels: branches first, then views.

Not here: the search itself (`decode.py`), how a frontier is parted (`frontier.py`).
"""

import math
import time
from dataclasses import replace

import numpy as np

from ttt_core.config import DecodeConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve.frontier import Frontier

PACED = 8  # levels after which the time that they took says whether the rest will end by the deadline
NARROWED = 0.5  # where less than this share will be in time, each query keeps one branch before queries are cut


class Pace:
    """How fast a front goes, against a deadline in monotonic seconds."""

    def __init__(self, deadline: float):
        self.deadline, self.levels, self.since = deadline, -1, time.monotonic()

    def share(self, ahead: int) -> float:
        """Asked after every level: the share of the `ahead` next ones that fits the time, looked at every PACED levels, else 1."""
        self.levels += 1
        if self.levels == 0:  # what the first one takes, new shapes take
            self.since = time.monotonic()
        if self.levels < PACED or math.isinf(self.deadline):
            return 1.0
        now = time.monotonic()
        takes, left = (now - self.since) / self.levels * ahead, max(0.0, self.deadline - now)
        self.levels, self.since = 0, now
        return left / takes if takes > left else 1.0


def hurried(model: LoadedModel, front: Frontier, config: DecodeConfig, share: float) -> tuple[Frontier, float]:
    """A front that is late, and the share of its queries to go on with."""
    is_cpu, is_narrow = model.device.type == "cpu", len(np.unique(front.owner)) == len(front.owner)
    if not is_narrow and (share < NARROWED or not is_cpu or len(front.asked) == 1):
        return replace(front, hurried=True, spent=np.full(len(front.asked), config.max_tokens)), 1.0
    return replace(front, hurried=True), share if is_cpu else 1.0
