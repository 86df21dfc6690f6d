"""The answer grammar: which token may come next so that the answer can still become a grid.

A small automaton, vectorised over a batch of partial answers. Every answer it lets end is rectangular, with sides
1..30; nothing is repaired afterwards. numpy only; masks are bool (B, V).
"""

from dataclasses import dataclass

import numpy as np

from ttt_core.arc.tasks import MAX_SIDE, N_COLORS


@dataclass(frozen=True, eq=False)
class State:
    """Of B partial answers, int64 (B,) each: complete `rows`, cells in the open row `cols`, `width` (0: not yet known)."""

    rows: np.ndarray
    cols: np.ndarray
    width: np.ndarray

    def take(self, index: np.ndarray) -> "State":
        """The partial answers `index`, in that order, repeats allowed."""
        return State(self.rows[index], self.cols[index], self.width[index])


@dataclass(frozen=True)
class Grammar:
    """Tokens 0..9 are cells. Rows are ended by `row_end`; the answer by `end`.

    terminated: the last row too has a row end, `end` follows it; else row ends stand between rows only.
    """

    vocab_size: int
    row_end: int
    end: int
    terminated: bool = True
    max_side: int = MAX_SIDE

    def start(self, batch: int) -> State:
        """`batch` empty answers."""
        return State(*(np.zeros(batch, np.int64) for _ in range(3)))

    def allowed(self, state: State) -> np.ndarray:
        """bool (B, V): the tokens that may come next."""
        rows, cols, width = state.rows, state.cols, state.width
        full_row = (cols > 0) & ((width == 0) | (cols == width))
        mask = np.zeros((len(rows), self.vocab_size), bool)
        mask[:, :N_COLORS] = ((cols < np.where(width == 0, self.max_side, width)) & (rows < self.max_side))[:, None]
        mask[:, self.row_end] = full_row & (rows < self.max_side - (not self.terminated))
        mask[:, self.end] = (cols == 0) & (rows > 0) if self.terminated else full_row
        return mask

    def advance(self, state: State, tokens: np.ndarray) -> State:
        """The state after `tokens` (B,), each of them allowed; after `end` it is meaningless."""
        row_ends = tokens == self.row_end
        return State(
            state.rows + row_ends,
            np.where(row_ends, 0, state.cols + (tokens < N_COLORS)),
            np.where(row_ends & (state.width == 0), state.cols, state.width),
        )

    def max_tokens(self) -> int:
        """Tokens of the longest answer, its end included."""
        return self.max_side * (self.max_side + 1) + 1
