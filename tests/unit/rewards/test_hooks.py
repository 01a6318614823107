"""What a reward may have besides its call: whom it is for, how it begins, what it reports, how it ends."""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import Any

import pytest

from lightning_r1.rewards.base import RewardError, at_once, is_async, score_one
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Completion, Group, Outcome, Prompt, RewardScore


def prompt(kind: str = "number", id: str = "test/1") -> Prompt:
    return Prompt(id, "q", "q", (1,), {"kind": kind})


def group(kind: str, *texts: str) -> Group:
    return Group(prompt(kind), tuple(Completion((1,), (0.0,), "stop", text) for text in texts))


def length(prompt: Prompt, completion: Completion) -> float:
    return float(len(completion.text))


class OnlyCode:
    def is_for(self, prompt: Prompt) -> bool:
        return prompt.answer["kind"] == "code"

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        return 1.0


class Lives:
    """Remembers what it was told."""

    def __init__(self, **fails: Exception) -> None:
        self.told: list[Any] = []
        self.fails = fails

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        self.told.append("asked")
        return 0.0

    def start(self) -> None:
        self._told("start")

    def watch(self, step: int) -> dict[str, float]:
        self._told("watch", step)
        return {"rollout/lives": float(step)}

    def close(self) -> None:
        self._told("close")

    def _told(self, *what: Any) -> None:
        self.told.append(what)
        if error := self.fails.get(what[0]):
            raise error


def test_a_reward_is_absent_from_prompts_it_is_not_for() -> None:
    suite = RewardSuite({"code": OnlyCode(), "length": length}, {"code": 10.0})
    first, second = suite.score([group("code", "a"), group("number", "bb")])
    assert (list(first.breakdown), first.rewards) == (["code", "length"], (11.0,))
    assert (list(second.breakdown), second.rewards) == (["length"], (2.0,))


def test_prompts_that_no_reward_is_for_are_refused() -> None:
    suite = RewardSuite({"code": OnlyCode()})
    suite.check_covers([prompt("code")])
    with pytest.raises(
        ValueError, match=r"reward\.rewards: no reward is for prompts like 'test/7', whose answers are 'n"
    ):
        suite.check_covers([prompt("code"), prompt("number", "test/7")])


def test_a_reward_begins_once_reports_and_ends() -> None:
    reward = Lives()
    suite = RewardSuite({"lives": reward, "length": length})
    suite.start()
    suite.score([group("number", "a")])
    suite.score([group("number", "b")])
    assert suite.watch(7) == {"rollout/lives": 7.0}
    suite.close()
    assert reward.told == [("start",), "asked", "asked", ("watch", 7), ("close",)]


def test_the_first_scoring_starts_what_nobody_started() -> None:
    reward = Lives()
    RewardSuite({"lives": reward}).score([group("number", "a")])
    assert reward.told == [("start",), "asked"]


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_a_reward_that_cannot_begin_or_go_on_is_named(error: type[Exception]) -> None:
    suite = RewardSuite({"lives": Lives(start=error("no key"), watch=error("fooled"))})
    with pytest.raises(RewardError, match=r"^reward\.rewards\.lives: no key$"):
        suite.score([group("number", "a")])
    with pytest.raises(RewardError, match=r"^reward\.rewards\.lives: fooled$"):
        suite.watch(0)


class Waits:
    """Comes back only when as many ask as it says it can take."""

    at_once = 3

    def __init__(self) -> None:
        self.together = threading.Barrier(self.at_once, timeout=30)

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        if completion.text == "broken":
            raise KeyError("gone")
        self.together.wait()
        return float(completion.text)


def test_what_only_waits_is_asked_at_once_while_groups_still_come() -> None:
    suite = RewardSuite({"waits": Waits()})
    scoring = suite.open()
    scoring.add(0, group("number", "1", "2"))
    scoring.add(1, group("number", "3", "4"))
    scoring.add(2, group("number", "5", "broken", "6"))
    first, second, third = scoring.result()
    assert (first.rewards, second.rewards) == ((1.0, 2.0), (3.0, 4.0))
    broken = third.breakdown["waits"][1]
    assert (broken.outcome, broken.detail) == (Outcome.CRASH, "KeyError: 'gone'")
    assert third.rewards[::2] == (5.0, 6.0)
    suite.close()


async def later(prompt: Prompt, completion: Completion, add: float = 0.0) -> float:
    return len(completion.text) + add


class Later:
    async def __call__(self, prompt: Prompt, completion: Completion) -> float:
        return 1.0


def test_kinds_are_told_apart() -> None:
    assert [is_async(reward) for reward in (later, partial(later, add=1.0), Later())] == [True] * 3
    assert [is_async(reward) for reward in (length, partial(length), OnlyCode())] == [False] * 3
    assert [at_once(reward) for reward in (Waits(), length, Later())] == [3, 0, 0]
    length.at_once = 2  # type: ignore[attr-defined]
    try:
        assert at_once(partial(length)) == 2
    finally:
        del length.at_once  # type: ignore[attr-defined]


def test_here_an_async_reward_is_waited_for() -> None:
    completion = Completion((1,), (0.0,), "stop", "abc")
    assert score_one(partial(later, add=0.5), prompt(), completion).value == 3.5


@pytest.mark.parametrize("verdict", [RewardScore("1"), RewardScore(1.0, "ok"), RewardScore(None)])  # type: ignore[arg-type]
def test_a_score_of_wrong_types_is_a_crash(verdict: RewardScore) -> None:
    score = score_one(lambda prompt, completion: verdict, prompt(), group("number", "a").completions[0])
    assert (score.outcome, score.detail) == (Outcome.CRASH, f"returned {verdict!r}, not a number with an Outcome")


@pytest.mark.parametrize("verdict", [10**400, RewardScore(10**400), RewardScore(1.0, Outcome.OK, None)])  # type: ignore[arg-type]
def test_a_score_that_cannot_be_read_is_a_crash(verdict: RewardScore) -> None:
    score = score_one(lambda prompt, completion: verdict, prompt(), group("number", "a").completions[0])
    assert (score.outcome, math.isnan(score.value)) == (Outcome.CRASH, True)


def test_a_long_detail_is_cut() -> None:
    completion = group("number", "a").completions[0]
    score = score_one(lambda *_: RewardScore(1.0, Outcome.OK, "x" * 5000), prompt(), completion)
    assert (score.value, len(score.detail), score.detail[-4:]) == (1.0, 2000, "x...")


def exits(prompt: Prompt, completion: Completion) -> float:
    raise SystemExit(3)


def test_leaving_is_a_crash() -> None:
    score = score_one(exits, prompt(), group("number", "a").completions[0])
    assert (score.outcome, score.detail) == (Outcome.CRASH, "SystemExit: 3")
