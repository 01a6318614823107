"""The answers that golds are held against: right ones are right by brute force, wrong ones wrong."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from typing import Any

import pytest

from lightning_r1.doctor.golds import TooLong, completion_text, right_answer, solve, wrong_answer
from lightning_r1.rewards.accuracy import Accuracy, grade_expression
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Prompt


def reachable(numbers: list[int], *, ordered: bool, operators: str) -> set[Fraction]:
    """Every value of an expression that uses each number once, by splitting at the last operator."""

    def values(terms: tuple[int, ...]) -> set[Fraction]:
        if len(terms) == 1:
            return {Fraction(terms[0])}
        found = set()
        for cut in range(1, len(terms)):
            for a, b in itertools.product(values(terms[:cut]), values(terms[cut:])):
                found |= {a + b} if "+" in operators else set()
                found |= {a - b} if "-" in operators else set()
                found |= {a * b} if "*" in operators else set()
                found |= {a / b} if "/" in operators and b else set()
        return found

    orders = [tuple(numbers)] if ordered else itertools.permutations(numbers)
    return set().union(*(values(order) for order in orders))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("operators", ["+-*/", "+-", "*"])
def test_the_search_finds_what_there_is_and_nothing_else(ordered: bool, operators: str) -> None:
    rng = random.Random(f"{ordered}{operators}")
    for _ in range(6):
        numbers = [rng.randint(1, 9) for _ in range(rng.choice((2, 3, 4)))]
        there = reachable(numbers, ordered=ordered, operators=operators)
        for target in [*sorted(there)[:3], *(rng.randint(-5, 60) for _ in range(5))]:
            gold = {"numbers": numbers, "target": str(target), "ordered": ordered, "operators": operators}
            found = solve(numbers, str(target), ordered=ordered, operators=operators)
            assert (found is not None) == (Fraction(target) in there), (numbers, target)
            assert found is None or grade_expression(found, gold)


def test_a_long_search_is_given_up() -> None:
    with pytest.raises(TooLong):
        solve([3, 5, 7, 11, 13, 17, 19, 23], 1_000_003, ordered=False, operators="+-*/")
    gold = {"kind": "expression", "numbers": [3, 5, 7, 11, 13, 17, 19, 23], "target": 1_000_003}
    assert right_answer(gold) is None


@pytest.mark.parametrize(
    ("gold", "right"),
    [
        ({"kind": "number", "value": "1/2"}, "1/2"),
        ({"kind": "choice", "value": "A"}, "A"),
        ({"kind": "expression", "numbers": [2, 2], "target": 9}, "no expression of these numbers is 9"),
        ({"kind": "rule", "rule": "a.b"}, None),
        ({"kind": "code", "tests": [{"input": "", "output": ""}]}, None),
        ({}, None),
    ],
)
def test_the_right_answer_is_the_golds(gold: dict[str, Any], right: str | None) -> None:
    assert right_answer(gold) == right
    assert wrong_answer(gold) != right


@pytest.mark.parametrize(
    "gold",
    [
        *({"kind": "math", "value": value} for value in (
            "5", "-3", "x=5", "y=2x+1", r"\frac{1}{2}", "(1,2)", "1,2", r"\{1,2\}", "[0,1)", r"\text{Yes}", r"50\%",
            r"(-\infty,0)\cup(1,\infty)", r"5\text{ cm}", r"x\ge3", r"\pm2", r"\emptyset", r"\mathbb{R}", r"x\ne1",
            r"x<0\text{ or }x>1", "x=1,y=2", "1=1", r"\sqrt{2}\approx1.41", r"x\in(1,2)", "3:4", "2x+y<3", r"30^\circ",
        )),
        *({"kind": "number", "value": value} for value in ("5", "1/2", "$1,234", 0, ".5", "007")),
        *({"kind": "text", "value": value} for value in ("yes", "None of  these")),
        {"kind": "choice", "value": "B"},
    ],
    ids=lambda gold: str(gold["value"]),
)  # fmt: skip
def test_right_is_right_and_wrong_is_wrong(gold: dict[str, Any]) -> None:
    prompt = Prompt("t/1", "q", "q", (1,), gold)
    for answer, value in ((right_answer(gold), 1), (wrong_answer(gold), 0)):
        text = completion_text(Tags(), str(answer))
        assert Accuracy(Tags())(prompt, Completion((), (), "stop", text)).value == value, answer


def test_the_completion_is_strict() -> None:
    assert Tags().is_strict(completion_text(Tags(), "4"))
