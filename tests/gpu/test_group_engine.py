"""The group engine on a GPU: the numbers of a forward without cache, whichever way it decodes."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from helpers.models import dense_logprobs, tiny_model
from helpers.prompts import MANY_STOPS, mini_codec, prompts_of_lengths
from lightning_r1.models.attention import decodes_with
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Group, Sampling

pytestmark = pytest.mark.gpu

SAMPLING = Sampling(group_size=8, max_new_tokens=60, temperature=0.8)
LENGTHS = [4, 12, 7, 7, 5, 20, 9, 9]
WITHOUT_FLASH = pytest.mark.skipif(find_spec("flash_attn") is None, reason="flash-attn is not installed")


@pytest.fixture
def stopping() -> Codec:
    return mini_codec(stop=MANY_STOPS)


def gpu_policy(family: str = "qwen2", *, attention: str = "sdpa", dtype: torch.dtype = torch.float32) -> Policy:
    model = tiny_model(family, hidden_size=64, head_dim=32).to("cuda", dtype)
    model.set_attn_implementation(attention)
    return Policy(model).eval()


def tokens_of(groups: list[Group]) -> list[list[tuple[int, ...]]]:
    return [[completion.token_ids for completion in group.completions] for group in groups]


def worst_gap(policy: Policy, groups: list[Group]) -> float:
    """Between the captured log-probabilities and those of a float32 model without a cache, on the CPU."""
    model = tiny_model("qwen2", hidden_size=64, head_dim=32)
    model.load_state_dict({name: tensor.float().cpu() for name, tensor in policy.model.state_dict().items()})
    gaps: list[Tensor] = []
    for group in groups:
        for completion in group.completions:
            expected = dense_logprobs(model, group.prompt.token_ids, completion.token_ids, temperature=0.8)
            gaps.append((torch.tensor(completion.logprobs).double() - expected).abs().max())
    return float(torch.stack(gaps).max())


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "graph"])
@pytest.mark.parametrize("max_rows", [16, 512])
def test_logprobs_are_those_of_a_forward_without_cache(compiled: bool, max_rows: int, stopping: Codec) -> None:
    policy = gpu_policy()
    engine = GroupEngine(policy, stopping, max_rows=max_rows, compile=compiled)
    groups = engine.generate(prompts_of_lengths(stopping, LENGTHS), SAMPLING, seeds=range(8))
    assert worst_gap(policy, groups) < 1e-3


def test_tokens_do_not_depend_on_the_batch_nor_on_when_the_engine_asks(stopping: Codec) -> None:
    policy, prompts = gpu_policy(), prompts_of_lengths(stopping, LENGTHS)
    together = GroupEngine(policy, stopping).generate(prompts, SAMPLING, seeds=range(8))
    for how in ({"max_rows": 16}, {"check_every": 1}, {"max_rows": 8, "check_every": 5}, {"compile": True}):
        again = GroupEngine(policy, stopping, **how).generate(prompts, SAMPLING, seeds=range(8))  # type: ignore[arg-type]
        assert tokens_of(again) == tokens_of(together)


def test_the_host_waits_for_the_device_only_now_and_then(stopping: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = mini_codec()
    codec.stop_ids = (10**6,)
    engine = GroupEngine(gpu_policy(), codec, check_every=16)
    sampling = replace(SAMPLING, max_new_tokens=70)
    prompts = prompts_of_lengths(codec, [6, 9])
    engine.generate(prompts, sampling, seeds=[1, 2])
    steps: list[int] = []
    step = engine.policy.model.base_model.register_forward_pre_hook(lambda *_: steps.append(1))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        engine.generate(prompts, sampling, seeds=[1, 2])
    step.remove()
    waits = sum(event.count for event in profile.key_averages() if event.key == "aten::_local_scalar_dense")
    assert len(steps) == 70
    assert waits < 20, "about one in 16 steps"


@WITHOUT_FLASH
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "graph"])
@pytest.mark.parametrize("max_rows", [16, 512])
def test_flash_attentions_kernel_for_a_cache(compiled: bool, max_rows: int, stopping: Codec) -> None:
    policy = gpu_policy(attention="flash_attention_2", dtype=torch.bfloat16)
    assert decodes_with(policy.model) == "lightning_r1_flash_decode"
    engine = GroupEngine(policy, stopping, max_rows=max_rows, compile=compiled)
    groups = engine.generate(prompts_of_lengths(stopping, LENGTHS), SAMPLING, seeds=range(8))
    # bfloat16 has 8 bits: what two kernels of torch differ by on the same weights, and no more
    plain = gpu_policy(dtype=torch.bfloat16)
    theirs = GroupEngine(plain, stopping).generate(prompts_of_lengths(stopping, LENGTHS), SAMPLING, seeds=range(8))
    assert worst_gap(policy, groups) < 2 * max(worst_gap(plain, theirs), 0.05)
