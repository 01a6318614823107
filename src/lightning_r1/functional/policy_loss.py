r"""The objective: what GRPO and its descendants maximise, token by token.

With the ratio :math:`\rho_{it} = \pi_\theta(o_{it}) / \pi_\mathrm{old}(o_{it})` and the advantage
:math:`A_i` of completion :math:`i`:

========= ==========================================================================================
objective surrogate that is maximised at each token
========= ==========================================================================================
``clip``  :math:`\min(\rho A, \mathrm{clip}(\rho, 1-\epsilon_l, 1+\epsilon_h) A)`: GRPO (DeepSeekMath
          eq. 3, R1 eq. 1), DAPO with :math:`\epsilon_h > \epsilon_l`; for :math:`A < 0` an optional
          dual clip bounds it below by :math:`cA` (arXiv 1912.09729)
``cispo`` :math:`\mathrm{sg}(\mathrm{clip}(\rho, 1-\epsilon_l, 1+\epsilon_h)) A \log \pi_\theta`
          (arXiv 2506.13585 eq. 4)
``sapo``  :math:`\tfrac{4}{\tau} \sigma(\tau (\rho - 1)) A`, :math:`\tau` by the sign of A
          (arXiv 2511.20347)
========= ==========================================================================================

``ratio_level="sequence"`` replaces :math:`\rho_{it}` by GSPO's length-normalised
:math:`s_i = \exp(\tfrac{1}{|o_i|} \sum_t \log \rho_{it})` (arXiv 2507.18071 eq. 7).

.. math:: \mathcal{L} = -\,\mathrm{reduce}\big(w_{it} M_i\, \mathrm{surrogate}_{it}
          - \beta\, \mathrm{KL}_{it} + \eta\, H_{it}\big)

What is an option, and which value is the paper's: the level of the ratio (R1 writes a sequence
ratio in shorthand; its implementations and DeepSeekMath use ``token``), the KL estimator (``k3``),
the reduction (``sequence_mean``), the standard deviation (unstated). R1's :math:`\epsilon = 10`
leaves negative advantages without any bound; ``dual_clip`` is the optional guard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_r1.functional.diagnostics import policy_diagnostics
from lightning_r1.functional.kl import MAX_LOG_RATIO, KLEstimator, kl_to_reference
from lightning_r1.functional.reduction import Reduction, reduce_tokens

Objective = Literal["clip", "cispo", "sapo"]
RatioLevel = Literal["token", "sequence"]


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The loss of some rows of a minibatch, and its parts."""

    loss: Tensor
    """Scalar with gradient; a *share*: the sum over micro-batches and ranks is the loss."""
    policy: Tensor
    """Scalar, detached: the share of the policy term alone."""
    diagnostics: dict[str, Tensor]
    """Sums over counted tokens, see :mod:`lightning_r1.functional.diagnostics`."""


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    denominator: float,
    objective: Objective = "clip",
    ratio_level: RatioLevel = "token",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    sapo_temperatures: tuple[float, float] = (1.0, 1.05),
    reduction: Reduction = "sequence_mean",
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    kl_estimator: KLEstimator = "k3",
    token_weights: Tensor | None = None,
    sequence_mask: Tensor | None = None,
    entropy: Tensor | None = None,
    entropy_coef: float = 0.0,
) -> PolicyLoss:
    """Loss of N completions, to be minimised.

    Args:
        logprobs: ``[N, T]`` of the current policy, with gradient.
        old_logprobs: ``[N, T]`` of the policy that sampled, recomputed by the trainer; on policy,
            ``logprobs.detach()``.
        advantages: ``[N]``.
        mask: ``[N, T]`` bool; what stands elsewhere, NaN included, changes nothing.
        denominator: of the whole minibatch (:func:`~.reduction.minibatch_denominator`).
        objective: see the table above.
        ratio_level: ``token`` or ``sequence``.
        clip_low: the ratio's lower bound is ``1 - clip_low``.
        clip_high: the ratio's upper bound is ``1 + clip_high``, for every objective that clips.
        dual_clip: c > 1 + clip_high; bounds the ratio of negative advantages. ``None`` is off.
        sapo_temperatures: tau for positive and for other advantages.
        reduction: see :mod:`~.reduction`.
        ref_logprobs: ``[N, T]`` of the reference; needed when ``kl_coef`` is not 0.
        kl_coef: beta.
        kl_estimator: see :mod:`~.kl`.
        token_weights: ``[N, T]`` from :func:`~.importance.sampler_weights`, on the policy term.
        sequence_mask: ``[N]`` bool from :func:`~.importance.off_policy_sequence_mask`, likewise.
        entropy: ``[N, T]``, with gradient if ``entropy_coef`` is not 0.
        entropy_coef: weight of the entropy bonus.

    Raises:
        ValueError: for an unknown option, or a ``kl_coef`` without ``ref_logprobs``.

    Two completions of one group, on policy: the loss is minus the mean advantage.

    >>> logprobs = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]], requires_grad=True)
    >>> mask = torch.tensor([[True, True], [True, False]])
    >>> out = policy_loss(logprobs, logprobs.detach(), torch.tensor([1.0, -0.5]), mask, denominator=2)
    >>> out.loss.item()
    -0.25
    """
    logprobs, old_logprobs = _counted(logprobs, mask), _counted(old_logprobs, mask)
    advantages = advantages.unsqueeze(-1)
    log_ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    token_ratio = log_ratio.exp()
    ratio = token_ratio if ratio_level == "token" else _sequence_ratio(log_ratio, mask, ratio_level)

    if objective == "clip":
        surrogate = clipped_surrogate(ratio, advantages, clip_low, clip_high, dual_clip)
    elif objective == "cispo":
        surrogate = ratio.detach().clamp(1 - clip_low, 1 + clip_high) * advantages * logprobs
    elif objective == "sapo":
        positive, other = sapo_temperatures
        tau = torch.full_like(advantages, other).masked_fill(advantages > 0, positive)
        surrogate = 4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages
    else:
        raise ValueError(f"objective={objective!r}: expected clip, cispo or sapo")

    if sequence_mask is not None:
        surrogate = surrogate * sequence_mask.unsqueeze(-1)
    if token_weights is not None:
        surrogate = surrogate * _counted(token_weights, mask)
    maximised = surrogate

    kl = None
    if ref_logprobs is not None:
        kl = kl_to_reference(logprobs, _counted(ref_logprobs, mask), estimator=kl_estimator, ratio=token_ratio)
    if kl_coef:
        if kl is None:
            raise ValueError(f"kl_coef={kl_coef} needs ref_logprobs; pass them or set kl_coef=0")
        maximised = maximised - kl_coef * kl
    if entropy_coef:
        if entropy is None:
            raise ValueError(f"entropy_coef={entropy_coef} needs entropy; pass it or set entropy_coef=0")
        maximised = maximised + entropy_coef * _counted(entropy, mask)

    return PolicyLoss(
        loss=-reduce_tokens(maximised, mask, reduction=reduction, denominator=denominator),
        policy=-reduce_tokens(surrogate.detach(), mask, reduction=reduction, denominator=denominator),
        diagnostics=policy_diagnostics(
            ratio=ratio,
            log_ratio=log_ratio,
            advantages=advantages,
            mask=mask,
            clip_low=clip_low,
            clip_high=clip_high,
            kl=kl,
            entropy=entropy,
        ),
    )


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> Tensor:
    """PPO's pessimistic surrogate, to be maximised; shapes broadcast.

    ============  ==============  ==========================  ===========
    advantage     ratio           value                       gradient
    ============  ==============  ==========================  ===========
    positive      above 1 + high  (1 + high) A                0
    positive      below           ratio A                     live
    negative      below 1 - low   (1 - low) A                 0
    negative      above           ratio A                     live
    negative      above dual      dual A                      0
    ============  ==============  ==========================  ===========
    """
    if dual_clip is not None and dual_clip <= 1 + clip_high:
        raise ValueError(f"dual_clip={dual_clip}: expected more than 1 + clip_high = {1 + clip_high}")
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    if dual_clip is not None:
        surrogate = torch.where(advantages < 0, torch.maximum(surrogate, dual_clip * advantages), surrogate)
    return surrogate


def _sequence_ratio(log_ratio: Tensor, mask: Tensor, ratio_level: str) -> Tensor:
    """GSPO's length-normalised ratio of each completion, ``[N, 1]`` broadcast to ``[N, T]``."""
    if ratio_level != "sequence":
        raise ValueError(f"ratio_level={ratio_level!r}: expected token or sequence")
    lengths = mask.sum(-1, keepdim=True).clamp(min=1)
    return (log_ratio.sum(-1, keepdim=True) / lengths).exp().expand_as(log_ratio)


def _counted(values: Tensor, mask: Tensor) -> Tensor:
    """0 where the mask is False: NaN times 0 would still be NaN, in value and in gradient."""
    return torch.where(mask, values, 0)
