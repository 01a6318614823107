"""The presets of rewards that shape length and repetition, from the config to numbers."""

from __future__ import annotations

import pickle

import pytest

from helpers.prompts import number_prompt
from lightning_r1.config.build import build_rewards, check
from lightning_r1.config.compose import compose_config
from lightning_r1.models.codec import Codec
from lightning_r1.types import Completion, FinishReason, Group

RIGHT, WRONG = "<think>7</think><answer>7</answer>", "<think>8</think><answer>8</answer>"
CIRCLES = "<think>" + "1 + 2 = 3; no, " * 50 + "</think><answer>8</answer>"


def totals(codec: Codec, *overrides: str, lengths: list[tuple[int, FinishReason, str]]) -> list[float]:
    """Summed rewards of completions of so many tokens, under a preset."""
    said = ["model.path=org/model", "data=countdown", "trainer.max_steps=10", "algo=grpo"]
    config = compose_config("train", [*said, "algo.sampling.max_new_tokens=100", *overrides])
    check(config)
    suite = build_rewards(config, codec)
    for reward in suite.rewards.values():
        pickle.dumps(reward)  # workers get it that way
    prompt = number_prompt(codec, "7", 7)
    written = [Completion(tuple(range(length)), (0.0,) * length, finish, text) for length, finish, text in lengths]
    return list(suite.score([Group(prompt, tuple(written))])[0].rewards)


def test_dapo(codec: Codec) -> None:
    lengths: list[tuple[int, FinishReason, str]] = [
        (80, "stop", RIGHT), (90, "stop", RIGHT), (80, "stop", WRONG), (90, "stop", WRONG), (100, "length", "<think>"),
    ]  # fmt: skip
    # right and wrong are 2 apart, as 1 and -1 are; half of the punishment at half of the cache
    assert totals(codec, "reward=dapo", "reward.rewards.overlong.cache_tokens=20", lengths=lengths) == [
        2,
        1.5,
        0,
        -0.5,
        -1,
    ]


def test_cosine(codec: Codec) -> None:
    lengths: list[tuple[int, FinishReason, str]] = [
        (50, "stop", RIGHT), (50, "stop", WRONG), (100, "length", RIGHT), (90, "stop", CIRCLES),
    ]  # fmt: skip
    right, wrong, cut, circles = totals(codec, "reward=cosine", lengths=lengths)
    assert (right, wrong, cut) == (pytest.approx(1.5 + 1), pytest.approx(-5 + 1), pytest.approx(-10 + 1))
    assert circles < wrong  # longer would earn more, were it not for the repetition
