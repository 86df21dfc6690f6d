"""GridLM computes of its last layer what is asked for, and that is what the whole layer gives."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import DynamicCache

from ttt_core.model.gridlm import IGNORE, GridLM, GridLMConfig


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = GridLM(GridLMConfig(width=32, layers=2, heads=2, hidden=48, task_ids=["a", "b"])).eval()
    for layer in net.layers:  # else zero, and nothing would depend on the last layer
        nn.init.normal_(layer.attn.o_proj.weight, std=0.2), nn.init.normal_(layer.mlp.down_proj.weight, std=0.2)
    return net


@pytest.fixture
def batch():
    """Two rows of 12 tokens, 5 and 7 of them input, the first row padded behind by two."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 13, (2, 12), generator=generator)
    places = torch.arange(12)
    roles = places >= torch.tensor([[5], [7]])
    positions = torch.stack([roles.long(), places.expand(2, 12) // 3, places.expand(2, 12) % 3], dim=-1)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[0, 10:] = 0
    return {
        "input_ids": ids, "position_ids": positions, "attention_mask": mask,
        "task_ids": torch.tensor([0, 1]), "dihedral_ids": torch.tensor([2, 5]),
    }  # fmt: skip


def test_targets_have_the_loss_and_the_gradient_of_whole_logits(net, batch):
    labels = torch.where((torch.arange(12) > torch.tensor([[5], [7]])) & batch["attention_mask"].bool(), 3, IGNORE)
    seen = []
    net.layers[-1].mlp.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    gradients = []
    for given in (labels, None):
        out = net(**batch, labels=given)
        is_target = labels[:, 1:] != IGNORE
        loss = (
            out.loss if given is not None else F.cross_entropy(out.logits[:, :-1][is_target], labels[:, 1:][is_target])
        )
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for p in net.parameters())])
        net.zero_grad()
    assert seen == [7, 12], "from the first separator on; all"
    for asked, whole in zip(*gradients, strict=True):
        assert torch.allclose(asked, whole, atol=1e-5)


@torch.no_grad()
def test_the_last_logits_are_those_of_all_and_the_cache_is_whole(net, batch):
    caches = [DynamicCache(), DynamicCache()]
    whole, last = (
        net(**batch, past_key_values=cache, logits_to_keep=keep).logits
        for cache, keep in zip(caches, (0, 3), strict=True)
    )
    assert last.shape[1] == 3 and torch.allclose(whole[:, -3:], last, atol=1e-5)
    for ours, theirs in zip(caches[0].layers, caches[1].layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys) and ours.keys.shape[2] == 12
