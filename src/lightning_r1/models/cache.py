"""A key-value cache that is allocated once, shared by a group, and can lose rows.

transformers' own caches either grow by concatenation (a copy of everything at every token) or are
fixed in their rows; a rollout wants neither: finished completions should leave the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class RolloutCache(Cache):
    """One :class:`RolloutCacheLayer` for each decoder layer.

    Args:
        layers: decoder layers.
        rows: rows while decoding, N.
        columns: the longest row, L; more raises an ``IndexError``.
    """

    def __init__(self, layers: int, rows: int, columns: int) -> None:
        self.rollout_layers = [RolloutCacheLayer(rows, columns) for _ in range(layers)]
        super().__init__(layers=list(self.rollout_layers))

    def repeat_prompts(self, group_size: int) -> None:
        """Give each of the prefilled prompts ``group_size`` rows: ``[B, ...]`` to ``[B * G, ...]``."""
        for layer in self.rollout_layers:
            layer.repeat_prompts(group_size)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows (``[n]`` indices into the live rows), in this order."""
        for layer in self.rollout_layers:
            layer.keep_rows(rows)


class RolloutCacheLayer(CacheLayerMixin):
    """Keys and values of one layer, ``[N, heads, L, head_dim]``, filled from the left.

    Sliding-window layers are held whole as well: the window is in the mask, and a rollout is
    over before the saving would matter.
    """

    is_sliding = False
    is_compileable = False
    keys: Tensor
    values: Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns, self.length = rows, columns, 0
        self.live = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate at the first tokens, when heads, head sizes, dtype and device are known."""

        def allocate(states: Tensor) -> Tensor:
            _, heads, _, head_dim = states.shape
            return states.new_empty(self.rows, heads, self.columns, head_dim)

        self.keys, self.values = allocate(key_states), allocate(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write ``[n, heads, new, head_dim]`` behind what is there; return all of it as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.live = key_states.shape[0]
        end = self.length + key_states.shape[2]
        if end > self.columns:
            raise IndexError(f"the cache holds {self.columns} tokens a row; {end} were written")
        self.keys[: self.live, :, self.length : end] = key_states
        self.values[: self.live, :, self.length : end] = value_states
        self.length = end
        return self.keys[: self.live, :, :end], self.values[: self.live, :, :end]

    def repeat_prompts(self, group_size: int) -> None:
        """See :meth:`RolloutCache.repeat_prompts`."""
        prompts = self.live
        for states in (self.keys, self.values):
            filled = states[:prompts, :, : self.length].clone()
            states[: prompts * group_size, :, : self.length] = filled.repeat_interleave(group_size, dim=0)
        self.live = prompts * group_size

    def keep_rows(self, rows: Tensor) -> None:
        """See :meth:`RolloutCache.keep_rows`."""
        for states in (self.keys, self.values):
            states[: len(rows), :, : self.length] = states[rows, :, : self.length]
        self.live = len(rows)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a query of this length will see."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def get_max_length(self) -> int:
        """Tokens that can be held."""
        return self.columns

    def reset(self) -> None:
        """Forget the tokens, keep the memory."""
        self.length = self.live = 0


def cache_layers(model: torch.nn.Module) -> int:
    """Decoder layers of a transformers model.

    Raises:
        ValueError: if some layers keep a state that is not keys and values (Mamba, linear
            attention): the ``group`` engine cannot hold it, ``rollout=hf`` can.
    """
    config = model.config.get_text_config(decoder=True)  # type: ignore[operator, union-attr]
    unknown = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if getattr(model, "_is_stateful", False):
        unknown |= {"recurrent"}
    if unknown:
        raise ValueError(
            f"model_type={config.model_type!r} has layers {sorted(unknown)}, whose state the group engine "
            "cannot hold. Use rollout=hf."
        )
    return int(config.num_hidden_layers)
