r"""Mathematical answers that are refused unread, because to calculate them may never end.

A policy that is rewarded for answers writes everything, ``9^{9^{9^9}}`` and a thousand open brackets included, and
a computer algebra system freezes on them where no alarm reaches it. Nothing here is calculated: one pass over at most
400 characters, whatever the length of the text. A killable worker stands behind this filter; it is there to keep that
worker alive, and golds that would kill it out of the data.
"""

from __future__ import annotations

import re
import unicodedata

MOST_CHARACTERS = 400
MOST_DEPTH = 12
MOST_OPENED = 4
"""Brackets opened one straight after the other: parsers take exponential time over redundant ones."""
MOST_PARTS = 64
MOST_REPEATS = 12
"""Of what has a price each time: factorials, absolute values."""
MOST_DIGITS = 200
MOST_EXPONENT_DIGITS = 4
MOST_FACTORIAL_DIGITS = 4

_REFUSED = re.compile(
    r"\\(int|iint|iiint|oint|sum|prod|coprod|lim|limsup|liminf|bigcup|bigcap|underbrace|overbrace|def|edef|gdef|let|"
    r"newcommand|renewcommand|csname|input|include|write|loop|repeat)(?![A-Za-z])|([∫∑∏])"
)
_SPECIAL = re.compile(r"\\(?:Gamma|zeta|operatorname)\s*(?:\{[^{}]*\}\s*)?(?:\\left)?\(")
_LARGE_FACTORIAL = re.compile(r"\d{3}\s*\}*\s*!|binom[^A-Za-z]*\d{3}")
_POWER_OF_A_PRODUCT = re.compile(r"binom\{[^{}]*\d{3}[^{}]*\}\{[^{}]*\}\s*\^|\d{3}\s*!\s*(?:\^|\*\*)")
_POLYNOMIAL_BINOMIAL = re.compile(r"binom\{[^{}]*[A-Za-z][^{}]*\}\{[^{}]*\d{3}")
_ROOT_OF_A_FACTORIAL = re.compile(rf"\\sqrt(?:\[[^\]]*\])?\{{[^{{}}]*(?:{_LARGE_FACTORIAL.pattern})")
_OPENED = re.compile(rf"(?:(?:\\left)?\\?[(\[{{]\s*){{{MOST_OPENED + 1}}}")
_DIGITS = re.compile(rf"\d{{{MOST_DIGITS + 1}}}")
_FACTORIAL_OF_MANY = re.compile(rf"\d{{{MOST_FACTORIAL_DIGITS + 1}}}\s*\}}*\s*!")
_NESTED_FACTORIAL = re.compile(r"!\s*[)}\]\s]*!|[)}\]]\s*!")
_BINOMIAL = re.compile(rf"\\[dt]?binom(?![A-Za-z])[^A-Za-z]*\d{{{MOST_FACTORIAL_DIGITS + 1}}}")
_BRACKETS = re.compile(r"\\?[(\[{)\]}]")
_POWER = re.compile(r"\^|\*\*")
_ATOM = re.compile(r"\s*(\d+(?:\.\d+)?|\\[A-Za-z]+|[^\s])")
_POWER_OF_A_NUMBER = re.compile(r"[\d)\]}]\s*(?:\^|\*\*)(?!\s*(?:[A-Za-z]|\{\s*[A-Za-z]\s*\}))")
_POWER_OF_A_GROUP = re.compile(r"[)\]}]\s*(?:\^|\*\*)")
_WHOLE = re.compile(r"(?<![\d.])\d+")
_MULTIPLIED = re.compile(r"\*|!|\\times|\\cdot|\)\s*\(|\}\s*\{\s*\(")
_INVISIBLE = frozenset(("Cc", "Cf", "Cn", "Co", "Cs", "Mn", "Me", "Zl", "Zp"))


def hostile(answer: str) -> str | None:
    r"""Why an answer is refused, in a few words, or None: it may be given to a computer algebra system.

    >>> hostile(r"\frac{x^2+1}{\sqrt{2}}") is None
    True
    >>> hostile("10^{10^{8}}"), hostile("(10^7)!"), hostile("x" * 1_000_000)
    ('a tower of powers', 'a factorial of more than a number', '1000000 characters, more than 400')
    """
    if len(answer) > MOST_CHARACTERS:
        return f"{len(answer)} characters, more than {MOST_CHARACTERS}"
    if (hidden := _hidden(answer)) is not None:
        return hidden
    if match := _REFUSED.search(answer):
        return f"{match[1] or match[2]}: sums, integrals, limits and macros are not calculated"
    checks = (
        (_OPENED, f"more than {MOST_OPENED} brackets opened at once"),
        (_DIGITS, f"a number of more than {MOST_DIGITS} digits"),
        (_FACTORIAL_OF_MANY, f"a factorial of a number of more than {MOST_FACTORIAL_DIGITS} digits"),
        (_NESTED_FACTORIAL, "a factorial of more than a number"),
        (_POWER_OF_A_PRODUCT, "a power of a large factorial or binomial"),
        (_POLYNOMIAL_BINOMIAL, "a binomial that is a polynomial of a large degree"),
        (_ROOT_OF_A_FACTORIAL, "a root of a large factorial"),
        (_SPECIAL, "a special function"),
        (_BINOMIAL, f"a binomial of a number of more than {MOST_FACTORIAL_DIGITS} digits"),
    )
    for pattern, reason in checks:
        if (match := pattern.search(answer)) and not (pattern is _NESTED_FACTORIAL and _small_factorial(answer)):
            return reason
    for signs, most, name in (
        (",;", MOST_PARTS - 1, "separators"),
        ("!", MOST_REPEATS, "factorials"),
        ("|", MOST_REPEATS, "bars"),
    ):
        if sum(map(answer.count, signs)) > most:
            return f"more than {most} {name}"
    return _structure(answer)


def _hidden(answer: str) -> str | None:
    if answer.isascii() and answer.isprintable():
        return None
    for character in answer:
        category = unicodedata.category(character)
        if (category in _INVISIBLE and character not in "\n\t\r") or (category[0] == "N" and ord(character) > 0x2FF):
            return f"the character U+{ord(character):04X}"
    return None


def _small_factorial(answer: str) -> bool:
    r"""Whether all factorials of brackets have letters or small sums in them: ``(n+1)!``, ``(10-3)!``."""
    if re.search(r"!\s*[)}\]\s]*!", answer):
        return False
    groups = re.findall(r"([(\[{][^()\[\]{}]*[)\]}])\s*!", answer)
    plain = all(
        sum(map(str.isdigit, group)) <= MOST_FACTORIAL_DIGITS and not re.search(r"\^|\*\*", group) for group in groups
    )
    return plain and len(groups) == len(re.findall(r"[)}\]]\s*!", answer))


def _structure(answer: str) -> str | None:
    """Depth and powers."""
    closes: dict[int, int] = {}
    opens: dict[int, int] = {}
    stack: list[int] = []
    for bracket in _BRACKETS.finditer(answer):
        if bracket[0][-1] in "([{":
            stack.append(bracket.end() - 1)
            if len(stack) > MOST_DEPTH:
                return f"brackets more than {MOST_DEPTH} deep"
        elif stack:
            opens[bracket.end() - 1] = stack[-1]
            closes[stack.pop()] = bracket.end() - 1
    for power in _POWER.finditer(answer):
        exponent = _ATOM.match(answer, power.end())
        if exponent is None:
            continue
        end = closes.get(exponent.start(1), exponent.end() - 1) + 1
        before = len(answer[: power.start()].rstrip()) - 1
        base = answer[opens.get(before, before) : before + 1]
        if (reason := _too_high(base, answer[exponent.start(1) : end], answer[end:].lstrip())) is not None:
            return reason
    return None


def _too_high(base: str, exponent: str, rest: str) -> str | None:
    """Why a power is refused, from its base, its exponent and what follows."""
    if rest.startswith(("^", "**")) or _POWER_OF_A_NUMBER.search(exponent) or len(_POWER.findall(exponent)) > 1:
        return "a tower of powers"
    digits = [len(number) for number in _WHOLE.findall(exponent)]
    if rest.startswith("!"):
        return "a factorial of a power"
    if _LARGE_FACTORIAL.search(base) and max(digits, default=0) > 1:
        return "a power of a large factorial or binomial"
    if digits and "!" in exponent:
        return "a factorial in an exponent"
    if _POWER.search(base):  # exponents of exponents are multiplied
        digits += [len(number) for number in _WHOLE.findall(base)]
        if _POWER_OF_A_GROUP.search(base) or max(digits, default=0) > MOST_EXPONENT_DIGITS // 2:
            return "a tower of powers"
    multiplied = sum(digits) > MOST_EXPONENT_DIGITS and _MULTIPLIED.search(exponent)
    if multiplied or max(digits, default=0) > MOST_EXPONENT_DIGITS or sum(digits) > 3 * MOST_EXPONENT_DIGITS:
        return f"an exponent of more than {MOST_EXPONENT_DIGITS} digits"
    return None
