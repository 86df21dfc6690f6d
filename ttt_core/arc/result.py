"""What solving one task yields: candidates, attempts, timings. Plain data, JSON in and out; numpy only.

Not here: how candidates are found (`solve/`) or where records are kept (`run/store.py`).
"""

from dataclasses import dataclass, field

import numpy as np

OUT_OF_TIME = "the time was up"  # in `notes["ended"]` of an adaptation that the clock ended


@dataclass(frozen=True, eq=False)
class Candidate:
    """One answer grid for one test input, in the task's own orientation and colours.

    grid: uint8 (H, W). logprobs: log-probability of the whole answer under each of the N scoring views, nats,
    NaN where it was not scored. found_in: indices of the decoding views whose search produced it.
    """

    grid: np.ndarray
    logprobs: tuple[float, ...] = ()
    found_in: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class TaskResult:
    """The record of one task. status: "ok", "failed" or "skipped"; reason: empty when ok.

    attempts: per test input the two grids to submit; empty unless ok. candidates: per test input, any number.
    views: one short description per decoding view (for example "d3 c0192837465"), so a record explains itself.
    seconds: stage name to wall seconds. notes: any JSON-able extras (steps taken, losses, token counts).
    """

    task_id: str
    status: str
    reason: str = ""
    attempts: tuple[tuple[np.ndarray, np.ndarray], ...] = ()
    candidates: tuple[tuple[Candidate, ...], ...] = ()
    views: tuple[str, ...] = ()
    seconds: dict = field(default_factory=dict)
    peak_gib: float = 0.0
    notes: dict = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether it answers a test input without a candidate."""
        return self.status == "ok" and not all(self.candidates)

    @property
    def was_cut(self) -> bool:
        """Whether the clock or its worker's death ended its adaptation, search or scoring, so that more time may bring more."""
        is_short = OUT_OF_TIME in (self.notes.get("ended") or "") or bool(self.notes.get("cut_views"))
        return is_short or "lost" in self.notes or self.is_empty
