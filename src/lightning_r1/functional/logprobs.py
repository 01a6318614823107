r"""Log-probabilities and entropy at chosen tokens, without the ``[tokens, vocabulary]`` matrix.

.. math:: \log p_m = z_{m, y_m} - \operatorname{lse}(z_m), \qquad
          H_m = \operatorname{lse}(z_m) - \sum_v p_{mv} z_{mv}, \qquad
          z_m = \mathrm{head}(h_m) / \mathrm{temperature}

Hidden states go through the output head a chunk of rows at a time. The forward keeps only the
log-sum-exp and the entropy of each row; the backward computes each chunk's logits again. The price
is one more product with the head, the gain is M x V numbers never held: at 8,192 tokens and a
vocabulary of 152,000, 5 GB in float32, twice.

.. math:: \frac{\partial \log p_m}{\partial z_{mv}} = [v = y_m] - p_{mv}, \qquad
          \frac{\partial H_m}{\partial z_{mv}} = -p_{mv} (\log p_{mv} + H_m)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# 2**24 float32 logits are 64 MiB: small beside a model, large enough for full-speed products.
_CHUNK_ELEMENTS = 2**24
_MAX_CHUNK_ROWS = 1024


def selected_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, both differentiable.

    Args:
        hidden: ``[M, H]``, the hidden states that predict ``targets``.
        weight: ``[V, H]`` of the output head.
        targets: ``[M]`` token ids.
        bias: ``[V]`` of the output head, if it has one.
        temperature: of the distribution; 0 is not a distribution and is refused.
        softcap: ``z -> softcap * tanh(z / softcap)`` before the temperature (Gemma 2).
        scale: factor on the logits (Cohere, Granite).
        chunk_rows: rows at a time; by default at most 64 MiB of float32 logits.

    Returns:
        ``[M]`` log-probabilities and ``[M]`` entropies, in float32 at least.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: log-probabilities need a temperature above 0")
    if chunk_rows is None:
        chunk_rows = max(1, min(_MAX_CHUNK_ROWS, _CHUNK_ELEMENTS // weight.shape[0]))
    return _SelectedLogprobs.apply(hidden, weight, bias, targets, scale / temperature, softcap, scale, chunk_rows)


class _SelectedLogprobs(torch.autograd.Function):
    """See the module's formulas; ``factor`` = scale / temperature."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        factor: float,
        softcap: float | None,
        scale: float,
        chunk_rows: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.options = (factor, softcap, scale, chunk_rows)
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = hidden.new_empty(len(hidden), dtype=dtype)
        lse = torch.empty_like(logprobs)
        entropy = torch.empty_like(logprobs)
        for rows in _chunks(len(hidden), chunk_rows):
            z, _ = _logits(hidden[rows], weight, bias, factor, softcap, scale)
            lse[rows] = z.logsumexp(-1)
            logprobs[rows] = z.gather(-1, targets[rows, None]).squeeze(-1) - lse[rows]
            log_p = z.sub_(lse[rows, None])
            entropy[rows] = log_p.exp().mul_(log_p).sum(-1).neg_()
        ctx.save_for_backward(hidden, weight, bias, targets, lse, entropy)
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, lse, entropy = ctx.saved_tensors
        factor, softcap, scale, chunk_rows = ctx.options
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden) if needs_hidden else None
        # accumulated over chunks, hence in float32 also for a bfloat16 head
        grad_weight = torch.zeros_like(weight, dtype=lse.dtype) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=lse.dtype) if bias is not None and needs_bias else None
        for rows in _chunks(len(hidden), chunk_rows):
            z, cap_slope = _logits(hidden[rows], weight, bias, factor, softcap, scale)
            log_p = z.sub_(lse[rows, None])
            p = log_p.exp()
            if grad_entropy is not None:
                grad_z = p * (log_p + entropy[rows, None]) * -grad_entropy[rows, None]
                if grad_logprobs is not None:
                    grad_z.addcmul_(p, grad_logprobs[rows, None], value=-1)
            elif grad_logprobs is not None:
                grad_z = p.mul_(-grad_logprobs[rows, None])
            else:
                break
            if grad_logprobs is not None:
                grad_z.scatter_add_(-1, targets[rows, None], grad_logprobs[rows, None])
            grad_z *= factor
            if cap_slope is not None:
                grad_z *= cap_slope
            grad_z = grad_z.to(hidden.dtype)
            with torch.autocast(hidden.device.type, enabled=False):  # backward may run inside autocast
                if grad_hidden is not None:
                    grad_hidden[rows] = grad_z @ weight.to(hidden.dtype)
                if grad_weight is not None:
                    grad_weight += grad_z.T @ hidden[rows]
            if grad_bias is not None:
                grad_bias += grad_z.sum(0)
        return (
            grad_hidden,
            grad_weight.to(weight.dtype) if grad_weight is not None else None,
            grad_bias.to(bias.dtype) if grad_bias is not None else None,
            None, None, None, None, None,
        )  # fmt: skip


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, factor: float, softcap: float | None, scale: float
) -> tuple[Tensor, Tensor | None]:
    """Logits over temperature of one chunk, ``[rows, V]``, and the slope of the soft cap if any."""
    with torch.autocast(hidden.device.type, enabled=False):
        weight = weight.to(hidden.dtype)
        z = F.linear(hidden, weight, bias.to(hidden.dtype) if bias is not None else None)
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    if softcap is None:
        return z.mul_(factor), None
    capped = torch.tanh(z * (scale / softcap))
    return capped * (softcap * factor / scale), 1 - capped.square()


def _chunks(total: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, total)) for start in range(0, total, rows)]
