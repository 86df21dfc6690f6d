"""The time of a run: one deadline on a monotonic clock, and a reserve for the last build.

All times are seconds of `time.monotonic()`, passed in as `now`; nothing here reads a clock. Not here: which task
comes next and how long it may take (`schedule.py`), or who is killed when (`supervise.py`).
"""

import math
from dataclasses import dataclass

from ttt_core.errors import InputError

LEAST_RESERVE_S = 2.0
RESERVE_S = 120.0
RESERVE_SHARE = 0.02
SHORT_SHARE = 1 / 30  # of a run under an hour: there two minutes would be a large part of the budget


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
        """Seconds kept for ending the workers and building the final file: 120 or 2 %, less in a run under an hour."""
        return max(LEAST_RESERVE_S, min(RESERVE_S, SHORT_SHARE * self.seconds), RESERVE_SHARE * self.seconds)

    @property
    def deadline(self) -> float:
        """When the last task must have answered. Not after the start where the reserve takes everything."""
        return self.started + max(0.0, self.seconds - self.reserve_s)

    @property
    def hard_stop(self) -> float:
        """When a worker is killed even inside its grace: half of the reserve is left for the build."""
        return self.started + max(0.0, self.seconds - self.reserve_s / 2)

    @property
    def last_word(self) -> float:
        """When a supervisor that has not answered is given up: a quarter of the reserve is left for the build."""
        return self.started + max(0.0, self.seconds - self.reserve_s / 4)

    def left_s(self, now: float) -> float:
        """Seconds until the deadline, never below 0."""
        return max(0.0, self.deadline - now)

    def used_s(self, now: float) -> float:
        """Seconds since the start."""
        return now - self.started
