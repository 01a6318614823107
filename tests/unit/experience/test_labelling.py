"""Pairs that a judge labels: which are compared, which are kept, and how their lengths are balanced."""

from __future__ import annotations

import random

import pytest

from lightning_r1.data.preferences import length_balance
from lightning_r1.experience.labelling import balance_lengths, label_pairs, pairs_of
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.comparison import Comparison, Pair
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Group, Outcome, Preference, Prompt


def group(name: str, *texts: str, **facts: object) -> Group:
    completions = tuple(
        Completion((), (), "length" if text.endswith("...") else "stop", f"<think>hm {place}</think>{text}")
        for place, text in enumerate(texts)
    )
    prompt = Prompt(name, f"question {name}", "", (), {"reference": "r"} if name == "r" else {}, domain="helpful")
    return Group(prompt, completions)


class Scripted:
    """Says what the test says, by the first answer."""

    def __init__(self, deltas: dict[str, float], outcome: Outcome = Outcome.OK) -> None:
        self.deltas, self.outcome, self.asked = deltas, outcome, list[Pair]()

    def compare_all(self, pairs: list[Pair]) -> list[Comparison]:
        self.asked += pairs
        return [Comparison(self.deltas[pair.first], outcome=self.outcome, detail="because") for pair in pairs]


def test_a_pair_is_the_first_two_answers_that_can_be_compared() -> None:
    groups = [
        group("a", "one", "two", "three"),
        group("b", "same", " same ", "other"),
        group("c", "cut...", "Solution:", "one"),
        group("r", ":", "x...", "one", "two"),
    ]
    found = pairs_of(groups, Tags())
    assert [name for name, *_ in found] == ["a", "b", "r"]
    assert [(pair.first, pair.second) for *_, pair in found] == [("one", "two"), ("same", "other"), ("one", "two")]
    assert [first for _, first, _, _ in found] == [
        "<think>hm 0</think>one",
        "<think>hm 0</think>same",
        "<think>hm 2</think>one",
    ]
    assert [pair.reference for *_, pair in found] == [None, None, "r"]


def test_clear_preferences_are_kept_the_right_way_round() -> None:
    deltas = {"a": 1.25, "b": -2.0, "c": 1.0, "d": -0.5, "e": float("nan"), "f": 0.0}
    judge = Scripted(deltas)
    kept, counts = label_pairs([*(group(name, name, "z") for name in deltas), group("g", "z")], judge, Tags())  # type: ignore[arg-type]
    assert [(one.id, one.question, one.domain) for one in kept] == [
        ("a", "question a", "helpful"),
        ("b", "question b", "helpful"),
    ]
    assert [(one.chosen, one.rejected) for one in kept] == [
        ("<think>hm 0</think>a", "<think>hm 1</think>z"),
        ("<think>hm 1</think>z", "<think>hm 0</think>b"),
    ]
    assert counts == {"kept": 2, "close": 3, "unscorable": 1, "no pair": 1}
    assert "think" not in judge.asked[0].first
    kept, _ = label_pairs([group(name, name, "z") for name in deltas], judge, Tags(), min_gap=0.4)  # type: ignore[arg-type]
    assert [one.id for one in kept] == ["a", "b", "c", "d"]


def test_a_judge_that_is_away_ends_the_job() -> None:
    with pytest.raises(RewardError, match="the judge of pairs is away: because"):
        label_pairs([group("a", "x", "y")], Scripted({"x": 2.0}, Outcome.TIMEOUT), Tags())  # type: ignore[arg-type]


def preference(name: int, chosen: int, rejected: int) -> Preference:
    return Preference(str(name), "q", "c" * chosen, "r" * rejected)


def test_lengths_are_balanced_by_hand() -> None:
    pairs = [
        preference(0, 20, 10),  # +10
        preference(1, 13, 10),  # +3
        preference(2, 10, 14),  # -4
        preference(3, 5, 5),
        preference(4, 60, 10),  # +50
        preference(5, 10, 18),  # -8
        preference(6, 14, 10),  # +4
    ]
    assert [pair.id for pair in balance_lengths(pairs)] == ["0", "2", "3", "5", "6"]
    assert balance_lengths([]) == []
    assert [pair.id for pair in balance_lengths(pairs[:2] + pairs[3:4])] == ["3"]


@pytest.mark.parametrize("seed", range(3))
def test_a_rule_that_prefers_the_longer_one_learns_nothing(seed: int) -> None:
    rng = random.Random(seed)
    pairs = [preference(n, int(rng.gauss(120, 30)), int(rng.gauss(100, 30))) for n in range(2000)]
    before, balanced = length_balance(pairs), balance_lengths(pairs)
    after = length_balance(balanced)
    assert before.longer > 0.6
    assert after.longer == 0.5
    assert abs(after.high - after.low) < 1
    assert len(balanced) > 1000
    assert [int(pair.id) for pair in balanced] == sorted(int(pair.id) for pair in balanced)
