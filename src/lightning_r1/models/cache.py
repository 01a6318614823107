"""A key-value cache that is allocated once, whose rows have lengths of their own, come and go.

transformers' own caches either grow by concatenation (a copy of everything at every token) or are
fixed in their rows; a rollout wants neither: finished completions should leave the batch, and others
take their place. Every row begins at column 0, so that a token's column is its position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

_FEWEST_ROWS = 8  # a compiled step of fewer saves nothing


class RolloutCache(Cache):
    """One :class:`RolloutCacheLayer` for each decoder layer.

    Args:
        layers: decoder layers.
        rows: rows while decoding, N.
        columns: the longest row, L; more raises an ``IndexError``.
        device: of the model.
        ragged: whether rows may differ in length. Where they cannot, nobody looks at what was never written.
        fixed: for a compiled step, which is made anew for every shape: columns come in blocks of so many, and the
            number of rows is halved or left alone. 0 where a step sees the rows and columns that are in use.
    """

    def __init__(
        self,
        layers: int,
        rows: int,
        columns: int,
        *,
        device: torch.device | str = "cpu",
        ragged: bool = True,
        fixed: int = 0,
    ) -> None:
        self.ragged, self.fixed = ragged or fixed > 0, fixed
        self.rows = rows
        self.columns = -(-columns // fixed) * fixed if fixed else columns
        self.live = 0
        """Rows in use: the first ones."""
        self.longest = 0
        """Tokens in the longest of them."""
        self.seen = 0
        """Columns of the next step, its own token's included."""
        self.common: int | None = None
        """Tokens in every one of them, if they are equally long."""
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        """Tokens in each row."""
        self.every_row = torch.arange(rows, device=device)
        self.every_column = torch.arange(self.columns, device=device)
        self.rollout_layers = [RolloutCacheLayer(self) for _ in range(layers)]
        super().__init__(layers=list(self.rollout_layers))

    def batch(self) -> int:
        """Rows of the next step: the live ones, or the least fixed number that holds them."""
        rows = self.rows if self.fixed else self.live
        while self.fixed and rows % 2 == 0 and rows // 2 >= max(self.live, _FEWEST_ROWS):
            rows //= 2
        return rows

    def admit(self, rows: Tensor, prompts: DynamicCache, group_size: int) -> None:
        """Give each prefilled prompt ``group_size`` rows.

        Args:
            rows: ``[B * G]``, a prompt's rows together.
            prompts: keys and values of B prompts, padded on the right.
            group_size: G.
        """
        for layer, (keys, values, *_) in zip(self.rollout_layers, prompts, strict=True):
            layer.admit(rows, keys, values, group_size)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows (``[n]`` indices into the live rows), in this order."""
        for layer in self.rollout_layers:
            layer.keep_rows(rows)

    def set_lengths(self, lengths: Sequence[int]) -> None:
        """Say how many tokens each live row holds; this also says how many rows are live."""
        self.live = len(lengths)
        self.longest = max(lengths, default=0)
        if not self.ragged and min(lengths, default=0) != self.longest:
            raise ValueError(f"rows of {min(lengths)} to {self.longest} tokens in a cache for rows of one length")
        # a compiled step is one program: it takes every row for one with a length of its own
        self.common = self.longest if not self.fixed and min(lengths, default=0) == self.longest else None
        self.lengths[: self.live] = torch.tensor(lengths, dtype=torch.long).to(self.lengths.device)
        self.lengths[self.live :] = 0
        self._see()

    def advance(self) -> None:
        """A step has written a token to every row."""
        self.lengths += 1
        self.longest += 1
        if self.common is not None:
            self.common += 1
        self._see()

    def _see(self) -> None:
        self.seen = self.longest + 1
        if self.fixed:
            self.seen = -(-self.seen // self.fixed) * self.fixed

    def counted(self, rows: int) -> Tensor | None:
        """Mask ``[rows, seen]`` of the tokens that the next step sees, its own included; None for all."""
        if self.common is not None:
            return None
        return self.every_column[: self.seen] <= self.lengths[:rows].unsqueeze(1)


class RolloutCacheLayer(CacheLayerMixin):
    """Keys and values of one layer, ``[N, heads, L, head_dim]``, each row filled from the left.

    Sliding-window layers are held whole as well: the window is in the mask, and a rollout is
    over before the saving would matter.
    """

    is_sliding = False
    is_compileable = False
    keys: Tensor
    values: Tensor

    def __init__(self, of: RolloutCache) -> None:
        super().__init__()
        self.of = of

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate at the first tokens, when heads, head sizes and dtype are known."""

        def allocate(states: Tensor) -> Tensor:
            _, heads, _, head_dim = states.shape
            shape = self.of.rows, heads, self.of.columns, head_dim
            # a score that is masked is replaced, but a value is multiplied by its weight of 0, so it may not be NaN;
            # and latent attention makes its values of what stands here as keys
            return states.new_zeros(shape) if self.of.ragged else states.new_empty(shape)

        self.keys, self.values = allocate(key_states), allocate(value_states)
        self.is_initialized = True
        if self.of.fixed:
            # a CUDA graph writes to them where they are, and would else copy them at every step
            for states in (self.keys, self.values):
                torch._dynamo.mark_static_address(states)

    def admit(self, rows: Tensor, keys: Tensor, values: Tensor, group_size: int) -> None:
        """See :meth:`RolloutCache.admit`; ``[B, heads, P, head_dim]``."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        for held, states in ((self.keys, keys), (self.values, values)):
            held[rows, :, : states.shape[2]] = states.repeat_interleave(group_size, dim=0)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write a token ``[n, heads, 1, head_dim]`` behind what each row holds; return the columns seen as views."""
        of, rows = self.of, len(key_states)
        end = of.seen
        if end > of.columns:
            raise IndexError(f"the cache holds {of.columns} tokens a row; {end} were written")
        if of.common is not None:
            self.keys[:rows, :, of.common] = key_states[:, :, 0]
            self.values[:rows, :, of.common] = value_states[:, :, 0]
        else:
            where = of.every_row[:rows], slice(None), of.lengths[:rows]
            self.keys[where] = key_states[:, :, 0]
            self.values[where] = value_states[:, :, 0]
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def keep_rows(self, rows: Tensor) -> None:
        """See :meth:`RolloutCache.keep_rows`."""
        longest = self.of.longest
        for states in (self.keys, self.values):
            states[: len(rows), :, :longest] = states[rows, :, :longest]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a query will see."""
        return self.of.seen, 0

    def get_seq_length(self) -> int:
        """Columns in front of the next step's last one."""
        return max(0, self.of.seen - 1)

    def get_max_length(self) -> int:
        """Tokens that can be held."""
        return self.of.columns

    def reset(self) -> None:
        """Forget the tokens, keep the memory."""
        self.of.set_lengths([])


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
