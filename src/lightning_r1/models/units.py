"""The parts of a model that are made whole together where it is sharded."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from lightning_r1.models.policy import Policy
from lightning_r1.models.reward_model import Float32Linear, RewardModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What a strategy that shards has to know of a model."""

    root: nn.Module
    """What is called."""
    layers: list[nn.Module]
    exact: list[nn.Module]
    """They calculate in float32 whatever the rest does."""
    methods: tuple[str, ...]
    """Of the root, which are forwards as well."""


def units_of(model: Policy | RewardModel) -> Units:
    """The units of a policy or a reward model.

    Raises:
        ValueError: for an architecture whose layers cannot be told.
    """
    exact: list[nn.Module] = [part for part in model.modules() if isinstance(part, Float32Linear)]
    layers = decoder_layers(model.model)
    if isinstance(model, Policy):
        return Units(root=model, layers=layers, exact=exact, methods=("prediction",))
    # not the reward model itself: it returns a view, behind which FSDP cannot see
    return Units(root=model.model, layers=layers, exact=exact, methods=())


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The modules of the classes that the architecture names as not to be split; in order, none within another.

    Raises:
        ValueError: if it names none.
    """
    classes = set(model._no_split_modules or ())
    found = [(name, part) for name, part in model.named_modules() if type(part).__name__ in classes]
    outermost = [part for name, part in found if not any(name.startswith(f"{other}.") for other, _ in found)]
    if not outermost:
        raise ValueError(
            f"parallel=fsdp: model_type={model.config.model_type!r} does not say which of its modules are layers, so "
            "that it would have to be whole at once; choose parallel=ddp"
        )
    return outermost
