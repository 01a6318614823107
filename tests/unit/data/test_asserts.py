"""Asserts as data: what is told exactly, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_r1.data.asserts import MOST_CHARACTERS, calls_of


@pytest.mark.parametrize(
    ("text", "arguments", "value"),
    [
        ("assert f() == None", [], None),
        ("assert f(1, -2.5, 'a', True) == 3", [1, -2.5, "a", True], 3),
        ("  assert f([1, [2]], {'a': 1})==[3]  # three", [[1, [2]], {"a": 1}], [3]),
        ("assert f(1) == (1, (2, [3]))", [1], [1, [2, [3]]]),
        ("assert f('a\\n\\'b') == \"c\"", ["a\n'b"], "c"),
        ("assert f(1) == {2: 'x'}", [1], {"2": "x"}),
        ("assert f(1) == 2, 'message'", [1], 2),
        ("assert (f(1)) == (2)", [1], 2),
    ],
)
def test_told(text: str, arguments: list[Any], value: Any) -> None:
    assert calls_of([text]) == ("f", [(arguments, value)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("assert f((1, 2)) == 3", "no argument of type tuple"),
        ("assert f([(1, 2)]) == 3", "no argument of type tuple"),
        ("assert f({1: 2}) == 3", "no argument of type dict whose keys are no texts"),
        ("assert f({1}) == 3", "no argument of type set"),
        ("assert f(b'x') == 3", "no argument of type bytes"),
        ("assert f(1) == {1, 2}", "no value of type set"),
        ("assert f(1) == 1+2j", "no value of type complex"),
        ("assert f(1) == 1e999", "no value of type float"),
        ("assert f(1) == {(1, 2): 3}", "no such keys"),
        ("assert f(1) != 3", "expected `assert function"),
        ("assert f(1) is None", "expected `assert function"),
        ("assert f(1)", "expected `assert function"),
        ("assert not f(1)", "expected `assert function"),
        ("assert 3 == f(1)", "expected `assert function"),
        ("assert f(1) == 3 == 3", "expected `assert function"),
        ("assert f(x=1) == 3", "expected `assert function"),
        ("assert f(*[1]) == 3", "expected `assert function"),
        ("assert f(g(1)) == 3", "expected `assert function"),
        ("assert f(1) == g(1)", "expected `assert function"),
        ("assert m.f(1) == 3", "expected `assert function"),
        ("assert sorted(f(1)) == [3]", "expected `assert function"),
        ("assert f(1) == 3; import os", "expected `assert function"),
        ("import os", "expected `assert function"),
        ("", "expected `assert function"),
        ("assert f(1) =", "it is no Python"),
        ("assert f(" + "(" * 5000 + ")" * 5000 + ") == 1", "it is no Python"),
        ("assert f(" + "-" * 9000 + "1) == 1", "it is no Python"),
        ("assert f(1) == " + "1" * MOST_CHARACTERS, "at most 20,000 characters"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="assert 1: ") as refusal:
        calls_of(["assert f(1) == 2", text])
    assert message in str(refusal.value)


def test_all_are_of_one_function() -> None:
    assert calls_of(["assert f(1) == 2", "assert f(2) == 3"]) == ("f", [([1], 2), ([2], 3)])
    with pytest.raises(ValueError, match="asserts of f and g: expected all of one function"):
        calls_of(["assert f(1) == 2", "assert g(2) == 3"])
    assert calls_of([]) == ("", [])
