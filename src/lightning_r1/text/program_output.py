"""Whether what a program gave is what a test expects. Plain data on both sides, compared outside of the sandbox.

What a program gives was written by a model that is rewarded for passing: it is parsed as far as it must be, by
parsers that neither hang nor raise on it, and never becomes anything but numbers, texts and lists.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

MOST_DIGITS = 4300
"""Of a whole number in JSON: reading one costs its length squared."""
DEEPEST = 100
"""Levels of lists and objects in JSON."""

_STRING = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|$)', re.DOTALL)  # matches at every quote: one pass
_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_LONGEST_NUMBER = 400


def same_output(given: bytes, wanted: str, tolerance: float | None = None) -> bool:
    """Whether a program printed what is wanted: the same tokens line by line.

    White space between tokens, around lines and behind the last line does not matter; lines do, empty ones
    within included. With a tolerance two numbers are the same if they differ by no more than it, absolutely or
    relatively; other tokens have to be equal.

    Args:
        given: standard output.
        wanted: the test's.
        tolerance: e.g. ``1e-6``, where a problem allows it.

    >>> same_output(b"1  2 \\r\\n3\\n\\n", "1 2\\n3"), same_output(b"1 2", "1 2\\n3"), same_output(b"1 2 3", "1 2\\n3")
    (True, False, False)
    >>> same_output(b"0.3333", "0.333333", 1e-3), same_output(b"0.3333", "0.333333")
    (True, False)
    """
    ours, theirs = _lines(given), _lines(wanted.encode(errors="surrogatepass"))
    if ours == theirs:
        return True
    if tolerance is None or list(map(len, ours)) != list(map(len, theirs)):
        return False
    pairs = ((a, b) for line, other in zip(ours, theirs, strict=True) for a, b in zip(line, other, strict=True))
    return all(a == b or _close(_number(a), _number(b), tolerance) for a, b in pairs)


def same_value(given: bytes, wanted: str, tolerance: float | None = None) -> bool:
    """Whether a function returned what is wanted, both as JSON.

    1 is 1.0 but not true; lists are equal item by item, objects key by key. NaN, infinities, keys that stand twice,
    what is too deep or too long to read (:data:`DEEPEST`, :data:`MOST_DIGITS`) and what is no JSON are never right.

    Args:
        given: JSON of the value returned.
        wanted: JSON of the test's value.
        tolerance: as in :func:`same_output`.

    Raises:
        ValueError: if ``wanted`` cannot be read.

    >>> same_value(b"[1.0, [true]]", "[1, [true]]"), same_value(b"1", "true"), same_value(b"NaN", "1")
    (True, False, False)
    """
    expected = read_value(wanted)
    try:
        value = read_value(given.decode())
    except ValueError:
        return False
    return _equal(value, expected, tolerance)


def read_value(text: str) -> Any:
    """A JSON value; what JSON has not, or what would be costly, is refused.

    Raises:
        ValueError: says what stands in the way.
    """
    bare = _STRING.sub("", text)
    depths = accumulate((1 if bracket in "[{" else -1) for bracket in re.findall(r"[\[\]{}]", bare))
    if max(depths, default=0) > DEEPEST:
        raise ValueError(f"lists or objects more than {DEEPEST} deep")
    return json.loads(text, parse_int=_int, parse_float=_float, parse_constant=_no_constant, object_pairs_hook=_object)


def _lines(output: bytes) -> list[list[bytes]]:
    lines = [line.split() for line in output.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _number(token: bytes) -> float | None:
    if len(token) > _LONGEST_NUMBER or not _NUMBER.fullmatch(token):
        return None
    return float(token)


def _close(a: float | None, b: float | None, tolerance: float) -> bool:
    if a is None or b is None or not (math.isfinite(a) and math.isfinite(b)):
        return False
    return abs(a - b) <= tolerance * max(1.0, abs(b))


def _equal(value: Any, expected: Any, tolerance: float | None) -> bool:
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, int | float) and isinstance(expected, int | float):
        # a whole number may be too large to be a float
        return value == expected or (
            tolerance is not None and abs(value) < 1e300 and abs(expected) < 1e300
            and _close(float(value), float(expected), tolerance)
        )  # fmt: skip
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(
            _equal(a, b, tolerance) for a, b in zip(value, expected, strict=True)
        )
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(_equal(value[key], expected[key], tolerance) for key in value)
    return type(value) is type(expected) and value == expected


def _int(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of more than {MOST_DIGITS:,} digits")
    return int(text)


def _float(text: str) -> float:
    value = float(text) if len(text) <= _LONGEST_NUMBER else math.inf
    if not math.isfinite(value):
        raise ValueError("a number too large, or too long")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice")
    return value
