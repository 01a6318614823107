"""AdamW as language models use it: no weight decay on norms and biases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from lightning_r1.optim.master import MasterAdamW, needs_master


def adamw(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    master_weights: Literal["auto", "off"] = "auto",
) -> Optimizer:
    """torch's fused AdamW over the parameters that train.

    Args:
        named_parameters: of the policy.
        lr: peak learning rate.
        betas: of the two averages.
        eps: in the denominator.
        weight_decay: of matrices; vectors (norms, biases) have none.
        master_weights: auto keeps a float32 copy of weights that have fewer bits, see
            :mod:`lightning_r1.optim.master`; off lets most of a small step be rounded away.

    Raises:
        ValueError: for a bad value, or if nothing trains.
    """
    for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
        if value < 0:
            raise ValueError(f"optim.{name}={value}: expected >= 0")
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"optim.betas={betas}: expected both in [0, 1)")
    if master_weights not in ("auto", "off"):
        raise ValueError(f"optim.master_weights={master_weights!r}: expected auto or off")
    training = [parameter for _, parameter in named_parameters if parameter.requires_grad]
    if not training:
        raise ValueError("model: no parameter requires a gradient, so nothing would be trained")
    groups = [
        {"params": [p for p in training if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in training if p.ndim < 2], "weight_decay": 0.0},
    ]
    mastered = master_weights == "auto" and any(map(needs_master, training))
    return (MasterAdamW if mastered else AdamW)(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=(betas[0], betas[1]),
        eps=eps,
        fused=all(torch.is_floating_point(p) for p in training),
    )
