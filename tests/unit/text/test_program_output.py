"""Outputs and values of programs against what a test expects."""

from __future__ import annotations

import json
import time

import pytest

from lightning_r1.text.program_output import DEEPEST, MOST_DIGITS, read_value, same_output, same_value


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("3\n", "3"),
        ("3", "3\n"),
        ("3 \t\r\n", "3\n"),
        ("1  2\n 3\n\n \n", "1 2\n3"),
        ("", "\n"),
        ("1\n\n2\n", "1\n\n2"),
        ("größer", "größer\n"),
    ],
)
def test_white_space_does_not_matter(given: str, wanted: str) -> None:
    assert same_output(given.encode(), wanted)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", "3"),
        ("1\n", "1\n2\n"),  # a correct prefix
        ("1", "1 2"),
        ("1\n2\n3\n", "1\n2\n"),  # and more
        ("1 2 3", "1 2"),
        ("12", "1 2"),
        ("1 2", "1\n2"),
        ("1\n2", "1 2"),
        ("1\n2", "1\n\n2"),
        ("\n1", "1"),
        ("yes", "YES"),
        ("3.0", "3"),
        ("1_0", "10"),
        ("3\x00", "3"),
        ("3\u00a0", "3"),
        ("1\u20282", "1\n2"),
    ],
)
def test_anything_else_does(given: str, wanted: str) -> None:
    assert not same_output(given.encode(), wanted)
    assert not same_output(wanted.encode(), given)


def test_bytes_that_are_no_text_are_wrong_and_nothing_worse() -> None:
    assert not same_output(b"\xff\xfe3", "3")
    assert not same_value(b"\xff\xfe3", "3")
    assert not same_output("\ufffd".encode(), "\udcff")


@pytest.mark.parametrize(
    ("given", "wanted", "tolerance", "same"),
    [
        ("0.3333333", "0.33333333", 1e-6, True),
        ("0.3333", "0.33333333", 1e-6, False),
        ("1000000.5", "1000000", 1e-6, True),  # relative above 1
        ("0.0000004", "0.0000001", 1e-6, True),  # absolute below
        ("1e3", "1000.0", 1e-9, True),
        ("x 1.0", "x 1", 1e-9, True),
        ("y 1.0", "x 1", 1e-9, False),
        ("1.0\n1", "1 1", 1e-9, False),  # lines still matter
        ("1.0", "1 1", 1e-9, False),
        ("nan", "1", 1e9, False),
        ("inf", "1", 1e9, False),
        ("1_0", "10", 1e-9, False),
        ("1e400", "1", 1e300, False),
        ("9" * 401, "1", 1e300, False),
        ("0x1", "1", 1e-9, False),
    ],
)
def test_tolerance(given: str, wanted: str, tolerance: float, same: bool) -> None:
    assert same_output(given.encode(), wanted, tolerance) is same


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("1", "1.0"),
        ("[1, 2.0]", "[1.0, 2]"),
        ("true", "true"),
        ("null", "null"),
        ('{"b": [1], "a": 2}', '{"a": 2, "b": [1]}'),
        ('"\\u00e4"', '"ä"'),
        (' [ ] ', "[]"),
        (str(10**30), str(10**30)),
        ("[" * DEEPEST + "]" * DEEPEST, "[" * DEEPEST + "]" * DEEPEST),
        (json.dumps("[" * 500 + '"'), json.dumps("[" * 500 + '"')),  # brackets in a text are not deep
    ],
)  # fmt: skip
def test_equal_values(given: str, wanted: str) -> None:
    assert same_value(given.encode(), wanted)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("1", "true"),
        ("0", "false"),
        ("true", "1"),
        ("[true]", "[1]"),
        ("null", "false"),
        ("null", "0"),
        ('"1"', "1"),
        ("[]", "{}"),
        ("[1]", "1"),
        ("[1]", "[1, 2]"),  # a correct prefix
        ("[1, 2, 3]", "[1, 2]"),
        ('{"a": 1}', '{"a": 1, "b": 2}'),
        ('{"a": 1, "a": 2}', '{"a": 2}'),
        ("0.30000000000000004", "0.3"),
        (str(10**30 + 1), "1e30"),
        ("NaN", "1"),
        ("Infinity", "1"),
        ("1e999", "1"),
        ("", "1"),
        ("1 1", "1"),
        ("1\n{}", "1"),
        ("[1", "[1]"),
        ("'a'", '"a"'),
    ],
)
def test_other_values(given: str, wanted: str) -> None:
    assert not same_value(given.encode(), wanted)


def test_values_within_a_tolerance() -> None:
    assert same_value(b"[0.30000000000000004, {}]", "[0.3, {}]", 1e-9)
    assert not same_value(b"0.31", "0.3", 1e-9)
    assert not same_value(b"true", "1", 10)
    assert not same_value(str(10**400).encode(), "1", 10)
    assert same_value(str(10**400).encode(), str(10**400), 10)


@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"[" * 400_000 + b"]" * 400_000,
        b"9" * 1_000_000,
        b"0." + b"9" * 1_000_000,
        b"-" + b"9" * (MOST_DIGITS + 1),
        b'"' * 1_000_000,
        b'"' + b'\\"' * 500_000 + b"\\",
        b'"\\' * 500_000,
        b'"' + b"\\" * 1_000_001,
        b"[1," * 300_000,
        b"1e" + b"9" * 1_000_000,
        b"{" + b",".join(b'"a":1' for _ in range(100_000)) + b"}",
    ],
    ids=range(13),
)
def test_hostile_values_are_wrong_at_once(hostile: bytes) -> None:
    started = time.perf_counter()
    assert not same_value(hostile, "1")
    assert not same_value(hostile, "[[1]]", 1e-6)
    same_output(hostile, "1", 1e-6)
    assert time.perf_counter() - started < 3


def test_an_expected_value_that_cannot_be_read_is_said() -> None:
    for wanted, message in (
        ("{", "Expecting"),
        ("[" * 200 + "]" * 200, "100 deep"),
        ("NaN", "NaN is no JSON"),
        ("1" * 5000, "4,300 digits"),
        ('{"a": 1, "a": 1}', "a key stands twice"),
    ):
        with pytest.raises(ValueError, match=message):
            same_value(b"1", wanted)
        with pytest.raises(ValueError, match=message):
            read_value(wanted)
