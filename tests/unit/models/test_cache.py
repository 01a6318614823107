"""The rollout's cache against one that grows by concatenation, written out here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from helpers.models import FAMILIES, tiny_model
from lightning_r1.models.cache import RolloutCache, RolloutCacheLayer, cache_layers


def states(rows: int, new: int, *, size: int = 4) -> Tensor:
    return torch.randn(rows, 2, new, size)


def equal(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_updates_are_appended() -> None:
    cache = RolloutCache(layers=2, rows=3, columns=10)
    expected = {0: torch.zeros(3, 2, 0, 4), 1: torch.zeros(3, 2, 0, 4)}
    for new in (4, 1, 1, 3):
        for layer in (0, 1):
            keys = states(3, new)
            expected[layer] = torch.cat([expected[layer], keys], dim=2)
            seen_keys, seen_values = cache.update(keys, -keys, layer)
            equal(seen_keys, expected[layer])
            equal(seen_values, -expected[layer])
    assert cache.get_seq_length() == 9


def test_prompts_are_repeated_for_their_groups_and_rows_leave() -> None:
    cache = RolloutCache(layers=2, rows=6, columns=8)
    prompts = [states(2, 3), states(2, 3)]
    for layer in (0, 1):
        cache.update(prompts[layer], 2 * prompts[layer], layer)

    cache.repeat_prompts(3)
    written = [states(6, 1), states(6, 1)]
    for layer in (0, 1):
        keys, values = cache.update(written[layer], 2 * written[layer], layer)
        grown = torch.cat([prompts[layer][[0, 0, 0, 1, 1, 1]], written[layer]], dim=2)
        equal(keys, grown)
        equal(values, 2 * grown)

    cache.keep_rows(torch.tensor([1, 3, 4]))
    cache.keep_rows(torch.tensor([0, 2]))
    more = [states(2, 1), states(2, 1)]
    for layer in (0, 1):
        keys, values = cache.update(more[layer], 2 * more[layer], layer)
        kept = torch.cat([prompts[layer][[0, 1]], written[layer][[1, 4]], more[layer]], dim=2)
        equal(keys, kept)
        equal(values, 2 * kept)
    assert cache.get_seq_length() == 5


def test_memory_is_taken_once_and_what_is_returned_is_a_view_of_it() -> None:
    layer = RolloutCacheLayer(rows=4, columns=6)
    layer.update(states(2, 2), states(2, 2))
    where = layer.keys.data_ptr()
    layer.repeat_prompts(2)
    keys, _ = layer.update(states(4, 1), states(4, 1))
    layer.keep_rows(torch.tensor([3]))
    keys_later, values_later = layer.update(states(1, 1), states(1, 1))
    assert layer.keys.data_ptr() == keys.data_ptr() == keys_later.data_ptr() == where
    assert values_later.data_ptr() == layer.values.data_ptr()
    assert layer.keys.shape == (4, 2, 6, 4)


def test_keys_and_values_may_differ_in_size() -> None:
    layer = RolloutCacheLayer(rows=2, columns=3)
    keys, values = layer.update(states(2, 2, size=12), states(2, 2, size=6))
    assert keys.shape == (2, 2, 2, 12)
    assert values.shape == (2, 2, 2, 6)


def test_sizes_for_the_mask() -> None:
    layer = RolloutCacheLayer(rows=2, columns=9)
    assert layer.get_mask_sizes(4) == (4, 0)
    layer.update(states(2, 4), states(2, 4))
    assert layer.get_mask_sizes(1) == (5, 0)
    assert layer.get_max_length() == 9


def test_more_than_was_allocated_is_an_error() -> None:
    for new in (1, 2):
        layer = RolloutCacheLayer(rows=2, columns=3)
        layer.update(states(2, 3), states(2, 3))
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            layer.update(states(2, new), states(2, new))


def test_reset_forgets_the_tokens() -> None:
    cache = RolloutCache(layers=1, rows=2, columns=4)
    cache.update(states(2, 3), states(2, 3), 0)
    cache.reset()
    assert cache.get_seq_length() == 0
    keys = states(2, 2)
    equal(cache.update(keys, keys, 0)[0], keys)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_cache_of_its_layers(family: str) -> None:
    assert cache_layers(tiny_model(family)) == 2
