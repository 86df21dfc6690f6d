"""The answer grammar: which token may come next so that the answer can still become a grid.

A small automaton, vectorised over a batch of partial answers. Every answer it lets end is rectangular, with sides
1..30 and within its limits; nothing is repaired afterwards. numpy only; masks are bool (B, V).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from ttt_core.arc.tasks import MAX_SIDE, N_COLORS


@dataclass(frozen=True, eq=False)
class State:
    """Of B partial answers, int64 (B,) each: complete `rows`, cells in the open row `cols`, `width` (0: not known)."""

    rows: np.ndarray
    cols: np.ndarray
    width: np.ndarray

    def take(self, index: np.ndarray) -> "State":
        """The partial answers `index`, in that order, repeats allowed."""
        return self.each(lambda field: field[index])

    def each(self, change: Callable[..., np.ndarray], *others: "State") -> "State":
        """The state whose fields are `change` of these fields, and of those of `others`."""
        return State(*(change(*(getattr(state, f.name) for state in (self, *others))) for f in fields(State)))


@dataclass(frozen=True)
class Prior:
    """What one answer keeps to besides being a grid: its exact height and width (0: any) and its colours."""

    height: int = 0
    width: int = 0
    colors: frozenset[int] = frozenset(range(N_COLORS))


@dataclass(frozen=True, eq=False)
class Limits:
    """Priors of B answers, int64 (B,) and bool (B, 10), and the tokens each may have, its end included, int64 (B,)."""

    tokens: np.ndarray
    height: np.ndarray
    width: np.ndarray
    colors: np.ndarray

    def take(self, index: np.ndarray) -> "Limits":
        """The limits `index`, in that order, repeats allowed."""
        return Limits(self.tokens[index], self.height[index], self.width[index], self.colors[index])


def limits(tokens: Sequence[int], priors: Sequence[Prior]) -> Limits:
    """Limits of len(priors) answers."""
    colors = np.array([[c in prior.colors for c in range(N_COLORS)] for prior in priors], bool).reshape(-1, N_COLORS)
    heights, widths = ([getattr(prior, side) for prior in priors] for side in ("height", "width"))
    return Limits(*(np.array(values, np.int64) for values in (tokens, heights, widths)), colors)


@dataclass(frozen=True)
class Grammar:
    """Tokens 0..9 are cells. Rows are ended by `row_end`; the answer by `end`.

    terminated: the last row too has a row end, `end` follows it; else row ends stand between rows only. Either way an
    answer of height H and width W has H * (W + 1) tokens, its end included, and one more if terminated.
    """

    vocab_size: int
    row_end: int
    end: int
    terminated: bool = True
    max_side: int = MAX_SIDE

    def start(self, batch: int) -> State:
        """`batch` empty answers."""
        return State(*(np.zeros(batch, np.int64) for _ in range(3)))

    def allowed(self, state: State, limits: Limits | None = None) -> np.ndarray:
        """bool (B, V): the tokens after which the answer can still be ended within its limits."""
        rows, cols, width = state.rows, state.cols, state.width
        height, exact, room, colors = 0, 0, self.max_tokens() - self.terminated, True
        if limits is not None:
            height, exact, colors = limits.height, limits.width, limits.colors
            room = limits.tokens - self.terminated  # for rows of W + 1 tokens each
        fixed = np.where(width > 0, width, exact)
        most_cols = np.minimum(np.where(fixed > 0, fixed, self.max_side), room // np.maximum(height, 1) - 1)
        most_cols = np.where(width > 0, width, np.where(most_cols < fixed, 0, most_cols))
        most_rows = np.minimum(room // (np.maximum(np.where(width > 0, width, cols), 1) + 1), self.max_side)
        most_rows = np.where(np.greater(height, 0), np.minimum(most_rows, height), most_rows)
        full_row = (cols > 0) & ((fixed == 0) | (cols == fixed))
        enough = rows + (not self.terminated) >= np.maximum(height, 1)
        mask = np.zeros((len(rows), self.vocab_size), bool)
        mask[:, :N_COLORS] = ((cols < most_cols) & (rows < most_rows))[:, None] & colors
        mask[:, self.row_end] = full_row & (rows + (not self.terminated) < most_rows)
        mask[:, self.end] = ((cols == 0) if self.terminated else full_row) & enough
        return mask

    def advance(self, state: State, tokens: np.ndarray) -> State:
        """The state after `tokens` (B,), each of them allowed; after `end` it is meaningless."""
        row_ends = tokens == self.row_end
        return State(
            state.rows + row_ends,
            np.where(row_ends, 0, state.cols + (tokens < N_COLORS)),
            np.where(row_ends & (state.width == 0), state.cols, state.width),
        )

    def before(self, tokens: np.ndarray, start: State) -> State:
        """The states (B, T) before each of `tokens` (B, T), where `start` (B,) are those before the first."""
        if not tokens.size:
            return start.each(lambda field: np.zeros(tokens.shape, np.int64))
        ends, place = tokens == self.row_end, np.arange(tokens.shape[1])
        last = np.maximum.accumulate(np.where(ends, place, -1), axis=1)
        last = np.append(np.full((len(tokens), 1), -1), last[:, :-1], axis=1)  # the row end before each token
        rows = start.rows[:, None] + np.cumsum(ends, axis=1) - ends
        cols = np.where(last < 0, start.cols[:, None] + place, place - last - 1)
        first = cols[np.arange(len(tokens)), ends.argmax(axis=1)][:, None]  # as wide as the row that is ended first
        return State(rows, cols, np.where((start.width[:, None] == 0) & (last >= 0), first, start.width[:, None]))

    def max_tokens(self) -> int:
        """Tokens of the longest answer, its end included."""
        return self.max_side * (self.max_side + 1) + self.terminated
