r"""One spelling for mathematical answers that differ only in how they are written, and the exact numbers among them.

Nothing is calculated but numbers: ``\frac{2}{4}``, ``0.5``, ``1/2`` and ``5\times10^{-1}`` are one half;
``2(x+1)`` stays as it is written. Every function here is linear in the text.
"""

from __future__ import annotations

import re
from fractions import Fraction

_MOST_CHARACTERS = 2000
_MOST_POWER = 400
"""The largest exponent of an exact number."""
_FEWEST_ROUNDED = 6
_ROUNDED = re.compile(rf"[+-]?\d*\.(\d{{{_FEWEST_ROUNDED},}})")

_TYPOGRAPHY = str.maketrans(
    {
        "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "−": "-", "–": "-", "—": "-", "π": r"\pi ",
        "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ",
        "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "°": r"^\circ ", "²": "^2", "³": "^3", "θ": r"\theta ",
        "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "％": "%", "，": ", ", "。": ".", "；": ";",
        "（": "(", "）": ")", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    }
)  # fmt: skip

# in this order; a backslash behind another one ends a row of a matrix
_SPELLINGS = (
    (r"(?<=\d)(?:\{,\}|,\s*\\!)\s*(?=\d)", "_,"),
    (r"(?<!\\)\\(?:left|right|displaystyle|textstyle|limits|[bB]ig{1,2}[lrm]?)(?![A-Za-z])", ""),
    (r"(?<!\\)\\[,!;:\s]|~|(?<!\\)\\(?:quad|qquad|thinspace|hfill)(?![A-Za-z])|(?<!\\)\\[()\[\]]", " "),
    (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
    (r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})|\\degree(?![A-Za-z])", "°"),
    (r"\\(?:textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|mathit|rm|operatorname)(?![A-Za-z])", r"\\text"),
    (r"°\s*\\text\s*\{\s*([CF])\s*\}", r"°\1"),
    (r"\\boxed\s*\{([^{}]*)\}", r"\1"),
    (r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}"),
    (r"\\(frac|sqrt)\s*(\d)", r"\\\1{\2}"),
    (r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}"),
    (r"\\l?brace(?![A-Za-z])", r"\\{"),
    (r"\\rbrace(?![A-Za-z])", r"\\}"),
    (r"\\l[eg]q(?![A-Za-z])|\\leqslant(?![A-Za-z])", r"\\le"),
    (r"\\geq(?:slant)?(?![A-Za-z])", r"\\ge"),
    (r"\\neq(?![A-Za-z])", r"\\ne"),
    (r"\\(?:var)?nothing(?![A-Za-z])", r"\\emptyset"),
    (r"\\mathbb\s*\{?R\}?", r"\\mathbb{R}"),
    (r"\\infin(?:ity)?(?![A-Za-z])|(?<![A-Za-z\\])infinity(?![A-Za-z])", r"\\infty"),
    (r"\\%", "%"),
)
_SPELLING = [(re.compile(pattern), spelling) for pattern, spelling in _SPELLINGS]
_SPACES = re.compile(r"(?<![\dA-Za-z])\s+|\s+(?![\dA-Za-z])")  # "1 2" is no 12, and "\pi x" no command of its own

_INTEGER = r"\d{1,3}(?:,\d{3})+|\d+"
_DECIMAL = rf"(?:(?:{_INTEGER})(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(rf"([+-]?)(?:({_DECIMAL})|(\d*\.\d*)\\overline\{{(\d+)\}})")
_FRACTION = re.compile(
    rf"([+-]?)(\d+(?=\\|\s))?\s?(?:\\frac\{{([+-]?{_DECIMAL})\}}\{{([+-]?{_DECIMAL})\}}|({_DECIMAL})/({_DECIMAL}))"
)
_POWER = re.compile(
    rf"([+-]?)(?:({_DECIMAL})(?:\\times|\\cdot|\*)\s?)?(\d+)\^(?:\{{([+-]?\d+)\}}|(\d))|([+-]?{_DECIMAL})[eE]([+-]?\d+)"
)


def tidy(answer: str) -> str:
    r"""LaTeX without what says nothing about the answer: spacing, sizes of brackets, dollar signs around it.

    >>> tidy(r"$\left( 3,\, \dfrac{\pi}2 \right)$.")
    '( 3, \\frac{\\pi}{2} )'
    """
    text = " ".join(answer[: _MOST_CHARACTERS + 1].translate(_TYPOGRAPHY).split()).rstrip(".,; ")
    text = _without_dollars(text)
    for pattern, spelling in _SPELLING:
        text = pattern.sub(spelling, text)
    return " ".join(text.split()).rstrip(".,; ")


def _without_dollars(text: str) -> str:
    r"""Without the dollar signs around formulas; one that is alone, or escaped, is money: ``$18``, ``\$18``."""
    escaped = text.replace(r"\$", "\0")
    if escaped.count("$") % 2 == 0:
        escaped = escaped.replace("$", " ")
    return escaped.replace("\0", "$")


def normal_form(value: str) -> Fraction | str:
    r"""A single value in one spelling: the exact number if it is one.

    >>> normal_form(r"\dfrac{3}{4}") == normal_form("0.75") == normal_form(r"7.5 \times 10^{-1}")
    True
    >>> normal_form(r"2 \sqrt 2")
    '2\\sqrt{2}'
    """
    text = _SPACES.sub("", tidy(value)).replace("_,", "")
    number = exact_number(text)
    return text if number is None else number


def exact_number(text: str) -> Fraction | None:
    r"""The number that a tidy text is, or None: whole, decimal, ``0.1\overline{6}``, fraction, mixed, power of ten.

    >>> exact_number("1,234.5"), exact_number(r"1\frac{1}{2}"), exact_number(r"0.1\overline{6}")
    (Fraction(2469, 2), Fraction(3, 2), Fraction(1, 6))
    """
    if len(text) > _MOST_POWER or not text.isascii():
        return None
    if match := _NUMBER.fullmatch(text):
        sign, decimal, start, period = match.groups()
        value = _decimal(decimal) if decimal is not None else _repeating(start, period)
        return -value if sign == "-" else value
    if match := _FRACTION.fullmatch(text):
        sign, whole, above, below, plain_above, plain_below = match.groups()
        top, bottom = _decimal(above or plain_above), _decimal(below or plain_below)
        if bottom == 0 or (whole and (top < 0 or bottom < 0)):
            return None
        value = int(whole or 0) + top / bottom
        return -value if sign == "-" else value
    return _power(text)


def decimal_places(text: str) -> int | None:
    """Digits behind the point of a tidy decimal that can be a rounded value: six or more, six of which say something.

    >>> decimal_places("0.333333"), decimal_places("0.333"), decimal_places("0.000001")
    (6, None, None)
    """
    match = _ROUNDED.fullmatch(text)
    if match is None or len(text.lstrip("-+0.").replace(".", "")) < _FEWEST_ROUNDED:
        return None
    return len(match[1])


def _decimal(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _repeating(start: str, period: str) -> Fraction:
    """``0.1`` and ``6``: 0.1666..."""
    shift = 10 ** len(start.partition(".")[2])
    before = Fraction(f"0{start}0")
    return before + Fraction(int(period), shift * (10 ** len(period) - 1))


def _power(text: str) -> Fraction | None:
    match = _POWER.fullmatch(text)
    if match is None:
        return None
    sign, factor, base, exponent, digit, mantissa, exponent_of_ten = match.groups()
    power = int(exponent or digit or exponent_of_ten)
    if abs(power) > _MOST_POWER or len(base or "") > 9 or (base and not int(base)):
        return None
    if mantissa is not None:
        return _decimal(mantissa) * Fraction(10) ** power
    value = (_decimal(factor) if factor else 1) * Fraction(int(base)) ** power
    return -value if sign == "-" else value
