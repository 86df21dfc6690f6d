"""Which optimiser gets which parameter, what their states weigh, and 8-bit AdamW with and without bitsandbytes."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ttt_core.config import AdaptConfig
from ttt_core.errors import ModelError
from ttt_core.model import optim
from ttt_core.model.optim import Muon, make_optimizers, rate, state_bytes


def groups():
    sizes = [(32, 48), (32,), (8, 48)]
    layers = [nn.Parameter(torch.zeros(size)) for size in sizes]
    return [{"params": layers, "lr": 1e-2, "layers": True}, {"params": [nn.Parameter(torch.zeros(4, 32))], "lr": 1e-3}]


def moved_bytes(optimizers):
    return sum(
        t.nbytes for o in optimizers for s in o.state.values() for t in s.values() if torch.is_tensor(t) and t.ndim
    )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_states_weigh_what_is_said(name):
    config, made = AdaptConfig(optimizer=name, lr=1e-2), groups()
    optimizers = make_optimizers(made, config)
    for group in made:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    for optimizer in optimizers:
        optimizer.step()
    assert moved_bytes(optimizers) == state_bytes(made, config)


def test_muon_takes_the_matrices_of_layers_and_adamw_the_rest_at_its_rates():
    made = groups()
    muon, adamw = make_optimizers(made, AdaptConfig(optimizer="muon", lr=1e-2, muon_steps=3))  # Muon takes room: first
    assert [p.shape for g in muon.param_groups for p in g["params"]] == [(32, 48)]
    assert muon.param_groups[0]["ns_steps"] == 3
    rates = {p.shape: g["lr"] for g in adamw.param_groups for p in g["params"]}
    assert rates == {(32,): pytest.approx(1e-3), (8, 48): pytest.approx(1e-3), (4, 32): 1e-3}


@pytest.mark.parametrize("narrow", [0, 64])
@pytest.mark.parametrize("together", [1, 1 << 19])
def test_matrices_taken_together_move_as_torchs_muon_moves_them(together, narrow, monkeypatch):
    monkeypatch.setattr(optim, "TOGETHER", together)
    monkeypatch.setattr(optim, "NARROW", narrow)
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 48), (48, 24), (24, 24), (24, 48), (48, 24)]
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    steps = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(3)]
    ends = []
    for kind in (Muon, torch.optim.Muon):
        matrices = [nn.Parameter(start.clone()) for start in starts]
        idle = nn.Parameter(starts[0].clone())  # without a gradient it stays
        optimizer = kind([*matrices, idle], lr=0.02, weight_decay=0.1, ns_steps=4)
        for gradients in steps:
            for matrix, gradient in zip(matrices, gradients, strict=True):
                matrix.grad = gradient.clone()
            optimizer.step()
        assert torch.equal(idle, starts[0])
        ends.append([m.detach() for m in matrices])
    optimizer = Muon([idle], lr=0.02)
    optimizer.step()  # no gradient at all
    for ours, theirs, start in zip(*ends, starts, strict=True):
        assert (ours - theirs).norm() < 0.02 * (theirs - start).norm()  # bfloat16's rounding


@pytest.mark.parametrize("computed", [torch.bfloat16, torch.float32])
def test_matrices_are_orthogonalised_in_what_the_hardware_multiplies_in(computed, monkeypatch):
    monkeypatch.setattr(optim, "dtype_on", lambda device: computed)
    asked, orthogonal = [], optim._orthogonal
    monkeypatch.setattr(optim, "_orthogonal", lambda X, group: asked.append(X.dtype) or orthogonal(X, group))
    matrix = nn.Parameter(torch.zeros(80, 72))
    matrix.grad = torch.randn(80, 72, generator=torch.Generator().manual_seed(0))
    Muon([matrix], lr=1.0, weight_decay=0.0).step()
    assert asked == [computed] and matrix.dtype == torch.float32
    sizes = torch.linalg.svdvals(matrix.detach()) / (80 / 72) ** 0.5
    assert 0.5 < sizes.min() and sizes.max() < 1.3


def test_8_bit_adamw_is_bitsandbytes_and_without_it_an_error_says_so(monkeypatch):
    config, made = AdaptConfig(optimizer="adamw8bit"), groups()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match="bitsandbytes is not installed"):
        make_optimizers(made, config)
    stand_in = SimpleNamespace(optim=SimpleNamespace(AdamW8bit=torch.optim.AdamW))
    monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in)
    [optimizer] = make_optimizers(made, config)
    assert isinstance(optimizer, torch.optim.AdamW) and len(optimizer.param_groups) == 2
    assert state_bytes(made, config) == 2 * sum(p.numel() for g in made for p in g["params"])


def test_the_rate_warms_up_and_falls():
    config = AdaptConfig(steps=100, warmup=0.1, decay="linear")
    factors = [rate(config, step, step / 100) for step in range(100)]
    assert factors[0] < factors[4] < max(factors) and factors[-1] < 0.02
    assert factors.index(max(factors)) in (9, 10)


def test_the_rate_of_a_cosine_is_half_in_the_middle_and_a_constant_stays():
    cosine, constant = (AdaptConfig(steps=100, warmup=0.0, decay=decay) for decay in ("cosine", "constant"))
    assert [round(rate(cosine, 50, share), 4) for share in (0, 0.25, 0.5, 1)] == [1, 0.8536, 0.5, 0]
    assert [rate(constant, 50, share) for share in (0, 0.5, 1)] == [1, 1, 1]


def test_weight_decay_is_what_the_settings_say():
    for config in (AdaptConfig(weight_decay=0.3), AdaptConfig(optimizer="muon", weight_decay=0.3)):
        assert {g["weight_decay"] for o in make_optimizers(groups(), config) for g in o.param_groups} == {0.3}
