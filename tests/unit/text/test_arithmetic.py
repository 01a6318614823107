"""Exact arithmetic: what is an expression, what it is worth, and what is refused."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest

from lightning_r1.text.arithmetic import MAX_CHARACTERS, MAX_DEPTH, ExpressionError, parse_expression, parse_number


@pytest.mark.parametrize(
    ("text", "value", "numbers", "operators"),
    [
        ("7", 7, [7], ""),
        ("(2*5)-1", 9, [2, 5, 1], "*-"),
        ("2+3*4", 14, [2, 3, 4], "+*"),
        ("(2+3)*4", 20, [2, 3, 4], "+*"),
        ("8-3-2", 3, [8, 3, 2], "-"),  # from the left
        ("8/4/2", 1, [8, 4, 2], "/"),
        ("1/3*3", 1, [1, 3, 3], "/*"),
        ("1/3", Fraction(1, 3), [1, 3], "/"),
        ("0.1+0.2", Fraction(3, 10), [Fraction(1, 10), Fraction(1, 5)], "+"),  # exactly
        (".5", Fraction(1, 2), [Fraction(1, 2)], ""),
        ("5.", 5, [5], ""),
        ("0", 0, [0], ""),
        ("0/5", 0, [0, 5], "/"),
        ("0.0", 0, [0], ""),
        ("007.5", Fraction(15, 2), [Fraction(15, 2)], ""),
        ("-3", -3, [3], ""),  # a sign is no operator, and the number is the digits
        ("--3", 3, [3], ""),
        ("+-+3", -3, [3], ""),
        ("2--3", 5, [2, 3], "-"),
        ("2*-3", -6, [2, 3], "*"),
        ("-(2+3)", -5, [2, 3], "+"),
        ("((((7))))", 7, [7], ""),
        ("  2 + 3  ", 5, [2, 3], "+"),
        ("2 × 3 ÷ 4", Fraction(3, 2), [2, 3, 4], "*/"),
        ("2·3−1–1", 4, [2, 3, 1, 1], "*-"),
        (
            "123456789012345678901234567890*10",
            1234567890123456789012345678900,
            [123456789012345678901234567890, 10],
            "*",
        ),
        ("1.000000000000000000000000001", Fraction(10**27 + 1, 10**27), [Fraction(10**27 + 1, 10**27)], ""),
    ],
)
def test_an_expression(text: str, value: Fraction, numbers: list[Fraction], operators: str) -> None:
    expression = parse_expression(text)
    assert expression.value == value
    assert isinstance(expression.value, Fraction)
    assert list(expression.numbers) == numbers
    assert expression.operators == set(operators)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "2+",
        "*2",
        "()",
        "(2",
        "2)",
        ")2(",
        "2 3",
        "2+3=5",
        "2,3",
        "(2,)",
        "1.2.3",
        ".",
        "...",  # a constant to Python
        "2(3)",  # a call
        "(2)(3)",
        "2//3",
        "2%3",
        "2**3",
        "9**9**9",
        "9**9**9**9",
        "2^3",
        "10^10^10",
        "2<<30",
        "1e5",
        "1E400",
        "0x10",
        "1_000",
        "1j",
        "5!",
        "inf",
        "nan",
        "True",
        "[1][0]",
        "1if 1else 2",
        "lambda: 1",
        "__import__('os')",
        "__import__('os').system('echo hacked')",
        "().__class__",
        "(1).real",
        "print(1)",
        "2+\n3",
        "2;3",
        "2#3",
        "'2'",
        "\\frac{1}{2}",
        "007",  # leading zeros
        "0123",
        "1+01",
        "٣+٤",  # digits of other scripts
        "３＋４",
        "²",
        "½",
        "2✕3",  # the wrong cross
        "2\u00a03",
        "2+\x003",
    ],
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse_expression(text)


@pytest.mark.parametrize("text", ["1/0", "1/(2-2)", "0/0", "1/-0", "1/0.0", "5*(1/(3-3))"])
def test_a_division_by_zero_is_named(text: str) -> None:
    with pytest.raises(ExpressionError, match="division by zero"):
        parse_expression(text)


def test_depth_is_bounded() -> None:
    assert parse_expression("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH).value == 1
    for deep in (
        "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1),
        "-" * (MAX_DEPTH + 1) + "1",
        "+".join("1" * (MAX_DEPTH + 2)),
    ):
        with pytest.raises(ExpressionError, match=f"more than {MAX_DEPTH} levels"):
            parse_expression(deep)


def test_length_is_bounded() -> None:
    assert parse_expression("9" * MAX_CHARACTERS).value == int("9" * MAX_CHARACTERS)
    with pytest.raises(ExpressionError, match=f"{MAX_CHARACTERS + 1} characters"):
        parse_expression("9" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize("piece", ["(", "-", "9", "1+", "1*", "x", "x ", "((", "1/", "()", "\\", "9,999"])
def test_a_megabyte_is_refused(piece: str) -> None:
    text = piece * (1_000_000 // len(piece)) + "1"
    for parse in (parse_expression, parse_number):
        with pytest.raises(ExpressionError):
            parse(text)


def test_hostile_shapes_within_the_bounds() -> None:
    assert parse_expression("1" + "/3" * 39).value == Fraction(1, 3**39)
    assert parse_expression("9" * 149 + "*" + "9" * 149).value == (10**149 - 1) ** 2
    for text in ("(" * 150 + ")" * 150, "-" * 299 + "1"):
        with pytest.raises(ExpressionError):
            parse_expression(text)


def test_random_expressions_have_pythons_value() -> None:
    rng = random.Random(0)

    def expression(depth: int) -> str:
        if depth == 0 or rng.random() < 0.2:
            return rng.choice(["-", ""]) + str(rng.randint(0, 30))
        left, right = expression(depth - 1), expression(depth - 1)
        return f"({left}){rng.choice('+-*/')}({right})"

    compared = 0
    for _ in range(300):
        text = expression(4)
        try:
            # the test's own text, never a model's; integers become fractions so that / is exact
            expected = eval(re.sub(r"\d+", r"Fraction(\g<0>)", text), {"Fraction": Fraction})
        except ZeroDivisionError:
            with pytest.raises(ExpressionError, match="division by zero"):
                parse_expression(text)
            continue
        if len(text) <= MAX_CHARACTERS and text.count("(") <= MAX_DEPTH:
            assert parse_expression(text).value == expected, text
            compared += 1
    assert compared > 150


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("1,234", 1234),
        ("1,234,567", 1234567),
        ("1,234,567.25", Fraction("1234567.25")),
        ("-1,234", -1234),
        ("$18", 18),
        ("$1,234.50", Fraction(2469, 2)),
        ("\\$18", 18),
        ("3/4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("-0.5", Fraction(-1, 2)),
        ("+7", 7),
        ("7.", 7),
        ("7.0", 7),
        (".5", Fraction(1, 2)),
        (" 42 \n", 42),
        ("42.", 42),
        ("−5", -5),
        ("0", 0),
    ],
)
def test_a_number_as_people_write_it(text: str, value: Fraction) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "$", "abc", "5 apples", "12,34", "1,2345", "1,,000", ",123", "1.2.3", "x=5", "5%", "1/0", "--", "1 000"],
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse_number(text)


@pytest.mark.parametrize("text", ["2+3", "123*456", "(7-2)*1", "1/3*3", "100-95"])
def test_a_calculation_is_no_number(text: str) -> None:
    # or the answer to "what is 123*456?" would be "123*456"
    with pytest.raises(ExpressionError):
        parse_number(text)
