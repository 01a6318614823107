r"""Corrections for completions that the current policy would not have sampled.

*Sampler mismatch*: a rollout engine's numbers are not the trainer's (other kernels, other
precision, top-p), so tokens come from a policy that is never quite :math:`\pi_\mathrm{old}`. The
policy term of the loss is multiplied by
:math:`w = \pi_\mathrm{old} / \pi_\mathrm{sampler}`, **truncated** to its bounds (TIS) or **masked**
to 0 outside them (MIS, IcePop). Token level is biased with low variance; the sequence product is
unbiased and explodes with length; the geometric mean is a length-invariant middle.

*Off-policy sequence mask* (DeepSeek-V3.2, arXiv 2512.02556 section 3.1): completions with a
negative advantage that have drifted too far are left out of the policy term.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_r1.functional.kl import MAX_LOG_RATIO

CorrectionMode = Literal["truncate", "mask"]
CorrectionLevel = Literal["token", "sequence", "geometric"]


def sampler_weights(
    old_logprobs: Tensor,
    rollout_logprobs: Tensor,
    mask: Tensor,
    *,
    mode: CorrectionMode = "truncate",
    level: CorrectionLevel = "token",
    low: float = 0.0,
    high: float = 2.0,
) -> Tensor:
    """Importance weights from the sampler's policy to the trainer's policy at sampling time.

    Args:
        old_logprobs: ``[N, T]``, recomputed by the trainer with the weights that sampled.
        rollout_logprobs: ``[N, T]``, as reported by the sampler.
        mask: ``[N, T]`` bool.
        mode: ``truncate`` clamps to ``[low, high]``; ``mask`` drops what lies outside.
        level: ``token``, ``sequence`` (product over the completion) or ``geometric`` (its mean).
        low: lower bound C_min.
        high: upper bound C_max.

    Returns:
        ``[N, T]``, detached; 0 where the mask is False.
    """
    gap = torch.where(mask, old_logprobs - rollout_logprobs, 0).detach()
    if level in ("sequence", "geometric"):
        total = gap.sum(-1, keepdim=True)
        lengths = mask.sum(-1, keepdim=True).clamp(min=1)
        gap = (total if level == "sequence" else total / lengths).expand_as(gap)
    elif level != "token":
        raise ValueError(f"level={level!r}: expected token, sequence or geometric")
    weights = gap.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    if mode == "truncate":
        weights = weights.clamp(low, high)
    elif mode == "mask":
        weights = torch.where((weights >= low) & (weights <= high), weights, 0)
    else:
        raise ValueError(f"mode={mode!r}: expected truncate or mask")
    return torch.where(mask, weights, 0)


def off_policy_sequence_mask(
    logprobs: Tensor, rollout_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, threshold: float
) -> Tensor:
    r"""Which completions stay in the policy term.

    .. math:: M_i = 0 \;\text{if}\; A_i < 0 \;\text{and}\;
              \tfrac{1}{|o_i|} \textstyle\sum_t \log(\pi_\mathrm{sampler} / \pi_\theta) > \delta

    Args:
        logprobs: ``[N, T]`` of the current policy.
        rollout_logprobs: ``[N, T]`` as reported by the sampler.
        advantages: ``[N]``.
        mask: ``[N, T]`` bool.
        threshold: :math:`\delta` in nats a token (unpublished; TRL suggests 0.5).

    Returns:
        ``[N]`` bool, True where the completion counts.
    """
    drift = torch.where(mask, rollout_logprobs - logprobs, 0).detach().sum(-1)
    drift = drift / mask.sum(-1).clamp(min=1)
    return (advantages >= 0) | (drift <= threshold)
