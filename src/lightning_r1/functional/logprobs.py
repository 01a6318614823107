r"""Log-probabilities and entropy at chosen tokens, without the ``[tokens, vocabulary]`` matrix.

.. math:: \log p_m = z_{m, y_m} - \operatorname{lse}(z_m), \qquad
          H_m = \operatorname{lse}(z_m) - \sum_v p_{mv} z_{mv}, \qquad
          z_m = \mathrm{head}(h_m) / \mathrm{temperature}

Hidden states go through the output head a chunk of rows at a time. The forward keeps only the
log-sum-exp and the entropy of each row; the backward computes each chunk's logits again. The price
is one more product with the head, the gain is M x V numbers never held: at 8,192 tokens and a
vocabulary of 152,000, 5 GB in float32, twice. Where chunks are small beside that, it is not worth its price:
the first of them, up to 256 MiB, are kept.

Liger's fused kernels are no option here: its linear cross-entropy gives no entropy and takes one factor for the
gradients of all tokens, where every token has an advantage of its own; its GRPO loss gives no log-probabilities to
measure or to correct a sampler with.

.. math:: \frac{\partial \log p_m}{\partial z_{mv}} = [v = y_m] - p_{mv}, \qquad
          \frac{\partial H_m}{\partial z_{mv}} = -p_{mv} (\log p_{mv} + H_m)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_r1.functional.head import Cap, HeadGradients, Predictions, head_logits, row_chunks

_KEPT_BYTES = 2**28


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
    hits: Tensor | None = None,
    kept_bytes: int = _KEPT_BYTES,
    rehearsal: bool = False,
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
        hits: ``[M]`` bool, is filled with whether the target is the most likely token; without it, that is not
            looked for.
        kept_bytes: of log-probabilities of whole chunks that are kept for the backward.
        rehearsal: for who asks what it takes and not what comes out: chunks that take what the one before took are left
            out, and their rows are never written.

    Returns:
        ``[M]`` log-probabilities and ``[M]`` entropies, in float32 at least.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    cap = Predictions(hidden, weight, bias, softcap, scale).cap(temperature)
    chunks = row_chunks(len(hidden), len(weight), chunk_rows)
    if rehearsal:
        chunks = chunks[: 2 + kept_bytes // (4 * len(weight) * chunks[0].stop)]
    return _SelectedLogprobs.apply(hidden, weight, bias, targets, cap, chunks, hits, kept_bytes)


class _SelectedLogprobs(torch.autograd.Function):
    """See the module's formulas."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        cap: Cap,
        chunks: list[slice],
        hits: Tensor | None,
        kept_bytes: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.cap, ctx.chunks = cap, chunks
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = hidden.new_empty(len(hidden), dtype=dtype)
        lse = torch.empty_like(logprobs)
        entropy = torch.empty_like(logprobs)
        kept: list[Tensor] = []
        # a soft cap's slope would have to be kept as well
        room = kept_bytes if any(ctx.needs_input_grad) and cap.softcap is None else 0
        for rows in chunks:
            z, _ = head_logits(hidden[rows], weight, bias, cap)
            lse[rows] = z.logsumexp(-1)
            chosen = z.gather(-1, targets[rows, None]).squeeze(-1)
            logprobs[rows] = chosen - lse[rows]
            if hits is not None:
                hits[rows] = chosen == z.amax(-1)
            log_p = z.sub_(lse[rows, None])
            entropy[rows] = log_p.exp().mul_(log_p).sum(-1).neg_()
            room -= log_p.numel() * log_p.element_size()
            if room >= 0:
                kept.append(log_p)
        ctx.save_for_backward(hidden, weight, bias, targets, lse, entropy, *kept)
        ctx.set_materialize_grads(False)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, lse, entropy, *kept = ctx.saved_tensors
        gradients = HeadGradients(hidden, weight, bias, ctx.cap, ctx.needs_input_grad[:3])
        for number, rows in enumerate(ctx.chunks):
            cap_slope = None
            if number < len(kept):
                log_p = kept[number]
            else:
                z, cap_slope = head_logits(hidden[rows], weight, bias, ctx.cap)
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
            gradients.add(rows, grad_z, cap_slope)
        return (*gradients.result(), None, None, None, None, None)
