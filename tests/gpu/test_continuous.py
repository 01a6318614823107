"""Continuous batching on CUDA, as it is meant to be used. Run with: pytest -m gpu tests/gpu"""

from __future__ import annotations

import pytest
import torch

from helpers.models import tiny_policy
from helpers.prompts import mini_codec, prompts_of_lengths
from lightning_r1.experience.parity import logprob_gap
from lightning_r1.rollout.continuous import ContinuousEngine
from lightning_r1.types import Sampling

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("flash", [False, True])
def test_log_probabilities_are_the_policys_within_bfloat16(flash: bool) -> None:
    codec = mini_codec()
    policy = tiny_policy("qwen3", head_dim=64, hidden_size=256).to(device="cuda", dtype=torch.bfloat16)
    engine = ContinuousEngine(policy, codec, max_memory_percent=0.2, flash=flash)
    prompts = prompts_of_lengths(codec, [4, 40, 7])
    how = Sampling(group_size=8, max_new_tokens=40)
    first = engine.generate(prompts, how, seeds=[1, 2, 3])
    assert logprob_gap(policy, codec, first, 1.0) < 0.05
    assert engine.generate(prompts, how, seeds=[1, 2, 3]) == first
