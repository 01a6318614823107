r"""From one number a token to the one number that is differentiated.

================= ======================================================= ============================
reduction         value                                                   denominator
================= ======================================================= ============================
``sequence_mean`` :math:`\sum_i \frac{1}{|o_i|} \sum_t \ell_{it} / D`     sequences of the minibatch
``token_mean``    :math:`\sum_i \sum_t \ell_{it} / D`                     tokens of the minibatch
``constant``      :math:`\sum_i \sum_t \ell_{it} / D`                     sequences x token budget
================= ======================================================= ============================

``sequence_mean`` is the papers' GRPO, ``token_mean`` DAPO (arXiv 2503.14476 eq. 8), ``constant``
Dr. GRPO (arXiv 2503.20783).

The denominator D is *passed in*, counted once over the whole minibatch: all micro-batches, all
ranks. A local mean would weigh a short micro-batch's tokens more than a long one's, so that value
and gradient would change with the split; with a global D they are sums, and sums do not care.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["sequence_mean", "token_mean", "constant"]


def reduce_tokens(per_token: Tensor, mask: Tensor, *, reduction: Reduction, denominator: float | Tensor) -> Tensor:
    """Reduce ``[N, T]`` to a scalar; the share of these rows in the whole minibatch's value.

    Args:
        per_token: ``[N, T]``.
        mask: ``[N, T]`` bool, True where a token counts.
        reduction: see the table above.
        denominator: of the *whole* minibatch, from :func:`minibatch_denominator`.

    Returns:
        Scalar; summed over micro-batches and ranks it is the minibatch's value.
    """
    per_token = torch.where(mask, per_token, 0)
    if reduction == "sequence_mean":
        lengths = mask.sum(-1).clamp(min=1)
        return (per_token.sum(-1) / lengths).sum() / denominator
    if reduction in ("token_mean", "constant"):
        return per_token.sum() / denominator
    raise ValueError(f"reduction={reduction!r}: expected sequence_mean, token_mean or constant")


def minibatch_denominator(*, sequences: float, tokens: float, reduction: Reduction, token_budget: int) -> float:
    """The denominator of a whole minibatch.

    Args:
        sequences: completions in the minibatch, over all ranks.
        tokens: counted completion tokens in the minibatch, over all ranks.
        reduction: see the table above.
        token_budget: the longest completion allowed (``sampling.max_new_tokens``); ``constant`` only.

    >>> minibatch_denominator(sequences=4, tokens=100, reduction="constant", token_budget=64)
    256.0
    """
    if reduction == "sequence_mean":
        return float(max(sequences, 1))
    if reduction == "token_mean":
        return float(max(tokens, 1))
    if reduction == "constant":
        return float(max(sequences, 1) * token_budget)
    raise ValueError(f"reduction={reduction!r}: expected sequence_mean, token_mean or constant")
