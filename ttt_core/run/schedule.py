"""Which task comes next, how long it may take, and what it is expected to cost. No clock, no device, no process.

In: costs in tokens, the time now and the time left, and how long finished turns took. Out: turns. First every task has
a turn; then the time that is left goes to the tasks in doubt, those first whose answer is least probable, again and again.

The three cheapest come first, to measure the pace soon. Then longest first, for that ends many devices at the same
moment; but cheapest first where the pace, or before there is one the least time of a turn, says that there is not enough for all: small tasks are solved most often and
in least time, so that order leaves the most tasks solved at any moment.
"""

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ttt_core.arc.tasks import Task
from ttt_core.config import Config

BACKWARD = 3  # a training step costs as much as three forward passes over its tokens
# As many of a long forward pass a token of an answer costs in a view: search takes few at once, scoring several candidates.
SEARCHED, SCORED = 15, 10
MEASURED = 3  # turns that must have ended before their pace counts; as many of the cheapest tasks come first
SLACK = 4  # times its expected seconds a task may take; a hung one is gone then, whatever time is left
AGAIN = 2  # times what its cost says that a further turn may take: with a low floor branches are many
CUT = 0.9  # a task that used so much of its seconds was cut short by them


def cost(task: Task, config: Config) -> float:
    """Expected work of a task in tokens of a forward pass: adapting, reading and searching each view, scoring."""
    shown = sum(pair.input.size + pair.output.size for pair in task.train)
    largest = max(pair.output.size for pair in task.train)
    mean = shown / len(task.train)  # of a training sequence, roughly
    step_tokens = max(config.adapt.batch_tokens, config.adapt.batch_sequences * mean)
    adapting = 0 if config.adapt.method == "none" else BACKWARD * config.adapt.steps_at(mean) * step_tokens
    reading = config.decode.views * sum(shown + pair.input.size for pair in task.test)
    answering = (SEARCHED * config.decode.views + SCORED * config.rescore.views) * len(task.test) * largest
    return adapting + reading + answering


@dataclass(frozen=True)
class Turn:
    """One try at a task. number: 1, or that of a further pass. smaller: after a system failure. seconds: until its deadline."""

    task_id: str
    number: int
    smaller: bool
    seconds: float
    cost: float


@dataclass
class Pace:
    """Measured seconds a token, of all devices together: they are alike, or differ less than tasks do."""

    seconds: float = 0.0
    tokens: float = 0.0
    turns: int = 0

    def add(self, turn: Turn, seconds: float, was_cut: bool) -> None:
        """Learn from a turn that ended by itself after `seconds`; one that these cut short is taken to need twice as many."""
        self.seconds += seconds * (2 if was_cut or seconds >= CUT * turn.seconds else 1)
        self.tokens += turn.cost
        self.turns += 1

    def expected_s(self, tokens: float) -> float | None:
        """Seconds of so much work on one device; None while too little was measured."""
        return tokens * self.seconds / self.tokens if self.turns >= MEASURED else None


@dataclass
class Schedule:
    """Tasks by the turn they wait for; each is in one of the queues, in `running`, or done. Times are monotonic seconds.

    costs, further_costs: tokens by task id. least_s: what a first turn gets at least, for less solves nothing.
    """

    costs: Mapping[str, float]
    further_costs: Mapping[str, float]
    least_s: float
    fresh: deque = field(default_factory=deque)  # cheapest left
    later: deque = field(default_factory=deque)  # those that failed, in this run or an earlier one
    again: deque = field(default_factory=deque)  # (task id, device that failed at it): next, with a smaller profile
    doubted: list = field(default_factory=list)  # heap of (number of the turn, -doubt, task id, seconds of one before)
    first_left: float = 0.0  # tokens of the three queues
    further_left: float = 0.0  # tokens of the heap
    running: dict = field(default_factory=dict)  # device name to (Turn, expected end)
    begun: int = 0
    pace: Pace = field(default_factory=Pace)

    def add(self, fresh: list[str], failed_before: list[str] = ()) -> None:
        """Let tasks wait for their first turn; those that failed before come last."""
        for queue, ids in ((self.fresh, fresh), (self.later, failed_before)):
            queue.extend(sorted(ids, key=lambda task_id: (self.costs[task_id], task_id)))
            self.first_left += sum(self.costs[task_id] for task_id in ids)

    def doubt(self, task_id: str, doubt: float, used_s: float, number: int = 2) -> None:
        """Let a task that took `used_s` seconds a turn wait for its turn `number`. doubt: the larger, the sooner among these."""
        heapq.heappush(self.doubted, (number, -doubt, task_id, used_s))
        self.further_left += self.further_costs[task_id]

    def unbegun(self) -> int:
        """Tasks that still wait for a first turn."""
        return len(self.fresh) + len(self.later) + len(self.again)

    def has_turn(self, left_s: float) -> bool:
        """Whether a free device would get something to do; drops the further turns that no longer fit."""
        while self.doubted and not self.unbegun() and self._again_s(*self.doubted[0][2:]) > left_s:
            self.further_left -= self.further_costs[heapq.heappop(self.doubted)[2]]
        return left_s > 0 and bool(self.unbegun() or self.doubted)

    def turn(self, device: str, now: float, left_s: float, devices: int) -> Turn | None:
        """The next turn for a free device, or None. left_s: until the deadline. devices: how many still work."""
        if not self.has_turn(left_s):
            return None
        taken = sum(max(0.0, end - now) for _, end in self.running.values())
        share = max(0.0, devices * left_s - taken)  # of the devices' time, what is free
        turn = self._first(device, share, left_s, devices) if self.unbegun() else self._further(share, left_s)
        end = now + min(turn.seconds, self.pace.expected_s(turn.cost) or turn.seconds)
        self.running[device] = (turn, end)
        return turn

    def ended(self, device: str, seconds: float, measured: bool, was_cut: bool = False) -> Turn:
        """The device's turn is over. measured: it ended by itself, so that its seconds tell the pace."""
        turn, _ = self.running.pop(device)
        if measured:
            self.pace.add(turn, seconds, was_cut)
        return turn

    def retry(self, turn: Turn, device: str) -> None:
        """Let a task at which `device` failed be the next of any other, or its last, with a smaller profile."""
        self.again.append((turn.task_id, device))
        self.first_left += self.costs[turn.task_id]

    def _first(self, device: str, share: float, left_s: float, devices: int) -> Turn:
        queue = self.fresh or self.later
        own = devices == 1 or not queue  # then those at which this very device failed too
        again = next((entry for entry in self.again if own or entry[1] != device), None)
        smaller = again is not None
        expected = self.pace.expected_s(self.first_left)
        fits = share >= self.least_s * self.unbegun() if expected is None else expected <= share
        longest = not smaller and self.begun >= MEASURED and fits
        self.begun += 1
        if again:
            self.again.remove(again)
        task_id = again[0] if again else queue.pop() if longest else queue.popleft()
        tokens = self.costs[task_id]
        seconds = max(self.least_s, share * tokens / self.first_left)
        self.first_left -= tokens
        return Turn(task_id, 1, smaller, self._limited(seconds, tokens, left_s), tokens)

    def _further(self, share: float, left_s: float) -> Turn:
        number, _, task_id, used_s = heapq.heappop(self.doubted)
        tokens = self.further_costs[task_id]
        seconds = share * tokens / self.further_left
        self.further_left -= tokens
        whole_s = AGAIN * self._again_s(task_id, used_s)  # with less it would be cut, and lost
        return Turn(task_id, number, False, min(left_s, max(whole_s, self._limited(seconds, tokens, left_s))), tokens)

    def _again_s(self, task_id: str, used_s: float) -> float:
        """Seconds of a further turn, by its cost, of a task that has used so many a turn."""
        return used_s * self.further_costs[task_id] / self.costs[task_id]

    def _limited(self, seconds: float, tokens: float, left_s: float) -> float:
        expected = self.pace.expected_s(tokens)
        slack = max(self.least_s, SLACK * expected) if expected is not None else left_s
        return min(seconds, slack, left_s)
