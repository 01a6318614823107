"""A base in four bits: what it is worth as a plain model, and that nothing but the adapter ever changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers.adapters import BASE, quantised_model
from helpers.models import VOCABULARY
from helpers.prompts import prompts_of_lengths
from lightning_r1.models.adapter import adapted_layers, numel, trainable_parameters, training_operations
from lightning_r1.models.codec import Codec
from lightning_r1.models.layout import pack
from lightning_r1.models.lean import can_be_lean
from lightning_r1.models.live_weights import live_weights
from lightning_r1.models.policy import Policy, evaluating
from lightning_r1.models.saving import checkpoint_activations
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Sampling

PROMPTS, COMPLETIONS = [7, 4], [3, 9]


def rows() -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(3, VOCABULARY, (2, 13), generator=torch.Generator().manual_seed(2))
    return ids, torch.tensor(PROMPTS), torch.arange(9) < torch.tensor(COMPLETIONS)[:, None]


def rounded(folder: Path, adapted: PreTrainedModel) -> PreTrainedModel:
    """The base with its linear layers quantised and dequantised by bitsandbytes alone, and B A added by hand."""
    model, learned = AutoModelForCausalLM.from_pretrained(folder), dict(adapted.named_parameters())
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                codes, state = quantize_4bit(module.weight, quant_type="nf4", compress_statistics=True, blocksize=64)
                low, high = (learned[f"{name}.lora_{part}.default.weight"] for part in "AB")
                module.weight.copy_(dequantize_4bit(codes, state) + 8 / 4 * high @ low)
    return model.eval()


@pytest.fixture
def model(tmp_path: Path) -> PreTrainedModel:
    return quantised_model(tmp_path / "base")


def test_it_says_what_its_rounded_base_and_the_adapter_say(model: PreTrainedModel, tmp_path: Path) -> None:
    policy, plain = Policy(model, base=BASE).eval(), Policy(rounded(tmp_path / "base", model))
    scores = policy(*rows())
    torch.testing.assert_close(scores.logprobs, plain(*rows()).logprobs, atol=1e-5, rtol=0)
    unrounded = Policy(AutoModelForCausalLM.from_pretrained(tmp_path / "base")).eval()
    assert (scores.logprobs - unrounded(*rows()).logprobs).abs().max() > 1e-2
    packed = policy(*rows(), layout=pack(PROMPTS, COMPLETIONS))
    torch.testing.assert_close(packed.logprobs, scores.logprobs, atol=1e-5, rtol=0)


def test_what_is_sent_to_other_programs_is_dequantised_and_merged(model: PreTrainedModel, tmp_path: Path) -> None:
    sent, expected = dict(live_weights(model, torch.float32)), rounded(tmp_path / "base", model).state_dict()
    assert set(expected) - set(sent) <= {"lm_head.weight"}
    for name, tensor in sent.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_the_adapter_learns_and_sampling_leaves_the_codes_alone(
    model: PreTrainedModel, checkpointing: Any, codec: Codec
) -> None:
    checkpoint_activations(model, checkpointing)
    policy = Policy(model, base=BASE)
    codes = {name: p.detach().clone() for name, p in policy.named_parameters() if not p.requires_grad}
    before = policy.eval()(*rows()).logprobs.detach()
    with evaluating(policy):
        assert not can_be_lean(model)
        sampling = Sampling(group_size=2, max_new_tokens=4)
        GroupEngine(policy, codec).generate(prompts_of_lengths(codec, (4,)), sampling, seeds=[0])
    assert torch.equal(policy(*rows()).logprobs, before), "as before it sampled"
    policy.train()(*rows()).logprobs.sum().backward()
    for name, parameter in policy.named_parameters():
        assert (parameter.grad is not None) == (".lora_" in name)
        if name in codes:
            assert torch.equal(parameter, codes[name])
    assert {codes[f"model.{name}.base_layer.weight"].dtype for name, _ in adapted_layers(model)} == {torch.uint8}
    assert all(".lora_" in name for name in policy.state_dict())


def test_parameters_are_counted_as_what_they_stand_for(model: PreTrainedModel, tmp_path: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    of_base, trained = sum(p.numel() for p in plain.parameters()), trainable_parameters(model)
    assert sum(map(numel, model.parameters())) == of_base + trained
    assert training_operations(model) == 4 * of_base + 6 * trained
    assert training_operations(plain) == 6 * of_base


def test_everything_that_is_not_in_four_bits_has_the_models_type(tmp_path: Path) -> None:
    model = quantised_model(tmp_path, dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.uint8, torch.bfloat16}
    sent = dict(live_weights(model, model.dtype))
    assert {tensor.dtype for tensor in sent.values()} == {torch.bfloat16}
