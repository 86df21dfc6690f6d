"""The versions of Kaggle's image, which `make test-kaggle` installs: PEFT's LoRA cannot be used there, ours can."""

import peft
import pytest
import torch
from torch import nn

from ttt_core.model import lora
from ttt_core.run import doctor, environment

IMAGE = {"transformers": "5.0.0", "peft": "0.19.1", "numpy": "2.0.2", "safetensors": "0.7.0", "torchao": "0.10.0"}
pytestmark = pytest.mark.skipif(
    environment.version("torchao") == "absent", reason="not the environment of Kaggle's image"
)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3))


def test_the_environment_has_the_versions_of_the_image():
    assert {package: environment.version(package) for package in IMAGE} == IMAGE


def test_peft_raises_here_and_our_lora_trains():
    with pytest.raises(ImportError, match="torchao"):
        peft.get_peft_model(net(), peft.LoraConfig(target_modules=["0"]))
    ours, x = net(), torch.randn(5, 4)
    plain = ours(x)
    lora.inject(ours, targets=["0"], rank=2, alpha=4, seed=0)
    assert torch.equal(ours(x), plain)
    ours(x).square().sum().backward()
    assert all(p.grad is not None for p in lora.adapter_parameters(ours))


def test_the_doctor_knows_the_conflict():
    assert "PEFT" in doctor._torchao().found and not doctor._torchao().fault
