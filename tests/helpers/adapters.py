"""Adapters that have moved: B is random, so that whoever forgets the adapter is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from helpers.models import tiny_model
from lightning_r1.models.adapter import AdapterSettings, add_adapter
from lightning_r1.models.identity import Base
from lightning_r1.models.load import load_model
from lightning_r1.models.policy import Policy

BASE = Base("org/base", "0123456789ab")


def move_adapter(model: PreTrainedModel, *, seed: int = 1, scale: float = 0.1) -> None:
    """Give B random weights; without that the adapted model is the base."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B.default." in name:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=make))


def adapted_model(family: str = "qwen3", *, move: bool = True, **settings: Any) -> PreTrainedModel:
    """A tiny model with an adapter of rank 4."""
    return _adapted(tiny_model(family), move, **{"rank": 4, "alpha": 8, **settings})


def adapted_policy(family: str = "qwen3", *, move: bool = True, **settings: Any) -> Policy:
    """A policy over :func:`adapted_model`."""
    return Policy(adapted_model(family, move=move, **settings), base=BASE).eval()


def quantised_model(folder: Path, *, dtype: str = "float32", move: bool = True) -> PreTrainedModel:
    """A tiny model in four bits with an adapter; the base is left in the folder."""
    # blocks of 64 weights have to be whole
    tiny_model("qwen3", hidden_size=64, intermediate_size=128, head_dim=16).save_pretrained(folder)
    return _adapted(load_model(folder, dtype=dtype, four_bit=True), move, rank=4, alpha=8)


def _adapted(model: PreTrainedModel, move: bool, **settings: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        add_adapter(model, AdapterSettings(**settings), base=BASE.path)
    if move:
        move_adapter(model)
    return model
