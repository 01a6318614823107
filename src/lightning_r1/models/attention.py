"""Attention of one new token over a cache on a CPU, as two plain products.

torch's CPU kernel for scaled-dot-product attention is built for long queries; for a single query
a row it is two to three times slower than the products it replaces. The numbers are the same up to
rounding, so that this is a matter of the rollout alone; training keeps the model's own attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "lightning_r1_decode"


def decode_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in transformers' calling convention.

    Args:
        module: the attention layer.
        query: ``[N, heads, q, d]``; with q > 1 (the prefill) torch's kernel does it.
        key: ``[N, kv_heads, L, d]``.
        value: ``[N, kv_heads, L, d_value]``.
        attention_mask: ``[N, 1, q, L]``, bool or added to the scores; None where everything counts.
        scaling: of the scores; by default ``d ** -0.5``.
        kwargs: handed on to torch's kernel.

    Returns:
        ``[N, q, heads, d_value]`` and None.
    """
    if query.shape[2] > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    rows, heads, _, size = query.shape
    # the queries that share a key-value head side by side: one product for all of them
    query = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    scores = torch.matmul(query, key.transpose(-1, -2)) * (size**-0.5 if scaling is None else scaling)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    elif attention_mask is not None:
        scores = scores + attention_mask
    mixed = torch.matmul(scores.softmax(-1), value)
    return mixed.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(_NAME, decode_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)


@contextmanager
def decoding_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model decodes with :func:`decode_attention`, if it uses torch's kernel on a CPU."""
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    # some older architectures branch on the name instead of asking the interface
    if before != "sdpa" or model.device.type != "cpu" or not model._supports_attention_backend:
        yield
        return
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
