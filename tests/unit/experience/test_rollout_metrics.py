"""The numbers of a rollout: their names, their values, and what several ranks make of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from helpers.engine import ScriptedEngine
from helpers.prompts import number_prompt
from helpers.ranks import on_ranks
from lightning_r1.experience import metrics
from lightning_r1.experience.collect import Credit, Rollout, collect
from lightning_r1.experience.metrics import rollout_metrics
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Completion, Outcome, Prompt, Sampling

NAMES = {
    "rollout/reward_mean",
    "rollout/reward/accuracy",
    "rollout/reward/length",
    "rollout/outcome/ok",
    "rollout/outcome/wrong_format",
    "rollout/outcome/timeout",
    "rollout/outcome/crash",
    "rollout/outcome/unscorable",
    *(f"rollout/outcome/{name}/{kind}" for name in ("accuracy", "length") for kind in Outcome),
    "rollout/length_mean",
    "rollout/think_length_mean",
    "rollout/truncated_fraction",
    "rollout/dead_group_fraction",
    "rollout/reflection_rate",
    "rollout/format_fraction",
    "time/rollout_s",
    "time/reward_s",
}
SCRIPT = {
    "1": ["1;</think><answer>1</answer><eos>", "2;2;</think><answer>2</answer><eos>"],  # right; wrong
    "2": ["1</think>2<eos>", "x"],  # no answer; crash of the second reward, and cut
    "3": ["</think><answer>3</answer><eos>", "</think><answer>3</answer><eos>"],  # right, both: dead
    "4": ["x", "x"],  # nothing can be scored
}


def length(prompt: Prompt, completion: Completion) -> float:
    if "x" in completion.text:
        raise RuntimeError("x")
    return len(completion.token_ids) / 10


def roll(codec: Codec, *draws: list[str], **credit: Any) -> Rollout:
    def draw(taken: int, count: int) -> tuple[list[Prompt], list[int]]:
        questions = [question for part in draws for question in part][taken : taken + count]
        return [number_prompt(codec, question, question) for question in questions], [0] * len(questions)

    return collect(
        draw,
        ScriptedEngine(codec, SCRIPT),
        RewardSuite({"accuracy": Accuracy(codec.template.tags), "length": length}),
        sampling=Sampling(group_size=2),
        credit=Credit(**credit),
        groups=len(draws[0]),
    )


def test_the_names_are_the_documented_ones(codec: Codec) -> None:
    assert set(rollout_metrics(roll(codec, ["1", "2"]), codec)) == NAMES


def test_values_of_a_rollout_by_hand(codec: Codec) -> None:
    rollout = roll(codec, ["1", "2", "3"])
    numbers = rollout_metrics(rollout, codec)
    # tokens: 7, 9; 4, 1; 5, 5. Thinking: 2, 4; 1, 1; 0, 0. Accuracy: 1, 0; 0, 0; 1, 1, the length a tenth
    # of the tokens, and "x" no length at all
    assert numbers == pytest.approx(
        {
            "rollout/reward_mean": (1.7 + 0.9 + 0.4 + 1.5 + 1.5) / 5,
            "rollout/reward/accuracy": 3 / 6,
            "rollout/reward/length": (0.7 + 0.9 + 0.4 + 0.5 + 0.5) / 5,
            "rollout/outcome/ok": (4 + 5) / 12,
            "rollout/outcome/wrong_format": 2 / 12,
            "rollout/outcome/timeout": 0,
            "rollout/outcome/crash": 1 / 12,
            "rollout/outcome/unscorable": 0,
            **{f"rollout/outcome/{name}/{kind}": 0 for name in ("accuracy", "length") for kind in Outcome},
            "rollout/outcome/accuracy/ok": 4 / 6,
            "rollout/outcome/accuracy/wrong_format": 2 / 6,
            "rollout/outcome/length/ok": 5 / 6,
            "rollout/outcome/length/crash": 1 / 6,
            "rollout/length_mean": 31 / 6,
            "rollout/think_length_mean": 8 / 6,
            "rollout/truncated_fraction": 1 / 6,
            "rollout/dead_group_fraction": 2 / 3,  # the second has one scored completion only
            "rollout/reflection_rate": 3 / 6,
            "rollout/format_fraction": 2 / 6,
            "time/rollout_s": rollout.generation_seconds,
            "time/reward_s": rollout.reward_seconds,
        }
    )


def test_outcomes_add_up(codec: Codec) -> None:
    numbers = rollout_metrics(roll(codec, ["1", "2", "3", "4"]), codec)
    assert sum(numbers[f"rollout/outcome/{kind}"] for kind in Outcome) == pytest.approx(1)


def test_dead_groups_are_a_share_of_all_that_were_sampled(codec: Codec) -> None:
    rollout = roll(codec, ["1", "3"], ["3", "3"], ["4", "1"], dead_groups="refill")
    numbers = rollout_metrics(rollout, codec)
    assert len(rollout.scored) == 2
    assert numbers["rollout/dead_group_fraction"] == pytest.approx(4 / 6)
    assert numbers["rollout/reward/accuracy"] == pytest.approx(1 / 2)  # of the buffer, not of all that were sampled


def test_nothing_scored_is_no_number(codec: Codec) -> None:
    numbers = rollout_metrics(roll(codec, ["4"]), codec)
    assert math.isnan(numbers["rollout/reward_mean"])
    assert math.isnan(numbers["rollout/reward/length"])
    assert numbers["rollout/reward/accuracy"] == 0
    assert numbers["rollout/length_mean"] == 1


@pytest.fixture
def over_ranks(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, float]]:
    """What ranks say when each has one of these rollouts."""

    def over_ranks(*rollouts: Rollout) -> dict[str, float]:
        works = [lambda rollout=rollout: rollout_metrics(rollout, codec) for rollout in rollouts]
        first, *others = on_ranks(monkeypatch, [metrics], works)
        for other in others:
            assert other == pytest.approx(first, nan_ok=True)
        return first

    return over_ranks


def together(numbers: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if not name.startswith("time/")}


def test_two_ranks_say_what_one_would(codec: Codec, over_ranks: Any) -> None:
    alone = rollout_metrics(roll(codec, ["1", "3", "3"]), codec)
    shared = over_ranks(roll(codec, ["1"]), roll(codec, ["3", "3"]))
    assert together(shared) == pytest.approx(together(alone))


def test_two_ranks_of_which_one_scored_less(codec: Codec, over_ranks: Any) -> None:
    # rank 1 scored one completion of its two
    alone = rollout_metrics(roll(codec, ["1", "2"]), codec)
    shared = over_ranks(roll(codec, ["1"]), roll(codec, ["2"]))
    assert together(shared) == pytest.approx(together(alone))


def test_two_ranks_of_which_one_scored_nothing(codec: Codec, over_ranks: Any) -> None:
    alone = rollout_metrics(roll(codec, ["1", "4"]), codec)
    shared = over_ranks(roll(codec, ["1"]), roll(codec, ["4"]))
    assert together(shared) == pytest.approx(together(alone))


def test_dead_groups_of_two_ranks_are_a_share_of_all_that_were_sampled(codec: Codec, over_ranks: Any) -> None:
    # rank 0 keeps one group of two it sampled, rank 1 two of two
    first = roll(codec, ["3"], ["1"], dead_groups="refill")
    second = roll(codec, ["1", "1"])
    assert over_ranks(first, second)["rollout/dead_group_fraction"] == pytest.approx(1 / 4)


def test_seconds_are_the_slowest_ranks(codec: Codec, over_ranks: Any) -> None:
    rollouts = [roll(codec, ["1"]), roll(codec, ["3"])]
    shared = over_ranks(*rollouts)
    assert shared["time/rollout_s"] == max(rollout.generation_seconds for rollout in rollouts)
    assert shared["time/reward_s"] == max(rollout.reward_seconds for rollout in rollouts)
