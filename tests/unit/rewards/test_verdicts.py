"""Which replies are verdicts: JSON, strictly, in the agreed form, with the mark of the call; the last one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from lightning_r1.rewards.verdicts import HARMLESS, HELPFUL, Correctness, Preferred, Quality, json_objects

MARK = "5eed5eed5eed5eed"


def said(**verdict: Any) -> str:
    return json.dumps({"mark": MARK, "analysis": "so it is", **verdict})


RIGHT, WRONG = said(correctness="correct"), said(correctness="incorrect")


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (RIGHT, 1.0),
        (WRONG, 0.0),
        (f"Well:\n```json\n{RIGHT}\n```\nThat is it.", 1.0),
        (f"<think>{RIGHT}, or is it? \\boxed{{4}}</think>{WRONG}", 0.0),
        (f"{WRONG} {RIGHT}", 1.0),
        (f"{RIGHT} {{broken", 1.0),
        (f"{RIGHT} {said(correctness='perhaps')}", 1.0),
        ("correct", None),
        ("", None),
        ('{"correctness": "correct"}', None),
        (RIGHT.replace(MARK, "0123456789abcdef"), None),
        (RIGHT.replace(f'"{MARK}"', "null"), None),
        (json.dumps({"verdict": json.loads(RIGHT)}), None),
        (f"[{RIGHT}]", 1.0),
        (f'{{"mark": "{MARK}", "correctness": "correct", "correctness": "incorrect"}}', None),
        (f'{{"mark": "x", "mark": "{MARK}", "correctness": "correct"}}', None),
        (f'{{"mark": "{MARK}", "score": NaN, "correctness": "correct"}}', None),
        (f'{{"mark": "{MARK}", "score": -Infinity, "correctness": "correct"}}', None),
        (f'{{"a": 1, "a": {RIGHT}}}', None),
        (said(correctness=True), None),
        (said(correctness="Correct"), None),
        (said(correctness=["correct"]), None),
        (said(correctness={"is": "correct"}), None),
        (f"{{'mark': '{MARK}', 'correctness': 'correct'}}", None),
        (RIGHT[:-1], None),
        ("\ud800" + RIGHT, 1.0),
    ],
)
def test_correctness(reply: str, value: float | None) -> None:
    assert Correctness().read(reply, MARK) == value


@pytest.mark.parametrize(
    ("grade", "value"),
    [(1, 0.0), (10, 1.0), (4, 1 / 3), (0, None), (11, None), (True, None), (5.5, None), ("7", None), (None, None)],
)
def test_quality(grade: Any, value: float | None) -> None:
    assert Quality().read(said(grade=grade), MARK) == (None if value is None else pytest.approx(value))
    assert Quality(lowest=0, highest=4).read(said(grade=3), MARK) == 0.75


@pytest.mark.parametrize(
    ("verdict", "value"), [("A>>B", 2), ("A>B", 1), ("A=B", 0), ("B>A", -1), ("B>>A", -2), ("A", None), (1, None)]
)
def test_preferred(verdict: Any, value: float | None) -> None:
    assert Preferred().read(said(verdict=verdict), MARK) == value


@pytest.mark.parametrize(
    "reply",
    ["{" * 200_000, '{"a":' * 50_000, '{"a": [' * 30_000, "[" * 200_000, '{"' * 100_000, f'{{"a": {"9" * 100_000}}}'],
    ids=lambda reply: reply[:6],
)
def test_a_reply_made_to_hurt_ends_soon(reply: str) -> None:
    started = time.monotonic()
    assert Correctness().read(reply, MARK) is None
    assert Correctness().read(reply + RIGHT, MARK) in (1.0, None)
    assert time.monotonic() - started < 60  # a fraction of a second; far more on a busy machine


def test_the_end_of_a_long_reply_counts() -> None:
    assert Correctness().read(WRONG + "so " * 20_000 + RIGHT, MARK) == 1
    assert Correctness().read(RIGHT + "so " * 20_000, MARK) is None


def test_the_form_that_is_shown_is_no_verdict() -> None:
    for verdict in (Correctness(), Quality()):
        message = verdict.message(MARK, "2+2?", "4", "5")
        assert verdict.read(message, MARK) is None
        assert f'"mark": "{MARK}"' in message
    assert Preferred().read(Preferred().message(MARK, "2+2?", None, "4", "5"), MARK) is None


def test_what_is_asked() -> None:
    with_one, without = (Correctness().message(MARK, "Name {one}.", reference, "Rhine") for reference in ("Elbe", None))
    assert (
        f"[{MARK} question]\nName {{one}}.\n[{MARK} reference]\nElbe\n[{MARK} answer]\nRhine\n[{MARK} end]" in with_one
    )
    assert "reference" not in without
    quality = Quality(rubric="Short is good.", lowest=2, highest=5).message(MARK, "a", None, "b")
    assert "Short is good." in quality
    assert HELPFUL in Quality().message(MARK, "a", None, "b")
    assert HARMLESS in Quality("harmless").message(MARK, "a", None, "b")
    assert HARMLESS in Preferred("harmless").message(MARK, "a", None, "b", "c")
    assert quality.count("from 2") == 2
    pair = Preferred().message(MARK, "a", None, "b", "c")
    assert f"[{MARK} question]\na\n[{MARK} answer A]\nb\n[{MARK} answer B]\nc\n[{MARK} end]" in pair
    # what is to be done stands behind the data, too
    assert with_one.rindex("Reply with one JSON object") > with_one.index(f"[{MARK} end]")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"lowest": 3, "highest": 3}, "lowest=3, highest=3"), ({"rubric": " "}, "rubric: it is empty")],
)
def test_a_scale_and_a_rubric_are_needed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Quality(**options)


def test_objects_inside_of_others_are_none() -> None:
    assert list(json_objects('{"a": {"b": {"c": 1}}} [{"d": 2}]')) == [{"a": {"b": {"c": 1}}}, {"d": 2}]
