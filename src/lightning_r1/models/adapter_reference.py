"""The reference of a policy with an adapter, without a second model.

As long as the reference is the base, it is the model with its adapter switched off. Where the reference is to become
the policy from time to time, the model holds a frozen copy of the adapter, which is small, and switches to it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lightning_r1.models.adapter import TRAINED, adapted_layers, adapter_config, inject
from lightning_r1.models.policy import Policy

_REFERENCE = "reference"


def hold_reference(policy: Policy) -> None:
    """Let a policy with an adapter hold a reference that can be refreshed; a hollow one also when it is made."""
    keep_reference(policy.model)
    if (make := policy.make) is not None:

        def made() -> nn.Module:
            whole: Any = make()
            hold_reference(whole)
            return whole

        policy.make = made


def keep_reference(model: PreTrainedModel) -> None:
    """Let the model hold a second, frozen adapter beside the first, equal to it."""
    inject(model, copy.deepcopy(adapter_config(model)), _REFERENCE)
    for _, layer in adapted_layers(model):
        layer.set_adapter(TRAINED)  # the other one is frozen
        for part in (layer.lora_A, layer.lora_B):
            part[_REFERENCE].to(part[TRAINED].weight.dtype)
    refresh_reference(model)


@torch.no_grad()
def refresh_reference(model: nn.Module) -> None:
    """The reference becomes what the adapter is now."""
    for _, layer in adapted_layers(model):
        for part in (layer.lora_A, layer.lora_B):
            part[_REFERENCE].weight.copy_(part[TRAINED].weight)


@contextmanager
def as_reference(model: nn.Module) -> Iterator[None]:
    """Within it the model is the reference: the base alone, or the base with the adapter that was kept.

    For scoring only: which weights train is not touched, as PEFT's own switches do.
    """
    layers = [layer for _, layer in adapted_layers(model)]
    for layer in layers:
        if _REFERENCE in layer.lora_A:
            layer._active_adapter = _REFERENCE
        else:
            layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._active_adapter, layer._disable_adapters = TRAINED, False
