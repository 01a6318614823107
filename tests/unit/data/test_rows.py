"""Rows of JSON-lines files: good ones, and refusals that name file, line and key."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lightning_r1.data.rows import DataError, Row, as_prompts, jsonl_rows, split_of
from lightning_r1.models.codec import Codec

GOOD = {"question": "1+1", "answer": {"kind": "number", "value": 2}}


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "problems.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_rows_of_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        GOOD,
        "",
        {"id": "mine/7", "question": "2?5?1=9", "answer": {"kind": "expression", "numbers": [2, 5, 1], "target": 9}},
        "   ",
        {"question": "Πόσο; 多少?", "answer": {"kind": "text", "value": "τίποτα"}, "level": 3},
    )

    rows = list(jsonl_rows(path))

    assert rows == [
        Row("problems/1", "1+1", {"kind": "number", "value": 2}),
        Row("mine/7", "2?5?1=9", {"kind": "expression", "numbers": [2, 5, 1], "target": 9}),
        Row("problems/5", "Πόσο; 多少?", {"kind": "text", "value": "τίποτα"}),
    ]
    assert list(jsonl_rows(str(path))) == rows


def test_other_keys_and_bare_values(tmp_path: Path) -> None:
    path = write(tmp_path, {"problem": "1+1", "solution": 2, "id": 5}, {"problem": "1/2", "solution": "0.5"})
    rows = list(jsonl_rows(path, question="problem", answer="solution", kind="number"))
    assert rows == [
        Row("5", "1+1", {"kind": "number", "value": 2}),
        Row("problems/2", "1/2", {"kind": "number", "value": "0.5"}),
    ]


def test_a_line_may_say_its_language_domain_and_budget(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {**GOOD, "language": "de", "token_budget": 64},
        {"question": "Name a river.", "domain": "helpful"},
        {"question": "多少是二加三？", "domain": "harmless", "answer": {}, "language": "zh"},
    )
    expected = [
        Row("problems/1", "1+1", GOOD["answer"], "reasoning", "de", 64),
        Row("problems/2", "Name a river.", {}, "helpful", "en", None),
        Row("problems/3", "多少是二加三？", {}, "harmless", "zh", None),
    ]
    assert list(jsonl_rows(path)) == expected


def test_languages_are_told_from_the_script_where_lines_do_not_say(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, {**GOOD, "question": "多少是二加三？"}, {**GOOD, "language": "fr"})
    assert [row.language for row in jsonl_rows(path, language="detect")] == ["en", "zh", "fr"]
    with pytest.raises(ValueError, match="language='klingon': expected an ISO 639-1 code"):
        list(jsonl_rows(path, language="klingon"))


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert list(jsonl_rows(write(tmp_path, ""))) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", ["not JSON"]),
        ('{"question": "1+1"} extra', ["not JSON"]),
        ("[1, 2]", ["expected an object, found list"]),
        ("7", ["expected an object, found int"]),
        ("null", ["expected an object, found NoneType"]),
        ({"answer": GOOD["answer"]}, ["key 'question' is missing", "the line has answer"]),
        ({"question": "1+1", "solution": 2}, ["key 'answer' is missing", "the line has question, solution"]),
        ({}, ["key 'question' is missing", "no keys"]),
        ({**GOOD, "question": ""}, ["key 'question' is ''", "expected a non-empty text"]),
        ({**GOOD, "question": " \n "}, ["key 'question'", "expected a non-empty text"]),
        ({**GOOD, "question": 7}, ["key 'question' is 7", "expected a non-empty text"]),
        ({**GOOD, "question": None}, ["key 'question' is None", "expected a non-empty text"]),
        ({**GOOD, "answer": 2}, ["key 'answer'", "answer.kind=None", "expected one of number, expression, text"]),
        ({**GOOD, "answer": None}, ["key 'answer'", "answer.kind=None"]),
        ({**GOOD, "answer": {"kind": "number"}}, ["key 'answer'", "answer.value is missing or empty"]),
        (
            {**GOOD, "answer": {"kind": "number", "value": "x"}},
            ["key 'answer'", "answer.value='x'", "expected a number"],
        ),
        ({**GOOD, "domain": "algebra"}, ["key 'domain' is 'algebra', expected one of reasoning", "rename it if"]),
        ({**GOOD, "language": "klingon"}, ["key 'language'", "expected an ISO 639-1 code"]),
        ({**GOOD, "token_budget": 0}, ["key 'token_budget' is 0, expected a whole number >= 1"]),
        ({**GOOD, "token_budget": "many"}, ["key 'token_budget' is 'many'"]),
        ({"question": "1+1", "domain": "helpful", "answer": 2}, ["key 'answer'", "answer.kind=None"]),
        ({**GOOD, "answer": {"kind": ["number"], "value": 1}}, ["key 'answer'", "answer.kind=['number']"]),
    ],
    ids=str,
)
def test_refusals_name_file_line_and_key(line: Any, expected: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "", line, GOOD)
    with pytest.raises(DataError) as refusal:
        list(jsonl_rows(path))
    for part in [f"{path} line 3", *expected]:
        assert part in str(refusal.value)


def test_a_bare_value_of_the_wrong_kind_names_the_key(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "1+1", "answer": "two"})
    with pytest.raises(DataError, match=r"line 1: key 'answer': answer\.value='two': expected a number"):
        list(jsonl_rows(path, kind="number"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(DataError) as refusal:
            list(jsonl_rows(path))
        assert f"{path} does not exist" in str(refusal.value)


def test_text_that_is_not_utf8_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes(
        json.dumps(GOOD).encode() + b'\n{"question": "caf\xe9", "answer": {"kind": "number", "value": 1}}\n'
    )
    with pytest.raises(DataError) as refusal:
        list(jsonl_rows(path))
    assert str(path) in str(refusal.value)


def test_a_data_error_is_a_value_error() -> None:
    assert issubclass(DataError, ValueError)


def test_rows_become_prompts(codec: Codec) -> None:
    rows = [
        Row("operators/2?5?1=9", "2?5?1=9", {"kind": "number", "value": 9}),
        Row("7", "1+1", {"kind": "text", "value": "2"}, token_budget=8),
    ]

    first, second = as_prompts(rows, codec)

    assert (first.id, first.source, first.question) == ("operators/2?5?1=9", "operators", "2?5?1=9")
    assert first.text == "2?5?1=9<think>"
    assert first.token_ids == codec.encode("2?5?1=9<think>")
    assert first.answer == {"kind": "number", "value": 9}
    assert (second.id, second.source, second.token_budget) == ("7", "7", 8)


def test_splits_are_a_hash_of_the_key() -> None:
    keys = [f"problem {number}" for number in range(4000)]
    shares = Counter(split_of(key, 8) for key in keys)
    # one in eight of 4,000 is 500, give or take four standard deviations of 21
    assert set(shares) == {"train", "heldout"}
    assert abs(shares["heldout"] - 500) < 85
    assert [split_of(key, 8) for key in keys] == [split_of(key, 8) for key in keys]
    assert {split_of(key, 1) for key in keys} == {"heldout"}
    # the same in every process: Python's own hash is salted
    assert [target for target in range(100) if split_of(f"2?5?1={target}", 8) == "heldout"] == [
        0,
        13,
        51,
        59,
        65,
        73,
        78,
        80,
    ]
