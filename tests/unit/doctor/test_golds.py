"""The answers that golds are held against: right ones are right by brute force, wrong ones wrong."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from typing import Any

import pytest

from lightning_r1.doctor.golds import TooLong, completion_text, right_answer, solve, wrong_answer
from lightning_r1.rewards.accuracy import grade_expression
from lightning_r1.text.tags import Tags


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


def test_the_completion_is_strict() -> None:
    assert Tags().is_strict(completion_text(Tags(), "4"))
