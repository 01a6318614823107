"""AdamW as language models use it: no weight decay on norms and biases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from lightning_r1.optim.groups import check_options, training
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
    check_options(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, master_weights=master_weights)
    trained = list(training(named_parameters).values())
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    mastered = master_weights == "auto" and any(map(needs_master, trained))
    return (MasterAdamW if mastered else AdamW)(
        [group for group in groups if group["params"]],
        lr=lr,
        betas=(betas[0], betas[1]),
        eps=eps,
        fused=all(torch.is_floating_point(p) for p in trained),
    )
