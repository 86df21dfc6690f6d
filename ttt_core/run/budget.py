"""The time of a run: one deadline on a monotonic clock, a reserve for the last build, a quota for each task.

All times are seconds of `time.monotonic()`, passed in as `now`; nothing here reads a clock. Not here: which task
comes next and what it is expected to cost (`schedule.py`), or who is killed when (`worker.py`).
"""

import math
from dataclasses import dataclass

from ttt_core.errors import InputError

LONG_RUN_S = 3600.0  # from here on a reserve of two minutes is cheap
MIN_RESERVE_S = 2.0
LONG_RESERVE_S = 120.0
RESERVE_SHARE = 0.02


@dataclass(frozen=True)
class Budget:
    """started: monotonic seconds at the notebook's first line. seconds: length of the run, its last build included."""

    started: float
    seconds: float

    def __post_init__(self):
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise InputError(f"budget {self.seconds} s: give a finite number of seconds, 0 or more")
        if not math.isfinite(self.started):
            raise InputError(f"started {self.started}: give a value of time.monotonic()")

    @property
    def reserve_s(self) -> float:
        """Seconds kept for ending the worker and building the final file."""
        least = LONG_RESERVE_S if self.seconds >= LONG_RUN_S else MIN_RESERVE_S
        return max(least, RESERVE_SHARE * self.seconds)

    @property
    def deadline(self) -> float:
        """When the last task must have answered. Not after the start where the reserve takes everything."""
        return self.started + max(0.0, self.seconds - self.reserve_s)

    @property
    def hard_stop(self) -> float:
        """When a worker is killed even inside its grace: half of the reserve is left for the build."""
        return self.started + max(0.0, self.seconds - self.reserve_s / 2)

    def left_s(self, now: float) -> float:
        """Seconds until the deadline, never below 0."""
        return max(0.0, self.deadline - now)

    def used_s(self, now: float) -> float:
        """Seconds since the start."""
        return now - self.started


def quota_s(left_s: float, cost: float, cost_left: float, least_s: float) -> float:
    """Seconds for the next task: its share of `left_s` by cost, at least `least_s`, at most what is left.

    cost_left: the summed cost of all tasks still to do, this one included. What a task does not use stays in `left_s`
    and is divided among the others. `least_s` keeps a budget that is too small for all from being too small for each.
    """
    return min(left_s, max(least_s, left_s * cost / cost_left))
