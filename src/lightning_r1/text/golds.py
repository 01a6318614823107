"""Gold answers: which kinds there are, and what each needs to be usable.

Checked when data is prepared, so that a bad gold is refused with its place in the file and can
never turn into a reward of 0 for everybody.

=============== ============================================= ================================
``kind``        keys                                          right answer
=============== ============================================= ================================
``number``      ``value``; ``absolute_tolerance``,            the same number: exactly, or off by no
                ``relative_tolerance``                        more than the larger tolerance allows
``expression``  ``numbers``, ``target``; ``ordered``,         an expression that uses each number
                ``operators`` ("+-*/")                        once and has the target's value
``text``        ``value``                                     the same text but for case and spaces
``math``        ``value``, LaTeX                              the same but for how it is written
``choice``      ``value``, a letter; ``options``, texts       the same letter, or the option's text
``gym``         ``task``, ``value``, ``metadata``;            full marks of reasoning-gym's scorer
                ``parameters``
``rule``        ``rule``: dotted path of a function         what ``function(question, response)`` says
                of yours
``code``        ``tests``: ``input``, ``output`` of each;     a program, or the ``function``, that
                ``function``, ``language`` ("python"),        passes every test; run in a sandbox only
                ``time_limit_s``, ``memory_limit_mb``,
                ``tolerance``, ``rating``
``json_schema`` ``schema``; ``values``, an object             JSON that the schema describes,
                                                              with these values
=============== ============================================= ================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from lightning_r1.text.arithmetic import ExpressionError, parse_number
from lightning_r1.text.choices import LETTERS
from lightning_r1.text.gym_tasks import check_task
from lightning_r1.text.hostile import hostile
from lightning_r1.text.math_answers import read_answer
from lightning_r1.text.math_shapes import Value
from lightning_r1.text.program_output import read_value
from lightning_r1.text.structured import check_schema_text

_KEYS = {
    "number": ("value",),
    "expression": ("numbers", "target"),
    "text": ("value",),
    "math": ("value",),
    "choice": ("value",),
    "gym": ("task", "value"),
    "rule": ("rule",),
    "code": ("tests",),
    "json_schema": ("schema",),
}
PROGRAM_LANGUAGES = ("python", "cpp")


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
        if value is None or value == [] or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"answer.{key} is missing or empty; kind {kind!r} needs {', '.join(_KEYS[kind])}")
    if kind == "number":
        _check_number("value", answer["value"])
        _check_tolerances(answer)
    if kind == "choice":
        _check_choice(answer)
    if kind == "math":
        _check_latex(str(answer["value"]))
    if kind == "gym":
        check_task(answer["task"])
    if kind == "code":
        _check_code(answer)
    if kind == "json_schema":
        check_schema_text(answer)
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


def _check_tolerances(answer: Mapping[str, Any]) -> None:
    for key in ("absolute_tolerance", "relative_tolerance"):
        value = answer.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"answer.{key}={value!r}: expected a number >= 0")


def _check_choice(answer: Mapping[str, Any]) -> None:
    if str(answer["value"]) not in tuple(LETTERS):
        raise ValueError(f"answer.value={answer['value']!r}: expected a capital letter, the option's")
    options = answer.get("options", ())
    if options and (isinstance(options, str) or LETTERS.index(answer["value"]) >= len(options)):
        raise ValueError(f"answer.options={options!r}: expected a list of texts that reaches {answer['value']}")


def _check_latex(value: str) -> None:
    """What a grader would refuse in an answer, or what says nothing."""
    if (reason := hostile(value)) is not None:
        raise ValueError(f"answer.value={value[:80]!r}: expected what can be calculated ({reason})")
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", value):
        depth += 1 if brace == "{" else -1
        if depth < 0:
            break
    if depth != 0:
        raise ValueError(f"answer.value={value[:80]!r}: expected balanced braces")
    if read_answer(value) == Value(""):
        raise ValueError(f"answer.value={value[:80]!r}: expected an answer")


def _check_code(answer: Mapping[str, Any]) -> None:
    """Limits that limit, tests that are texts, and of a function JSON."""
    for key in ("time_limit_s", "memory_limit_mb", "tolerance"):
        value = answer.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and 0 < value < math.inf):
            raise ValueError(f"answer.{key}={value!r}: expected a number above 0")
    language, function = answer.get("language"), answer.get("function")
    if language not in (None, *PROGRAM_LANGUAGES):
        raise ValueError(f"answer.language={language!r}: expected one of {', '.join(PROGRAM_LANGUAGES)}")
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        raise ValueError(f"answer.function={function!r}: expected the name of a function")
    if function is not None and language not in (None, "python"):
        raise ValueError(f"answer.language={language!r}: a function is called in python; leave one of the two out")
    tests = answer["tests"]
    if not isinstance(tests, list | tuple):
        raise ValueError(f"answer.tests is a {type(tests).__name__}: expected a list")
    for place, test in enumerate(tests):
        if not isinstance(test, Mapping) or not all(isinstance(test.get(key), str) for key in ("input", "output")):
            raise ValueError(f"answer.tests[{place}]: expected the texts 'input' and 'output'")
        if function is not None:
            _check_call(place, test)


def _check_call(place: int, test: Mapping[str, str]) -> None:
    for key in ("input", "output"):
        try:
            value = read_value(test[key])
        except ValueError as error:
            raise ValueError(f"answer.tests[{place}].{key}: expected JSON ({error})") from error
        if key == "input" and not isinstance(value, list):
            raise ValueError(f"answer.tests[{place}].input: expected a JSON list, the function's arguments")
