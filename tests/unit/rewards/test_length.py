"""Rewards by length, value by value: DAPO's punishment worked out by hand, the cosine at its known angles."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from lightning_r1.rewards.length import CosineLength, SoftOverlong
from lightning_r1.rewards.repetition import Repetition
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, FinishReason, Outcome, Prompt, RewardScore

PROMPT = Prompt("test/1", "q", "q", (1,), {"kind": "number", "value": 7})
RIGHT, WRONG, NONE = "<think>a</think><answer>7</answer>", "<think>a</think><answer>8</answer>", "<think>a"


def written(length: int, text: str = RIGHT, finish: FinishReason = "stop") -> Completion:
    return Completion(tuple(range(length)), (0.0,) * length, finish, text)


# L_max = 10, L_cache = 4: free up to 6 tokens, then a quarter more for each
@pytest.mark.parametrize(
    ("length", "value"), [(0, 0), (5, 0), (6, 0), (7, -0.25), (8, -0.5), (9, -0.75), (10, -1), (11, -1), (1000, -1)]
)
def test_soft_overlong(length: int, value: float) -> None:
    for text in (RIGHT, WRONG, NONE):
        verdict = SoftOverlong(10, 4)(PROMPT, written(length, text))
        assert verdict == RewardScore(value, Outcome.OK, f"{length} tokens")


def test_soft_overlong_at_the_papers_numbers() -> None:
    reward = SoftOverlong(max_tokens=20480, cache_tokens=4096)
    values = [reward(PROMPT, written(length)).value for length in (16384, 16385, 18432, 20479, 20480)]
    assert values == [0, -1 / 4096, -0.5, -4095 / 4096, -1]


def test_soft_overlong_over_the_whole_length() -> None:
    assert [SoftOverlong(4, 4)(PROMPT, written(length)).value for length in range(6)] == [0, -0.25, -0.5, -0.75, -1, -1]


@pytest.mark.parametrize(("most", "cache"), [(10, 0), (10, -1), (10, 11), (0, 1)])
def test_a_cache_that_does_not_fit(most: int, cache: int) -> None:
    with pytest.raises(ValueError, match=rf"cache_tokens={cache}: expected 1 to max_tokens={most}"):
        SoftOverlong(most, cache)


# cos of 0, 60, 90, 120 degrees of L_max = 12: the share of the worth at no length is 1, 3/4, 1/2, 1/4
@pytest.mark.parametrize(
    ("length", "right", "wrong"), [(0, 2, -10), (4, 1.75, -7.5), (6, 1.5, -5), (8, 1.25, -2.5), (12, -10, -10)]
)
def test_cosine_at_the_papers_numbers(length: int, right: float, wrong: float) -> None:
    reward = CosineLength(Tags(), max_tokens=12)
    assert reward(PROMPT, written(length, RIGHT)).value == pytest.approx(right, abs=1e-12)
    assert reward(PROMPT, written(length, WRONG)).value == pytest.approx(wrong, abs=1e-12)
    missing = reward(PROMPT, written(length, NONE))
    assert (missing.value, missing.outcome) == (pytest.approx(wrong, abs=1e-12), Outcome.WRONG_FORMAT)


def test_the_longest_that_still_ends_has_nearly_the_worth_of_all_length() -> None:
    reward = CosineLength(Tags(), max_tokens=10_000)
    assert reward(PROMPT, written(9_999, RIGHT)).value == pytest.approx(1, abs=1e-6)
    assert reward(PROMPT, written(9_999, WRONG)).value == pytest.approx(0, abs=1e-6)


def test_past_the_limit_the_cosine_does_not_rise_again() -> None:
    reward = CosineLength(Tags(), max_tokens=12)
    for completion in (written(12), written(13), written(24), written(5, finish="length")):
        verdict = reward(PROMPT, completion)
        assert (verdict.value, verdict.outcome) == (-10, Outcome.OK)


def test_it_falls_with_length_where_right_and_rises_where_wrong() -> None:
    reward = CosineLength(
        Tags(), max_tokens=50, right_at_zero=1, right_at_max=0.5, wrong_at_zero=-1, wrong_at_max=-0.5, exceeded=-1
    )
    rights = [reward(PROMPT, written(length, RIGHT)).value for length in range(50)]
    wrongs = [reward(PROMPT, written(length, WRONG)).value for length in range(50)]
    assert rights == sorted(rights, reverse=True)
    assert wrongs == sorted(wrongs)
    assert (rights[0], wrongs[0]) == (1, -1)
    assert min(rights) > 0.5 > -0.5 > max(wrongs)


def test_what_accuracy_cannot_score_neither_can_the_cosine() -> None:
    prompt = Prompt("test/1", "q", "q", (1,), {"kind": "number"})  # no value
    verdict = CosineLength(Tags(), max_tokens=10)(prompt, written(3))
    assert verdict.outcome is Outcome.UNSCORABLE
    assert math.isnan(verdict.value)


def test_the_known_exploit_going_in_circles_pays_where_wrong_and_repetition_sees_it() -> None:
    circles = "<think>" + "so we go on and on and " * 40 + "</think><answer>8</answer>"
    honest, padded = written(10, WRONG), written(400, circles)
    cosine = CosineLength(
        Tags(), max_tokens=512, right_at_zero=1, right_at_max=0.5, wrong_at_zero=-1, wrong_at_max=-0.5, exceeded=-1
    )
    gain = cosine(PROMPT, padded).value - cosine(PROMPT, honest).value
    assert 0.4 < gain < 0.5
    penalty = Repetition()(PROMPT, honest).value - Repetition()(PROMPT, padded).value
    assert penalty > 0.9 > gain


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 0}, "max_tokens=0: expected at least one token"),
        ({"right_at_zero": -11.0}, r"right_at_zero=-11.0, wrong_at_zero=-10.0: it would pay to be wrong"),
        ({"wrong_at_max": 2.0}, r"right_at_max=1.0, wrong_at_max=2.0: it would pay to be wrong"),
        ({"exceeded": 0.5}, r"exceeded=0.5, wrong_at_max=0.0: it would pay to run into the limit"),
    ],
)
def test_values_that_would_pay_for_the_wrong_thing(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CosineLength(Tags(), **{"max_tokens": 10, **values})


@pytest.mark.parametrize("reward", [SoftOverlong(10, 4), CosineLength(Tags(), max_tokens=12)], ids=["soft", "cosine"])
def test_it_goes_to_a_worker_and_back(reward: Any) -> None:
    again = pickle.loads(pickle.dumps(reward))
    assert again(PROMPT, written(8)) == reward(PROMPT, written(8))
