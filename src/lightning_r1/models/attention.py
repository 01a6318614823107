"""Attention of one new token over a rollout's cache, without a copy of the keys that several heads share.

On a CPU it is two plain products: torch's kernel is built for long queries, and for a single query a row it
is two to three times slower. Elsewhere it is that kernel, or flash-attention's for a cache. The numbers are
the same up to rounding, so that this is a matter of the rollout alone; training keeps the model's own
attention, and so does the prefill.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_PRODUCTS = "lightning_r1_decode"
_FLASH = "lightning_r1_flash_decode"


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
        query: ``[N, heads, q, d]``; with q > 1 torch's kernel does it.
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
    if query.device.type != "cpu" or query.dtype not in (torch.float32, torch.float64):
        # for the kernel they are several queries of one head: no key is repeated, and the scores stay in float32
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
        return mixed.reshape(rows, 1, heads, value.shape[-1]), None
    scores = torch.matmul(query, key.transpose(-1, -2)) * (size**-0.5 if scaling is None else scaling)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    elif attention_mask is not None:
        scores = scores + attention_mask
    mixed = torch.matmul(scores.softmax(-1), value)
    return mixed.reshape(rows, 1, heads, value.shape[-1]), None


def decode_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    *,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> Tensor | None:
    """The mask of :func:`decode_attention` in transformers' calling convention.

    A row's columns are its positions, so that its one query stands at the last column that counts: causality, windows
    and chunks are then those of the row, however long the others are.

    Args:
        batch_size: N.
        q_length: of the queries; with more than one the rows are equally long, and torch's mask serves.
        kv_length: L.
        mask_function: of (row, head, query position, key position).
        attention_mask: ``[N, L]``, the columns of each row that hold tokens; None where all do.
        kwargs: handed on.

    Returns:
        ``[N, 1, 1, L]``, or None where everything counts.
    """
    if q_length > 1 or attention_mask is None:
        return sdpa_mask(
            batch_size, q_length, kv_length, mask_function=mask_function, attention_mask=attention_mask, **kwargs
        )
    device = attention_mask.device
    positions = attention_mask.sum(-1) - 1
    columns = torch.arange(kv_length, device=device)
    rows = torch.arange(batch_size, device=device)
    head = torch.zeros(1, dtype=torch.long, device=device)
    mask = mask_function(
        rows.view(-1, 1, 1, 1), head.view(1, -1, 1, 1), positions.view(-1, 1, 1, 1), columns.view(1, 1, 1, -1)
    )
    return mask.expand(batch_size, 1, 1, kv_length)


def flash_decode_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The same by flash-attention's kernel for a key-value cache, which reads each row up to its own length.

    Args:
        module: the attention layer.
        query: ``[N, heads, 1, d]``.
        key: ``[N, kv_heads, L, d]``.
        value: ``[N, kv_heads, L, d]``.
        attention_mask: ``[N]`` int32, tokens of each row (:func:`flash_decode_mask`); None for L.
        scaling: of the scores; by default ``d ** -0.5``.
        sliding_window: tokens that a query sees, its own included.
        softcap: of the scores.
        kwargs: not needed here (dropout is off in a rollout).

    Returns:
        ``[N, 1, heads, d]`` and None.
    """
    from flash_attn import flash_attn_with_kvcache

    lengths = key.shape[2] if attention_mask is None else attention_mask
    window = (-1, -1) if sliding_window is None else (sliding_window - 1, 0)
    mixed = flash_attn_with_kvcache(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        cache_seqlens=lengths,
        softmax_scale=scaling,
        causal=True,
        window_size=window,
        softcap=softcap or 0.0,
    )
    return mixed, None


def flash_decode_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """What :func:`flash_decode_attention` takes for a mask: each row's length ``[N]``."""
    return None if attention_mask is None else attention_mask.sum(-1, dtype=torch.int32)


AttentionInterface.register(_PRODUCTS, decode_attention)
AttentionMaskInterface.register(_PRODUCTS, decode_mask)
AttentionInterface.register(_FLASH, flash_decode_attention)
AttentionMaskInterface.register(_FLASH, flash_decode_mask)


def decodes_with(model: PreTrainedModel) -> str | None:
    """The attention that one new token a row gets here; None where the model's own has to stay.

    Where it has to stay, rows are only understood if they are equally long.
    """
    own = model.config.get_text_config(decoder=True)._attn_implementation
    # some older architectures branch on the name instead of asking the interface
    if not model._supports_attention_backend:
        return None
    if own == "flash_attention_2" and find_spec("flash_attn"):
        return _FLASH
    return _PRODUCTS if own == "sdpa" else None


@contextmanager
def decoding_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model decodes with the attention of :func:`decodes_with`."""
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    name = decodes_with(model)
    if name is None:
        yield
        return
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
