r"""Estimators of the KL divergence from the policy to the reference, one number a token.

With :math:`d = \log \pi_\mathrm{ref} - \log \pi_\theta` at a sampled token (Schulman 2020,
"Approximating KL Divergence"):

=============== ============================== ======================== =====================
estimator       value                          expectation, on policy   its gradient, on policy
=============== ============================== ======================== =====================
``k1``          :math:`-d`                     reverse KL               zero
``k2``          :math:`d^2 / 2`                biased                   of the reverse KL
``k3``          :math:`e^d - d - 1`            reverse KL               of the **forward** KL
``k3_unbiased`` :math:`\rho\,(e^d - d - 1)`    reverse KL               of the reverse KL
=============== ============================== ======================== =====================

``k3`` in the loss is what DeepSeekMath (eq. 4) and the R1 paper (eq. 2) write. ``k3_unbiased``
multiplies it by the *live* ratio :math:`\rho = \pi_\theta / \pi_\mathrm{old}` (DeepSeek-V3.2,
arXiv 2512.02556, section 3.1), which also makes it right off policy. The table is checked by exact
enumeration on a small vocabulary in the tests.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3", "k3_unbiased"]

# exp(20) is 5e8: a log-ratio beyond it says the run is broken, and exp() of it in a branch that
# min() discards would still turn the gradient into NaN (0 * inf).
MAX_LOG_RATIO = 20.0


def kl_to_reference(
    logprobs: Tensor, ref_logprobs: Tensor, *, estimator: KLEstimator = "k3", ratio: Tensor | None = None
) -> Tensor:
    """Estimate KL(policy || reference) at each token.

    Args:
        logprobs: ``[N, T]`` of the policy, with gradient.
        ref_logprobs: ``[N, T]`` of the frozen reference.
        estimator: see the table above.
        ratio: ``[N, T]``, the live (not detached) ratio to the policy that sampled; only
            ``k3_unbiased`` uses it and needs it.

    Returns:
        ``[N, T]``.

    Raises:
        ValueError: for an unknown estimator, or ``k3_unbiased`` without ``ratio``.
    """
    difference = (ref_logprobs - logprobs).clamp(max=MAX_LOG_RATIO)
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return difference.square() / 2
    k3 = difference.expm1() - difference
    if estimator == "k3":
        return k3
    if estimator == "k3_unbiased":
        if ratio is None:
            raise ValueError("estimator='k3_unbiased' needs ratio: the live pi_theta / pi_old, [N, T]")
        return ratio * k3
    raise ValueError(f"estimator={estimator!r}: expected k1, k2, k3 or k3_unbiased")
