"""What the search bench needs of models: one trained on the spot, and GridLM with transformers' `generate`."""

import time

import numpy as np
import torch
from transformers import DynamicCache, GenerationConfig, GenerationMixin, LlamaConfig, LlamaForCausalLM

from ttt_core.arc import augment
from ttt_core.arc.encode import FORMATS
from ttt_core.model.gridlm import GridLM
from ttt_core.model.load import LoadedModel
from ttt_core.solve.feed import batch_of, target_logits


class GeneratingGridLM(GridLM, GenerationMixin):
    """GridLM as `generate` wants it: positions of new tokens are read off the tokens. `batch`: of the prefixes."""

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, attention_mask=None, **_):
        own = {name: self.batch[name] for name in ("task_ids", "dihedral_ids")}
        shared = {"past_key_values": past_key_values, "attention_mask": attention_mask, "use_cache": True}
        made = input_ids[:, self.batch["input_ids"].shape[1] :]
        if made.shape[1] == 0:
            return {"input_ids": input_ids, "position_ids": self.batch["position_ids"], **own, **shared}
        ends = made[:, :-1] == 10
        behind = torch.where(ends, torch.arange(1, made.shape[1], device=made.device), 0)
        cols = made.shape[1] - 1 - (behind.max(dim=1).values if made.shape[1] > 1 else 0)
        rows = ends.sum(dim=1)
        positions = torch.stack([torch.ones_like(rows), rows + 1, torch.zeros_like(rows) + cols + 1], dim=1)[:, None]
        return {"input_ids": made[:, -1:], "position_ids": positions, **own, **shared}


def generating(model: LoadedModel, batch: dict):
    """The model's net, able to `generate` from the prefixes of `batch`."""
    if model.format.name != "grid":
        return model.net
    net = model.net
    net.__class__ = GeneratingGridLM  # the weights, adapted as they are
    net.batch, net.generation_config = batch, GenerationConfig()
    net._prepare_cache_for_generation = lambda config, kwargs, *rest: kwargs.update(past_key_values=DynamicCache())
    return net


def trained(tasks, seconds: float, device: str) -> LoadedModel:
    """A causal LM of 6 layers and width 384, trained for `seconds` on views of `tasks` in the `digits` format."""
    torch.manual_seed(0)
    format, rng = FORMATS["digits"], np.random.default_rng(0)
    shape = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6}
    config = LlamaConfig(vocab_size=format.vocab_size, bos_token_id=14, eos_token_id=13, **shape)
    net = LlamaForCausalLM(config).to(device)
    model = LoadedModel(net, format, torch.device(device), torch.bfloat16, path="", sha256="")
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.95))
    began, losses = time.monotonic(), []
    while (left := 1 - (time.monotonic() - began) / seconds) > 0:
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, (len(losses) + 1) / 50) * left
        rows = []
        while sum(map(len, rows)) < 1024:
            task = tasks[rng.integers(len(tasks))]
            seen = augment.view(augment.draw_views(task, 8, rng)[rng.integers(8)], task)
            rows += [row for row in format.training(seen, "all_outputs") if len(row) < 1024]
        logits, targets = target_logits(model, batch_of(model, rows, [0] * len(rows)))
        loss = torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    print(f"causal LM: {len(losses)} steps in {seconds:g} s, loss {np.mean(losses[-20:]):.2f} nats a token")
    net.eval().requires_grad_(False)
    return LoadedModel(net, format, torch.device(device), torch.float32, path="", sha256="")
