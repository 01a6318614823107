"""The objectives of GRPO and its descendants, token by token, from the papers.

GRPO: DeepSeekMath (arXiv 2402.03300) eq. 3. DAPO: arXiv 2503.14476 eq. 8 (two bounds, token mean).
Dual clip: arXiv 1912.09729 eq. 5. Dr. GRPO: arXiv 2503.20783 (constant normaliser).
GSPO: arXiv 2507.18071 eq. 7. CISPO: arXiv 2506.13585 eq. 4. SAPO: arXiv 2511.20347.
Matrices are nested lists of floats or of 0-dim tensors (see :mod:`oracles.scalars`); a masked
position is never read.
"""

from oracles.naive_kl import token_kl
from oracles.scalars import clip, exp, frozen, sigmoid


def naive_policy_loss(
    logprobs,
    old_logprobs,
    advantages,
    mask,
    *,
    objective="clip",
    ratio_level="token",
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=None,
    sapo_temperatures=(1.0, 1.05),
    reduction="sequence_mean",
    token_budget=1,
    ref_logprobs=None,
    kl_coef=0.0,
    kl_estimator="k3",
    token_weights=None,
    sequence_mask=None,
    entropy=None,
    entropy_coef=0.0,
):
    """Minus the objective of one whole minibatch.

    >>> naive_policy_loss([[-1.0, -2.0], [-0.5, 0.0]], [[-1.0, -2.0], [-0.5, 0.0]], [1.0, -0.5], [[1, 1], [1, 0]])
    -0.25
    """
    sequences, tokens = len(mask), sum(map(sum, mask))
    objective_value = 0.0
    for i in range(sequences):
        counted = [t for t, counts in enumerate(mask[i]) if counts]
        if not counted:
            continue
        token_ratios = {t: exp(logprobs[i][t] - old_logprobs[i][t]) for t in counted}
        if ratio_level == "sequence":
            sequence_ratio = exp(sum(logprobs[i][t] - old_logprobs[i][t] for t in counted) / len(counted))
        row = 0.0
        for t in counted:
            ratio = sequence_ratio if ratio_level == "sequence" else token_ratios[t]
            advantage = advantages[i]
            if objective == "clip":
                term = clipped(ratio, advantage, clip_low, clip_high, dual_clip)
            elif objective == "cispo":
                term = frozen(clip(ratio, 1 - clip_low, 1 + clip_high)) * advantage * logprobs[i][t]
            else:
                tau = sapo_temperatures[0] if advantage > 0 else sapo_temperatures[1]
                term = 4 / tau * sigmoid(tau * (ratio - 1)) * advantage
            if sequence_mask is not None and not sequence_mask[i]:
                term = 0.0 * logprobs[i][t]
            if token_weights is not None:
                term = term * token_weights[i][t]
            if kl_coef:
                term = term - kl_coef * token_kl(logprobs[i][t], ref_logprobs[i][t], kl_estimator, token_ratios[t])
            if entropy_coef:
                term = term + entropy_coef * entropy[i][t]
            row = row + term
        if reduction == "sequence_mean":
            objective_value = objective_value + row / len(counted) / sequences
        elif reduction == "token_mean":
            objective_value = objective_value + row / tokens
        else:
            objective_value = objective_value + row / (sequences * token_budget)
    return -objective_value


def clipped(ratio, advantage, clip_low, clip_high, dual_clip=None):
    """PPO's pessimistic minimum; for a negative advantage not below ``dual_clip * advantage``."""
    value = min(ratio * advantage, clip(ratio, 1 - clip_low, 1 + clip_high) * advantage)
    if dual_clip is not None and advantage < 0:
        value = max(value, ratio * 0 + dual_clip * advantage)
    return value
