"""An engine beside the update: weights of its own, the same completions, and nothing of it moves with the policy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.models import tiny_policy
from helpers.prompts import prompts_of_lengths
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.beside import BesideEngine, copy_weights
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.rollout.hf import HFEngine
from lightning_r1.types import Sampling

SAMPLING = Sampling(group_size=3, max_new_tokens=8)


def moved(policy: Policy) -> Policy:
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return policy


def test_it_samples_from_the_weights_of_the_last_sync(codec: Codec) -> None:
    policy = tiny_policy()
    engine = BesideEngine(policy, lambda own: GroupEngine(own, codec))
    live = GroupEngine(policy, codec)
    prompts, how = prompts_of_lengths(codec, [3, 5, 4]), {"sampling": SAMPLING, "seeds": [1, 2, 3]}
    engine.sync_weights(7)
    live.sync_weights(7)
    before = live.generate(prompts, **how)
    assert engine.generate(prompts, **how) == before
    moved(policy)
    assert engine.generate(prompts, **how) == before
    engine.sync_weights(8)
    after = engine.generate(prompts, **how)
    assert after != before
    assert {one.policy_version for group in after for one in group.completions} == {8}
    live.sync_weights(8)
    assert after == live.generate(prompts, **how)


def test_its_modes_and_memory_are_its_own(codec: Codec) -> None:
    policy = tiny_policy().train()
    engine = BesideEngine(policy, lambda own: GroupEngine(own, codec))
    engine.sync_weights(0)
    assert all(module.training for module in policy.modules())
    assert not any(module.training for module in engine.copy.modules())
    theirs = {parameter.data_ptr() for parameter in policy.parameters()}
    assert theirs.isdisjoint(parameter.data_ptr() for parameter in engine.copy.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_follow_into_another_type_and_stay_tied(dtype: torch.dtype) -> None:
    source, target = tiny_policy(), tiny_policy()
    target.requires_grad_(False)
    moved(source).to(dtype)
    copy_weights(source, target)
    held: dict[str, Any] = dict(target.named_parameters()) | dict(target.named_buffers())
    for name, tensor in (*source.named_parameters(), *source.named_buffers()):
        assert held[name].dtype == tensor.dtype
        assert torch.equal(held[name], tensor)
    ties = [model.get_output_embeddings().weight is model.get_input_embeddings().weight
            for model in (source.model, target.model)]  # fmt: skip
    assert ties[0] == ties[1]


def test_a_copy_of_what_was_built_without_weights_follows_its_source() -> None:
    with torch.device("meta"):
        target = tiny_policy("qwen2")
    source = tiny_policy("qwen2", seed=3)
    copy_weights(source, target)
    ids = torch.arange(3, 9).unsqueeze(0)
    assert torch.equal(target.model(ids).logits, source.model(ids).logits)
    assert target.model.lm_head.weight is target.model.model.embed_tokens.weight


def test_an_engine_that_draws_from_torch_is_refused(codec: Codec) -> None:
    with pytest.raises(ValueError, match="rollout: a HFEngine cannot sample beside the update"):
        BesideEngine(tiny_policy(), lambda own: HFEngine(own, codec))
