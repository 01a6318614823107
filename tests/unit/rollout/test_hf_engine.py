"""The reference engine: transformers' own generate, and nothing of its habits."""

from __future__ import annotations

import pytest
import torch

from helpers.models import dense_logits, dense_logprobs, tiny_policy
from helpers.prompts import MANY_STOPS, mini_codec, prompts_of_lengths
from lightning_r1.models.codec import Codec
from lightning_r1.rollout.hf import HFEngine
from lightning_r1.rollout.sampling import truncate
from lightning_r1.types import Group, Sampling

SAMPLING = Sampling(group_size=4, max_new_tokens=10, temperature=0.8)


@pytest.fixture
def stopping() -> Codec:
    """About one token in ten stops."""
    return mini_codec(stop=MANY_STOPS)


def assert_teacher_forced(engine: HFEngine, groups: list[Group], temperature: float) -> None:
    for group in groups:
        for completion in group.completions:
            expected = dense_logprobs(
                engine.policy.model, group.prompt.token_ids, completion.token_ids, temperature=temperature
            )
            torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "gpt2"])
def test_logprobs_are_those_of_a_forward_without_cache(family: str, stopping: Codec) -> None:
    engine = HFEngine(tiny_policy(family), stopping)
    prompts = prompts_of_lengths(stopping, [4, 12, 7])

    groups = engine.generate(prompts, SAMPLING, seeds=[1, 2, 3])

    assert [group.prompt for group in groups] == prompts
    assert [len(group.completions) for group in groups] == [4, 4, 4]
    assert_teacher_forced(engine, groups, 0.8)


@pytest.mark.parametrize("rules", [{"top_k": 10}, {"top_p": 0.6}, {"min_p": 0.3}, {"top_k": 20, "top_p": 0.9}], ids=str)
def test_logprobs_after_truncation(rules: dict[str, float], stopping: Codec) -> None:
    engine = HFEngine(tiny_policy(), stopping)
    sampling = Sampling(group_size=4, max_new_tokens=8, temperature=1.3, **rules)

    group = engine.generate(prompts_of_lengths(stopping, [6]), sampling, seeds=[1])[0]

    for completion in group.completions:
        logits = dense_logits(engine.policy.model, group.prompt.token_ids, completion.token_ids)
        logprobs = truncate(logits / 1.3, sampling).log_softmax(-1)
        expected = logprobs[torch.arange(len(completion.token_ids)), list(completion.token_ids)]
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0)


def test_greedy_reports_temperature_one(codec: Codec) -> None:
    engine = HFEngine(tiny_policy(), codec)
    groups = engine.generate(
        prompts_of_lengths(codec, [5, 8]), Sampling(group_size=2, max_new_tokens=8, temperature=0), seeds=[0, 1]
    )
    assert_teacher_forced(engine, groups, 1.0)
    for group in groups:
        first, second = group.completions
        assert first.token_ids == second.token_ids
        logits = dense_logits(engine.policy.model, group.prompt.token_ids, first.token_ids)
        assert first.token_ids == tuple(logits.argmax(-1).tolist())


def test_seeds_reproduce_and_prompts_do_not_depend_on_each_other(stopping: Codec) -> None:
    engine, prompts = HFEngine(tiny_policy(), stopping), prompts_of_lengths(stopping, [4, 9, 6])

    once = engine.generate(prompts, SAMPLING, seeds=[5, 6, 7])

    assert engine.generate(prompts, SAMPLING, seeds=[5, 6, 7]) == once
    assert engine.generate([prompts[2], prompts[0]], SAMPLING, seeds=[7, 5]) == [once[2], once[0]]
    assert engine.generate(prompts, SAMPLING, seeds=[15, 16, 17]) != once


def test_torchs_own_randomness_is_left_alone(codec: Codec) -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    HFEngine(tiny_policy(), codec).generate(prompts_of_lengths(codec, [4]), SAMPLING, seeds=[5])
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_completions_end_right_behind_the_stop_token(stopping: Codec) -> None:
    sampling = Sampling(group_size=24, max_new_tokens=10)
    group = HFEngine(tiny_policy(), stopping).generate(prompts_of_lengths(stopping, [6]), sampling, seeds=[4])[0]

    assert {completion.finish_reason for completion in group.completions} == {"stop", "length"}
    for completion in group.completions:
        stops = [token in stopping.stop_ids for token in completion.token_ids]
        assert not any(stops[:-1])
        assert stops[-1] == (completion.finish_reason == "stop")
        assert len(completion.logprobs) == len(completion.token_ids) <= 10


def test_sampling_ends_with_the_last_completion(stopping: Codec) -> None:
    policy = tiny_policy()
    forwards: list[None] = []
    policy.model.register_forward_hook(lambda module, args, output: forwards.append(None))
    sampling = Sampling(group_size=2, max_new_tokens=80)
    group = HFEngine(policy, stopping).generate(prompts_of_lengths(stopping, [6]), sampling, seeds=[4])[0]
    assert len(forwards) == max(len(completion.token_ids) for completion in group.completions) < 80


@pytest.mark.parametrize(
    "habit",
    [
        {"repetition_penalty": 3.0},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 10},
        {"suppress_tokens": [5, 6, 7]},
        {"top_k": 2},
        {"top_p": 0.2},
        {"min_p": 0.5},
        {"max_length": 3},
    ],
    ids=lambda habit: next(iter(habit)),
)
def test_the_models_own_generation_habits_play_no_part(habit: dict[str, float], stopping: Codec) -> None:
    # many instruct models ship a repetition penalty or a top-k; the trainer scores without them
    prompts = prompts_of_lengths(stopping, [5])
    expected = HFEngine(tiny_policy(), stopping).generate(prompts, SAMPLING, seeds=[3])
    policy = tiny_policy()
    for name, value in habit.items():
        setattr(policy.model.generation_config, name, value)

    groups = HFEngine(policy, stopping).generate(prompts, SAMPLING, seeds=[3])

    assert groups == expected


def test_dropout_is_off_and_the_mode_comes_back(codec: Codec) -> None:
    policy = tiny_policy("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5).train()
    engine = HFEngine(policy, codec)

    groups = engine.generate(prompts_of_lengths(codec, [6]), SAMPLING, seeds=[1])

    assert all(module.training for module in policy.modules())
    policy.eval()
    assert_teacher_forced(engine, groups, 0.8)


def test_version_and_progress(codec: Codec) -> None:
    told: list[tuple[int, int]] = []
    engine = HFEngine(tiny_policy(), codec)
    engine.sync_weights(4)
    groups = engine.generate(
        prompts_of_lengths(codec, [5, 5]), SAMPLING, seeds=[1, 2], progress=lambda *numbers: told.append(numbers)
    )
    assert told == [(4, 8), (8, 8)]
    assert {completion.policy_version for group in groups for completion in group.completions} == {4}
