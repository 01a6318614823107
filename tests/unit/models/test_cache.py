"""The rollout's cache against rows that grow by concatenation, written out here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from helpers.models import FAMILIES, tiny_model
from lightning_r1.models.cache import RolloutCache, cache_layers


def states(rows: int, new: int, *, size: int = 4) -> Tensor:
    return torch.randn(rows, 2, new, size)


def equal(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def prefilled(layers: int, prompts: int, tokens: int, *, value_size: int = 4) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(layers):
        cache.update(states(prompts, tokens), states(prompts, tokens, size=value_size), layer)
    return cache


class Grown:
    """What a cache must hold: for each layer and row, keys and values ``[heads, tokens, size]``."""

    def __init__(self, layers: int) -> None:
        self.rows: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(layers)]

    def admit(self, rows: list[int], prompts: DynamicCache, lengths: list[int], group_size: int) -> None:
        for of_layer, (keys, values, *_) in zip(self.rows, prompts, strict=True):
            of_layer.extend([(torch.empty(0), torch.empty(0))] * (max(rows) + 1 - len(of_layer)))
            for index, row in enumerate(rows):
                prompt = index // group_size
                of_layer[row] = keys[prompt, :, : lengths[prompt]], values[prompt, :, : lengths[prompt]]

    def step(self, cache: RolloutCache) -> None:
        """A random token to both; compare what every row sees."""
        live = cache.live
        counted = cache.counted(cache.live)
        for layer, of_layer in enumerate(self.rows):
            keys, values = states(live, 1), states(live, 1)
            seen_keys, seen_values = cache.update(keys, values, layer)
            for row in range(live):
                of_layer[row] = tuple(
                    torch.cat([old, new[row]], dim=1) for old, new in zip(of_layer[row], (keys, values), strict=True)
                )
                mine = slice(None) if counted is None else counted[row]
                equal(seen_keys[row][:, mine], of_layer[row][0])
                equal(seen_values[row][:, mine], of_layer[row][1])
        cache.advance()


@pytest.mark.parametrize("fixed", [0, 4], ids=["free", "fixed"])
@pytest.mark.parametrize("lengths", [[3, 3], [5, 2]], ids=["equal", "ragged"])
def test_rows_come_grow_and_go(lengths: list[int], fixed: int) -> None:
    cache, grown = RolloutCache(layers=2, rows=6, columns=12, fixed=fixed), Grown(2)
    first = prefilled(2, 2, max(lengths))
    cache.admit(torch.arange(6), first, 3)
    grown.admit(list(range(6)), first, lengths, 3)
    cache.set_lengths([length for length in lengths for _ in range(3)])
    assert (cache.common is None) == (bool(fixed) or lengths[0] != lengths[1])
    grown.step(cache)
    grown.step(cache)

    # another group takes two rows in the middle, its prompt of a length of its own
    second = prefilled(2, 1, 4)
    cache.admit(torch.tensor([1, 4]), second, 2)
    grown.admit([1, 4], second, [4], 2)
    now = [length + 2 for length in lengths for _ in range(3)]
    now[1] = now[4] = 4
    cache.set_lengths(now)
    grown.step(cache)

    # and some leave
    keep = [0, 4, 5]
    cache.keep_rows(torch.tensor(keep))
    grown.rows = [[of_layer[row] for row in keep] for of_layer in grown.rows]
    cache.set_lengths([now[row] + 1 for row in keep])
    grown.step(cache)
    assert cache.get_seq_length() + 1 >= max(now[row] for row in keep) + 2
    assert cache.lengths[:3].tolist() == [now[row] + 2 for row in keep]


def test_memory_is_taken_once_and_what_is_returned_is_a_view_of_it() -> None:
    cache = RolloutCache(layers=1, rows=4, columns=6)
    layer = cache.rollout_layers[0]
    cache.admit(torch.arange(4), prefilled(1, 2, 2), 2)
    where = layer.keys.data_ptr()
    cache.set_lengths([2] * 4)
    keys, _ = layer.update(states(4, 1), states(4, 1))
    cache.advance()
    cache.keep_rows(torch.tensor([3]))
    cache.set_lengths([3])
    keys_later, values_later = layer.update(states(1, 1), states(1, 1))
    assert layer.keys.data_ptr() == keys.data_ptr() == keys_later.data_ptr() == where
    assert values_later.data_ptr() == layer.values.data_ptr()
    assert layer.keys.shape == (4, 2, 6, 4)


def test_what_was_never_written_cannot_spoil_a_product() -> None:
    cache = RolloutCache(layers=1, rows=64, columns=200)
    cache.admit(torch.arange(2), prefilled(1, 2, 3), 1)
    # a weight of 0 times a value that is not a number would be one
    # and latent attention makes values of both
    assert cache.rollout_layers[0].values.isfinite().all()
    assert cache.rollout_layers[0].keys.isfinite().all()


def test_a_fixed_cache_shows_whole_blocks() -> None:
    cache = RolloutCache(layers=1, rows=3, columns=9, fixed=4)
    assert cache.columns == 12
    cache.admit(torch.arange(3), prefilled(1, 3, 3), 1)
    cache.set_lengths([3, 1, 2])
    seen = []
    for _ in range(6):
        keys, _ = cache.update(states(3, 1), states(3, 1), 0)
        counted = cache.counted(3)
        assert counted is not None
        assert counted.shape == (3, keys.shape[2])
        seen.append(keys.shape[2])
        cache.advance()
    assert seen == [4, 8, 8, 8, 8, 12]


@pytest.mark.parametrize(("rows", "batches"), [(32, [32, 32, 16, 16, 8, 8]), (24, [24, 24, 24, 24, 12, 12])])
def test_a_fixed_cache_halves_its_rows(rows: int, batches: list[int]) -> None:
    cache = RolloutCache(layers=1, rows=rows, columns=4, fixed=4)
    found = []
    for live in (rows, 17, 16, 13, 8, 1):
        cache.set_lengths([1] * live)
        found.append(cache.batch())
    assert found == batches
    free = RolloutCache(layers=1, rows=rows, columns=4)
    free.set_lengths([1] * 13)
    assert free.batch() == 13


def test_keys_and_values_may_differ_in_size() -> None:
    cache = RolloutCache(layers=1, rows=2, columns=3)
    cache.admit(torch.arange(2), prefilled(1, 2, 2, value_size=6), 1)
    cache.set_lengths([2, 2])
    keys, values = cache.update(states(2, 1), states(2, 1, size=6), 0)
    assert keys.shape == (2, 2, 3, 4)
    assert values.shape == (2, 2, 3, 6)


def test_sizes_for_the_mask() -> None:
    cache = RolloutCache(layers=1, rows=2, columns=9)
    cache.set_lengths([4, 3])
    assert cache.get_mask_sizes(1, 0) == (5, 0)
    assert cache.get_seq_length() == 4
    assert cache.rollout_layers[0].get_max_length() == 9
    assert cache.counted(2).tolist() == [[True] * 5, [True] * 4 + [False]]  # type: ignore[union-attr]


def test_more_than_was_allocated_is_an_error() -> None:
    cache = RolloutCache(layers=1, rows=2, columns=3)
    cache.admit(torch.arange(2), prefilled(1, 2, 3), 1)
    cache.set_lengths([3, 3])
    with pytest.raises(IndexError, match="holds 3 tokens a row; 4 were written"):
        cache.update(states(2, 1), states(2, 1), 0)


def test_reset_forgets_the_tokens() -> None:
    cache = RolloutCache(layers=1, rows=2, columns=4)
    cache.set_lengths([3, 3])
    cache.reset()
    assert cache.get_seq_length() == 0
    assert cache.live == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_cache_of_its_layers(family: str) -> None:
    assert cache_layers(tiny_model(family)) == 2
