"""Gold answers: what is usable, and what is refused with its key."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_r1.text.golds import check_gold


def code(given: str = "[1]", wanted: str = "2", **fields: Any) -> dict[str, Any]:
    return {"kind": "code", "tests": [{"input": given, "output": wanted}], **fields}


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "number", "value": 42},
        {"kind": "number", "value": 0},
        {"kind": "number", "value": -0.5},
        {"kind": "number", "value": "1,234"},
        {"kind": "number", "value": "3/4"},
        {"kind": "number", "value": "$18.50"},
        {"kind": "number", "value": 42, "unit": "apples"},
        {"kind": "expression", "numbers": [2, 5, 1], "target": 9},
        {"kind": "expression", "numbers": [2, 5, 1], "target": 0, "ordered": True, "operators": "+-*"},
        {"kind": "expression", "numbers": [2, 4], "target": "1/2"},
        {"kind": "text", "value": "Paris"},
        {"kind": "text", "value": 7},
        {"kind": "math", "value": r"\left\{ \frac{1}{2}, \sqrt{2} \right\}"},
        {"kind": "math", "value": 7},
        {"kind": "math", "value": r"\emptyset"},
        {"kind": "number", "value": 3, "absolute_tolerance": 0.01, "relative_tolerance": 0},
        {"kind": "choice", "value": "B", "options": ["a", "b"]},
        {"kind": "math", "value": r"\frac{1}{1+" * 12 + "x" + "}" * 12},
        {"kind": "code", "tests": [{"input": "", "output": "1\n"}]},
        {"kind": "code", "tests": [{"input": "[1]", "output": "2"}], "function": "twice", "time_limit_s": 2.0},
        {"kind": "code", "tests": [{"input": "", "output": "1"}], "language": "cpp", "tolerance": 1e-6},
    ],
    ids=str,
)
def test_usable(answer: dict[str, Any]) -> None:
    check_gold(answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "answer.kind=None: expected one of number, expression, text"),
        ({"value": 7}, "answer.kind=None"),
        ({"kind": "integer", "value": 7}, "answer.kind='integer': expected one of number, expression, text"),
        ({"kind": "number"}, "answer.value is missing or empty; kind 'number' needs value"),
        ({"kind": "number", "value": None}, "answer.value is missing or empty"),
        ({"kind": "number", "value": ""}, "answer.value is missing or empty"),
        ({"kind": "number", "value": []}, "answer.value is missing or empty"),
        ({"kind": "number", "value": "seven"}, "answer.value='seven': expected a number"),
        ({"kind": "number", "value": "12 apples"}, "answer.value='12 apples': expected a number"),
        ({"kind": "number", "value": True}, "answer.value=True: expected a number"),
        ({"kind": "number", "value": float("nan")}, "answer.value=nan: expected a number"),
        ({"kind": "number", "value": "1/0"}, "answer.value='1/0': expected a number"),
        (
            {"kind": "expression", "numbers": [2, 5]},
            "answer.target is missing or empty; kind 'expression' needs numbers",
        ),
        ({"kind": "expression", "target": 9}, "answer.numbers is missing or empty"),
        ({"kind": "expression", "numbers": [], "target": 9}, "answer.numbers is missing or empty"),
        ({"kind": "expression", "numbers": [2], "target": "nine"}, "answer.target='nine': expected a number"),
        ({"kind": "text", "value": ""}, "answer.value is missing or empty; kind 'text' needs value"),
        ({"kind": "math", "value": "$ $"}, "answer.value='$ $': expected an answer"),
        ({"kind": "math", "value": r"\frac{1}{2"}, "expected balanced braces"),
        ({"kind": "math", "value": r"\frac{1}}{2"}, "expected balanced braces"),
        (
            {"kind": "math", "value": "x+" * 200 + "1"},
            "expected what can be calculated (401 characters, more than 400)",
        ),
        ({"kind": "math", "value": r"\frac{1}{1+" * 13 + "x" + "}" * 13}, "(brackets more than 12 deep)"),
        ({"kind": "math", "value": "2^{3^{4}}"}, "(a tower of powers)"),
        ({"kind": "math", "value": r"\sum_{k=1}^n k"}, "(sum: sums, integrals"),
        ({"kind": "math", "value": "."}, "answer.value='.': expected an answer"),
        ({"kind": "math", "value": "()"}, "answer.value='()': expected an answer"),
        (
            {"kind": "number", "value": 3, "absolute_tolerance": -1},
            "answer.absolute_tolerance=-1: expected a number >= 0",
        ),
        ({"kind": "number", "value": 3, "relative_tolerance": float("nan")}, "answer.relative_tolerance=nan"),
        ({"kind": "number", "value": 3, "relative_tolerance": "1%"}, "answer.relative_tolerance='1%'"),
        ({"kind": "number", "value": 3, "absolute_tolerance": True}, "answer.absolute_tolerance=True"),
        ({"kind": "choice", "value": "C", "options": ["a", "b"]}, "expected a list of texts that reaches C"),
        ({"kind": "choice", "value": "A", "options": "abc"}, "expected a list of texts that reaches A"),
        ({"kind": "code", "tests": []}, "answer.tests is missing or empty; kind 'code' needs tests"),
        (code(time_limit_s=0), "answer.time_limit_s=0: expected a number above 0"),
        (code(memory_limit_mb="64"), "answer.memory_limit_mb='64': expected a number above 0"),
        (code(tolerance=float("inf")), "answer.tolerance=inf: expected a number above 0"),
        (code(tolerance=True), "answer.tolerance=True: expected a number above 0"),
        (code(language="perl"), "answer.language='perl': expected one of python, cpp"),
        (code(function="f()"), "answer.function='f()': expected the name of a function"),
        (code(function="f", language="cpp"), "answer.language='cpp': a function is called in python"),
        (code(function="f", given="1"), "answer.tests[0].input: expected a JSON list"),
        (code(function="f", given="[1"), "answer.tests[0].input: expected JSON ("),
        (code(function="f", wanted="NaN"), "answer.tests[0].output: expected JSON (NaN is no JSON"),
        (
            code(function="f", wanted="[" * 200),
            "answer.tests[0].output: expected JSON (lists or objects more than 100 deep",
        ),
        ({"kind": "code", "tests": "[1, 2]"}, "answer.tests is a str: expected a list"),
        (
            {"kind": "code", "tests": [{"input": "", "output": ""}, {"input": "1", "output": 2}]},
            "answer.tests[1]: expected the texts 'input' and 'output'",
        ),
    ],
    ids=str,
)
def test_refused(answer: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared whole
        check_gold(answer)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ({"kind": ["number"], "value": 7}, "answer.kind"),
        ({"kind": "expression", "numbers": ["two", 5], "target": 9}, "answer.numbers"),
        ({"kind": "expression", "numbers": [2, None], "target": 9}, "answer.numbers"),
        ({"kind": "expression", "numbers": "2, 5", "target": 9}, "answer.numbers"),
        ({"kind": "expression", "numbers": 7, "target": 9}, "answer.numbers"),
        ({"kind": "text", "value": " \n"}, "answer.value"),
        ({"kind": "number", "value": "2+3"}, "answer.value"),
    ],
    ids=str,
)
def test_golds_that_no_completion_could_meet_are_refused(answer: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the key is compared below
        check_gold(answer)
    assert key in str(refusal.value)
