"""Tests that are written as asserts, taken apart into arguments and expected values.

An assert that runs beside a program can be passed by that program without being right: it ends the process, or
returns an object that is equal to everything. As data, arguments go into the sandbox and values stay outside.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Sequence
from typing import Any

MOST_CHARACTERS = 20_000
"""Of one assert: Python's parser takes what it gets."""


def calls_of(asserts: Sequence[str]) -> tuple[str, list[tuple[list[Any], Any]]]:
    """The function that asserts test, and of each its arguments and the value that it has to return.

    Each has to read ``assert function(literal, ...) == literal``, all of one function. A tuple among the expected
    values becomes a list, as it does in JSON; among arguments it is refused, since the function might depend on
    it. So are sets, bytes, complex numbers, NaN and infinities, and, among arguments, keys that are no texts.

    Raises:
        ValueError: names the assert and what about it cannot be told as data.

    >>> calls_of(["assert add(1, [2]) == (3, 4)"])
    ('add', [([1, [2]], [3, 4])])
    """
    names, calls = [], []
    for place, text in enumerate(asserts):
        try:
            name, arguments, value = _call(text)
        except ValueError as error:
            raise ValueError(f"assert {place}: {error}") from error
        names.append(name)
        calls.append((arguments, value))
    others = [name for name in names if name != names[0]]
    if others:
        raise ValueError(f"asserts of {names[0]} and {others[0]}: expected all of one function")
    return names[0] if names else "", calls


def _call(text: str) -> tuple[str, list[Any], Any]:
    match _parsed(text):
        case ast.Assert(
            test=ast.Compare(
                left=ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]), ops=[ast.Eq()], comparators=[value]
            )
        ):
            return name, [_plain(_literal(node), argument=True) for node in arguments], _plain(_literal(value))
    raise ValueError("expected `assert function(literal, ...) == literal`")


def _parsed(text: str) -> ast.stmt | None:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"expected at most {MOST_CHARACTERS:,} characters")
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"it is no Python ({type(error).__name__})") from error
    return body[0] if len(body) == 1 else None


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError("expected `assert function(literal, ...) == literal`") from error


def _plain(value: Any, *, argument: bool = False) -> Any:
    """The value as JSON has it.

    Raises:
        ValueError: if JSON has not.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list) or (isinstance(value, tuple) and not argument):
        return [_plain(item, argument=argument) for item in value]
    if isinstance(value, dict) and not (argument and any(not isinstance(key, str) for key in value)):
        plain = {key: _plain(item, argument=argument) for key, item in value.items()}
        if all(isinstance(key, bool | int | str) for key in plain):
            return json.loads(json.dumps(plain))  # whole numbers as keys become texts, as those that are returned
        raise ValueError("JSON has no such keys of an object")
    what = "argument" if argument else "value"
    raise ValueError(f"JSON has no {what} of type {type(value).__name__}" + _keys(value))


def _keys(value: Any) -> str:
    return " whose keys are no texts" if isinstance(value, dict) else ""
