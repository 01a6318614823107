"""Readers of programming problems with tests; their golds are of kind ``code`` (:mod:`lightning_r1.text.golds`).

What is asked says which of two ways a solution is run: as a program, whose input and output are texts, or as a
function, whose input is a JSON list of its arguments and whose output is a JSON value.
"""

from __future__ import annotations

import base64
import json
import pickletools
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from lightning_r1.data.asserts import calls_of
from lightning_r1.data.readers import Fields, Problem, Reader, short, text_of

_PROGRAM = "Write a program in Python that reads from standard input and writes to standard output."

Tests = list[dict[str, str]]


def _codeforces(fields: Fields) -> Problem:
    """Statement and official tests, where printing the same is being right."""
    for column, reason in (
        ("generated_checker", "several outputs are right, and a checker decides"),
        ("interaction_format", "it is interactive"),
    ):
        if fields[column]:
            raise ValueError(f"key {column!r}: {reason}, which the grader does not do")
    if fields["input_mode"] != "stdio":
        raise ValueError(f"key 'input_mode' is {fields['input_mode']!r}, expected 'stdio'")
    if not fields["official_tests_complete"]:
        raise ValueError("key 'official_tests_complete': some of the tests are cut short")
    parts = [f"# {fields['title']}", text_of(fields["description"], "description")]
    parts += [
        f"## {head}\n{fields[column]}"
        for head, column in (("Input", "input_format"), ("Output", "output_format"), ("Note", "note"))
        if fields[column]
    ]
    parts += [f"## Example\n{_fenced(test['input'])}\n{_fenced(test['output'])}" for test in fields["examples"] or ()]
    facts = {"time_limit_s": "time_limit", "memory_limit_mb": "memory_limit", "rating": "rating"}
    gold = {
        "kind": "code",
        "tests": _tests((test["input"], test["output"]) for test in fields["official_tests"] or ()),
        **{name: fields[column] for name, column in facts.items() if fields[column] is not None},
    }
    return Problem("\n\n".join([*parts, _PROGRAM]), gold, str(fields["id"]))


def _apps(fields: Fields) -> Problem:
    """Tests as one JSON object of inputs and outputs; ``fn_name`` where a function is asked for."""
    tests = _json(fields, "input_output", empty={})
    pairs = list(zip(tests.get("inputs", ()), tests.get("outputs", ()), strict=False))
    question = text_of(fields["question"], "question").strip()
    if function := tests.get("fn_name"):
        # most problems have each value in a list of its own; the data set's own judge takes either form
        wrapped = all(isinstance(value, list) and len(value) == 1 for _, value in pairs)
        gold = _function(function, [(given, value[0] if wrapped else value) for given, value in pairs])
        return Problem(f"{question}\n\n{_asks_function(function, fields.get('starter_code'))}", gold)
    gold = {"kind": "code", "tests": _tests((_lines(given), _lines(wanted)) for given, wanted in pairs)}
    return Problem(f"{question}\n\n{_PROGRAM}", gold)


def _livecodebench(fields: Fields) -> Problem:
    """Public and private tests; the private ones may be packed."""
    tests = [*_json(fields, "public_test_cases", empty=[]), *_private_tests(fields)]
    question = text_of(fields["question_content"], "question_content").strip()
    function = _json(fields, "metadata", empty={}).get("func_name")
    if function:
        # one argument a line, each as JSON
        pairs = [
            ([json.loads(line) for line in test["input"].split("\n")], json.loads(test["output"])) for test in tests
        ]
        gold = _function(function, pairs)
        asked = f"{question}\n\n{_asks_function(function, fields['starter_code'])}"
        return Problem(asked, gold, str(fields["question_id"]))
    gold = {"kind": "code", "tests": _tests((test["input"], test["output"]) for test in tests)}
    return Problem(f"{question}\n\n{_PROGRAM}", gold, str(fields["question_id"]))


def _mbpp(fields: Fields) -> Problem:
    """Three asserts, taken apart; the first is shown, since the text alone does not say how the function is called."""
    if fields["test_setup_code"]:
        raise ValueError("key 'test_setup_code': code that runs before the tests, which the grader does not do")
    asserts = list(fields["test_list"] or ())
    try:
        function, calls = calls_of([text_of(one, "test_list") for one in asserts])
    except ValueError as error:
        raise ValueError(f"key 'test_list': {error}") from error
    example = f" For example:\n{_fenced(asserts[0])}" if calls else ""
    asked = f"{text_of(fields['text'], 'text').strip()}\n\n{_asks_function(function, None)}{example}"
    return Problem(asked, _function(function, calls), str(fields["task_id"]))


PROGRAM_READERS = {
    "codeforces": Reader(
        (
            "id", "title", "description", "input_format", "output_format", "interaction_format", "note", "examples",
            "time_limit", "memory_limit", "rating", "official_tests", "official_tests_complete", "input_mode",
            "generated_checker",
        ),
        _codeforces,
        gold="official_tests",
    ),
    "apps": Reader(("question", "input_output"), _apps, gold="input_output"),
    "livecodebench": Reader(
        (
            "question_id", "question_content", "starter_code", "public_test_cases", "private_test_cases", "metadata",
        ),
        _livecodebench,
        gold="public_test_cases",
    ),
    "mbpp": Reader(("task_id", "text", "test_list", "test_setup_code"), _mbpp, gold="test_list"),
}  # fmt: skip


def _tests(pairs: Iterable[tuple[str, str]]) -> Tests:
    return [{"input": given, "output": wanted} for given, wanted in pairs]


def _function(name: str, pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    tests = _tests((json.dumps(arguments), json.dumps(value)) for arguments, value in pairs)
    return {"kind": "code", "function": name, "tests": tests}


def _asks_function(name: str, starter_code: str | None) -> str:
    return f"Write a Python function `{name}`." + (f" Begin with:\n{_fenced(starter_code)}" if starter_code else "")


def _private_tests(fields: Fields) -> list[Mapping[str, str]]:
    """As JSON, or as a text that is pickled, compressed and written in base 64.

    Unpickling runs whatever a file says; of a pickled text the text is all that is wanted, and it is taken out
    without running anything.
    """
    packed = fields["private_test_cases"]
    if not packed or packed.lstrip().startswith("["):
        return _json(fields, "private_test_cases", empty=[])
    try:
        opcodes = pickletools.genops(zlib.decompress(base64.b64decode(packed)))
        return json.loads(next(argument for _, argument, _ in opcodes if isinstance(argument, str)))
    except (ValueError, zlib.error, StopIteration) as error:
        raise ValueError(f"key 'private_test_cases' is {short(packed)}, expected packed tests ({error})") from error


def _json(fields: Fields, key: str, empty: Any) -> Any:
    try:
        return json.loads(fields[key]) if fields[key] else empty
    except ValueError as error:
        raise ValueError(f"key {key!r} is {short(fields[key])}, expected JSON ({error})") from error


def _fenced(text: str) -> str:
    return f"```\n{text.strip()}\n```"


def _lines(cell: Any) -> str:
    """A list as lines; a text as it is."""
    return "\n".join(map(str, cell)) if isinstance(cell, list) else str(cell)
