"""Sampler corrections and the off-policy sequence mask by loops.

TIS / MIS as in r = pi_old / pi_sampler truncated or masked; DeepSeek-V3.2 (arXiv 2512.02556)
section 3.1 for the mask. A masked position is never read.
"""

import math


def naive_sampler_weights(old_logprobs, rollout_logprobs, mask, *, mode, level, low, high):
    """One weight a counted token, 0 elsewhere.

    >>> naive_sampler_weights([[0.0, 0.0]], [[-1.0, -1.0]], [[1, 0]], mode="truncate", level="token", low=0, high=2)
    [[2, 0.0]]
    """
    weights = []
    for old, rollout, counts in zip(old_logprobs, rollout_logprobs, mask, strict=True):
        ratios = {t: math.exp(old[t] - rollout[t]) for t in range(len(old)) if counts[t]}
        product = math.prod(ratios.values())
        row = [0.0] * len(old)
        for t, ratio in ratios.items():
            weight = {"token": ratio, "sequence": product, "geometric": product ** (1 / len(ratios))}[level]
            inside = low <= weight <= high
            row[t] = min(max(weight, low), high) if mode == "truncate" else (weight if inside else 0.0)
        weights.append(row)
    return weights


def naive_off_policy_mask(logprobs, rollout_logprobs, advantages, mask, *, threshold):
    """True where a completion stays in the policy term."""
    keep = []
    for now, sampled, advantage, counts in zip(logprobs, rollout_logprobs, advantages, mask, strict=True):
        drifts = [sampled[t] - now[t] for t in range(len(now)) if counts[t]]
        drift = sum(drifts) / len(drifts) if drifts else 0.0
        keep.append(not (advantage < 0 and drift > threshold))
    return keep
