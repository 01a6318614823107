"""Several rewards over groups: sums, weights, and typed outcomes for whatever goes wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from helpers.engine import ScriptedEngine
from helpers.prompts import number_prompt
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.base import InProcessScorer, Item, Pending, Reward, score_one
from lightning_r1.rewards.format import Format
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Completion, Group, Outcome, Prompt, RewardScore, Sampling

PROMPT = Prompt("test/1", "q", "q", (1,), {"kind": "number", "value": 1})
COMPLETION = Completion((1, 2), (0.0, 0.0), "stop", text="x")


def two_groups(codec: Codec) -> list[Group]:
    texts = {
        "1": ["a</think><answer>1</answer><eos>", "a</think><answer>2</answer><eos>"],
        "2": ["<answer>2</answer><eos>", "a</think>b<answer>2</answer><eos>"],
    }
    prompts = [number_prompt(codec, question, question) for question in ("1", "2")]
    return ScriptedEngine(codec, texts).generate(prompts, Sampling(group_size=2), seeds=[0, 1])


def length(prompt: Prompt, completion: Completion) -> float:
    return len(completion.token_ids) / 4


def test_rewards_are_added(codec: Codec) -> None:
    groups = two_groups(codec)
    suite = RewardSuite({"accuracy": Accuracy(codec.template.tags), "format": Format(codec.template.tags)})

    first, second = suite.score(groups)

    assert (first.group, second.group) == tuple(groups)
    assert first.rewards == (2.0, 1.0)  # right and well formed; well formed only
    assert second.rewards == (0.0, 1.0)  # neither; right, with a word too many
    assert [score.value for score in first.breakdown["accuracy"]] == [1.0, 0.0]
    assert [score.value for score in second.breakdown["format"]] == [0.0, 0.0]
    assert list(first.breakdown) == ["accuracy", "format"]


def test_weights(codec: Codec) -> None:
    tags = codec.template.tags
    suite = RewardSuite(
        {"accuracy": Accuracy(tags), "format": Format(tags), "length": length}, {"format": 0.5, "length": -1}
    )

    first, second = suite.score(two_groups(codec))

    assert suite.weights == {"accuracy": 1.0, "format": 0.5, "length": -1.0}
    # 6, 6, 4 and 7 tokens
    assert first.rewards == (1 + 0.5 - 1.5, 0 + 0.5 - 1.5)
    assert second.rewards == (0 + 0 - 1.0, 1 + 0 - 1.75)
    # the breakdown holds what the functions said, before the weights
    assert [score.value for score in second.breakdown["length"]] == [1.0, 1.75]


def test_groups_may_have_different_sizes(codec: Codec) -> None:
    first, second = two_groups(codec)
    scored = RewardSuite({"length": length}).score([Group(first.prompt, first.completions[:1]), second])
    assert [group.rewards for group in scored] == [(1.5,), (1.0, 1.75)]


def test_no_groups() -> None:
    assert RewardSuite({"length": length}).score([]) == []


def test_a_reward_that_raises_is_a_crash_by_its_name() -> None:
    def faulty(prompt: Prompt, completion: Completion) -> float:
        raise KeyError("solution")

    score = score_one(faulty, PROMPT, COMPLETION)
    assert math.isnan(score.value)
    assert score.outcome is Outcome.CRASH
    assert score.detail == "KeyError: 'solution'"


@pytest.mark.parametrize(
    ("verdict", "value", "outcome"),
    [
        (1, 1.0, Outcome.OK),
        (0.25, 0.25, Outcome.OK),
        (-3.5, -3.5, Outcome.OK),
        (True, 1.0, Outcome.OK),
        (None, math.nan, Outcome.UNSCORABLE),
        (math.nan, math.nan, Outcome.CRASH),
        (math.inf, math.nan, Outcome.CRASH),
        (-math.inf, math.nan, Outcome.CRASH),
        (RewardScore(0.5), 0.5, Outcome.OK),
        (RewardScore(0.0, Outcome.WRONG_FORMAT, "no tag"), 0.0, Outcome.WRONG_FORMAT),
        (RewardScore(0.0, Outcome.TIMEOUT), 0.0, Outcome.TIMEOUT),
    ],
    ids=str,
)
def test_verdicts(verdict: Any, value: float, outcome: Outcome) -> None:
    score = score_one(lambda prompt, completion: verdict, PROMPT, COMPLETION)
    assert isinstance(score.value, float)
    assert score.outcome is outcome
    assert score.value == value or (math.isnan(score.value) and math.isnan(value))


@pytest.mark.parametrize("verdict", ["0.5", [1.0], {"value": 1}, object()], ids=lambda verdict: type(verdict).__name__)
def test_what_is_no_verdict_is_a_crash(verdict: Any) -> None:
    score = score_one(lambda prompt, completion: verdict, PROMPT, COMPLETION)
    assert math.isnan(score.value)
    assert score.outcome is Outcome.CRASH
    assert type(verdict).__name__ in score.detail


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_no_number_does_not_count(value: float) -> None:
    score = score_one(lambda prompt, completion: RewardScore(value), PROMPT, COMPLETION)
    assert not score.outcome.counts


@pytest.mark.parametrize(
    ("verdict", "counts"),
    [
        (RewardScore(0.0), True),
        (RewardScore(0.0, Outcome.WRONG_FORMAT), True),
        (RewardScore(0.0, Outcome.CRASH), False),
        (RewardScore(0.0, Outcome.TIMEOUT), False),
        (RewardScore(0.0, Outcome.UNSCORABLE), False),
        (None, False),
        (math.nan, False),
    ],
    ids=str,
)
def test_a_part_that_could_not_be_scored_takes_the_completion_out(verdict: Any, counts: bool, codec: Codec) -> None:
    groups = two_groups(codec)
    spoiled = groups[0].completions[1]

    def one_of_four(prompt: Prompt, completion: Completion) -> Any:
        return verdict if completion is spoiled else 1.0

    first, second = RewardSuite({"length": length, "other": one_of_four}, {"other": 2.0}).score(groups)

    assert first.rewards[0] == 1.5 + 2
    assert second.rewards == (1.0 + 2, 1.75 + 2)
    if counts:
        assert first.rewards[1] == 1.5
    else:
        assert math.isnan(first.rewards[1])
    assert first.breakdown["length"][1].value == 1.5


def test_a_part_of_weight_zero_that_fails_still_takes_it_out(codec: Codec) -> None:
    # NaN times 0 is no honest number either
    suite = RewardSuite({"length": length, "watched": lambda prompt, completion: None}, {"watched": 0.0})
    assert all(math.isnan(reward) for group in suite.score(two_groups(codec)) for reward in group.rewards)


def test_each_reward_is_asked_once_about_each_group(codec: Codec) -> None:
    calls: list[tuple[str, int]] = []

    class Counting(InProcessScorer):
        def begin(self, name: str, reward: Reward, items: Sequence[Item]) -> Pending:
            calls.append((name, len(items)))
            return super().begin(name, reward, items)

    scored = RewardSuite({"a": length, "b": length}, scorer=Counting()).score(two_groups(codec))
    assert calls == [("a", 2), ("b", 2)] * 2
    assert [list(group.breakdown) for group in scored] == [["a", "b"]] * 2


def test_groups_may_come_in_any_order(codec: Codec) -> None:
    groups = two_groups(codec)
    suite = RewardSuite({"length": length})
    scoring = suite.open()
    scoring.add(1, groups[1])
    scoring.add(0, groups[0])
    assert scoring.result() == suite.score(groups)


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"reward\.weights names \['acuracy'\], but the rewards are \['accuracy', 'format'\]"
    ):
        RewardSuite({"format": length, "accuracy": length}, {"acuracy": 2.0})


def test_no_rewards_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reward\.rewards is empty.*name at least one"):
        RewardSuite({})
