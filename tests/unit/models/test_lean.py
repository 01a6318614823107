"""The short way through small models: the logits of the model's own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.models import FAMILIES, tiny_model, tiny_policy
from lightning_r1.models.decoder import Decoder, ModelStep, _parts
from lightning_r1.models.lean import LeanStep, can_be_lean

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_with_biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3_angles": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 24,
            }
        },
    ),
    "qwen2": ("qwen2", {}),
    "qwen2_untied": ("qwen2", {"tie_word_embeddings": False}),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral", {}),
}  # fmt: skip
NOT_LEAN = set(FAMILIES) - {"llama", "qwen2", "qwen3", "mistral"}


@pytest.mark.parametrize("lengths", [[7, 7, 7], [7, 3, 5]], ids=["equal", "ragged"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_the_models_own(variant: str, lengths: list[int]) -> None:
    family, fields = VARIANTS[variant]
    policy = tiny_policy(family, **fields)
    assert can_be_lean(policy.model)
    prompts = [torch.randint(3, 136, (length,)).tolist() for length in lengths]
    tokens = torch.randint(3, 136, (9, 6))

    def decode(lean: bool) -> list[torch.Tensor]:
        decoder = Decoder(policy, rows=6, columns=20, pad_id=0, lean=lean)
        assert isinstance(decoder.step, LeanStep if lean else ModelStep)
        logits = [decoder.prefill(prompts, range(6), 2)]
        decoder.cache.set_lengths([length for length in lengths for _ in range(2)])
        logits += [decoder.step(of_step) for of_step in tokens[:5]]
        # rows leave, and a row begins again
        decoder.cache.keep_rows(torch.tensor([0, 2, 5]))
        logits += [decoder.prefill([prompts[1]], [1], 1)]
        decoder.cache.set_lengths([lengths[0] + 5, lengths[1], lengths[2] + 5])
        return logits + [decoder.step(of_step[:3]) for of_step in tokens[5:]]

    with torch.no_grad():
        for lean, own in zip(decode(True), decode(False), strict=True):
            torch.testing.assert_close(lean, own, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", sorted(NOT_LEAN))
def test_other_architectures_go_their_own_way(family: str) -> None:
    assert not can_be_lean(tiny_model(family))


def test_what_is_added_to_a_model_is_not_left_out() -> None:
    model = tiny_model("qwen2")
    assert can_be_lean(model)
    hook = model.model.layers[0].register_forward_hook(lambda *_: None)
    assert not can_be_lean(model)
    hook.remove()
    assert can_be_lean(model)
    model.model.layers[0].mlp.up_proj = torch.nn.Sequential(model.model.layers[0].mlp.up_proj)
    assert not can_be_lean(model)
    assert not can_be_lean(tiny_model("qwen2").bfloat16())
    assert not can_be_lean(tiny_model("llama", hidden_act="gelu"))
    assert not can_be_lean(tiny_model("mistral", sliding_window=8))
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert not can_be_lean(tiny_model("llama", rope_parameters=dynamic))
    assert not can_be_lean(tiny_model("llama", hidden_size=1024, vocab_size=20000))


def test_the_prefill_is_cut_by_padded_tokens() -> None:
    assert _parts([10, 10, 10]) == [(0, 3)]
    assert _parts([20000, 10000, 20000, 1]) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert _parts([16384, 16384, 16384]) == [(0, 2), (2, 3)]
    assert _parts([100_000]) == [(0, 1)]
