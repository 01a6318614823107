"""Attention of one token as two products: the same numbers as torch's kernel."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from helpers.models import tiny_model
from lightning_r1.models.attention import decode_attention, decoding_attention

MODULE = torch.nn.Identity()
"""Stands for the layer; of a real one only ``num_key_value_groups`` and ``is_causal`` are read."""


def reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: object) -> torch.Tensor:
    groups = query.shape[1] // key.shape[1]
    repeated = (states.repeat_interleave(groups, dim=1) for states in (key, value))
    return F.scaled_dot_product_attention(query, *repeated, **how).transpose(1, 2)


@pytest.mark.parametrize("kv_heads", [1, 2, 3, 6], ids=lambda heads: f"{heads}_of_6_heads")
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_one_token_is_torchs_kernel(kv_heads: int, scaling: float | None) -> None:
    query, key, value = torch.randn(4, 6, 1, 8), torch.randn(4, kv_heads, 11, 8), torch.randn(4, kv_heads, 11, 8)

    output, weights = decode_attention(MODULE, query, key, value, None, scaling=scaling)

    assert output.shape == (4, 1, 6, 8)
    assert weights is None
    torch.testing.assert_close(output, reference(query, key, value, scale=scaling), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kv_heads", [2, 6])
def test_a_mask_hides_keys_of_each_row(kv_heads: int) -> None:
    query, key, value = torch.randn(4, 6, 1, 8), torch.randn(4, kv_heads, 11, 8), torch.randn(4, kv_heads, 11, 8)
    mask = torch.rand(4, 1, 1, 11) < 0.6
    mask[..., -1] = True

    output, _ = decode_attention(MODULE, query, key, value, mask)

    torch.testing.assert_close(output, reference(query, key, value, attn_mask=mask), atol=1e-6, rtol=0)
    hidden = ~mask.expand(4, kv_heads, 1, 11).squeeze(2)
    key[hidden], value[hidden] = 1e4, -1e4
    again, _ = decode_attention(MODULE, query, key, value, mask)
    torch.testing.assert_close(again, output, atol=1e-6, rtol=0)


def test_values_may_be_of_another_size_than_keys() -> None:
    # multi-head latent attention, DeepSeek's
    query, key, value = torch.randn(2, 4, 1, 12), torch.randn(2, 4, 5, 12), torch.randn(2, 4, 5, 6)
    output, _ = decode_attention(MODULE, query, key, value, None)
    torch.testing.assert_close(output, reference(query, key, value), atol=1e-6, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_several_tokens_are_causal(masked: bool) -> None:
    # the layer itself: it says how many heads share a key
    layer = tiny_model("llama").model.layers[0].self_attn
    query, key, value = torch.randn(3, 4, 7, 8), torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 8)
    causal = torch.ones(7, 7, dtype=torch.bool).tril()

    output, _ = decode_attention(layer, query, key, value, causal.expand(3, 1, 7, 7) if masked else None)

    torch.testing.assert_close(output, reference(query, key, value, attn_mask=causal), atol=1e-6, rtol=0)


def test_the_models_attention_comes_back() -> None:
    model = tiny_model("qwen2")
    with decoding_attention(model):
        assert model.config._attn_implementation != "sdpa"
    assert model.config._attn_implementation == "sdpa"
    with pytest.raises(RuntimeError), decoding_attention(model):
        raise RuntimeError
    assert model.config._attn_implementation == "sdpa"


def test_a_model_with_other_attention_keeps_it() -> None:
    model = tiny_model("qwen2")
    model.set_attn_implementation("eager")
    with decoding_attention(model):
        assert model.config._attn_implementation == "eager"
    assert model.config._attn_implementation == "eager"
