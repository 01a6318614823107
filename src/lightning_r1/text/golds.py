"""Gold answers: which kinds there are, and what each needs to be usable.

Checked when data is prepared, so that a bad gold is refused with its place in the file and can
never turn into a reward of 0 for everybody.

============== ============================================= ================================
``kind``       keys                                          right answer
============== ============================================= ================================
``number``     ``value``                                     the same number, exactly
``expression`` ``numbers``, ``target``; ``ordered``,         an expression that uses each number
               ``operators`` ("+-*/")                        once and has the target's value
``text``       ``value``                                     the same text but for case and spaces
============== ============================================= ================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_r1.text.arithmetic import ExpressionError, parse_number

_KEYS = {"number": ("value",), "expression": ("numbers", "target"), "text": ("value",)}


def check_gold(answer: Mapping[str, Any]) -> None:
    """Refuse a gold answer that no completion could ever be graded against.

    Raises:
        ValueError: names the key, the value and what was expected.
    """
    kind = answer.get("kind")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise ValueError(f"answer.kind={kind!r}: expected one of {', '.join(_KEYS)}")
    for key in _KEYS[kind]:
        value = answer.get(key)
        if value is None or value == [] or not str(value).strip():
            raise ValueError(f"answer.{key} is missing or empty; kind {kind!r} needs {', '.join(_KEYS[kind])}")
    if kind == "number":
        _check_number("value", answer["value"])
    if kind == "expression":
        _check_number("target", answer["target"])
        if not isinstance(answer["numbers"], list | tuple):
            raise ValueError(f"answer.numbers={answer['numbers']!r}: expected a list of numbers")
        for number in answer["numbers"]:
            _check_number("numbers", number)


def _check_number(key: str, value: Any) -> None:
    try:
        parse_number(str(value))
    except ExpressionError as error:
        raise ValueError(f"answer.{key}={value!r}: expected a number ({error})") from error
