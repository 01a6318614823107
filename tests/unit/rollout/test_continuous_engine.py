"""transformers' continuous batching samples from the policy, and says with which log-probabilities."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from helpers.models import dense_logits, tiny_policy
from helpers.prompts import mini_codec, number_prompt, prompts_of_lengths
from lightning_r1.experience.parity import logprob_gap
from lightning_r1.models.codec import Codec
from lightning_r1.rollout.continuous import ContinuousEngine
from lightning_r1.rollout.engine import EngineError
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.rollout.hf import HFEngine
from lightning_r1.rollout.sampling import truncate
from lightning_r1.types import Group, Sampling

HOW = Sampling(group_size=3, max_new_tokens=7)


def sampled(engine: Any, how: Sampling = HOW, **more: Any) -> list[Group]:
    return engine.generate(prompts_of_lengths(engine.codec, [4, 40, 7]), how, seeds=[11, 12, 13], **more)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_are_the_policys(family: str, temperature: float, codec: Codec) -> None:
    engine = ContinuousEngine(tiny_policy(family), codec)
    groups = sampled(engine, replace(HOW, temperature=temperature))
    assert [len(group.completions) for group in groups] == [3, 3, 3]
    assert logprob_gap(engine.policy, codec, groups, temperature) < 1e-5


@pytest.mark.parametrize("cut", [{"top_p": 0.7}, {"top_k": 5}, {"top_p": 0.8, "top_k": 20, "temperature": 0.6}])
def test_truncated_ones_are_of_what_was_sampled(cut: dict[str, Any], codec: Codec) -> None:
    engine, how = ContinuousEngine(tiny_policy(), codec), replace(HOW, **cut)
    for group in sampled(engine, how):
        for done in group.completions:
            logits = dense_logits(engine.policy.model, group.prompt.token_ids, done.token_ids)
            kept = truncate(logits.float() / how.temperature, how).log_softmax(-1)
            expected = kept.gather(-1, torch.tensor(done.token_ids).unsqueeze(-1)).squeeze(-1)
            torch.testing.assert_close(torch.tensor(done.logprobs), expected, atol=1e-4, rtol=0)


def test_greedy_is_what_generate_makes(codec: Codec) -> None:
    policy, how = tiny_policy(), replace(HOW, temperature=0.0, max_new_tokens=12)
    ours, reference = sampled(ContinuousEngine(policy, codec), how), sampled(HFEngine(policy, codec), how)
    for one, other in zip(ours, reference, strict=True):
        assert [done.token_ids for done in one.completions] == [done.token_ids for done in other.completions]
        for a, b in zip(one.completions, other.completions, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_first_tokens_are_spread_as_the_group_engines(codec: Codec) -> None:
    """Ten likely tokens of 2,000 draws each, within five standard errors of the exact probability."""
    policy, how = tiny_policy(), Sampling(group_size=2000, max_new_tokens=1)
    prompt = number_prompt(codec, "12?57=", 3)
    exact = dense_logits(policy.model, prompt.token_ids, [0])[0].softmax(-1)
    (group,) = ContinuousEngine(policy, codec).generate([prompt], how, seeds=[3])
    counts = Counter(done.token_ids[0] for done in group.completions)
    for token in exact.topk(10).indices.tolist():
        share = float(exact[token])
        assert counts[token] / 2000 == pytest.approx(share, abs=5 * (share * (1 - share) / 2000) ** 0.5)


def test_a_call_made_again_is_identical_and_leaves_torch_alone(codec: Codec) -> None:
    engine = ContinuousEngine(tiny_policy(), codec)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = sampled(engine)
    assert torch.equal(torch.rand(3), expected)
    assert sampled(engine) == first
    other = engine.generate(prompts_of_lengths(codec, [4, 40, 7]), HOW, seeds=[11, 12, 14])
    assert other != first
    assert len({done.token_ids for done in first[0].completions}) == 3


def test_stops_and_lengths(codec: Codec) -> None:
    engine = ContinuousEngine(tiny_policy(), codec)
    engine.sync_weights(4)
    groups = sampled(engine, replace(HOW, group_size=24, max_new_tokens=20))
    stop = set(codec.stop_ids)
    for done in (done for group in groups for done in group.completions):
        assert len(done.token_ids) == len(done.logprobs) <= 20
        assert not stop & set(done.token_ids[:-1])
        assert (done.finish_reason == "stop") == (done.token_ids[-1] in stop)
        assert done.policy_version == 4
    assert {done.finish_reason for group in groups for done in group.completions} == {"stop", "length"}


def test_a_prompt_is_sampled_within_its_own_budget(codec: Codec) -> None:
    first, second = prompts_of_lengths(codec, [4, 7])
    groups = ContinuousEngine(tiny_policy(), codec).generate(
        [replace(first, token_budget=2), second], HOW, seeds=[1, 2]
    )
    assert {len(done.token_ids) for done in groups[0].completions} <= {1, 2}
    assert max(len(done.token_ids) for done in groups[1].completions) > 2


def test_groups_are_given_away_when_whole(codec: Codec) -> None:
    given: dict[int, Group] = {}
    told: list[tuple[int, int]] = []
    engine = ContinuousEngine(tiny_policy(), codec)
    groups = sampled(engine, progress=lambda done, total: told.append((done, total)), finished=given.__setitem__)
    assert given == dict(enumerate(groups))
    assert told == [(done, 9) for done in range(1, 10)]


def test_the_policy_is_left_as_it_was(codec: Codec) -> None:
    policy = tiny_policy().train()
    attention, habits = policy.model.config._attn_implementation, policy.model.generation_config
    sampled(ContinuousEngine(policy, codec))
    assert policy.training
    assert policy.model.training
    assert policy.model.config._attn_implementation == attention
    assert policy.model.generation_config is habits
    assert not hasattr(policy.model, "_cached_continuous_batching_manager")
    assert sampled(GroupEngine(policy, codec))


def test_what_it_cannot_do_is_an_error_by_name(codec: Codec) -> None:
    engine = ContinuousEngine(tiny_policy(), codec)
    with pytest.raises(EngineError, match=r"sampling.min_p=0.1: transformers' continuous batching has none; set it to"):
        sampled(engine, replace(HOW, min_p=0.1))
    engine.timeout_s = 1e-3
    with pytest.raises(EngineError, match=r"rollout=continuous: TimeoutError: no completion ended within 0.001 s; cho"):
        sampled(engine, replace(HOW, max_new_tokens=40))


def test_a_failure_inside_is_an_error_by_name(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ContinuousEngine(tiny_policy(), mini_codec())

    def fails(*arguments: Any, **how: Any) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(type(engine.policy.model), "forward", fails)
    with pytest.raises(EngineError, match=r"rollout=continuous: RuntimeError: .*out of memory.*; choose rollout=group"):
        sampled(engine)
