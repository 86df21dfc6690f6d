"""The pretraining corpus: pairs of ARC-AGI-1 training tasks and generated ones, guarded against leaks, cut into batches.

Reads Kaggle-named files and RE-ARC-like extra pairs; yields padded batches of GridLM sequences. Not here: the
training loop (`pretrain.py`). Batches depend on (seed, epoch, index) alone, so that training resumes exactly.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ttt_core.arc import augment
from ttt_core.arc.encode import IGNORE, GridFormat, Sequence
from ttt_core.arc.metric import read_solutions
from ttt_core.arc.tasks import Pair, Task, grid_fault, read_challenges, to_grid
from ttt_core.errors import InputError

FORMAT = GridFormat()
PAD = FORMAT.symbols.index("<pad>")
POOL = 64  # batches' worth of sequences sorted by length together


@dataclass(frozen=True, eq=False)
class Corpus:
    """task_ids; free: per task the colours that may be exchanged; pairs: (task index, pair); held_out likewise."""

    task_ids: tuple[str, ...]
    free: tuple[tuple[int, ...], ...]
    pairs: tuple[tuple[int, Pair], ...]
    held_out: tuple[tuple[int, Pair], ...]


def read_corpus(
    data: Path,
    extra: Path | None,
    *,
    max_tokens: int,
    hold_out: frozenset[str] = frozenset(),
    exclude: frozenset[str] = frozenset(),
    guard: Path | None = None,
) -> Corpus:
    """Training tasks of `data` (all their pairs) and `extra` pairs of the same tasks; sequences above max_tokens are dropped.

    hold_out: ids of tasks whose test pairs are kept out of training. exclude: ids left out altogether. guard: challenge file that must share neither a
    task id nor a pair with the corpus; InputError if it does.
    """
    tasks = {task.id: task for task in read_training_tasks(data) if task.id not in exclude}
    missing = sorted(hold_out - set(tasks))
    if missing:
        raise InputError(f"hold-out task {missing[0]}: not among the training tasks of {data}")
    generated = read_extra(extra, tasks) if extra else {}
    pairs, held_out = [], []
    for index, task in enumerate(tasks.values()):
        test = held_out if task.id in hold_out else pairs
        test += [(index, pair) for pair in task.test]
        pairs += [(index, pair) for pair in (*task.train, *generated.get(task.id, ()))]
    if guard:
        refuse_leaks(tasks, pairs, guard)
    free = tuple(augment.free_colors((*t.train, *(() if t.id in hold_out else t.test))) for t in tasks.values())
    return Corpus(tuple(tasks), free, *(tuple(p for p in part if length(p[1]) <= max_tokens) for part in (pairs, held_out)))


def read_training_tasks(data: Path) -> list[Task]:
    """The training tasks of a Kaggle-named folder, with the outputs of their test pairs."""
    solutions = read_solutions(data / "arc-agi_training_solutions.json")
    tasks = read_challenges(data / "arc-agi_training_challenges.json").tasks
    return [
        Task(t.id, t.train, tuple(Pair(p.input, o) for p, o in zip(t.test, solutions[t.id], strict=True))) for t in tasks
    ]


def read_extra(path: Path, tasks: dict[str, Task]) -> dict[str, list[Pair]]:
    """Generated pairs {task id: [pair, ...]} from one JSON file, gzipped or not (the layout of RE-ARC), for `tasks` only."""
    try:
        opened = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")
        with opened as file:
            raw = json.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"extra pairs {path}: {error}; give a JSON file of task id to list of pairs") from None
    return {key: [_extra_pair(path, key, pair) for pair in raw[key]] for key in tasks if key in raw}


def _extra_pair(path: Path, task_id: str, pair) -> Pair:
    fault = "no pair" if not isinstance(pair, dict) else grid_fault(pair.get("input")) or grid_fault(pair.get("output"))
    if fault:
        raise InputError(f"extra pairs {path} task {task_id}: {fault}; give {{'input': grid, 'output': grid}} for each")
    return Pair(to_grid(pair["input"]), to_grid(pair["output"]))


def refuse_leaks(tasks: dict[str, Task], pairs: list[tuple[int, Pair]], guard: Path) -> None:
    """InputError if a task id, a pair or a test input of the challenge file `guard` is in the training material."""
    ids = list(tasks)
    seen = {digest(p.input): ids[i] for i, p in pairs} | {digest(p.input, p.output): ids[i] for i, p in pairs}
    for task in read_challenges(guard).tasks:
        shown = [digest(p.input, p.output) for p in task.train] + [digest(p.input) for p in task.test]
        source = task.id if task.id in tasks else next((seen[d] for d in shown if d in seen), None)
        if source:
            raise InputError(
                f"leak: training task {source} shows what task {task.id} of {guard} asks; "
                f"leave it out with --exclude {source}"
            )


def digest(*grids: np.ndarray) -> bytes:
    """A hash of grids, shape included."""
    return hashlib.blake2b(b"".join(bytes(g.shape) + g.tobytes() for g in grids), digest_size=16).digest()


def length(pair: Pair) -> int:
    """Tokens of a pair's sequence in the grid format."""
    return 3 + sum(height * (width + 1) for height, width in (pair.input.shape, pair.output.shape))


def batches(corpus: Corpus, seed: int, epoch: int, batch_tokens: int, colors: bool = True) -> list[np.ndarray]:
    """Indices into `corpus.pairs` of each batch of an epoch: similar lengths together, batches in random order."""
    rng = augment.task_rng(seed, f"epoch {epoch}")
    lengths = np.array([length(pair) for _, pair in corpus.pairs])
    order = rng.permutation(len(lengths))
    pool = max(1, int(POOL * batch_tokens / lengths.mean()))
    cut = []
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        cut += pack(part[np.argsort(lengths[part], kind="stable")], lengths, batch_tokens)
    return [cut[i] for i in rng.permutation(len(cut))]


def pack(order: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Consecutive runs of `order` (lengths rising) whose padded size is at most batch_tokens, at least one each."""
    runs, start = [], 0
    for i in range(1, len(order) + 1):
        if i == len(order) or (i - start + 1) * lengths[order[i]] > batch_tokens:
            runs.append(order[start:i])
            start = i
    return runs


def make_batch(corpus: Corpus, indices: np.ndarray, rng: np.random.Generator, colors: bool = True) -> dict[str, torch.Tensor]:
    """GridLM's inputs for these pairs, each under a random dihedral and a permutation of its task's free colours."""
    rows, tasks, dihedrals = [], [], []
    for index in indices:
        task, pair = corpus.pairs[index]
        dihedral = int(rng.integers(8))
        mapping = augment.permute_colors(corpus.free[task], rng) if colors else augment.IDENTITY_COLORS
        seen = augment.Augmentation(dihedral, mapping)
        rows.append(FORMAT.pair(Pair(augment.apply(seen, pair.input), augment.apply(seen, pair.output))))
        tasks.append(task)
        dihedrals.append(dihedral)
    return {**collate(rows), "task_ids": torch.tensor(tasks), "dihedral_ids": torch.tensor(dihedrals)}


def collate(rows: list[Sequence], left: bool = False) -> dict[str, torch.Tensor]:
    """Padded tensors of sequences, on the right unless `left`: input_ids, labels, attention_mask (B, T); position_ids (B, T) or (B, T, 3)."""
    width = max(len(row) for row in rows)

    def padded(arrays, fill):
        stacked = np.full((len(rows), width, *arrays[0].shape[1:]), fill, np.int64)
        for target, array in zip(stacked, arrays, strict=True):
            target[slice(width - len(array), None) if left else slice(len(array))] = array
        return torch.from_numpy(stacked)

    return {
        "input_ids": padded([r.ids for r in rows], PAD),
        "labels": padded([r.labels for r in rows], IGNORE),
        "position_ids": padded([r.positions for r in rows], 1),
        "attention_mask": padded([np.ones(len(r), np.int64) for r in rows], 0),
    }


def held_out_batches(corpus: Corpus, batch_tokens: int) -> Iterator[dict[str, torch.Tensor]]:
    """The held-out pairs as they stand, for validation."""
    lengths = np.array([length(pair) for _, pair in corpus.held_out])
    for run in pack(np.argsort(lengths, kind="stable"), lengths, batch_tokens) if len(lengths) else []:
        tasks = torch.tensor([corpus.held_out[i][0] for i in run])
        rows = [FORMAT.pair(corpus.held_out[i][1]) for i in run]
        yield {**collate(rows), "task_ids": tasks, "dihedral_ids": torch.zeros_like(tasks)}
