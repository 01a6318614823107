r"""Credit for a completion: how much better it did than the other completions of its prompt.

.. math:: A_i = \frac{r_i - \mathrm{baseline}(r)}{\mathrm{std}(r) + \epsilon}

DeepSeekMath (arXiv 2402.03300) section 4.1.2 and the R1 paper (arXiv 2501.12948) eq. 3 write the
group's mean and standard deviation and say neither which standard deviation nor which epsilon.
Here ``std="sample"`` (Bessel's correction) and ``epsilon=1e-4`` added outside the root, as TRL, are
the defaults; ``population`` is numpy's; ``none`` is Dr. GRPO (arXiv 2503.20783).
``baseline="leave_one_out"`` is RLOO (arXiv 2402.14740): the mean of the *other* completions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Std = Literal["sample", "population", "none"]
Baseline = Literal["mean", "leave_one_out"]


def group_relative_advantages(
    rewards: Tensor, *, std: Std = "sample", baseline: Baseline = "mean", epsilon: float = 1e-4
) -> Tensor:
    """Advantages of each completion within its group.

    Args:
        rewards: ``[B, G]``; NaN marks a completion that could not be scored.
        std: ``sample`` divides by G - 1, ``population`` by G, ``none`` does not divide.
        baseline: ``mean`` of the group, or ``leave_one_out``: the mean of the others.
        epsilon: added to the standard deviation, not under the root.

    Returns:
        ``[B, G]``. Unscored completions, groups with fewer than two scored completions and groups
        whose rewards are all equal get exactly 0.

    >>> group_relative_advantages(torch.tensor([[1.0, 0.0, 1.0, 1.0]])).round(decimals=4)
    tensor([[ 0.4999, -1.4997,  0.4999,  0.4999]])
    >>> group_relative_advantages(torch.tensor([[1.0, 0.0, 1.0, 1.0]]), std="none")
    tensor([[ 0.2500, -0.7500,  0.2500,  0.2500]])
    """
    counts = ~rewards.isnan()
    n = counts.sum(-1, keepdim=True)
    values = torch.where(counts, rewards, 0)
    mean = values.sum(-1, keepdim=True) / n.clamp(min=1)
    centred = torch.where(counts, rewards - mean, 0)
    advantages = centred
    if baseline == "leave_one_out":
        # r_i - mean of the others = n / (n - 1) * (r_i - mean of all)
        advantages = centred * n / (n - 1).clamp(min=1)
    elif baseline != "mean":
        raise ValueError(f"baseline={baseline!r}: expected mean or leave_one_out")
    if std != "none":
        advantages = advantages / (_std(centred, n, std) + epsilon)
    return torch.where(counts & informative_groups(rewards).unsqueeze(-1), advantages, 0)


def per_reward_advantages(rewards: Tensor, weights: Tensor, *, std: Std = "sample", epsilon: float = 1e-4) -> Tensor:
    """Normalise each reward within its group first, then add, then normalise over the batch.

    GDPO: a small reward (format) is not drowned by a large one (accuracy), nor the reverse.

    Args:
        rewards: ``[B, G, K]``, one column a reward function; NaN where it could not be scored.
        weights: ``[K]``.
        std: as in :func:`group_relative_advantages`, for both normalisations.
        epsilon: as in :func:`group_relative_advantages`.

    Returns:
        ``[B, G]``; a completion that any reward could not score gets 0.
    """
    per_reward = torch.stack(
        [group_relative_advantages(column, std=std, epsilon=epsilon) for column in rewards.unbind(-1)],
        dim=-1,
    )
    counts = ~rewards.isnan().any(-1)
    total = torch.where(counts, (per_reward * weights).sum(-1), torch.nan)
    whole_batch = group_relative_advantages(total.reshape(1, -1), std=std, epsilon=epsilon)
    return whole_batch.view_as(total)


def informative_groups(rewards: Tensor) -> Tensor:
    """Which groups teach anything: at least two scored completions whose rewards differ.

    Args:
        rewards: ``[B, G]``, NaN where unscored.

    Returns:
        ``[B]`` bool. The others are the *dead* groups, whose advantages are all 0.
    """
    highest = rewards.nan_to_num(nan=-torch.inf).amax(-1)
    lowest = rewards.nan_to_num(nan=torch.inf).amin(-1)
    return highest > lowest


def _std(centred: Tensor, n: Tensor, std: Std) -> Tensor:
    """Standard deviation ``[B, 1]`` of centred values whose unscored entries are 0."""
    if std not in ("sample", "population"):
        raise ValueError(f"std={std!r}: expected sample, population or none")
    degrees = (n - 1 if std == "sample" else n).clamp(min=1)
    return (centred.square().sum(-1, keepdim=True) / degrees).sqrt()
