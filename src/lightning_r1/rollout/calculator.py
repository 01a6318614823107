"""A calculator: the policy writes ``2*5=``, and the value stands behind it."""

from __future__ import annotations

import re
from fractions import Fraction

from lightning_r1.rollout.environment import Reply
from lightning_r1.text.arithmetic import MAX_CHARACTERS, ExpressionError, parse_expression
from lightning_r1.types import Prompt

_END = re.compile(r"[\d+\-*/(). ×·÷−]*$")


class Calculator:
    """Answers every ``=`` with the value of the expression before it; where there is none, with nothing.

    The value is exact where it is whole or a short decimal, else rounded to six digits. There are no numbers beyond
    ``largest``: the policy goes on by itself there.

    Args:
        largest: absolute value of a reply.
    """

    stops = ("=",)

    def __init__(self, largest: float = 1e12) -> None:
        self.largest = largest

    def open(self, prompt: Prompt, seed: int) -> Calculator:
        """Nothing is remembered from call to call."""
        return self

    def reply(self, text: str) -> Reply:
        """See :class:`.Episode`."""
        before = text[: text.rindex("=")][-MAX_CHARACTERS:]
        match = _END.search(before)
        assert match is not None  # the empty text, at least
        try:
            return self.calculate(match[0])
        except ExpressionError:
            return Reply(kind="error")

    def calculate(self, expression: str) -> Reply:
        """The value of an expression.

        Raises:
            ExpressionError: if it has none, or is a mere number.
        """
        parsed = parse_expression(expression)
        if not parsed.operators:
            raise ExpressionError("nothing to calculate")
        if abs(parsed.value) > self.largest:
            raise ExpressionError(f"a value beyond {self.largest:g}")
        return Reply(decimal(parsed.value))


def decimal(value: Fraction) -> str:
    """A number as people write it.

    >>> decimal(Fraction(10)), decimal(Fraction(1, 8)), decimal(Fraction(2, 3))
    ('10', '0.125', '0.666667')
    """
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.6g}"
