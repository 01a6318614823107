r"""Whether two single values are equal, calculated: parsed by math-verify, compared at fixed points with forty digits.

The only place that imports math-verify and sympy, and itself imported by :mod:`lightning_r1.rewards.maths` when it
must be: in a worker that can be killed, since nothing ends a calculation that has gone wrong.

Two expressions with letters are equal if they are at nine points, whose coordinates are fractions nobody would
guess, some of them negative; where either has no real value says nothing, but three must be left. A letter i is the
imaginary unit, and then complex values count. Numbers without letters are compared exactly if they are rational.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache, wraps
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy.core.function import AppliedUndef

from lightning_r1.text.latex import decimal_places

_DIGITS = 40
_TOLERANCE = Fraction(1, 10**30)
_POINTS = 9
_FEWEST_POINTS = 3
"""At which both sides must have a value."""

_DECIMAL = re.compile(r"(\^\s*)?(?<![\d.])(\d*)\.(\d+)")
_DEGREES = re.compile(r"(\d+)\s*°")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_BRACES = re.compile(r"(?<!\\)[{}]")
_NOT_CALCULATED = re.compile(r"\\boxed|\\fbox|\\[lcvd]?dots|\.\.\.|:|\\text|\\pm|\\mp|[^\x00-\x7f]")

# the text is one formula: no unit is guessed at, and a box within is no second answer
_WHOLE = LatexExtractionConfig(
    try_extract_without_anchor=False,
    boxed_match_priority=0,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last"
    ),
)
logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that nothing will end it; its worker is ended


def _not_if_it_fails(compare: Callable[..., bool]) -> Callable[..., bool]:
    """What the libraries cannot calculate is equal to nothing: no answer leaves its group by making them raise."""

    @wraps(compare)
    def compare_or_not(*given: Any) -> bool:
        try:
            return compare(*given)
        except MemoryError:
            raise  # that is for the worker's parent
        except Exception:
            return False

    return compare_or_not


@_not_if_it_fails
def equal_values(one: str, other: str) -> bool:
    """Whether two expressions have the same value, wherever they have one."""
    first, second = _parsed(one, other)
    if first is None or second is None:
        return False
    pair = (first, second)
    if not all(isinstance(part, sympy.Expr) and not part.has(AppliedUndef) for part in pair):
        return _verified(first, second)
    if not (first.free_symbols | second.free_symbols):
        return _equal_constants(one, other, first, second)
    points = 0
    for values in _values_at_points(first, second):
        if not _close(*values):
            return False
        points += 1
    return points >= _FEWEST_POINTS


@_not_if_it_fails
def multiples(one: str, other: str, positive: bool) -> bool:
    """Whether an expression is another one times a constant that is not 0."""
    first, second = _parsed(one, other)
    if not isinstance(first, sympy.Expr) or not isinstance(second, sympy.Expr):
        return False
    if not first.free_symbols or first.free_symbols != second.free_symbols:
        return False
    values = list(_values_at_points(first, second))
    if len(values) < _FEWEST_POINTS or any(below == 0 for _, below in values):
        return False
    ratios = [above / below for above, below in values]
    if positive and not all(ratio.is_real and ratio > 0 for ratio in ratios):
        return False
    return ratios[0] != 0 and all(_close(ratios[0], ratio) for ratio in ratios[1:])


def _parsed(one: str, other: str) -> tuple[Any, Any]:
    # the parser makes all letters small
    letters = set(_COMMAND.sub(" ", one + " " + other))
    if any(letter.swapcase() in letters for letter in letters if letter.isalpha()):
        return None, None
    return _parse(one), _parse(other)


@lru_cache(maxsize=256)
def _parse(latex: str) -> Any:
    """An expression of sympy, or what else the parser makes of it; None if nothing."""
    latex = _DEGREES.sub(r"\\frac{\1\\pi}{180}", latex)
    if _NOT_CALCULATED.search(latex) or not _is_balanced(latex):
        return None
    exact = _DECIMAL.sub(_as_fraction, latex)
    found = parse(
        rf"\boxed{{{exact}}}",
        [_WHOLE],
        extraction_mode="first_match",
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    parsed = found[0] if found else None
    if isinstance(parsed, sympy.Basic):
        return parsed.xreplace({symbol: sympy.I for symbol in parsed.free_symbols if symbol.name == "i"})
    return parsed


def _is_balanced(latex: str) -> bool:
    """Whether nothing in it closes the box that is put around it."""
    depth = 0
    for brace in _BRACES.findall(latex):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            return False
    return depth == 0


def _as_fraction(match: re.Match[str]) -> str:
    power, whole, places = match.groups()
    fraction = rf"\frac{{{int(whole + places)}}}{{{10 ** len(places)}}}"
    return f"^{{{fraction}}}" if power else fraction


def _verified(first: Any, second: Any) -> bool:
    """What math-verify says of sets, functions and matrices, if it says so both ways."""
    return all(verify(gold, answer, timeout_seconds=None) for gold, answer in ((first, second), (second, first)))


def _values_at_points(first: Any, second: Any) -> Iterator[tuple[Any, Any]]:
    """The values of both, at points where both have one; they are the same points for every pair."""
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    is_complex = first.has(sympy.I) or second.has(sympy.I)
    for place in range(_POINTS):
        point = {symbol: _coordinate(place, symbol.name) for symbol in symbols}
        values = [part.subs(point).evalf(_DIGITS) for part in (first, second)]
        if all(value.is_number and value.is_finite and (is_complex or value.is_real) for value in values):
            yield values[0], values[1]


def _coordinate(place: int, name: str) -> sympy.Rational:
    """From 1 to 3 at the first three points, from 0 to 1 at the others; all negative at the second and fourth."""
    rng = random.Random(f"{place}/{name}")
    number = sympy.Rational(rng.randrange(1, 100_003), 100_003)
    if place < 3:
        number += 1 + rng.randrange(2)
    negative = place in (1, 3) or (place > 4 and rng.random() < 0.5)
    return -number if negative else number


def _equal_constants(one: str, other: str, first: Any, second: Any) -> bool:
    values = first.evalf(_DIGITS), second.evalf(_DIGITS)
    if not all(value.is_number and value.is_finite for value in values):
        return bool(first == second) and not first.has(sympy.zoo, sympy.nan)
    if _close(*values):
        # only what is as good as equal is calculated to the last digit; of roots it would be looked for factors
        return not (_is_rational(first) and _is_rational(second)) or bool(first.doit() == second.doit())
    return _rounded(one, other, *values)


def _is_rational(expression: Any) -> bool:
    """Whether it is made of whole numbers by what keeps them rational."""
    return all(
        isinstance(node, sympy.Rational | sympy.Add | sympy.Mul | sympy.factorial | sympy.binomial)
        or (isinstance(node, sympy.Pow) and node.exp.is_integer)
        for node in sympy.preorder_traversal(expression)
    )


def _close(one: Any, other: Any) -> bool:
    largest = max(abs(one), abs(other))
    # what is exactly zero comes out as a number of no digits
    return bool(largest < _TOLERANCE**2 or abs(one - other) <= largest * _TOLERANCE)


def _rounded(one: str, other: str, first: Any, second: Any) -> bool:
    """Whether one is written as a decimal of six digits or more, and is the other rounded."""
    places = [digits for digits in map(decimal_places, (one, other)) if digits is not None]
    return len(places) == 1 and bool(abs(first - second) * 2 * 10 ** places[0] <= 1)


# the parser builds its tables as it meets a construct: met here, all workers that are forked from here know them
for _latex in (
    r"\frac{x^2+1}{\sqrt{2}}-3", r"2(x+1)(y-\frac12)", r"\sqrt[3]{5}\pi e^{-x}", r"\sin x+\cos(2\theta)\cdot\ln 3",
    r"-\frac{\sqrt{3}}{2}", r"n!+\binom{5}{2}", r"|x|", "a_1+b", r"\left(\frac{a}{b}\right)^{10}", "3+4i",
    r"\log_2 8", "x/y",
):  # fmt: skip
    equal_values(_latex, f"{_latex}+1")
