"""A trained adapter leaves as a plain merged model, and as PEFT's folder: both say what the policy says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from helpers.adapters import BASE, adapted_policy, quantised_model
from helpers.models import VOCABULARY, tiny_model
from lightning_r1.models.adapter_state import adapter_weights
from lightning_r1.models.codec import Codec
from lightning_r1.models.export import export_adapter, export_model
from lightning_r1.models.identity import files_hash
from lightning_r1.models.policy import Policy

IDS = torch.arange(3, VOCABULARY).view(7, -1)


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "gemma2"])
def test_both_folders_say_the_same(family: str, codec: Codec, tmp_path: Path) -> None:
    policy = adapted_policy(family)
    merged = AutoModelForCausalLM.from_pretrained(export_model(policy, codec, tmp_path / "model", card={}))
    beside = PeftModel.from_pretrained(
        tiny_model(family), export_adapter(policy, tmp_path / "adapter", adapter_weights(policy.model))
    ).eval()
    with torch.no_grad():
        expected = policy.model(IDS).logits
        torch.testing.assert_close(merged.eval()(IDS).logits, expected, atol=2e-5, rtol=0)
        torch.testing.assert_close(beside(IDS).logits, expected, atol=1e-6, rtol=0)
    assert (
        json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"
    )
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == [type(policy.model).__name__]
    names = {name for name, _ in merged.named_parameters()}
    assert names == {name for name, _ in tiny_model(family).named_parameters()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_four_bits_leave_as_a_plain_model_in_the_models_type(dtype: str, codec: Codec, tmp_path: Path) -> None:
    policy = Policy(quantised_model(tmp_path / "base", dtype=dtype), base=BASE).eval()
    merged = AutoModelForCausalLM.from_pretrained(export_model(policy, codec, tmp_path / "model", card={}))
    assert merged.dtype == getattr(torch, dtype)
    assert not hasattr(merged.config, "quantization_config")
    with torch.no_grad():
        logits, expected = merged.eval()(IDS).logits, policy.model(IDS).logits
    torch.testing.assert_close(logits, expected, atol=2e-5 if dtype == "float32" else 0.25, rtol=0)


def test_a_base_is_known_by_its_files(tmp_path: Path) -> None:
    tiny_model("qwen3").save_pretrained(tmp_path / "one")
    tiny_model("qwen3").save_pretrained(tmp_path / "same")
    moved = tiny_model("qwen3")
    with torch.no_grad():
        moved.lm_head.weight[0, 0] += 1e-3
    moved.save_pretrained(tmp_path / "moved")
    tiny_model("qwen3", rms_norm_eps=1e-5).save_pretrained(tmp_path / "other_config")
    one = files_hash(tmp_path / "one")
    assert len(one) == 12
    assert files_hash(tmp_path / "same") == one
    assert one not in (files_hash(tmp_path / "moved"), files_hash(tmp_path / "other_config"))
