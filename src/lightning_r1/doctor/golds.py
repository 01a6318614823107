"""The right answer to a problem as its gold tells it, and a wrong one, in the words of the template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from lightning_r1.text.arithmetic import parse_number
from lightning_r1.text.choices import LETTERS
from lightning_r1.text.tags import Tags

_MOST_TRIALS = 200_000


def right_answer(gold: Mapping[str, Any]) -> str | None:
    """What a solver would write, or None where the gold does not tell (a rule, a program, a schema, a long search)."""
    kind = gold.get("kind")
    if kind in ("rule", "code", "json_schema", None):
        return None
    if kind == "expression":
        operators = str(gold.get("operators", "+-*/"))
        try:
            solved = solve(gold["numbers"], gold["target"], ordered=bool(gold.get("ordered")), operators=operators)
        except TooLong:
            return None
        return solved or f"no expression of these numbers is {gold['target']}"
    return str(gold["value"])


def wrong_answer(gold: Mapping[str, Any]) -> str:
    """Something that is no right answer."""
    kind = gold.get("kind")
    if kind == "choice":
        return next(letter for letter in LETTERS if letter != gold["value"])
    if kind == "expression":
        return "0"
    if kind == "number":
        return f"1{gold['value']}1"
    if kind == "math":
        return rf"12345 + {gold['value']}"  # in front: behind an approximation nothing is read
    return "none of these" if str(gold.get("value")).casefold().split() != ["none", "of", "these"] else "all of these"


def completion_text(tags: Tags, answer: str, thinking: str = "I think so.") -> str:
    """A strict completion with this answer."""
    return f"{tags.think_open}{thinking}{tags.think_close} {tags.answer_open}{answer}{tags.answer_close}"


class TooLong(Exception):
    """The search was given up."""


def solve(numbers: Sequence[Any], target: Any, *, ordered: bool, operators: str) -> str | None:
    """An expression of the target that uses each number once, or None if there is none.

    Raises:
        TooLong: if that is not known after a while.

    >>> solve([2, 5, 1], 9, ordered=True, operators="+-*")
    '((2*5)-1)'
    """
    values = [(parse_number(str(number)), str(number)) for number in numbers]
    return _Search(parse_number(str(target)), ordered, operators).combine(values)


class _Search:
    """Joins two terms after another until one is left."""

    def __init__(self, target: Fraction, ordered: bool, operators: str) -> None:
        self.target, self.ordered, self.operators = target, ordered, operators
        self.trials = 0

    def combine(self, terms: list[tuple[Fraction, str]]) -> str | None:
        self.trials += 1
        if self.trials > _MOST_TRIALS:
            raise TooLong
        if len(terms) == 1:
            return terms[0][1] if terms[0][0] == self.target else None
        for left in range(len(terms)):
            for right in range(len(terms)):
                if right == left or (self.ordered and right != left + 1):
                    continue
                rest = [term for place, term in enumerate(terms) if place not in (left, right)]
                for joined in self._joined(terms[left], terms[right]):
                    at = left if self.ordered else len(rest)
                    if found := self.combine([*rest[:at], joined, *rest[at:]]):
                        return found
        return None

    def _joined(self, left: tuple[Fraction, str], right: tuple[Fraction, str]) -> list[tuple[Fraction, str]]:
        (a, one), (b, other) = left, right
        values = {"+": a + b, "-": a - b, "*": a * b}
        if b:
            values["/"] = a / b
        return [(value, f"({one}{sign}{other})") for sign, value in values.items() if sign in self.operators]
