"""Every architecture's layers are found, by their class."""

from __future__ import annotations

import pytest
from torch import nn

from helpers.models import FAMILIES, tiny_model, tiny_policy
from lightning_r1.models.units import decoder_layers, units_of


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_are_the_ones_of_the_list(family: str) -> None:
    model = tiny_model(family)
    stacks = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == 2]
    layers = decoder_layers(model)
    assert layers == list(stacks[0])
    names = {name for name, _ in model.named_parameters()}
    within = {name for name, _ in model.named_parameters() if ".layers." in name or ".h." in name}
    assert sum(len(list(layer.parameters())) for layer in layers) == len(within) < len(names)


def test_a_policy_is_its_own_root() -> None:
    policy = tiny_policy()
    units = units_of(policy)
    assert units.root is policy
    assert units.exact == []
    assert all(hasattr(policy, method) for method in units.methods)


def test_an_architecture_that_names_no_layers_is_refused() -> None:
    model = tiny_model("llama")
    model._no_split_modules = None
    with pytest.raises(ValueError, match=r"parallel=fsdp: model_type='llama' does not say .* choose parallel=ddp"):
        decoder_layers(model)
