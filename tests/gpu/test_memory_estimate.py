"""On a GPU: the estimate of an update is held against what torch's allocator gave out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.peak import update
from lightning_r1.models.footprint import model_size
from lightning_r1.models.memory_estimate import Work, update_peak
from lightning_r1.models.policy import Policy

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]
SHAPE = {
    "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 4,
    "intermediate_size": 4096, "vocab_size": 32000, "max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True, "offload"])
@pytest.mark.parametrize("arrangement", ["padded", "packed", "shared prefix"])
def test_an_update_takes_what_was_estimated(arrangement: Any, checkpointing: Any) -> None:
    config = AutoConfig.for_model("qwen2", **SHAPE)
    work = Work(4, 512, 512, arrangement)
    with torch.device("cuda"):
        policy = Policy(AutoModelForCausalLM.from_config(config))
    size = model_size(policy)
    torch.cuda.reset_peak_memory_stats()
    update(
        policy, rows=4, prompt=512, completion=512, micro_batches=2, arrangement=arrangement,
        checkpointing=checkpointing,
    )  # fmt: skip
    activations = update_peak(config, work, checkpointing=checkpointing, accumulates=True)
    estimated = size.weights + size.gradients + size.optimizer(32, masters=False) + activations
    assert estimated == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.15)
