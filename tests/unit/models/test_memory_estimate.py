"""The estimate is held against what processes really took, and against what the optimizer really holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from helpers.models import FAMILIES, tiny_model
from helpers.peak import measured_mib
from lightning_r1.functional import selected_logprobs
from lightning_r1.models import memory_estimate
from lightning_r1.models.footprint import Footprint, ModelSize, model_size, on_ranks, with_adapter
from lightning_r1.models.memory_estimate import Work, deep_update_peak, rollout_peak, update_peak
from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.adamw8bit import adamw8bit
from lightning_r1.rollout.sampling import sample_tokens
from lightning_r1.types import Sampling

SMALL = {
    "model_type": "qwen3", "hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 512, "vocab_size": 2000,
    "tie_word_embeddings": True, "max_position_embeddings": 1024,
}  # fmt: skip
TWENTY = {**SMALL, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 48000}
MIB = 2**20


def described(fields: dict[str, Any], dtype: torch.dtype = torch.float32) -> tuple[PretrainedConfig, ModelSize]:
    """A config and the size of its model."""
    fields = dict(fields)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    with torch.device("meta"):
        return config, model_size(AutoModelForCausalLM.from_config(config, dtype=dtype))


UPDATES = [
    {"config": SMALL, "rows": 4, "prompt": 1, "completion": 255, "micro_batches": 2},
    {"config": SMALL, "rows": 4, "prompt": 1, "completion": 255, "micro_batches": 2, "checkpointing": True},
    {"config": SMALL, "rows": 4, "prompt": 1, "completion": 255, "micro_batches": 1},
    {"config": TWENTY, "rows": 1, "prompt": 1, "completion": 95, "micro_batches": 2},
    {"config": SMALL, "rows": 4, "prompt": 56, "completion": 200, "micro_batches": 2, "arrangement": "packed"},
    {"config": SMALL, "rows": 6, "prompt": 160, "completion": 160, "micro_batches": 2, "arrangement": "shared prefix"},
    {"config": SMALL, "rows": 6, "prompt": 160, "completion": 160, "micro_batches": 2, "arrangement": "shared prefix",
     "checkpointing": True},
]  # fmt: skip
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
    how = {"accumulates": said.pop("micro_batches") > 1, "checkpointing": said.pop("checkpointing", False)}
    activations = update_peak(config, Work(**said), **how, on_cpu=True)
    estimated = (2 * size.weights + size.optimizer(32, masters=False) + activations) / MIB
    assert measured[case] > 40  # far above what a process needs besides
    assert estimated == pytest.approx(measured[case], rel=0.12)


SHARDED = [
    {**TWENTY, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "vocab_size": 4000},
    {**TWENTY, "vocab_size": 16000, "tie_word_embeddings": False},
]


def test_each_of_two_ranks_that_share_a_model_takes_what_was_estimated() -> None:
    work, how = {"rows": 1, "prompt": 1, "completion": 63}, {"micro_batches": 2, "checkpointing": True}
    taken = measured_mib([{"what": "sharded", "config": config, **work, **how} for config in SHARDED], ranks=2)
    for fields, mib in zip(SHARDED, taken, strict=True):
        config, size = described(fields)
        activations = update_peak(config, Work(**work), checkpointing=True, accumulates=True, on_cpu=True)
        one = Footprint(size.weights, size.gradients, size.optimizer(32, masters=False), 0, activations, 0)
        sharded = on_ranks(one, size, "fsdp", 2).update / MIB
        assert mib < 0.9 * one.update / MIB  # far below what each would need alone
        assert sharded == pytest.approx(mib, rel=0.15)


def test_offloading_frees_what_the_layers_keep_on_a_device_with_memory_of_its_own() -> None:
    config, work = described(SMALL)[0], Work(4, 56, 200, "packed")
    kept, offloaded, on_cpu = (
        update_peak(config, work, **how)
        for how in ({"checkpointing": True}, {"checkpointing": "offload"}, {"checkpointing": "offload", "on_cpu": True})
    )
    # of six layers' inputs two are on the device: at work, and on its way
    assert kept - offloaded == 4 * work.tokens * 128 * 4
    assert on_cpu == kept


@pytest.mark.parametrize("checkpointing", [False, True, "offload"])
def test_deep_models_are_estimated_from_two_of_their_layers(checkpointing: Any) -> None:
    config, work = described({**SMALL, "num_hidden_layers": 9})[0], Work(2, 8, 100, "packed")
    how = {"checkpointing": checkpointing, "dtype": torch.bfloat16}
    assert deep_update_peak(config, work, **how) == update_peak(config, work, accumulates=True, **how)


def test_tokens_of_a_micro_batch() -> None:
    assert Work(3, 5, 7).tokens == Work(3, 5, 7, "packed").tokens == 36
    assert Work(3, 5, 7, "shared prefix").tokens == 26


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
    free = update_peak(config, Work(2, 1, 63))
    kept = update_peak(config, Work(2, 1, 63), checkpointing=True)
    assert 0 < kept < free
    assert update_peak(config, Work(4, 1, 63)) > 1.5 * free
    rollout = rollout_peak(config, prompts=2, group_size=4, prompt_tokens=16, new_tokens=32, sample=sampled)
    longer = rollout_peak(config, prompts=2, group_size=4, prompt_tokens=16, new_tokens=80, sample=sampled)
    assert 0 < rollout < longer < 2.5 * rollout


def test_nothing_is_left_of_an_estimate() -> None:
    before = torch.get_rng_state()
    update_peak(tiny_model("qwen3").config, Work(2, 1, 15))
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
    assert model_size(model).optimizer(32, masters=True) == held


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


def test_eight_bit_averages_are_a_byte_an_entry_and_a_maximum_a_block_of_a_row() -> None:
    large, small = torch.nn.Linear(300, 100, bias=False), torch.nn.Linear(4, 5, bias=False)
    assert model_size(large).states[8] == 2 * (30_000 + 4 * 2 * 100)  # 256 and 44 columns
    assert model_size(small).states[8] == 2 * 4 * 20
    assert model_size(torch.nn.Embedding(100, 100)).states[8] == 2 * 4 * 10_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_averages_of_8_bits_are_those_that_the_optimizer_holds(dtype: torch.dtype) -> None:
    model = tiny_model("qwen2", hidden_size=320, intermediate_size=100).to(dtype)
    state = adamw8bit(model.named_parameters(), lr=1e-3).state_dict()
    values = [value for one in state["state"].values() for name, value in one.items() if name != "step"]
    held = sum(value.numel() * value.element_size() for value in [*values, *state.get("masters", [])])
    assert model_size(model).optimizer(8, masters=True) == held


def test_seven_billion_parameters_take_what_is_known() -> None:
    size = described(
        {"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
         "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False},
        dtype=torch.bfloat16,
    )[1]  # fmt: skip
    assert size.parameters == 7_615_616_512  # Qwen2.5-7B
    assert size.weights == 2 * size.parameters
    # a bfloat16 weight and gradient, a float32 master and its gradient, two averages: 2 + 2 + 4 + 4 + 8 bytes; in other
    # counts 18, where the gradient of the master is the only one
    full = size.weights + size.gradients + size.masters + size.optimizer(32, masters=True)
    assert full == 20 * size.parameters
    entries = sum(rows * columns * count for rows, columns, count in size.matrices)
    assert entries == 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    eight = size.optimizer(8, masters=True) - size.masters
    embedding = 152064 * 3584  # keeps averages of 32 bits; the head does not
    in_8_bits = entries + embedding
    assert eight == pytest.approx(2 * in_8_bits * (1 + 4 / 256) + 8 * (size.parameters - in_8_bits), rel=1e-9)

    lora = with_adapter(size, "lora", 32)
    factors = 28 * 32 * (4 * 3584 + 2 * 3584 + 2 * 512 + 3 * (3584 + 18944))
    assert lora.gradients == 2 * factors
    assert lora.weights == size.weights + lora.gradients
    assert lora.optimizer(32, masters=True) == 12 * factors
    quantised = with_adapter(size, "qlora", 32)
    in_4_bits = quantised.weights - lora.gradients - 2 * (size.parameters - entries)
    assert in_4_bits / entries == pytest.approx(0.516, abs=1e-3)
    assert with_adapter(size, "none", 32) == size


def test_half_the_type_is_half_the_activations_and_mixed_precision_is_between() -> None:
    config = described(SMALL)[0]
    full, half, mixed = (
        update_peak(config, Work(8, 1, 255), accumulates=True, **kind)
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
    # whole are what is in no layer and two layers, a layer's gradient, and the copy in which it is reduced
    assert sharded.update == 500 + 1000 + (80 + 2 * 80) + 2 * 80
    assert sharded.sampling == 500 + 600 + 400  # sampled from whole weights
    # gathered in half the bytes, gradients reduced in all of them
    halves = on_ranks(one, size, "fsdp", 4, gathered=0.5)
    assert halves.update == 500 + 1000 + (40 + 80) + 40 + 80
    assert halves.sampling == 500 + 600 + 200
    # few activations: the peak is behind the last layer
    assert on_ranks(replace(one, activations=100), size, "fsdp", 4).update == max(500 + 100 + 400, 500 + 3 * 80)
    adapted = replace(size, trained=40)
    assert on_ranks(one, adapted, "fsdp", 4).exchange == 80 + 2 * 80 + 2 * 8


def test_chunks_of_the_head_that_are_alike_need_not_all_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 15 chunks of 64 MiB four are kept for the backward."""
    config = tiny_model("qwen2").config
    config.vocab_size = 20_000
    short = update_peak(config, Work(1, 1, 12_000), accumulates=True, checkpointing=True)
    whole = lambda *tensors, rehearsal, **how: selected_logprobs(*tensors, **how)  # noqa: E731
    monkeypatch.setattr(memory_estimate, "selected_logprobs", whole)
    assert update_peak(config, Work(1, 1, 12_000), accumulates=True, checkpointing=True) == short
