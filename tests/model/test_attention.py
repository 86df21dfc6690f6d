"""Attention over packed rows by plain products against torch's fused kernel, where all or some tokens ask."""

import sys
import types

import pytest
import torch

from ttt_core.model import attention, blocks
from ttt_core.model.attention import Run

RUNS = {
    "causal": (Run(2, 7), Run(1, 12)),
    "inputs see one another": (Run(2, 7, 3), Run(3, 12, 5)),
    "answers ask": (Run(2, 7, 3, first=3), Run(1, 12, 9, first=9)),
    "some inputs ask too": (Run(2, 9, 6, first=4), Run(1, 12, first=5)),
    "some sequences' inputs ask": (Run(2, 9, 6, first=6), Run(1, 12, 5), Run(1, 3, 2, first=1)),
}


def outcomes(name, groups, width, *functions, dtype=torch.float32):
    """The result and the gradients of each of `functions`, given with its device, on the same random inputs, and these inputs."""
    runs, generator = RUNS[name], torch.Generator().manual_seed(0)
    sizes = [sum(r.count * r.queries for r in runs)] + [sum(r.count * r.length for r in runs)] * 2
    heads = [4, groups, groups]
    inputs = [torch.randn(s, h, width, generator=generator).to(dtype) for s, h in zip(sizes, heads, strict=True)]
    upstream, results = torch.randn(sizes[0], 4, width, generator=generator).to(dtype), []
    for function, device in functions:
        given = [x.clone().to(device).requires_grad_() for x in inputs]
        out = function(*given, runs, 0.3)
        out.backward(upstream.to(device))
        results.append([x.detach().float().cpu() for x in (out, *(x.grad for x in given))])
    return results, inputs


@pytest.mark.parametrize("together", [0, blocks.TOGETHER])  # each run by itself; all padded
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("name", RUNS)
def test_attention_and_its_gradient_are_those_of_the_fused_kernel(name, groups, together, monkeypatch):
    blocks.parts.cache_clear()
    for size, value in {"BLOCK": 4, "ALIGNED": 4, "TOGETHER": together}.items():
        monkeypatch.setattr(blocks, size, value)
    assert len(blocks.parts(RUNS[name], torch.float32)) == (1 if together else len(RUNS[name]))
    functions = [(blocks.BlockAttention.apply, "cpu"), (attention.fused, "cpu"), (attention.attention, "cpu")]
    results, inputs = outcomes(name, groups, 8, *functions)
    for size, value in {"BLOCK": 2, "WHOLE": 4}.items():  # long sequences ask in pieces
        monkeypatch.setattr(attention, size, value)
    assert sum(len(attention._pieces(run)) for run in RUNS[name]) > len(RUNS[name]) or name == "causal"
    results += outcomes(name, groups, 8, (attention.fused, "cpu"))[0]
    for ours, *others in zip(*results, strict=True):
        assert all(torch.allclose(ours, other, atol=1e-5) for other in others)
    blind = tuple(Run(r.count, r.length, 0, r.first) for r in RUNS[name])
    if any(r.inputs > r.first for r in RUNS[name]):  # answers see all inputs either way
        assert not torch.allclose(attention.fused(*inputs, blind, 0.3), results[1][0], atol=1e-3)
    blocks.parts.cache_clear()


def kernel_by_hand(q, k, v, q_ends, k_ends, q_most, k_most, *, scale, window_size=(-1, -1)):
    """What torch's variable-length kernel computes, sequence by sequence; causal is as if queries were the last tokens."""
    parts = []
    assert q_most == q_ends.diff().max() and k_most == k_ends.diff().max() and q_ends[-1] == len(q)
    for (a, b), (c, d) in zip(*(zip(ends[:-1], ends[1:], strict=True) for ends in (q_ends, k_ends)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q[a:b], k[c:d]) * scale
        if window_size == (-1, 0):
            later = torch.ones(b - a, d - c, dtype=torch.bool).triu(1 + (d - c) - (b - a))
            scores = scores.masked_fill(later, float("-inf"))
        parts.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[c:d]))
    return torch.cat(parts)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("name", RUNS)
def test_the_variable_length_kernel_is_asked_for_what_the_fused_one_computes(name, groups, monkeypatch):
    kernel = types.SimpleNamespace(varlen_attn=kernel_by_hand)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", kernel)
    results, _ = outcomes(name, groups, 8, (attention.varlen, "cpu"), (attention.fused, "cpu"))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("name", RUNS)
def test_the_variable_length_kernel_computes_what_the_fused_one_does(name, groups):
    functions = (attention.varlen, "cuda"), (attention.fused, "cpu")
    results, _ = outcomes(name, groups, 64, *functions, dtype=torch.bfloat16)
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def _of_torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None): ...


def _of_torch_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)
): ...


@pytest.mark.parametrize(
    ("kernel", "capability", "has"),
    [(_of_torch_2_10, (8, 9), False), (_of_torch_2_11, (8, 9), True), (_of_torch_2_11, (7, 5), False)],
)
def test_the_kernel_is_used_where_torch_and_gpu_know_it(kernel, capability, has, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", types.SimpleNamespace(varlen_attn=kernel))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    attention._knows_windows.cache_clear()
    try:
        assert attention.has_varlen(torch.device("cuda")) == has and not attention.has_varlen(torch.device("cpu"))
    finally:
        attention._knows_windows.cache_clear()
