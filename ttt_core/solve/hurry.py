"""What a search gives up where its time is short, by the pace of its last passes: branches first, then views.

Not here: the search itself (`decode.py`), how a frontier is parted (`frontier.py`).
"""

import time
from dataclasses import replace

import numpy as np

from ttt_core.config import DecodeConfig
from ttt_core.model.load import LoadedModel
from ttt_core.solve.frontier import Frontier

PACED = 8  # passes after which the time that they took says whether the rest will end by the deadline
NARROWED = 0.5  # where less than this share will be in time, each query keeps one branch before queries are cut


class Pace:
    """How fast the tokens that are `left` of a front's answers become fewer, against a deadline in monotonic seconds."""

    def __init__(self, deadline: float, left: int):
        self.deadline, self.passes, self.since, self.left = deadline, -1, time.monotonic(), left

    def share(self, left: int) -> float:
        """Asked before every pass: the share of the tokens `left` that fits the time.

        1 where it is not looked at: it is every PACED passes, or when these have brought one of PACED tokens.
        """
        self.passes += 1
        now, gone = time.monotonic(), self.left - left
        if self.passes < 1 or gone <= 0 or (self.passes < PACED and gone * PACED < self.left):
            return 1.0
        takes, has = (now - self.since) / gone * left, max(0.0, self.deadline - now)
        self.passes, self.since, self.left = 0, now, left
        return has / takes if takes > has else 1.0


def hurried(model: LoadedModel, front: Frontier, config: DecodeConfig, share: float) -> tuple[Frontier, float]:
    """A front that is late, and the share of its queries to go on with."""
    is_cpu, is_narrow = model.device.type == "cpu", len(np.unique(front.owner)) == len(front.owner)
    if not is_narrow and (share < NARROWED or not is_cpu or len(front.asked) == 1):
        return replace(front, hurried=True, spent=np.full(len(front.asked), config.max_tokens)), 1.0
    return replace(front, hurried=True), share if is_cpu else 1.0
