"""What to watch while the policy moves: clip fractions, ratios, KL, entropy, sampler gap.

Every quantity is a *sum over counted tokens* (or a maximum, ``*_max``), so that micro-batches and
ranks combine exactly: add the sums, divide once by the ``tokens`` sum (:func:`combine`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def policy_diagnostics(
    *,
    ratio: Tensor,
    log_ratio: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
    kl: Tensor | None = None,
    entropy: Tensor | None = None,
) -> dict[str, Tensor]:
    """Sums over the counted tokens of some rows.

    Args:
        ratio: ``[N, T]``, at the level the objective uses.
        log_ratio: ``[N, T]``, token level: log pi_theta - log pi_old.
        advantages: ``[N, 1]``.
        mask: ``[N, T]`` bool.
        clip_low: as in the objective.
        clip_high: as in the objective.
        kl: ``[N, T]`` estimate of the KL to the reference, if there is one.
        entropy: ``[N, T]`` of the policy, if it was computed.

    Returns:
        Scalars: ``tokens``; ``clip_fraction_low`` (negative advantages at a ratio below
        1 - clip_low), ``clip_fraction_high`` (positive ones above 1 + clip_high): the tokens at which
        the clip bites (a dual clip is not counted); ``kl_old`` (k1 to the policy that sampled), ``ratio_max``, and
        ``kl_ref``, ``entropy`` where given.
    """
    sums = {
        "tokens": mask.sum(),
        "clip_fraction_low": (mask & (ratio < 1 - clip_low) & (advantages < 0)).sum(),
        "clip_fraction_high": (mask & (ratio > 1 + clip_high) & (advantages > 0)).sum(),
        "kl_old": -_masked(log_ratio, mask).sum(),
        "ratio_max": _masked(ratio, mask).max() if mask.any() else ratio.new_zeros(()),
    }
    if kl is not None:
        sums["kl_ref"] = _masked(kl, mask).sum()
    if entropy is not None:
        sums["entropy"] = _masked(entropy, mask).sum()
    return sums


@torch.no_grad()
def logprob_gap(old_logprobs: Tensor, rollout_logprobs: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Trainer against sampler on the same tokens: sum of absolute differences, and the largest.

    Args:
        old_logprobs: ``[N, T]`` by the trainer, with the weights that sampled.
        rollout_logprobs: ``[N, T]`` by the sampler.
        mask: ``[N, T]`` bool.
    """
    gap = _masked((old_logprobs - rollout_logprobs).abs(), mask)
    return {"logprob_gap": gap.sum(), "logprob_gap_max": gap.max() if mask.any() else gap.new_zeros(())}


def combine(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Add the sums and take the maxima of several parts (micro-batches, ranks).

    >>> one = {"tokens": torch.tensor(2), "entropy": torch.tensor(3.0), "ratio_max": torch.tensor(1.5)}
    >>> two = {"tokens": torch.tensor(1), "entropy": torch.tensor(0.0), "ratio_max": torch.tensor(1.2)}
    >>> {name: value.item() for name, value in combine([one, two]).items()}
    {'tokens': 3, 'entropy': 3.0, 'ratio_max': 1.5}
    """
    whole: dict[str, Tensor] = {}
    for part in parts:
        for name, value in part.items():
            if name not in whole:
                whole[name] = value
            elif name.endswith("_max"):
                whole[name] = torch.maximum(whole[name], value)
            else:
                whole[name] = whole[name] + value
    return whole


def per_token(sums: dict[str, Tensor]) -> dict[str, float]:
    """Divide combined sums by their token count; maxima stay. ``tokens`` itself is left out."""
    tokens = max(float(sums["tokens"]), 1.0)
    return {
        name: float(value) if name.endswith("_max") else float(value) / tokens
        for name, value in sums.items()
        if name != "tokens"
    }


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0)
