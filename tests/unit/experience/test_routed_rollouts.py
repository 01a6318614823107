"""Rollouts whose groups have different rewards: credit, numbers and records."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from helpers.engine import ScriptedEngine
from helpers.prompts import number_prompt
from helpers.ranks import on_ranks
from lightning_r1.callbacks.rollouts import _records
from lightning_r1.experience import collect as collect_module
from lightning_r1.experience import metrics
from lightning_r1.experience.collect import Credit, Rollout, collect
from lightning_r1.experience.metrics import rollout_metrics
from lightning_r1.functional import per_reward_advantages
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Completion, Prompt, Sampling

DOMAIN = {"1": "reasoning", "2": "helpful", "3": "reasoning", "4": "helpful"}
SCRIPT = {
    "1": ["1<eos>", "1+1<eos>"],
    "2": ["2+2+2<eos>", "2<eos>"],
    "3": ["3+3<eos>", "3<eos>"],
    "4": ["x<eos>", "4<eos>"],
}


def plus(prompt: Prompt, completion: Completion) -> float:
    return float(completion.text.count("+"))


def length(prompt: Prompt, completion: Completion) -> float | None:
    return None if "x" in completion.text else len(completion.token_ids) / 4


def roll(codec: Codec, questions: list[str], **credit: Any) -> Rollout:
    prompts = [replace(number_prompt(codec, question, 0), domain=DOMAIN[question]) for question in questions]
    return collect(
        lambda taken, count: (prompts, [0] * len(prompts)),
        ScriptedEngine(codec, SCRIPT),
        RewardSuite({"plus": plus, "length": length}, {"length": 0.5}, routes={"plus": ["reasoning"]}),
        sampling=Sampling(group_size=2),
        credit=Credit(**credit),
        groups=len(prompts),
    )


def test_a_mean_counts_only_where_the_reward_applied(codec: Codec) -> None:
    numbers = rollout_metrics(roll(codec, ["1", "2", "4"]), codec)
    # plus: 0 and 1 of the first group alone; length: 2 4; 6 2; - 2 tokens
    assert numbers["rollout/reward/plus"] == 1 / 2
    assert numbers["rollout/reward/length"] == pytest.approx(16 / 4 / 5)
    assert numbers["rollout/reward_mean"] == pytest.approx((0.25 + 1.5 + 0.75 + 0.25 + 0.25) / 5)
    # of 2 + 6 scores one could not be made
    assert numbers["rollout/outcome/ok"] == 7 / 8
    assert numbers["rollout/outcome/unscorable"] == 1 / 8


def test_a_reward_that_applied_nowhere_has_no_number(codec: Codec) -> None:
    numbers = rollout_metrics(roll(codec, ["2"]), codec)
    assert "rollout/reward/plus" not in numbers
    assert numbers["rollout/reward/length"] == 1.0
    assert not any(math.isnan(value) for value in numbers.values())


def test_ranks_with_different_domains_say_what_one_would(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = rollout_metrics(roll(codec, ["1", "2", "4"]), codec)
    shares = [roll(codec, ["2", "4"]), roll(codec, ["1"])]  # the first rank never sees the rule
    works = [lambda share=share: rollout_metrics(share, codec) for share in shares]
    for said in on_ranks(monkeypatch, [metrics], works):
        assert {name: value for name, value in said.items() if not name.startswith("time/")} == pytest.approx(
            {name: value for name, value in alone.items() if not name.startswith("time/")}
        )


def test_parts_are_normalised_by_name_not_by_place(codec: Codec) -> None:
    rollout = roll(codec, ["2", "1", "3"], per_reward=True)
    # columns plus, length; plus is not for the first group
    rewards = torch.tensor([[[0, 1.5], [0, 0.5]], [[0, 0.5], [1, 1.0]], [[1, 1.0], [0, 0.5]]], dtype=torch.float64)
    expected = per_reward_advantages(rewards, torch.tensor([1.0, 0.5], dtype=torch.float64))
    torch.testing.assert_close(rollout.advantages, expected, rtol=0, atol=1e-12)
    assert rollout.dead_groups == 0


def test_parts_are_normalised_over_ranks_with_different_domains(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = roll(codec, ["2", "1", "3"], per_reward=True)
    works = [lambda share=share: roll(codec, share, per_reward=True) for share in (["2"], ["1", "3"])]
    parts = on_ranks(monkeypatch, [collect_module], works)
    joined = torch.cat([part.advantages for part in parts])
    torch.testing.assert_close(joined, alone.advantages, rtol=0, atol=1e-12)


def test_records_hold_the_rewards_of_their_domain(codec: Codec) -> None:
    first, _, third, fourth = _records(roll(codec, ["1", "4"]), step=3)
    assert (first["domain"], first["rewards"]) == ("reasoning", {"plus": 0.0, "length": 0.5})
    assert (third["domain"], third["rewards"], third["reward"]) == ("helpful", {"length": None}, None)
    assert (fourth["outcomes"], fourth["reward"]) == ({"length": "ok"}, 0.25)
