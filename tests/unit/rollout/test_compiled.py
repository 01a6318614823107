"""The group engine with a compiled step: the plain engine's tokens, and few programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from helpers.models import tiny_policy
from helpers.prompts import MANY_STOPS, mini_codec, prompts_of_lengths
from lightning_r1.models import decoder
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Group, Sampling
from unit.rollout.test_group_engine import falcon_policy, tokens_of

SAMPLING = Sampling(group_size=4, max_new_tokens=40, temperature=0.8)


@pytest.fixture
def stopping() -> Codec:
    return mini_codec(stop=MANY_STOPS)


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything of a compiled step but its kernels, which take most of the time."""
    program = torch.compile(decoder.forward, backend="eager", dynamic=False, fullgraph=True)
    monkeypatch.setattr(decoder, "_compiled", lambda device: program)


def equal(plain: list[Group], compiled: list[Group]) -> None:
    assert tokens_of(plain) == tokens_of(compiled)
    for one, other in zip(plain, compiled, strict=True):
        for first, second in zip(one.completions, other.completions, strict=True):
            assert first.logprobs == pytest.approx(second.logprobs, abs=1e-5)


def test_kernels_give_the_plain_engines_tokens(stopping: Codec) -> None:
    policy = tiny_policy("qwen2", num_hidden_layers=1)
    prompts, seeds = prompts_of_lengths(stopping, [4, 12, 7, 7, 5]), range(5)
    plain = GroupEngine(policy, stopping, max_rows=8).generate(prompts, SAMPLING, seeds=seeds)
    engine = GroupEngine(policy, stopping, max_rows=8, compile=True)

    equal(plain, engine.generate(prompts, SAMPLING, seeds=seeds))
    programs = counters["stats"]["unique_graphs"]
    assert programs == 1
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.1)
    again = engine.generate(prompts, SAMPLING, seeds=seeds)
    assert counters["stats"]["unique_graphs"] == programs, "the next rollout compiles nothing"
    equal(GroupEngine(policy, stopping).generate(prompts, SAMPLING, seeds=seeds), again)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("family", ["qwen3", "mistral_window", "gemma2", "gpt2", "deepseek_v3"])
def test_rows_and_columns_come_in_few_shapes(family: str, stopping: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "_BLOCK", 16)
    policy = tiny_policy(family)
    prompts, seeds = prompts_of_lengths(stopping, [4, 12, 7, 7, 5, 9, 9, 4]), range(8)
    sampling = replace(SAMPLING, max_new_tokens=50)
    plain = GroupEngine(policy, stopping).generate(prompts, sampling, seeds=seeds)

    engine = GroupEngine(policy, stopping, compile=True)
    equal(plain, engine.generate(prompts, sampling, seeds=seeds))
    programs = counters["stats"]["unique_graphs"]
    assert 2 < programs <= 7, "32, 16 and 8 rows; blocks of 16 columns up to 62: each step one of both, downwards"
    engine.generate(prompts, sampling, seeds=seeds)
    assert counters["stats"]["unique_graphs"] == programs


def test_a_model_that_needs_rows_of_one_length_is_not_compiled(stopping: Codec) -> None:
    policy: Policy = falcon_policy()
    with pytest.raises(ValueError, match=r"rollout.compile=true: model_type='falcon'.*Set rollout.compile=false"):
        GroupEngine(policy, stopping, compile=True).generate(prompts_of_lengths(stopping, [5]), SAMPLING, seeds=[1])
