"""Fixtures of more than one folder."""

import pytest


@pytest.fixture
def no_torchao(monkeypatch):
    """PEFT must not look for torchao: with the 0.10.0 of Kaggle's image it raises, whatever the layers are."""
    monkeypatch.setattr("peft.tuners.lora.torchao.is_torchao_available", lambda: False)
