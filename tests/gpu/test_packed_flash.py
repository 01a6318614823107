"""On a GPU: flash attention over packed rows gives what torch's kernel gives on padded ones."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from lightning_r1.models.layout import pack
from lightning_r1.models.policy import Policy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="needs flash-attn"),
]
PROMPTS, COMPLETIONS, WHOSE = [40, 40, 40, 7], [30, 64, 1, 50], [0, 0, 0, 1]


def policy(attention: str, head_size: int = 64) -> Policy:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3", hidden_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=head_size, intermediate_size=512, vocab_size=512, initializer_range=0.05,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=attention)
    return Policy(model.cuda()).train()


def scored(policy: Policy, *, layout: bool, shared: bool) -> tuple[torch.Tensor, torch.Tensor]:
    make = torch.Generator().manual_seed(1)
    width = max(p + c for p, c in zip(PROMPTS, COMPLETIONS, strict=True))
    ids = torch.randint(3, 500, (4, width), generator=make)
    ids[1, :40] = ids[2, :40] = ids[0, :40]
    mask = torch.arange(max(COMPLETIONS)) < torch.tensor(COMPLETIONS)[:, None]
    packed = pack(PROMPTS, COMPLETIONS, WHOSE if shared else None).to(torch.device("cuda")) if layout else None
    scores = policy(ids.cuda(), torch.tensor(PROMPTS).cuda(), mask.cuda(), layout=packed)
    scores.logprobs.sum().backward()
    gradient = torch.cat([p.grad.float().flatten() for p in policy.parameters() if p.grad is not None])
    return scores.logprobs.detach(), gradient


@pytest.mark.parametrize("shared", [False, True], ids=["packed", "shared"])
@pytest.mark.parametrize("attention", ["flash_attention_2", "sdpa"])
def test_packed_equals_padded(attention: str, shared: bool) -> None:
    says_the_same(policy("sdpa"), policy(attention), layout=True, shared=shared)


@pytest.mark.parametrize("layout", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("head_size", [64, 128])
def test_flash_equals_torchs_kernel(head_size: int, layout: bool) -> None:
    says_the_same(policy("sdpa", head_size), policy("flash_attention_2", head_size), layout=layout, shared=False)


def says_the_same(one: Policy, other: Policy, *, layout: bool, shared: bool) -> None:
    """Log-probabilities and gradients of padded rows under one, and of the layout under the other."""
    logprobs, gradient = scored(one, layout=False, shared=False)
    others, its = scored(other, layout=layout, shared=shared)
    torch.testing.assert_close(others, logprobs, rtol=0, atol=0.05)  # both round to 8 bits, at other places
    assert torch.nn.functional.cosine_similarity(its, gradient, dim=0) > 0.999
