"""Formats: how a task becomes tokens, and tokens a grid. The one interface between a puzzle and a model.

A Format turns a view into training sequences and into a query prefix, an answer into tokens and back, and names the
answer grammar. It knows nothing of tensors or tokenizers: token ids index `symbols`; `model/load.py` cuts a model's
vocabulary to exactly these. Arrays are int64: ids (T,), labels (T,), positions (T,) or (T, 3).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ttt_core.arc.grammar import Grammar
from ttt_core.arc.tasks import Pair, Task
from ttt_core.errors import InputError

IGNORE = -100  # label of a position that is no target, as in transformers
NO_LIMIT = 1 << 30  # tokens
CELLS = tuple("0123456789")


@dataclass(frozen=True, eq=False)
class Sequence:
    """ids (T,); labels (T,): ids where they are to be predicted, else IGNORE; positions (T,) or (T, 3)."""

    ids: np.ndarray
    labels: np.ndarray
    positions: np.ndarray

    def __len__(self):
        return len(self.ids)


class Format(Protocol):
    """What a solver needs to know of a token format."""

    name: str
    symbols: tuple[str, ...]  # text of each token id; "<bos>" and "<eos>" stand for the tokenizer's own
    grammar: Grammar

    @property
    def vocab_size(self) -> int: ...

    def training(self, task: Task, targets: str = "leave_one_out", max_tokens: int = NO_LIMIT) -> list[Sequence]:
        """Sequences of at most max_tokens to adapt on, from the demonstrations of a view; none where none fits."""

    def query(self, task: Task, test_index: int, max_tokens: int = NO_LIMIT) -> Sequence:
        """The prefix after which the answer to test input `test_index` is expected; no targets.

        Demonstrations are left out until it has at most max_tokens; a prefix without any is not cut.
        """

    def positions(self, prefix_length: np.ndarray, step: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Positions (B,) or (B, 3) of answer tokens number `step` that stand at `rows`, `cols` of their grids."""


@dataclass(frozen=True)
class GridFormat:
    """One pair per sequence: start, input rows, separator, output rows, end. For GridLM.

    positions (T, 3): role (0 input, 1 output), row and column, counted from 1; the start and the separator stand at
    row 0, column 0 of their role. A row end stands one column behind its row.
    """

    name: str = "grid"
    symbols: tuple[str, ...] = CELLS + ("\n", "<start>", "<output>", "<end>", "<pad>")
    grammar: Grammar = Grammar(vocab_size=15, row_end=10, end=13)

    @property
    def vocab_size(self) -> int:
        return len(self.symbols)

    def pair(self, pair: Pair) -> Sequence:
        """The training sequence of one demonstration."""
        prefix, answer = self._prefix(pair.input), answer_ids(self.grammar, pair.output)
        ids = np.concatenate([prefix.ids, answer])
        labels = np.concatenate([prefix.labels, answer])
        end = np.array([[1, pair.output.shape[0] + 1, 1]])
        return Sequence(ids, labels, np.concatenate([prefix.positions, _grid_positions(1, pair.output), end]))

    def training(self, task: Task, targets: str = "leave_one_out", max_tokens: int = NO_LIMIT) -> list[Sequence]:
        return [row for pair in task.train if len(row := self.pair(pair)) <= max_tokens]

    def query(self, task: Task, test_index: int, max_tokens: int = NO_LIMIT) -> Sequence:
        return self._prefix(task.test[test_index].input)

    def positions(self, prefix_length: np.ndarray, step: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        return np.stack([np.ones_like(rows), rows + 1, cols + 1], axis=1)

    def _prefix(self, grid: np.ndarray) -> Sequence:
        rows = answer_ids(self.grammar, grid)[:-1]
        ids = np.concatenate([[11], rows, [12]])
        positions = np.concatenate([[[0, 0, 0]], _grid_positions(0, grid), [[1, 0, 0]]])
        return Sequence(ids, np.full(len(ids), IGNORE), positions)


@dataclass(frozen=True)
class TextFormat:
    """All demonstrations, then the query: `opening`, then per pair before_input, input rows, before_output, answer.

    For any causal LM. opening, before_input, before_output: token ids. targets, of `training`: "all_outputs" is one
    sequence whose targets are all outputs but the first; "leave_one_out" makes each demonstration the query once, after
    all others; "leave_two_out" also drops one more of the others each time, where three are left, and has as targets
    all outputs but each sequence's first; "both" is the first two.
    """

    name: str
    symbols: tuple[str, ...]
    grammar: Grammar
    opening: tuple[int, ...]
    before_input: tuple[int, ...]
    before_output: tuple[int, ...]

    @property
    def vocab_size(self) -> int:
        return len(self.symbols)

    def training(self, task: Task, targets: str = "leave_one_out", max_tokens: int = NO_LIMIT) -> list[Sequence]:
        pairs, n = list(task.train), len(task.train)
        sequences = []
        if targets in ("all_outputs", "both"):
            shown = self._fitting(pairs, max_tokens)
            sequences.append(self._sequence(shown, range(1, len(shown)) if len(shown) > 1 else [0]))
        if targets != "all_outputs":
            dropped = [(i,) for i in range(n)]
            if targets == "leave_two_out" and n >= 3:
                dropped += [(i, j) for i in range(n) for j in range(n) if j != i]
            sequences += [self._left_out(pairs, max_tokens, left, targets == "leave_two_out") for left in dropped]
        return [sequence for sequence in sequences if len(sequence) <= max_tokens]

    def query(self, task: Task, test_index: int, max_tokens: int = NO_LIMIT) -> Sequence:
        return self._sequence(self._fitting([*task.train, Pair(task.test[test_index].input)], max_tokens), [])

    def positions(self, prefix_length: np.ndarray, step: int, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        return prefix_length + step

    def _left_out(self, pairs: list[Pair], max_tokens: int, left: tuple[int, ...], all_outputs: bool) -> Sequence:
        """The first of those `left` out asked after the pairs that are not among them."""
        shown = [pair for i, pair in enumerate(pairs) if i not in left]
        shown = self._fitting([*shown, pairs[left[0]]], max_tokens)
        last = len(shown) - 1
        return self._sequence(shown, range(min(1, last), last + 1) if all_outputs else [last])

    def _fitting(self, pairs: list[Pair], max_tokens: int) -> list[Pair]:
        """The last of `pairs` that make a sequence of at most max_tokens, at least the very last."""
        first, room = len(pairs), max_tokens - len(self.opening)
        while first > 0 and (first == len(pairs) or self._length(pairs[first - 1]) <= room):
            first -= 1
            room -= self._length(pairs[first])
        return pairs[first:]

    def _length(self, pair: Pair) -> int:
        answer = 0 if pair.output is None else len(answer_ids(self.grammar, pair.output))
        return len(self.before_input) + len(answer_ids(self.grammar, pair.input)) - 1 + len(self.before_output) + answer

    def _sequence(self, pairs: list[Pair], targets) -> Sequence:
        ids, is_target = [np.array(self.opening, np.int64)], [np.zeros(len(self.opening), bool)]
        for i, pair in enumerate(pairs):
            rows = answer_ids(self.grammar, pair.input)[:-1]
            prefix = np.concatenate([self.before_input, rows, self.before_output]).astype(np.int64)
            answer = np.array([], np.int64) if pair.output is None else answer_ids(self.grammar, pair.output)
            ids += [prefix, answer]
            is_target += [np.zeros(len(prefix), bool), np.full(len(answer), i in targets)]
        ids = np.concatenate(ids)
        return Sequence(ids, np.where(np.concatenate(is_target), ids, IGNORE), np.arange(len(ids)))


# I input O output E, a token a cell and one a row end. Ours, for models without a format of their own.
DIGITS = TextFormat(
    name="digits",
    symbols=CELLS + ("\n", "I", "O", "E", "<bos>"),
    grammar=Grammar(vocab_size=15, row_end=10, end=13),
    opening=(14,),
    before_input=(11,),
    before_output=(12,),
)

# A chat turn a grid, rows parted by newlines: public 16-token Qwen3 checkpoints.
QWEN_CHAT = TextFormat(
    name="qwen-chat",
    symbols=CELLS + ("\n", "<|im_start|>", "<|im_end|>", "user", "assistant"),
    grammar=Grammar(vocab_size=15, row_end=10, end=12, terminated=False),
    opening=(),
    before_input=(11, 13, 10),
    before_output=(12, 11, 14, 10),
)

# The beginning and a learned alphabet, then I rows, "+/-=O", rows, end of text: public checkpoints of about 64 tokens.
LETTERS = tuple("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjklmnpqrstuvwxyz")
IO_LETTERS = TextFormat(
    name="io-letters",
    symbols=CELLS + ("\n", "I", "O", "+", "/", "-", "=", "<eos>", "<bos>") + LETTERS,
    grammar=Grammar(vocab_size=19 + len(LETTERS), row_end=10, end=17),
    opening=tuple(range(18, 19 + len(LETTERS))),
    before_input=(11,),
    before_output=(13, 14, 15, 16, 12),
)

FORMATS = {"grid": GridFormat(), **{form.name: form for form in (DIGITS, QWEN_CHAT, IO_LETTERS)}}


def format_named(name: str) -> Format:
    """The format `name`; InputError if there is none."""
    if name not in FORMATS:
        raise InputError(f"unknown format {name}: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def answer_ids(grammar: Grammar, grid: np.ndarray) -> np.ndarray:
    """Token ids of an answer: rows with their row ends, then the end. int64 (H * (W + 1) + 1,) if terminated."""
    height, width = grid.shape
    ids = np.full((height, width + 1), grammar.row_end, np.int64)
    ids[:, :width] = grid
    ids = ids.ravel() if grammar.terminated else ids.ravel()[:-1]
    return np.append(ids, grammar.end)


def answer_grid(grammar: Grammar, ids: np.ndarray) -> np.ndarray:
    """The grid of answer tokens `ids`, with or without their end; InputError if they are no grid."""
    text = [int(i) for i in ids if i != grammar.end]
    if grammar.terminated and text and text[-1] == grammar.row_end:
        text.pop()
    rows: list[list[int]] = [[]]
    for i in text:
        if i == grammar.row_end:
            rows.append([])
        else:
            rows[-1].append(i)
    if len({len(row) for row in rows}) != 1 or not rows[0] or max(text) > max(9, grammar.row_end):
        raise InputError(f"answer tokens {text[:12]}...: rows of unequal length are no grid; search with the grammar")
    return np.array(rows, np.uint8)


def _grid_positions(role: int, grid: np.ndarray) -> np.ndarray:
    """(H * (W + 1), 3): role, row, column of every cell and row end."""
    height, width = grid.shape
    rows, cols = np.indices((height, width + 1))
    return np.stack([np.full(rows.size, role), rows.ravel() + 1, cols.ravel() + 1], axis=1)
