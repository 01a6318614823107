"""Multiple choice and mathematical answers, and which answers are one when they vote."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from lightning_r1.rewards.accuracy import GRADERS, Accuracy, answer_classes, grade_math, stated_answer
from lightning_r1.text.arithmetic import ExpressionError
from lightning_r1.text.golds import check_gold
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

ORDERED = {"kind": "expression", "numbers": [2, 5, 1], "target": 9, "ordered": True, "operators": "+-*"}
FREE = {"kind": "expression", "numbers": [3, 7, 3], "target": 24}
WITHOUT_DIVISION = {"kind": "expression", "numbers": [8, 4, 1], "target": 4, "operators": "+-*"}


def grade(text: str, gold: dict[str, Any]) -> RewardScore:
    return Accuracy(Tags())(Prompt("test/1", "q", "q", (1,), gold), Completion((1,), (0.0,), "stop", text=text))


@pytest.mark.parametrize(
    ("closing", "value", "outcome"),
    [
        ("ANSWER: C", 1, Outcome.OK),
        ("<answer>(c)</answer>", 1, Outcome.OK),
        (r"\boxed{C}", 1, Outcome.OK),
        ("ANSWER: B", 0, Outcome.OK),
        ("it is hard to say", 0, Outcome.WRONG_FORMAT),
    ],
)
def test_a_choice(closing: str, value: float, outcome: Outcome) -> None:
    score = grade(f"<think>A</think>{closing}", {"kind": "choice", "value": "C"})
    assert (score.value, score.outcome) == (value, outcome)


@pytest.mark.parametrize("value", ["c", "CD", 3, "Paris", "?"])
def test_the_gold_of_a_choice_is_a_letter(value: Any) -> None:
    with pytest.raises(ValueError, match=r"answer\.value=.*expected a capital letter"):
        check_gold({"kind": "choice", "value": value})


@pytest.mark.parametrize(
    ("answer", "value", "right"),
    [
        (r"\frac{14}{3}", r"\dfrac{14}{3}", True),
        ("4.5", r"\frac{9}{2}", True),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})", True),
        ("p-q", "p - q", True),
        ("2(x+1)", "2x+2", True),
        ("2(x+1)", "2x+1", False),
        ("9", "6", False),
    ],
)
def test_a_mathematical_answer(answer: str, value: str, right: bool) -> None:
    assert grade_math(answer, {"value": value}) is right
    score = grade(rf"<think>hm</think>so \boxed{{{answer}}}.", {"kind": "math", "value": value})
    assert (score.value, score.outcome) == (float(right), Outcome.OK)


@pytest.mark.parametrize(
    ("gold", "classes"),
    [
        ({"kind": "number", "value": 18}, [["18", "$18", "18.0", "36/2", "018"], ["19"], ["0.5", "1/2"], ["half"]]),
        ({"kind": "math", "value": "18"}, [["18", r"\$18", "x=18"], [r"\frac12", "0.5"], ["x+1", "x + 1"], ["1+x"]]),
        ({"kind": "text", "value": "Paris"}, [["Paris", " paris ", "PARIS"], ["Paris, France"]]),
        ({"kind": "choice", "value": "C"}, [["C"], ["A"]]),
        (ORDERED, [["2*5-1", "(2*5)-1"], ["2*5+1"], ["5*2-1"], ["nonsense", "Nonsense"]]),
        (FREE, [["3*7+3", "3+7*3"], ["24"], ["3*7-3"]]),
    ],
    ids=["number", "math", "text", "choice", "ordered", "free"],
)
def test_equal_answers_are_one_class(gold: dict[str, Any], classes: list[list[str]]) -> None:
    answers = [answer for equal in classes for answer in equal]
    expected = [number for number, equal in enumerate(classes) for _ in equal]
    labels = answer_classes(answers, gold)
    for (one, first), (other, second) in itertools.combinations(zip(labels, expected, strict=True), 2):
        assert (one == other) is (first == second)
        assert first != second or hash(one) == hash(other)


@pytest.mark.parametrize(
    "gold", [ORDERED, FREE, WITHOUT_DIVISION, {"kind": "number", "value": 24}, {"kind": "math", "value": "24"}], ids=str
)
def test_a_class_has_one_verdict(gold: dict[str, Any]) -> None:
    # otherwise it would matter which of its answers is graded
    answers = [
        "2*5-1",
        "5*2-1",
        "2*5/1-1",
        "24",
        "24.0",
        "3*7+3",
        "3+7*3",
        "7*3+3+0",
        "48/2",
        "(3/3+7)*3",
        "",
        "x",
        "8-4*1",
        "(8-4)/1",
    ]

    def verdict(answer: str) -> bool:
        try:
            return GRADERS[gold["kind"]](answer, gold)
        except ExpressionError:
            return False

    labels = answer_classes(answers, gold)
    verdicts: dict[Any, set[bool]] = {}
    for answer, label in zip(answers, labels, strict=True):
        verdicts.setdefault(label, set()).add(verdict(answer))
    assert all(len(of_class) == 1 for of_class in verdicts.values()), verdicts


def test_a_prompt_without_a_gold_still_states_something() -> None:
    assert stated_answer("<think>a</think><answer>so</answer>", {}, Tags()) == "so"
    assert answer_classes(["so", "So"], {}) == [("so",), ("so",)]


def test_contest_answers_have_leading_zeros() -> None:
    assert grade("<think>a</think><answer>073</answer>", {"kind": "number", "value": "73"}).value == 1
    assert grade("<think>a</think><answer>73</answer>", {"kind": "number", "value": "073"}).value == 1
    for text, value in (("000", "0"), ("-007", "-7"), ("1.05", "1.05"), ("0.5", "0.50"), ("10", "10"), ("00.5", "0.5")):
        assert grade(f"<think>a</think><answer>{text}</answer>", {"kind": "number", "value": value}).value == 1
    assert grade("<think>a</think><answer>1.5</answer>", {"kind": "number", "value": "1.05"}).value == 0
