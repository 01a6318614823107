"""Attention over a packed row: what :mod:`lightning_r1.models.layout` describes, by torch's kernel or by flash's.

Projections, rotations and norms of any transformers decoder run on the packed row as they are; its attention is
replaced by :func:`packed_attention`, which takes the parts of the layout apart, lets each attend, and puts the
results back. torch's kernel gets every part as a rectangle, padded for that moment only; flash attention gets it
ragged, with ``cu_seqlens`` of queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from lightning_r1.models.cache import cache_layers
from lightning_r1.models.layout import Layout, Part

_NAME = "lightning_r1_packed"
_FLASH = "flash_attention_2"
_current: ContextVar[tuple[Layout, str, PretrainedConfig] | None] = ContextVar("layout, kernel, config", default=None)


def why_not_packed(model: PreTrainedModel) -> str | None:
    """What keeps a model from being computed in a packed row; None if nothing does."""
    config = model.config.get_text_config(decoder=True)
    if not model._supports_attention_backend:
        return f"model_type={config.model_type!r} has an attention of its own"
    if config._attn_implementation not in ("sdpa", _FLASH):
        return f"attention {config._attn_implementation} knows no packed rows"
    try:
        cache_layers(model)
    except ValueError:
        return f"model_type={config.model_type!r} has layers that are not attention"
    return None


def uses_flash(model: PreTrainedModel) -> bool:
    """Whether its attention is flash, for which padding is work."""
    return bool(model.config.get_text_config(decoder=True)._attn_implementation == _FLASH)


@contextmanager
def packed(model: PreTrainedModel, layout: Layout) -> Iterator[None]:
    """Within it the model's attention is :func:`packed_attention` over this layout."""
    with _packed(model.config.get_text_config(decoder=True), layout):
        yield


def same_packing() -> Callable[[], AbstractContextManager[None]]:
    """What makes the packing of this moment again, later: a layer that is computed again must find it."""
    if (current := _current.get()) is None:
        return nullcontext
    layout, _, config = current
    return lambda: _packed(config, layout)


@contextmanager
def _packed(config: PretrainedConfig, layout: Layout) -> Iterator[None]:
    before = config._attn_implementation
    token = _current.set((layout, before, config))
    # transformers makes no mask for an attention whose name has no mask function
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _current.reset(token)


@torch.compiler.disable  # a graph would be one layout's
def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in transformers' calling convention, N = 1.

    Args:
        module: the attention layer.
        query: ``[1, heads, S, d]``.
        key: ``[1, kv_heads, S, d]``.
        value: ``[1, kv_heads, S, d_value]``.
        attention_mask: None; who sees whom is in the layout.
        dropout: on the attention's weights.
        scaling: of the scores.
        sliding_window: keys that a query sees at most.
        softcap: of the scores; flash attention alone knows it.
        kwargs: sinks and biases are refused, the rest is not attention's.

    Returns:
        ``[1, S, heads, d_value]`` and None.
    """
    if odd := [name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None]:
        raise NotImplementedError(f"phase.module.packing: attention with {odd[0]} has no packed form; set it to off")
    current = _current.get()
    assert current
    layout, kernel, _ = current
    query, key, value = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))  # [S, heads, d]
    attend = _flash if kernel == _FLASH else _rectangle
    how = _Scoring(sliding_window, scaling, dropout, softcap)
    mixed = [attend(module, part, (query, key, value), how) for part in layout.parts]
    out = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    if kernel != _FLASH and layout.back is not None:
        out = _rows(out, layout.back)
    return out.unsqueeze(0), None


AttentionInterface.register(_NAME, packed_attention)

_States = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class _Scoring:
    """What an architecture says of its attention, besides queries, keys and values."""

    window: int | None
    scaling: float | None
    dropout: float
    softcap: float | None


def _rectangle(module: torch.nn.Module, part: Part, states: _States, how: _Scoring) -> Tensor:
    """A part by torch's kernel: ``[n * Q, heads, d_value]``, padding included."""
    if how.softcap is not None:
        raise NotImplementedError("phase.module.packing: torch's kernel leaves softcap out; set it to off")
    query, key, value = states
    window = how.window
    if window is not None and window >= part.keys.shape[1]:
        window = None  # nobody looks further back than the first key
    if part.start is not None:
        queries = query[part.start : part.start + part.queries.numel()].unflatten(0, part.queries.shape)
    else:
        queries = _rows(query, part.queries)
    if part.of_itself and part.start is not None:
        here = slice(part.start, part.start + part.keys.numel())
        keys, values = (part_of[here].unflatten(0, part.keys.shape) for part_of in (key, value))
    else:
        keys, values = _rows(key, part.keys), _rows(value, part.keys)
    mask = None if part.of_itself and window is None else part.mask(window)
    out, _ = sdpa_attention_forward(
        module,
        queries.transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        mask,
        dropout=how.dropout,
        scaling=how.scaling,
        is_causal=True,
    )
    return out.flatten(0, 1)


def _flash(module: torch.nn.Module, part: Part, states: _States, how: _Scoring) -> Tensor:
    """A part by flash attention's varlen kernel, which aligns queries and keys at their ends: ``[sum Q, heads, d]``."""
    from flash_attn import flash_attn_varlen_func

    query, key, value = states
    first, behind = part.query_range
    size = value.shape[-1]
    if size < query.shape[-1]:  # the kernel wants values as wide as keys (MLA)
        value = F.pad(value, (0, query.shape[-1] - size))
    of_queries, of_keys = part.cumulative()
    if part.of_itself:
        keys, values = key[first:behind], value[first:behind]
    else:
        keys, values = _rows(key, part.flat_keys), _rows(value, part.flat_keys)
    out = flash_attn_varlen_func(
        query[first:behind].contiguous(),
        keys.contiguous(),
        values.contiguous(),
        cu_seqlens_q=of_queries,
        cu_seqlens_k=of_keys,
        max_seqlen_q=part.queries.shape[1],
        max_seqlen_k=part.keys.shape[1],
        dropout_p=how.dropout,
        softmax_scale=how.scaling,
        causal=True,
        window_size=(-1, -1) if how.window is None else (how.window - 1, 0),
        softcap=how.softcap or 0.0,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return out[..., :size]


def _rows(states: Tensor, places: Tensor) -> Tensor:
    """``[S, heads, d]`` at places of any shape: ``[*places, heads, d]``.

    As an embedding, whose backward adds up rows that were taken several times, in a fixed order and fast.
    """
    return F.embedding(places, states.flatten(1)).unflatten(-1, states.shape[1:])
