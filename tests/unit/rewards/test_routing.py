"""Rewards by prompt: each where it is for, absent where it is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from lightning_r1.rewards.base import BatchReward, InProcessScorer, Item, Pending, Reward, score_one
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Completion, Group, Outcome, Prompt, RewardScore

DOMAINS = ("reasoning", "helpful", "harmless")


def group(domain: str, *texts: str) -> Group:
    prompt = Prompt(f"test/{domain}", "q", "q", (1,), {}, domain=domain)  # type: ignore[arg-type]
    return Group(prompt, tuple(Completion((1,), (0.0,), "stop", text=text) for text in texts))


def constant(value: float) -> Reward:
    return lambda prompt, completion: value


class Length:
    """A batch reward: the length of a text; it counts its calls and knows where it was moved."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.device: Any = None

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        return float(len(completion.text))

    def score_batch(self, items: Sequence[Item]) -> list[float | RewardScore | None]:
        self.calls.append([completion.text for _, completion in items])
        return [None if completion.text == "?" else self(prompt, completion) for prompt, completion in items]

    def to(self, device: Any) -> None:
        self.device = device


def paper() -> RewardSuite:
    """R1's last phase: rules on reasoning prompts, a model each on the others, format and language on all."""
    rewards = {
        "accuracy": constant(1.0),
        "format": constant(10.0),
        "language": constant(100.0),
        "helpfulness": constant(1000.0),
        "harmlessness": constant(10000.0),
    }
    routes = {"accuracy": ["reasoning"], "helpfulness": ["helpful"], "harmlessness": ["harmless"]}
    return RewardSuite(rewards, {"language": 2.0}, routes=routes)


def test_each_domain_has_the_papers_rewards_and_no_others() -> None:
    scored = paper().score([group(domain, "a", "b") for domain in DOMAINS])
    assert [list(one.breakdown) for one in scored] == [
        ["accuracy", "format", "language"],
        ["format", "language", "helpfulness"],
        ["format", "language", "harmlessness"],
    ]
    assert [one.rewards for one in scored] == [(211.0,) * 2, (1210.0,) * 2, (10210.0,) * 2]
    assert [one.group.prompt.domain for one in scored] == list(DOMAINS)


def test_a_reward_is_not_asked_about_prompts_it_is_not_for() -> None:
    asked: list[tuple[str, list[str]]] = []

    class Remembering(InProcessScorer):
        def begin(self, name: str, reward: Reward, items: Sequence[Item]) -> Pending:
            asked.append((name, [prompt.domain for prompt, _ in items]))
            return super().begin(name, reward, items)

    suite = RewardSuite(
        {"rule": constant(1.0), "all": constant(1.0), "none here": constant(1.0)},
        routes={"rule": ["reasoning", "harmless"], "none here": ["helpful"]},
        scorer=Remembering(),
    )
    suite.score([group("harmless", "a"), group("reasoning", "b", "c")])
    assert asked == [(name, domains) for domains in (["harmless"], ["reasoning"] * 2) for name in ("rule", "all")]


def test_what_cannot_be_scored_elsewhere_takes_nothing_out_here() -> None:
    # a general prompt has no gold: accuracy could not be scored, and is not asked
    suite = RewardSuite(
        {"accuracy": lambda prompt, completion: None, "format": constant(1.0)}, routes={"accuracy": ["reasoning"]}
    )
    reasoning, helpful = suite.score([group("reasoning", "a"), group("helpful", "a")])
    assert math.isnan(reasoning.rewards[0])
    assert helpful.rewards == (1.0,)


def test_groups_keep_their_order_and_their_own_scores() -> None:
    suite = RewardSuite({"length": Length(), "one": constant(1.0)}, routes={"length": ["helpful"]})
    groups = [
        group("helpful", "a", "bb"),
        group("reasoning", "ccc"),
        group("helpful", "dddd"),
        group("harmless", "eeeee", "f"),
    ]
    assert [one.rewards for one in suite.score(groups)] == [(2.0, 3.0), (1.0,), (5.0,), (1.0, 1.0)]


def test_without_routes_every_reward_is_for_every_prompt() -> None:
    suite = RewardSuite({"a": constant(1.0), "b": constant(2.0)})
    assert [list(one.breakdown) for one in suite.score([group(domain, "x") for domain in DOMAINS])] == [["a", "b"]] * 3


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ({"acuracy": ["reasoning"]}, r"reward\.routes\.acuracy: there is no such reward; the rewards are \['a', 'b'\]"),
        ({"a": ["maths"]}, r"reward\.routes\.a: 'maths' is no domain; choose from \['reasoning', 'helpful', 'harm"),
        ({"a": []}, r"reward\.routes\.a=\[\]: expected a list of domains"),
        ({"a": "helpful"}, r"reward\.routes\.a='helpful': expected a list of domains"),
    ],
)
def test_wrong_routes_are_refused(routes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardSuite({"b": constant(1.0), "a": constant(1.0)}, routes=routes)


def test_prompts_without_any_reward_are_refused() -> None:
    suite = RewardSuite({"a": constant(1.0), "b": constant(1.0)}, routes={"a": ["reasoning"], "b": ["helpful"]})
    reasoning, harmless = group("reasoning").prompt, group("harmless").prompt
    suite.check_covers([reasoning, replace(reasoning, domain="helpful")])
    with pytest.raises(ValueError, match=r"reward\.routes: there are harmless prompts, but no reward is for them"):
        suite.check_covers([reasoning, harmless])


def test_a_batch_reward_is_asked_once_about_everything_it_is_for() -> None:
    reward = Length()
    assert isinstance(reward, BatchReward)
    suite = RewardSuite({"length": reward}, routes={"length": ["helpful", "reasoning"]})
    scored = suite.score([group("helpful", "a", "bb"), group("reasoning", "ccc"), group("harmless", "d")])
    assert reward.calls == [["a", "bb", "ccc"]]
    assert [score.value for one in scored for scores in one.breakdown.values() for score in scores] == [1.0, 2.0, 3.0]


def test_a_batch_reward_stays_here_whatever_the_scorer() -> None:
    class Elsewhere(InProcessScorer):
        def begin(self, name: str, reward: Reward, items: Sequence[Item]) -> Pending:
            raise AssertionError(name)

    assert RewardSuite({"length": Length()}, scorer=Elsewhere()).score([group("helpful", "ab")])[0].rewards == (2.0,)


def test_verdicts_of_a_batch_are_typed_one_by_one() -> None:
    first, second = RewardSuite({"length": Length()}).score([group("helpful", "a", "?")])[0].breakdown["length"]
    assert (first.value, first.outcome) == (1.0, Outcome.OK)
    assert math.isnan(second.value)
    assert second.outcome is Outcome.UNSCORABLE


def test_one_verdict_for_each_item_is_wanted() -> None:
    class Short(Length):
        def score_batch(self, items: Sequence[Item]) -> list[float | RewardScore | None]:
            return [1.0]

    with pytest.raises(ValueError, match=r"reward\.rewards\.length: score_batch gave 1 verdicts for 2 items"):
        RewardSuite({"length": Short()}).score([group("helpful", "a", "b")])


def test_a_batch_that_raises_is_not_swallowed() -> None:
    class Broken(Length):
        def score_batch(self, items: Sequence[Item]) -> list[float | RewardScore | None]:
            raise MemoryError("no room for the model")

    with pytest.raises(MemoryError):
        RewardSuite({"length": Broken()}).score([group("helpful", "a")])


def test_only_rewards_that_can_be_moved_are_moved() -> None:
    reward = Length()
    RewardSuite({"rule": constant(1.0), "length": reward}).to("cuda:3")
    assert reward.device == "cuda:3"


def test_a_batch_reward_is_a_reward_for_one_too() -> None:
    prompt, completion = group("helpful", "abc").prompt, group("helpful", "abc").completions[0]
    assert score_one(Length(), prompt, completion).value == 3.0
