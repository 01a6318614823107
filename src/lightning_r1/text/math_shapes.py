r"""What mathematical answers are made of, and when two of them are equal.

An answer is a value, a text, a list or set, a tuple or interval, a union, an equation, an inequality or a matrix.
Their parts are compared by rules written down here; only for two single values whose spellings differ is somebody
asked who calculates. Every rule is symmetric.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

# of what is left without these, any letter stands for a variable
_CONSTANTS = re.compile(
    r"\\(?:pi|infty|frac|sqrt|cdot|times|pm|log|ln|sin|cos|tan|cot|arc[a-z]+|binom)(?![A-Za-z])|[ei]"
)
_SIGN = r"(?:[-+*/]|\\(?:times|cdot|div)(?![A-Za-z]))"
_OF_NUMBERS = r"[\d.,\s(){}\[\]]|\\frac(?![A-Za-z])"
_SUM = re.compile(rf"(?:{_OF_NUMBERS}|{_SIGN})*[\d)}}]\s*{_SIGN}(?:{_OF_NUMBERS}|{_SIGN})*")


@dataclass(frozen=True, slots=True)
class Value:
    r"""One number or expression, ``\frac{3}{4}\text{ cm}``."""

    form: Fraction | str
    """See :func:`lightning_r1.text.latex.normal_form`."""
    unit: str = ""
    places: int | None = field(default=None, compare=False)
    """Of a decimal that may be a rounded value."""


@dataclass(frozen=True, slots=True)
class Text:
    r"""Words: ``\text{no solution}``, in lower case without spaces; a single letter as it is."""

    words: str


@dataclass(frozen=True, slots=True)
class Many:
    """A list or a set: the order says nothing, how many there are does."""

    parts: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Ordered:
    """A tuple, a point, an interval; the brackets count."""

    opening: str
    parts: tuple[Shape, ...]
    closing: str
    name: str = ""
    """Of the variable that lies in it, where the answer was an inequality."""


@dataclass(frozen=True, slots=True)
class Union:
    """Intervals put together, in any order."""

    parts: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """``x = 5``, ``y = 2x + 1``, ``x^2 + y^2 = 1``, ``2 + 3 = 5``: a name, if there is one, and what it is equal to."""

    name: str
    values: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Inequality:
    """``x + y < 3``, told as ``x + y - (3) < 0``; what has one variable alone is an :class:`Ordered`."""

    difference: str
    relation: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries; which brackets stand around it says nothing."""

    rows: tuple[tuple[Shape, ...], ...]


Shape = Value | Text | Many | Ordered | Union | Equation | Inequality | Matrix


@dataclass(frozen=True, slots=True)
class Calculator:
    """Who is asked when spellings differ."""

    values: Callable[[str, str], bool]
    """Whether two expressions are equal, everywhere."""
    multiples: Callable[[str, str, bool], bool]
    """Whether one is the other times a constant; a positive one, if so asked."""
    unfinished: bool = False
    """Whether ``2+3`` is 5: not as an answer, which may be copied from the question, but in ``2+3=5``."""


class _UndecidedError(Exception):
    """Nobody may calculate, and nothing else tells."""


def _undecided(*_: object) -> bool:
    raise _UndecidedError


def decide(one: Shape, other: Shape) -> bool | None:
    """Whether two answers are equal, or None where that would have to be calculated."""
    try:
        return same(one, other, Calculator(_undecided, _undecided))
    except _UndecidedError:
        return None


def same(one: Shape, other: Shape, calculator: Calculator) -> bool:
    """Whether two answers are equal."""
    if one == other:
        return True
    match one, other:
        case (Value(), Value()):
            return _same_value(one, other, calculator)
        case (Text(), Text()):
            return False
        case (Text(), Value()) | (Value(), Text()):
            return _words(one) == _words(other)
        case (Equation(), Equation()):
            return _same_equation(one, other, calculator)
        case (Equation(), (Many() | Text() | Value() | Ordered() | Union() | Matrix())):
            return _equals(one, other, calculator)
        case ((Many() | Text() | Value() | Ordered() | Union() | Matrix()), Equation()):
            return _equals(other, one, calculator)
        case (Many(), _) | (_, Many()):
            return _same_many(one, other, calculator)
        case (Union(), Union()):
            return _paired(one.parts, other.parts, calculator)
        case (Ordered(), Ordered()):
            names = not (one.name and other.name) or one.name == other.name
            brackets = (one.opening, one.closing) == (other.opening, other.closing)
            return names and brackets and _in_order(one.parts, other.parts, calculator)
        case (Matrix(), Matrix()):
            rows = list(zip(one.rows, other.rows, strict=False))
            return len(one.rows) == len(other.rows) and all(_in_order(*pair, calculator) for pair in rows)
        case (Inequality(), Inequality()):
            alike = one.relation == other.relation
            # a < b is b > a, which the reader has turned round; a != b is b != a
            return alike and calculator.multiples(one.difference, other.difference, one.relation != r"\ne")
    return False


def _same_value(one: Value, other: Value, calculator: Calculator) -> bool:
    if one.unit and other.unit and one.unit != other.unit and not _are_degrees(one.unit, other.unit):
        return False
    if "%" in (one.unit, other.unit) and one.unit != other.unit:
        return False
    if isinstance(one.form, Fraction) and isinstance(other.form, Fraction):
        return one.form == other.form or _is_rounded(one, other) or _is_rounded(other, one)
    if one.form == other.form:
        return True
    if not calculator.unfinished and _is_unfinished(one, other):
        return False
    if any(str(value.form).lstrip("+-") == r"\infty" for value in (one, other)):
        return str(one.form).lstrip("+") == str(other.form).lstrip("+")
    return calculator.values(expression(one), expression(other))


def _is_unfinished(one: Value, other: Value) -> bool:
    """Whether one is a number, and the other sums and products of numbers that nobody has calculated."""
    numbers = [value for value in (one, other) if isinstance(value.form, Fraction)]
    sums = [value for value in (one, other) if isinstance(value.form, str) and _SUM.fullmatch(value.form)]
    return len(numbers) == len(sums) == 1


def _are_degrees(one: str, other: str) -> bool:
    """Degrees, of one temperature scale at most."""
    return "°" in (one, other) and one[0] == other[0]


def _is_rounded(decimal: Value, exact: Value) -> bool:
    """Whether one is the other, rounded to the six or more places that it gives; two decimals are both exact."""
    if decimal.places is None or exact.places is not None:
        return False
    assert isinstance(decimal.form, Fraction)
    assert isinstance(exact.form, Fraction)
    terminates = 10**decimal.places * exact.form
    return terminates.denominator != 1 and abs(decimal.form - exact.form) * 2 * 10**decimal.places <= 1


def expression(value: Value) -> str:
    """A value as LaTeX without decimals or a unit; what is rounded keeps its decimals."""
    if isinstance(value.form, str) or value.places is not None:
        return _decimals(value) if isinstance(value.form, Fraction) else value.form
    number = value.form
    fraction = rf"\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"
    return f"{'-' if number < 0 else ''}{fraction if number.denominator != 1 else abs(number.numerator)}"


def _decimals(value: Value) -> str:
    assert isinstance(value.form, Fraction)
    assert value.places is not None
    digits = str(abs(value.form * 10**value.places).numerator).rjust(value.places + 1, "0")
    return f"{'-' if value.form < 0 else ''}{digits[: -value.places]}.{digits[-value.places :]}"


def _words(shape: Shape) -> str:
    if isinstance(shape, Text):
        return shape.words
    assert isinstance(shape, Value)
    words = str(shape.form).replace(" ", "").strip("()[].")
    return words if len(words) == 1 else words.casefold()


def _same_many(one: Shape, other: Shape, calculator: Calculator) -> bool:
    if isinstance(one, Ordered):
        one, other = other, one
    if isinstance(other, Ordered):
        return isinstance(one, Many) and _is_point(one, other, calculator)
    parts, others = (shape.parts if isinstance(shape, Many) else (shape,) for shape in (one, other))
    # the parts of x=1,y=2 have roles; those of x=1,x=2 are solutions
    for these, those in ((parts, others), (others, parts)):
        names = [part.name.partition("_")[0] for part in these if isinstance(part, Equation)]
        if len(set(names)) > 1 and not all(isinstance(part, Equation) for part in those):
            return False
    return _paired(parts, others, calculator)


def _is_point(named: Many, point: Ordered, calculator: Calculator) -> bool:
    """Whether ``x=1,y=2`` are the coordinates of ``(1,2)``, in the order of the names."""
    if (point.opening, point.closing) != ("(", ")"):
        return False
    equations = [part for part in named.parts if isinstance(part, Equation) and part.name]
    if len({part.name for part in equations}) != len(named.parts):
        return False
    in_order = sorted(equations, key=lambda part: part.name)
    return _in_order(in_order, point.parts, calculator)


def _paired(these: Sequence[Shape], those: Sequence[Shape], calculator: Calculator) -> bool:
    """Whether each has a partner of its own."""
    left = list(those)
    if len(these) != len(left):
        return False
    for part in these:
        place = next((place for place, candidate in enumerate(left) if same(part, candidate, calculator)), None)
        if place is None:
            return False
        del left[place]
    return True


def _in_order(these: Sequence[Shape], those: Sequence[Shape], calculator: Calculator) -> bool:
    return len(these) == len(those) and all(same(*pair, calculator) for pair in zip(these, those, strict=True))


def _equals(equation: Equation, other: Shape, calculator: Calculator) -> bool:
    """Whether all that an equation gives, beside a name, is this: ``x=5`` is 5, ``2+3=5`` is 5, ``1=2`` is nothing."""
    if _has_number(equation.values) and _has_number((other,)):
        calculator = replace(calculator, unfinished=True)
    return all(same(value, other, calculator) for value in equation.values)


def _has_number(shapes: Sequence[Shape]) -> bool:
    """Whether a number is among them, calculated to the end."""
    return any(isinstance(shape, Value) and isinstance(shape.form, Fraction) for shape in shapes)


def _same_equation(one: Equation, other: Equation, calculator: Calculator) -> bool:
    if one.name and one.name == other.name:
        if _has_number(one.values) and _has_number(other.values):
            calculator = replace(calculator, unfinished=True)
        return all(same(value, wanted, calculator) for value in one.values for wanted in other.values)
    if _is_solution(one) or _is_solution(other):
        return False
    sides = [_sides(equation) for equation in (one, other)]
    if None in sides:
        return False
    return calculator.multiples(str(sides[0]), str(sides[1]), False)


def _is_solution(equation: Equation) -> bool:
    """Whether it says what a name is, ``x=2``; the equation to be solved, ``3x+4=10``, is no answer to itself."""
    forms = [str(value.form) for value in equation.values if isinstance(value, Value)]
    return bool(equation.name) and any(not re.search(r"[A-Za-z]", _CONSTANTS.sub("", form)) for form in forms)


def _sides(equation: Equation) -> str | None:
    """One side minus the other, of what has two."""
    parts = [expression(value) for value in equation.values if isinstance(value, Value) and not value.unit]
    if len(parts) != len(equation.values) or len(parts) + bool(equation.name) != 2:
        return None
    left, right = [equation.name, *parts] if equation.name else parts
    return f"{left}-({right})"
