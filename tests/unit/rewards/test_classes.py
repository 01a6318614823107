"""Equal answers to one problem, with those that have to be calculated, against brute force."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest

from lightning_r1.evaluation.voting import cons_at_k
from lightning_r1.rewards.accuracy import answer_classes
from lightning_r1.rewards.base import InProcessScorer, Item, Reward
from lightning_r1.rewards.classes import CalculatedClasses, SameAnswer
from lightning_r1.rewards.maths import equal_answers, math_classes
from lightning_r1.rewards.workers import WorkerPool
from lightning_r1.text.arithmetic import ExpressionError
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

GOLD = {"kind": "math", "value": "18"}
ANSWERS = [
    "18", "18.0", r"\$18", "x=18", "9+9", r"\sqrt{324}", "19", r"\frac{38}{2}", "x^2-1", "(x-1)(x+1)", "-1+x^2", "x-1",
    "(1,2)", r"\left(1, \frac42\right)", "1,2", "2,1", r"\{1,2\}", "10^{10^{10}}", " 10^{10^{10}}", "(10^7)!",
    r"\text{none}", "None", "18 cm", "18 m",
]  # fmt: skip


class Counting(InProcessScorer):
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, name: str, reward: Reward, items: Sequence[Item]) -> list[RewardScore]:
        self.asked += [(prompt.answer["value"], completion.text) for prompt, completion in items]
        return super().score(name, reward, items)


def brute_force(answers: Sequence[str]) -> list[set[int]]:
    """Classes by asking about every pair, both ways, until nothing changes."""

    def equal(one: str, other: str) -> bool:
        try:
            return equal_answers(one, other) or equal_answers(other, one)
        except ExpressionError:
            return one.split() == other.split()

    classes = [{place} for place in range(len(answers))]
    changed = True
    while changed:
        changed = False
        for one, other in itertools.combinations(classes, 2):
            if any(equal(answers[i], answers[j]) for i in one for j in other):
                classes = [part for part in classes if part not in (one, other)] + [one | other]
                changed = True
                break
    return classes


@pytest.mark.parametrize("seed", range(6))
def test_classes_are_those_of_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    answers = rng.choices(ANSWERS, k=rng.randint(2, 16)) if seed else ANSWERS
    labels = CalculatedClasses(InProcessScorer())(answers, GOLD)
    found = [{place for place, other in enumerate(labels) if other == label} for label in dict.fromkeys(labels)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, brute_force(answers)))
    for label, answer in zip(labels, answers, strict=True):
        assert label in answers
        assert hash(label) is not None
        assert (
            answer.split() == str(label).split()
            or equal_answers(str(label), answer)
            or label in ("18", "18 cm", "18 m")
            or "9+9" in (label, answer)  # which is no 18, but a root of 324, which is
        )


@pytest.mark.parametrize("seed", range(20))
def test_classes_are_the_parts_of_a_graph(seed: int) -> None:
    # whatever pairs are found equal, in whatever order
    rng = random.Random(seed)
    names = "abcdefghkm"
    edges = {frozenset(rng.sample(names, 2)) for _ in range(rng.randint(0, 8))}
    labels = math_classes(names, lambda pairs: [frozenset(pair) in edges for pair in pairs])
    reached = {name: {name} for name in names}
    for _ in names:
        for one, other in map(tuple, edges):
            reached[one] |= reached[other]
            reached[other] |= reached[one]
    for (one, first), (other, second) in itertools.combinations(zip(names, labels, strict=True), 2):
        assert (first == second) is (other in reached[one])


def test_only_what_is_open_is_asked() -> None:
    scorer = Counting()
    labels = CalculatedClasses(scorer)(
        ["18", "x=18", "19", "18.0", r"\sqrt{324}", r"\sqrt{324}", "10^{10^{10}}", "x"], GOLD
    )
    assert len(set(labels)) == 4
    assert labels[0] == labels[1] == labels[3] == labels[4] == labels[5]
    # numbers are told apart here, and the root is asked about once for each class
    assert {frozenset(pair) for pair in scorer.asked} >= {
        frozenset(("18", r"\sqrt{324}")),
        frozenset(("19", r"\sqrt{324}")),
    }
    assert len(scorer.asked) <= 8
    assert not any("10^{10" in text for pair in scorer.asked for text in pair)


def test_a_pair_is_calculated_once() -> None:
    scorer = Counting()
    classes = CalculatedClasses(scorer)
    first = classes(["x+1", "1+x", "x"], GOLD)
    asked = list(scorer.asked)
    assert classes(["x+1", "1+x", "x"], GOLD) == first
    assert scorer.asked == asked
    assert len(asked) == 3


def test_calculated_by_workers() -> None:
    pool = WorkerPool(workers=2, timeout_s=20)
    try:
        answers = [r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}", "1", "10^{10^{10}}", r"\frac22", "18"]
        labels = CalculatedClasses(pool)(answers, GOLD)
        assert [labels.index(label) for label in labels] == [0, 0, 2, 3, 2, 5]
    finally:
        pool.close()


def test_who_is_killed_is_equal_to_nothing() -> None:
    class Killed(InProcessScorer):
        def score(self, name: str, reward: Reward, items: Sequence[Item]) -> list[RewardScore]:
            return [RewardScore(math.nan, Outcome.TIMEOUT) for _ in items]

    assert len(set(CalculatedClasses(Killed())([r"\sqrt{324}", "18", "18.0"], GOLD))) == 2


def test_other_kinds_are_not_calculated() -> None:
    scorer = Counting()
    for gold in ({"kind": "number", "value": 18}, {"kind": "text", "value": "18"}, {}):
        answers = ["18", "18.0", r"\sqrt{324}"]
        assert CalculatedClasses(scorer)(answers, gold) == answer_classes(answers, gold)
    assert not scorer.asked


def test_calculated_votes_are_counted_together() -> None:
    # 1/sqrt(2) has five votes in four spellings, 1 has three in one
    answers = [r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}", r"\sqrt{\frac12}", r"\sqrt{0.5}", r"\sqrt{0.5}", "1", "1", "1"]
    correct = [True] * 5 + [False] * 3
    assert cons_at_k(CalculatedClasses(InProcessScorer())(answers, GOLD), correct, 8) == 1
    assert cons_at_k(answer_classes(answers, GOLD), correct, 8) == 0


def test_the_question_is_a_reward() -> None:
    same = SameAnswer()
    for value, text, equal in (("18", r"\sqrt{324}", 1), ("18", "19", 0), ("18", "10^{10^{10}}", 0)):
        assert same(Prompt("p", "", "", (), {"value": value}), Completion((), (), "stop", text=text)) == equal
