"""Views and steps: every pair once an epoch in another view, nothing but itself under its view, little padding."""

import dataclasses

import numpy as np
import pytest
import torch

from ttt_core.arc.augment import Augmentation, apply, task_rng
from ttt_core.arc.encode import IGNORE
from ttt_core.arc.tasks import Pair
from ttt_core.model.batches import draw, draw_colors, make_batch
from ttt_core.model.corpus import FORMAT, Corpus, length, plan_epoch
from ttt_core.model.distributed import World
from ttt_core.model.stream import share_of_step


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(600):
        h, w = rng.integers(1, 20, 2)
        size = (h, w) if i % 2 else rng.integers(1, 20, 2)
        pairs.append(
            (i % 7, Pair(rng.integers(0, 10, (h, w)).astype(np.uint8), rng.integers(0, 10, size).astype(np.uint8)))
        )
    return Corpus(tuple("abcdefg"), ((),) * 7, tuple(pairs), ())


def test_lengths_and_answers_foretell_the_batches(corpus):
    plan = plan_epoch(corpus, 0, 3, 2048, 900, scale_share=0.5, translate_share=0.5)
    assert len(set(plan.scales)) == 3 and plan.borders.any()
    for indices in (micro for step in plan.steps for micro in step):
        batch = make_batch(corpus, plan, indices, task_rng(0, "x"))
        assert batch["attention_mask"].sum(1).tolist() == plan.lengths[indices].tolist()
        assert (batch["labels"] != IGNORE).sum(1).tolist() == plan.answers[indices].tolist()
    changed = (plan.scales > 1) | plan.borders.any(1)
    assert plan.lengths[changed].max() <= 900


def test_sequences_drawn_together_are_those_the_format_makes_of_each_pair_as_seen(corpus):
    free = ((), (1, 2, 3), tuple(range(1, 10)), *[()] * 4)
    plan = plan_epoch(corpus := Corpus(corpus.task_ids, free, corpus.pairs, ()), 0, 3, 2048, 900, 0.5, 0.5)
    every = np.arange(len(corpus.pairs))
    colors = draw_colors(corpus, every, task_rng(0, "x"))
    rows = []
    for i in every:
        view = Augmentation(int(plan.dihedrals[i]), tuple(colors[i, :10]))
        border = plan.borders[i].reshape(2, 2)
        grids = (corpus.pairs[i][1].input, corpus.pairs[i][1].output)
        grown = (np.pad(np.kron(grid, np.ones([plan.scales[i]] * 2, np.uint8)), border) for grid in grids)
        rows.append(FORMAT.pair(Pair(*(apply(view, grid) for grid in grown))))
    ids, positions, is_target = draw(corpus, plan, every, colors)
    assert (ids == np.concatenate([row.ids for row in rows])).all()
    assert (positions == np.concatenate([row.positions for row in rows])).all()
    assert (is_target == (np.concatenate([row.labels for row in rows]) != IGNORE)).all()


def test_a_batch_shows_each_pair_turned_as_told_its_free_colours_exchanged_alike_on_both_sides(corpus):
    free = ((), (1, 2, 3), tuple(range(1, 10)), *[()] * 4)
    plan = plan_epoch(corpus := Corpus(corpus.task_ids, free, corpus.pairs, ()), 0, 0, 4096, 900)
    moved = set()
    for indices in (micro for step in plan.steps for micro in step):
        batch = make_batch(corpus, plan, indices, task_rng(0, "x"))
        assert batch["task_ids"].tolist() == [corpus.pairs[i][0] for i in indices]
        for index, ids, turn in zip(indices, batch["input_ids"], batch["dihedral_ids"].tolist(), strict=True):
            task, pair = corpus.pairs[index]
            exchanged = set()
            for grid, seen in zip((pair.input, pair.output), grids_of(ids), strict=True):
                turned = np.rot90(grid, turn % 4)
                turned = turned.T if turn >= 4 else turned
                assert turned.shape == seen.shape
                exchanged |= set(zip(turned.ravel().tolist(), seen.ravel().tolist(), strict=True))
            before, after = zip(*exchanged, strict=True)
            assert len(exchanged) == len(set(before)) == len(set(after))  # one to one
            changed = {color for pair in exchanged if pair[0] != pair[1] for color in pair}
            assert changed <= set(free[task])
            moved |= {(task, color) for color in changed}
    assert moved == {(task, color) for task, colors in enumerate(free) for color in colors}


def grids_of(ids):
    """Input and output of a sequence, read from its text."""
    text = "".join(FORMAT.symbols[i] for i in ids).split("<start>")[1].split("<end>")[0]
    return [np.array([list(map(int, row)) for row in side.split()]) for side in text.split("<output>")]


def test_an_epoch_holds_every_pair_once_and_eight_epochs_all_its_dihedrals(corpus):
    plans = [plan_epoch(corpus, 0, epoch, 2048, 900) for epoch in range(8)]
    for plan in plans:
        assert sorted(np.concatenate(sum(plan.steps, []))) == list(range(len(corpus.pairs)))
    assert (np.sort([plan.dihedrals for plan in plans], axis=0).T == np.arange(8)).all()


def test_padding_is_below_five_percent_and_without_sorting_above(corpus):
    def padding(batches, lengths):
        padded = sum(len(b) * lengths[b].max() for b in batches)
        return 1 - lengths.sum() / padded

    for batch_tokens in (4096, 16384):
        plan = plan_epoch(corpus, 0, 0, batch_tokens, 900)
        batches = sum(plan.steps, [])
        assert padding(batches, plan.lengths) < 0.05
        sizes = [sum(len(b) * plan.lengths[b].max() for b in step) for step in plan.steps]
        assert max(sizes) <= batch_tokens and np.mean(sizes) > 0.75 * batch_tokens
    unsorted = np.array_split(np.random.default_rng(0).permutation(len(plan.lengths)), len(batches))
    assert padding(unsorted, plan.lengths) > 0.2


def test_the_parts_of_two_processes_are_the_whole_batch(corpus):
    whole = Corpus(corpus.task_ids, (tuple(range(1, 10)),) * 7, corpus.pairs, ())
    plan = plan_epoch(whole, 0, 0, 4096, 900)
    indices = plan.steps[0][0]
    all_rows = make_batch(whole, plan, indices, task_rng(0, "s"))
    for rank in range(2):
        part = make_batch(whole, plan, indices, task_rng(0, "s"), slice(rank, None, 2))
        rows = all_rows["input_ids"][rank::2, : part["input_ids"].shape[1]]
        assert (part["input_ids"] == rows).all() and len(rows) == len(part["task_ids"])


def test_processes_share_a_step_s_rows_and_none_has_the_longer_part_each_time(corpus):
    """Every row is one's of 8, and the padded tokens of all are within a tenth."""
    plan = plan_epoch(corpus, 0, 0, 16384, 900)
    micro = [indices for step in plan.steps for indices in step]
    plan = dataclasses.replace(plan, steps=[micro])  # many micro-batches in one step
    parts = [share_of_step(corpus, plan, 0, task_rng(0, "s"), World(r, 8, torch.device("cpu"))) for r in range(8)]
    for number, indices in enumerate(micro):
        shared = [part[number] for part in parts]
        targets = sum(int((batch["labels"] != IGNORE).sum()) for batch, weight in shared if weight)
        assert targets == plan.answers[indices].sum()
    padded = [sum(batch["input_ids"].numel() for batch, _ in part) for part in parts]
    assert max(padded) < 1.1 * min(padded)


def test_length_is_that_of_the_view_as_it_stands(corpus):
    plan = plan_epoch(corpus, 0, 0, 4096, 900)
    upright = np.isin(plan.dihedrals, [0, 2])
    assert upright.any()
    for i in np.flatnonzero(upright):
        assert plan.lengths[i] == length(corpus.pairs[i][1])
