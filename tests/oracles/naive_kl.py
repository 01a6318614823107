"""KL estimators at one token, and the exact divergences with their exact gradients, by loops.

Schulman 2020 ("Approximating KL Divergence"); DeepSeekMath (arXiv 2402.03300) eq. 4;
DeepSeek-V3.2 (arXiv 2512.02556) section 3.1 for the live ratio.
"""

import math

from oracles.scalars import exp


def token_kl(logprob, ref_logprob, estimator, ratio=None):
    """One token's estimate of KL(policy || reference).

    >>> round(token_kl(-1.0, -2.0, "k3"), 6)  # d = -1: e^-1 + 1 - 1
    0.367879
    """
    d = ref_logprob - logprob
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return d * d / 2
    k3 = exp(d) - d - 1
    return ratio * k3 if estimator == "k3_unbiased" else k3


def softmax(logits):
    total = sum(math.exp(z) for z in logits)
    return [math.exp(z) / total for z in logits]


def kl(p, q):
    """KL(p || q) of two lists of probabilities."""
    return sum(pv * (math.log(pv) - math.log(qv)) for pv, qv in zip(p, q, strict=True))


def reverse_kl_gradient(p, q):
    """d KL(p || q) / d logits of p: p_k (log p_k - log q_k - KL)."""
    total = kl(p, q)
    return [pv * (math.log(pv) - math.log(qv) - total) for pv, qv in zip(p, q, strict=True)]


def forward_kl_gradient(p, q):
    """d KL(q || p) / d logits of p: p_k - q_k."""
    return [pv - qv for pv, qv in zip(p, q, strict=True)]
