"""Memory of adapting a billion parameters: `python tests/bench/billion.py [--device cuda]`.

A Llama-3.2-1B shape of random weights in bf16, LoRA of rank 128 on all linear layers: GiB of weights, adapters, optimiser
states and one sequence, estimated at 8192 and 1024 tokens and, at 1024, measured as the bytes of all storages alive; and
how the engine would train sequences of 8192 tokens within 10 GiB. On a GPU it does so, and measures what its allocator took.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository

from ttt_core.arc.encode import DIGITS, IGNORE, Sequence
from ttt_core.config import AdaptConfig
from ttt_core.model.load import LoadedModel
from ttt_core.model.memory import Meter
from ttt_core.solve.adapt import estimate_of, plan_of, trainable
from ttt_core.solve.fit import Plan, fit

BILLION = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "max_position_embeddings": 131072,
}


def billion(device: str = "cpu") -> dict:
    """GiB of adapting a Llama-3.2-1B shape in bf16: estimated at 8192 and 1024 tokens, measured at 1024, on a GPU at 8192 too."""
    device = torch.device(device)
    with torch.device("meta"):
        config = LlamaConfig(vocab_size=15, num_key_value_heads=8, tie_word_embeddings=True, **BILLION)
        net = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    net = net.to_empty(device=device)
    for p in net.parameters():  # cheap numbers: memory does not depend on them
        p.data.fill_(0.01)
    net.model.rotary_emb = type(net.model.rotary_emb)(config).to(device)
    model = LoadedModel(net, DIGITS, device, torch.bfloat16, "", "")
    figures = {}
    for checkpoint in (False, True):
        guess = estimate_of(model, AdaptConfig(rank=128, steps=1), checkpoint)
        name = "checkpointed" if checkpoint else "plain"
        for tokens in (1024, 8192):
            figures[f"{name}_{tokens}_estimate_gib"] = guess.total(tokens) / 2**30
        weights = sum(p.nbytes for p in net.parameters())
        with Meter() as meter:
            two_steps(model, 1024, Plan(1024, checkpoint, 1024))
        figures[f"{name}_1024_measured_gib"] = (weights + meter.peak) / 2**30
    plan = plan_of(model, AdaptConfig(rank=128, max_memory_gib=10), 8192)
    figures |= {"plan_tokens": min(plan.micro_tokens, plan.max_tokens), "plan_checkpointed": plan.checkpoint}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        began = time.monotonic()
        two_steps(model, figures["plan_tokens"], plan)
        figures["plan_step_s"] = (time.monotonic() - began) / 2
        figures["plan_measured_gib"] = torch.cuda.max_memory_allocated() / 2**30
        figures["plan_reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    return figures


def two_steps(model: LoadedModel, tokens: int, plan: Plan) -> None:
    """Adaptation by two steps of two sequences of `tokens`: the optimiser's states stand from the second on."""
    ids = np.zeros(tokens, np.int64)
    row = Sequence(ids, np.where(np.arange(tokens) < tokens * 3 // 4, IGNORE, 0), np.arange(tokens))
    with trainable(model, "", AdaptConfig(rank=128), 0) as groups:
        done = fit(model, lambda _: iter([[(row, 0)] * 2] * 2), groups, AdaptConfig(steps=2), plan, 1e18)
    if done.steps != 2 or done.plan != plan:
        raise SystemExit(
            f"{done.steps} steps by {done.plan}, {done.note}: not the two by {plan} that were to be measured"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    for name, value in billion(parser.parse_args().device).items():
        print(f"{name:32} {value:.2f}")
