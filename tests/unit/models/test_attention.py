"""Attention of one token as two products: the same numbers as torch's kernel."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch.nn import functional as F

from helpers.models import tiny_model, tiny_policy
from helpers.prompts import mini_codec, prompts_of_lengths
from lightning_r1.models import attention
from lightning_r1.models.attention import decode_attention, decoding_attention
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Sampling

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


@pytest.mark.parametrize("kv_heads", [2, 6])
def test_in_half_precision_the_scores_stay_in_float32(kv_heads: int) -> None:
    query, key, value = torch.randn(4, 6, 1, 8), torch.randn(4, kv_heads, 11, 8), torch.randn(4, kv_heads, 11, 8)
    mask = torch.rand(4, 1, 1, 11) < 0.6
    mask[..., -1] = True
    query, key, value = (states.bfloat16() for states in (query, key, value))

    output, _ = decode_attention(MODULE, query, key, value, mask, scaling=0.3)

    assert output.shape == (4, 1, 6, 8)
    exact = reference(query.double(), key.double(), value.double(), attn_mask=mask, scale=0.3)
    torch.testing.assert_close(output.double(), exact, atol=0.01, rtol=0.01)  # roundings of a part in 256


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


@pytest.mark.parametrize("family", ["qwen2", "mistral_window", "llama"])
def test_a_kernel_for_a_cache_is_told_each_rows_length_and_window(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a kernel written out here in the place of flash-attention's, which needs a GPU."""
    seen: list[tuple[int, ...]] = []

    def kernel(query, keys, values, *, cache_seqlens, softmax_scale, causal, window_size, softcap):
        assert causal
        assert not softcap
        rows, _, heads, _ = query.shape
        lengths = cache_seqlens.tolist() if torch.is_tensor(cache_seqlens) else [cache_seqlens] * rows
        seen.append(tuple(lengths))
        mixed = torch.empty(rows, 1, heads, values.shape[-1])
        for row, length in enumerate(lengths):
            first = 0 if window_size == (-1, -1) else max(0, length - 1 - window_size[0])
            for head in range(heads):
                shared = head * keys.shape[2] // heads
                scores = keys[row, first:length, shared] @ query[row, 0, head] * softmax_scale
                mixed[row, 0, head] = scores.softmax(-1) @ values[row, first:length, shared]
        return mixed

    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_with_kvcache=kernel))
    policy = tiny_policy(family)
    codec = mini_codec()
    asked = prompts_of_lengths(codec, [4, 12, 7])
    sampling = Sampling(group_size=2, max_new_tokens=12)
    plain = GroupEngine(policy, codec).generate(asked, sampling, seeds=[1, 2, 3])
    monkeypatch.setattr(attention, "decodes_with", lambda model: "lightning_r1_flash_decode")

    flash = GroupEngine(policy, codec, lean=False).generate(asked, sampling, seeds=[1, 2, 3])

    assert seen[0] == (5, 5, 8, 8, 13, 13)  # the new token's place included; the shortest prompts first
    for one, other in zip(plain, flash, strict=True):
        assert [c.token_ids for c in one.completions] == [c.token_ids for c in other.completions]
        for first, second in zip(one.completions, other.completions, strict=True):
            assert first.logprobs == pytest.approx(second.logprobs, abs=1e-5)
