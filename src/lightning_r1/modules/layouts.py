"""What a model's rows can become of what is wanted of them."""

from __future__ import annotations

from torch import nn

from lightning_r1.experience.batching import Choice, Layouts
from lightning_r1.models.packed import uses_flash, why_not_packed
from lightning_r1.models.policy import Policy


def layouts_of(policy: nn.Module, packing: Choice, shared_prefix: Choice) -> Layouts:
    """What a model's rows can become of what is wanted.

    Raises:
        ValueError: for what is said to be on and cannot be; names the key and what keeps it.
    """
    for key, choice in (("packing", packing), ("shared_prefix", shared_prefix)):
        if choice not in ("auto", "on", "off"):
            raise ValueError(f"phase.module.{key}={choice!r}: expected auto, on or off")
    model = policy.model if isinstance(policy, Policy) else None
    why = why_not_packed(model) if model else "this phase trains on padded rows"
    if model and why is None:
        return Layouts(packing == "on" or (packing == "auto" and uses_flash(model)), shared_prefix)
    for key, choice in (("packing", packing), ("shared_prefix", shared_prefix)):
        if choice == "on":
            raise ValueError(f"phase.module.{key}=on: {why}; set it to auto or off")
    return Layouts()
