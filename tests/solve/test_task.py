"""Test-time training and the whole of one task, on a GridLM trained on nothing."""

import math
import time

import numpy as np
import pytest
import torch

from ttt_core.arc.augment import Augmentation, task_rng
from ttt_core.arc.tasks import Pair, Task
from ttt_core.config import AdaptConfig, DecodeConfig, preset
from ttt_core.model.gridlm import GridLM, GridLMConfig
from ttt_core.model.load import load_model
from ttt_core.solve import task as solving
from ttt_core.solve.adapt import adapted, start_vectors
from ttt_core.solve.feed import batch_of, step_rows, stream, target_logits
from ttt_core.solve.task import solve_task


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    GridLM(GridLMConfig(width=64, layers=2, heads=2, task_ids=["known"])).save_pretrained(folder)
    return load_model(folder, device="cpu", dtype="float32")


@pytest.fixture
def task():
    rng = np.random.default_rng(0)
    grids = [rng.integers(0, 3, (3, 3)).astype(np.uint8) for _ in range(4)]
    return Task("t", tuple(Pair(g, (g == 1).astype(np.uint8)) for g in grids[:3]), (Pair(grids[3]),))


def nll_after(model, task, **options):
    config = AdaptConfig(
        **{"method": "full", "optimizer": "adamw", "batch_tokens": 512, "steps": 30, "lr": 3e-3, **options}
    )
    with adapted(model, task, config, task_rng(0, "a"), float("inf")), torch.no_grad():
        rows, dihedrals = zip(*next(step_rows(stream(model, task, config, task_rng(1, "b")), 512)), strict=True)
        return float(torch.nn.functional.cross_entropy(*target_logits(model, batch_of(model, rows, dihedrals))))


@pytest.mark.parametrize("method", ["vectors", "lora", "full"])
def test_adaptation_lowers_the_loss_and_a_rate_of_zero_does_not(model, task, method):
    before = nll_after(model, task, method="none")
    assert nll_after(model, task, method=method) < before - 0.05
    assert nll_after(model, task, method=method, lr=0.0, vector_lr=0.0) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_base_comes_back_untouched(model, task, method):
    before = {name: t.clone() for name, t in model.net.state_dict().items()}
    nll_after(model, task, method=method)
    after = model.net.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], t) for name, t in before.items())


def test_a_diverging_adaptation_falls_back_to_the_last_good_state(model, task, monkeypatch):
    from ttt_core.solve import fit

    real, calls = fit.target_loss, []

    def poisoned(*args):
        calls.append(1)
        return real(*args) * (float("nan") if len(calls) == 20 else 1)

    monkeypatch.setattr(fit, "target_loss", poisoned)
    config = AdaptConfig(method="full", steps=30, batch_tokens=256, lr=1e-3)
    with adapted(model, task, config, task_rng(0, "a"), float("inf")) as adaptation:
        assert adaptation.rolled_back and adaptation.steps == fit.SNAPSHOT_STEPS
        assert all(torch.isfinite(p).all() for p in model.net.parameters())


def test_the_deadline_ends_the_loop_and_the_rate_has_fallen_by_then(model, task, monkeypatch):
    from ttt_core.solve import fit

    real, rates = fit.train_step, []

    def watched(model, rows, state, *rest):
        rates.append(state.optimizers[0].param_groups[0]["lr"])
        return real(model, rows, state, *rest)

    monkeypatch.setattr(fit, "train_step", watched)
    config = AdaptConfig(method="full", steps=10**6, batch_tokens=256, lr=1e-3, warmup=0.0)
    began = time.monotonic()
    with adapted(model, task, config, task_rng(0, "a"), began + 1.5) as adaptation:
        took = time.monotonic() - began
    assert 10 < adaptation.steps == len(rates) < 10**6 and 1.0 < took < 4.0
    assert rates[0] > 0.9e-3 and rates[-1] < 0.2e-3, "a schedule of steps would hardly have begun"


@pytest.mark.parametrize("clip_norm", [0.05, 0.0])
def test_gradients_are_clipped_to_the_norm_and_0_clips_nothing(model, task, clip_norm, monkeypatch):
    norms = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: norms.append(norm_of(self)))
    config = AdaptConfig(method="full", steps=3, batch_tokens=256, clip_norm=clip_norm)
    with adapted(model, task, config, task_rng(0, "a"), math.inf):
        pass
    assert len(norms) == 3 and (max(norms) == pytest.approx(clip_norm, rel=1e-3) if clip_norm else min(norms) > 0.05)


def norm_of(optimizer):
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients])))


def test_same_seed_same_record_whatever_came_before(model, task):
    config = preset("grid", ["adapt.steps=4", "adapt.batch_tokens=256", "decode.views=4", "decode.search=greedy"])
    first = solve_task(model, task, config, seed=3)
    solve_task(model, task, config, seed=4)
    again = solve_task(model, task, config, seed=3)
    assert len(first.candidates[0]) > 0
    assert [c.logprobs for c in first.candidates[0]] == [c.logprobs for c in again.candidates[0]]
    assert not np.array_equal(*first.attempts[0])


def test_a_flat_model_still_gives_candidates(model, task):
    config = preset("grid", ["adapt.method=none", "decode.views=2", "decode.floor=0.9"])
    assert len(solve_task(model, task, config, seed=0).candidates[0]) > 0


def test_what_the_search_has_found_is_told_before_it_is_scored(model, task):
    beats = []
    config = preset("grid", ["adapt.steps=4", "decode.views=8", "decode.search=greedy"])
    result = solve_task(model, task, config, seed=0, beat=lambda stage, so_far=(): beats.append((stage, list(so_far))))
    stages, so_far = zip(*beats, strict=True)
    assert stages == ("adapt", "decode", "rescore") and so_far[:2] == ([], [])
    [told] = so_far[2]
    grids = [c.grid.tobytes() for c in told.candidates[0]]
    assert grids == [c.grid.tobytes() for c in result.candidates[0]] and len(grids) > 1
    assert told.was_cut and told.notes["cut_views"] > 0 and "cut_views" not in result.notes
    assert told.notes["steps"] == 4 and told.seconds["adapt"] == result.seconds["adapt"]
    for before, after in zip(told.candidates[0], result.candidates[0], strict=True):
        own = list(before.found_in)
        assert np.allclose(np.array(before.logprobs)[own], np.array(after.logprobs)[own], atol=1e-4)
    assert told.attempts[0][0].tobytes() in grids


def test_early_stopping_takes_the_steps_that_the_trial_says(model, task, monkeypatch):
    from ttt_core.solve import stop
    from ttt_core.solve.task import adapted_to

    monkeypatch.setattr(stop, "check", lambda model, asked, step: stop.Check(step, 1.0, step >= 8))
    for early in (True, False):
        config = AdaptConfig(method="full", steps=32, batch_tokens=100, lr=1e-3, early_stop=early)
        with adapted_to(model, task, config, 0, math.inf) as notes:
            assert notes["steps"] == (12 if early else 32)
            assert (notes["trial"] or {}).get("steps") == (12 if early else None)


def test_adaptation_has_its_share_of_the_time(model, task, monkeypatch):
    asked, real = [], solving.adapted
    monkeypatch.setattr(solving, "adapted", lambda *given, **named: asked.append(given[4]) or real(*given, **named))
    now = time.monotonic()
    with solving.adapted_to(model, task, AdaptConfig(method="none", time_share=0.25), 0, now + 1000.0):
        assert 249.0 < asked[0] - now < 260.0


def test_no_more_candidates_are_scored_than_asked_for(model, task):
    few = ["adapt.method=none", "decode.floor=0.001", "decode.views=4"]
    counts = [
        len(solve_task(model, task, preset("grid", [*few, f"rescore.max_candidates={n}"]), seed=0).candidates[0])
        for n in (32, 2)
    ]
    assert counts[0] > 2 == counts[1]


@pytest.mark.parametrize(
    ("kind", "height", "colours"), [("same_shape", None, 3), ("palette", 3, None), ("constant_shape", 3, 3)]
)
def test_what_is_known_of_an_answer_is_as_the_settings_say(model, kind, height, colours):
    """Each by itself switched off, or for the constant shape on where inputs differ in theirs."""
    grids = [np.arange(9, dtype=np.uint8).reshape(3, 3) % 3, np.ones((3, 3), np.uint8) * 2]
    pairs = [Pair(g if kind != "constant_shape" else g[: 2 + i], g) for i, g in enumerate(grids)]
    place = solving.Place(0, 0, Augmentation(), (0,))
    options = {"same_shape": True, "palette": True, "constant_shape": False}
    priors = []
    for value in (False, True):
        query = solving._query(
            model, Task("t", tuple(pairs), (Pair(grids[0]),)), place, DecodeConfig(**options | {kind: value})
        )
        priors.append((query.prior.height, query.prior.colors))
    shapes, palettes = zip(*priors)
    assert (shapes[0] != shapes[1]) == (kind != "palette") and (palettes[0] != palettes[1]) == (kind == "palette")


def test_an_unknown_task_starts_from_the_mean_of_the_known_ones():
    net = GridLM(GridLMConfig(width=32, layers=1, heads=2, hidden=32, task_ids=("a", "b")))
    vectors = net.task_vectors.weight
    assert torch.allclose(start_vectors(net, "c"), vectors.mean(0).expand(8, -1)) and not torch.equal(
        vectors[0], vectors[1]
    )
    assert torch.equal(start_vectors(net, "b"), vectors[1].expand(8, -1))


@pytest.mark.parametrize("permuted", [True, False])
def test_colours_of_training_views_are_permuted_where_the_settings_say_so(model, permuted):
    grids = [np.full((2, 2), color, np.uint8) for color in (1, 2)]
    task = Task("t", tuple(Pair(g, g) for g in grids), (Pair(grids[0]),))
    rows = stream(model, task, AdaptConfig(color_permutations=permuted), task_rng(0, "t"))
    seen = {int(token) for _, (row, _) in zip(range(40), rows, strict=False) for token in row.ids if token < 10}
    assert (len(seen) > 2) == permuted
