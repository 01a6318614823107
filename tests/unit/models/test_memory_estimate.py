"""The estimate is held against what processes really took, and against what the optimizer really holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from helpers.models import FAMILIES, tiny_model
from helpers.peak import measured_mib
from lightning_r1.models.memory_estimate import Footprint, ModelSize, model_size, on_ranks, rollout_peak, update_peak
from lightning_r1.optim.adamw import adamw
from lightning_r1.rollout.sampling import sample_tokens
from lightning_r1.types import Sampling

SMALL = {
    "model_type": "qwen3", "hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 512, "vocab_size": 2000,
    "tie_word_embeddings": True, "max_position_embeddings": 1024,
}  # fmt: skip
TWENTY = {**SMALL, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 48000}
MIB = 2**20


def described(fields: dict[str, Any]) -> tuple[PretrainedConfig, ModelSize]:
    """A config and the size of its model."""
    fields = dict(fields)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        return config, model_size(AutoModelForCausalLM.from_config(config))


UPDATES = [
    {"config": SMALL, "rows": 4, "length": 256, "checkpointing": False, "micro_batches": 2},
    {"config": SMALL, "rows": 4, "length": 256, "checkpointing": True, "micro_batches": 2},
    {"config": SMALL, "rows": 4, "length": 256, "checkpointing": False, "micro_batches": 1},
    {"config": TWENTY, "rows": 1, "length": 96, "checkpointing": False, "micro_batches": 2},
]
ROLLOUT = {"prompts": 8, "group_size": 8, "prompt_tokens": 48, "new_tokens": 176}


@pytest.fixture(scope="module")
def measured() -> list[float]:
    """MiB of every update, then of the rollout; one process, for the imports take most of the time."""
    return measured_mib(
        [{"what": "update", **case} for case in UPDATES] + [{"what": "rollout", "config": SMALL, **ROLLOUT}]
    )


@pytest.mark.parametrize("case", range(len(UPDATES)))
def test_an_update_takes_what_was_estimated(case: int, measured: list[float]) -> None:
    said = dict(UPDATES[case])
    config, size = described(said.pop("config"))
    several = said.pop("micro_batches") > 1
    activations = update_peak(config, **said, accumulates=several)
    estimated = (2 * size.weights + size.states[32] + activations) / MIB
    assert measured[case] > 40  # far above what a process needs besides
    assert estimated == pytest.approx(measured[case], rel=0.12)


def test_a_rollout_takes_what_was_estimated(measured: list[float]) -> None:
    config, size = described(SMALL)
    estimated = (rollout_peak(config, **ROLLOUT, sample=sampled, on_cpu=True) + size.weights) / MIB
    assert measured[-1] > 40
    assert estimated == pytest.approx(measured[-1], rel=0.2)


def sampled(logits: torch.Tensor) -> object:
    return sample_tokens(logits, torch.zeros(len(logits)), Sampling())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_estimated(family: str) -> None:
    config = tiny_model(family).config
    free = update_peak(config, rows=2, length=64)
    kept = update_peak(config, rows=2, length=64, checkpointing=True)
    assert 0 < kept < free
    assert update_peak(config, rows=4, length=64) > 1.5 * free
    rollout = rollout_peak(config, prompts=2, group_size=4, prompt_tokens=16, new_tokens=32, sample=sampled)
    longer = rollout_peak(config, prompts=2, group_size=4, prompt_tokens=16, new_tokens=80, sample=sampled)
    assert 0 < rollout < longer < 2.5 * rollout


def test_nothing_is_left_of_an_estimate() -> None:
    before = torch.get_rng_state()
    update_peak(tiny_model("qwen3").config, rows=2, length=16)
    assert torch.equal(before, torch.get_rng_state())
    assert type(torch.zeros(2)) is torch.Tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_masters_are_counted(dtype: torch.dtype) -> None:
    model = tiny_model("qwen3").to(dtype)
    optimizer = adamw(model.named_parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = optimizer.state_dict()
    values = [value for one in state["state"].values() for name, value in one.items() if name != "step"]
    held = sum(value.numel() * value.element_size() for value in values + state.get("masters", []))
    assert model_size(model).mastered_states == held


def test_the_size_is_counted_and_so_are_the_states() -> None:
    model = tiny_model("qwen3")
    size = model_size(model)
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert size.weights == 4 * size.parameters
    assert size.weights == size.outside + 2 * size.layer  # two equal layers
    optimizer = adamw(model.named_parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    held = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    )
    assert size.states[32] == held


def test_eight_bit_states_are_a_byte_an_entry_and_a_maximum_a_block_for_large_tensors() -> None:
    large, small = torch.nn.Linear(100, 100, bias=False), torch.nn.Linear(4, 5, bias=False)
    assert model_size(large).states[8] == 2 * (10_000 + 4 * 40)
    assert model_size(small).states[8] == 2 * 4 * 20


def test_half_the_type_is_half_the_activations_and_mixed_precision_is_between() -> None:
    config = described(SMALL)[0]
    full, half, mixed = (
        update_peak(config, rows=8, length=256, accumulates=True, **kind)
        for kind in ({}, {"dtype": torch.bfloat16}, {"autocast": torch.bfloat16})
    )
    assert half < mixed < full
    assert half == pytest.approx(full / 2, rel=0.35)  # norms and losses are in float32 all the same


def test_ranks_share_what_they_share() -> None:
    size = ModelSize(parameters=100, weights=400, layer=80, outside=80, states={})
    one = Footprint(weights=400, gradients=400, optimizer=800, frozen=400, activations=1000, rollout=600)
    assert one.update == 3000
    assert one.sampling == 2600
    assert one.peak == 3000
    assert on_ranks(one, size, "single", 1) == one
    assert on_ranks(one, size, "ddp", 4).peak == 3400  # the buckets are a copy of the gradients
    sharded = on_ranks(one, size, "fsdp", 4)
    assert sharded.standing == one.standing / 4
    assert sharded.update == 500 + 1000 + 2 * (80 + 2 * 80)
    assert sharded.sampling == 500 + 600 + 400  # sampled from whole weights
