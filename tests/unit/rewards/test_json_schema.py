"""Structured output: what is found, what is valid, what a hostile schema or answer can do."""

from __future__ import annotations

import json
import math
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lightning_r1.data.rows import DataError, jsonl_rows
from lightning_r1.rewards.accuracy import Accuracy, answer_classes
from lightning_r1.rewards.structured import JSONSchema
from lightning_r1.rewards.workers import WorkerPool
from lightning_r1.text.structured import find_json
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt

CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2},
        "people": {"type": "integer", "minimum": 0},
        "rivers": {"type": "array", "items": {"$ref": "#/$defs/name"}, "uniqueItems": True},
    },
    "required": ["city", "people"],
    "additionalProperties": False,
    "$defs": {"name": {"type": "string"}},
}
TAGS = Tags()


def gold(schema: Any = CITY, **more: Any) -> dict[str, Any]:
    return {"kind": "json_schema", "schema": schema, **more}


def scored(answer: Any, of: dict[str, Any] | None = None, reward: Any = None) -> tuple[float, Outcome]:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    score = (reward or Accuracy(TAGS))(prompt(of or gold()), completion(f"<think>hm</think><answer>{text}</answer>"))
    return score.value, score.outcome


def prompt(of: dict[str, Any]) -> Prompt:
    return Prompt("cities/3", "?", "?", (1,), of)


def completion(text: str) -> Completion:
    return Completion((), (), "stop", text)


RIGHT, WRONG, NONE = (1.0, Outcome.OK), (0.0, Outcome.OK), (0.0, Outcome.WRONG_FORMAT)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"city": "Paris", "people": 2}, RIGHT),
        ({"city": "Paris", "people": 2.0, "rivers": ["Seine"]}, RIGHT),
        ('```json\n{"city": "Paris", "people": 2}\n```', RIGHT),
        ({"city": "Paris"}, WRONG),
        ({"city": "Paris", "people": "2"}, WRONG),
        ({"city": "Paris", "people": True}, WRONG),
        ({"city": "Paris", "people": 2, "mayor": "?"}, WRONG),
        ({"city": "Paris", "people": 2, "rivers": ["Seine", "Seine"]}, WRONG),
        ({"city": "Paris", "people": 2, "rivers": [1]}, WRONG),
        ([], WRONG),
        ('{"city": "Paris", "people": 2', NONE),
        ("{'city': 'Paris', 'people': 2}", NONE),
        ('{"city": "Paris", "people": NaN}', NONE),
        ('{"city": "Paris", "people": 1, "people": 2}', NONE),
        ("Paris has 2 people", NONE),
        ("[" * 5000 + "]" * 5000, NONE),
        ('{"city": "Paris", "people": ' + "9" * 5000 + "}", NONE),
        ('{"city": "' + "x" * 200_000 + '", "people": 1}', NONE),
        ("", NONE),
    ],
)
def test_an_answer_is_valid_or_not(answer: Any, expected: tuple[float, Outcome]) -> None:
    assert scored(answer) == expected
    assert scored(answer, reward=JSONSchema(TAGS)) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<think>{}</think> 1", "1"),
        ("{}", None),  # it never stopped thinking
        ("<think></think>Here:\n```json\n1\n```\nor\n```\n2\n```", "1"),
        ("<think></think>```\n1\n```\n```\n2\n```", "2"),
        ("<think></think>```python\n1\n```", "```python\n1\n```"),
        ("<think></think>```json\n1\n```\n<answer>2</answer>", "2"),
        ("<think></think>  ", None),
    ],
)
def test_where_the_json_stands(text: str, found: str | None) -> None:
    assert find_json(text, TAGS) == found


def test_values_that_members_must_have() -> None:
    of = gold(values={"city": "Paris", "people": 2})
    assert scored({"city": "Paris", "people": 2}, of) == RIGHT
    assert scored({"city": "Paris", "people": 2.0}, of) == RIGHT
    assert scored({"city": "Rome", "people": 2}, of) == WRONG
    assert scored({"city": "Paris", "people": True}, gold({}, values={"people": 1})) == WRONG
    assert scored([], gold({}, values={"people": 1})) == WRONG


def test_credit_on_the_way() -> None:
    reward = JSONSchema(TAGS, parses=0.1, members=0.4)
    assert scored({"city": "Paris", "people": 2}, reward=reward) == RIGHT
    assert scored([1], reward=reward) == (0.1, Outcome.OK)
    assert scored({"city": "Paris"}, reward=reward)[0] == pytest.approx(0.1 + 0.4 / 2)
    assert scored({"city": "Paris", "people": 2, "rivers": [1]}, reward=reward)[0] == pytest.approx(0.1 + 0.4 * 2 / 3)
    assert scored({"city": "Paris", "people": 2, "mayor": "?"}, reward=reward)[0] == pytest.approx(0.5)
    assert scored("no", reward=reward) == NONE
    for options in ({"parses": 0.6, "members": 0.4}, {"parses": -0.1}):
        with pytest.raises(ValueError, match="together less than 1"):
            JSONSchema(TAGS, **options)


def test_other_kinds_are_graded_as_ever() -> None:
    reward = JSONSchema(TAGS, parses=0.5)
    assert scored("8", {"kind": "number", "value": 8}, reward) == RIGHT
    assert scored("9", {"kind": "number", "value": 8}, reward) == WRONG


def test_a_vote_counts_values_not_spellings() -> None:
    one, same, other, broken = answer_classes(['{"a": 1, "b": 2}', '{"b":2,"a":1}', '{"a": 1}', "{"], gold({}))
    assert one == same
    assert len({one, other, broken}) == 3


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("object", "answer.schema is a str: expected an object"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "expected a place in the schema"),
        ({"items": [{"$ref": "file:///etc/passwd"}]}, "expected a place in the schema"),
        (json.loads('{"not":' * 200 + "{}" + "}" * 200), "more than 60 levels"),
    ],
)
def test_a_gold_that_cannot_be_is_refused_with_its_line(bad: Any, told: str, tmp_path: Path) -> None:
    file = tmp_path / "cities.jsonl"
    lines = [json.dumps({"question": "?", "answer": gold(schema)}) for schema in (CITY, bad)]
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=f"cities.jsonl line 2: .*{told}"):
        list(jsonl_rows(file))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"type": "objekt"}, r"\$.type: 'objekt' is not valid"),
        ({"properties": {"a": {"minimum": "1"}}}, r"\$.properties.a.minimum"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"type": "string", "pattern": "("}, "answer.schema"),
    ],
)
def test_a_schema_that_is_none_is_refused_at_the_start(bad: Any, told: str) -> None:
    good, prompt_of_bad = prompt(gold()), prompt(gold(bad))
    for reward in (Accuracy(TAGS), JSONSchema(TAGS)):
        reward.expect([good])
        with pytest.raises(ValueError, match=f"cities/3: .*{told}"):
            reward.expect([good, prompt_of_bad])


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*arguments: Any, **how: Any) -> Any:
        raise AssertionError("it opened an address")

    monkeypatch.setattr(urllib.request, "urlopen", fetch)
    score = Accuracy(TAGS)(prompt(gold({"$ref": "http://x/y"})), completion("<think></think>{}"))
    assert math.isnan(score.value)
    assert score.outcome is Outcome.UNSCORABLE
    # an $id of elsewhere is a name, and no place to look
    assert scored({}, gold({"$id": "http://x/y", "$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}})) == RIGHT


def test_numbers_that_no_arithmetic_takes_are_wrong() -> None:
    assert scored("1e308", gold({"type": "number", "multipleOf": 1e-308})) in (RIGHT, WRONG)


def test_a_pattern_that_never_ends_costs_one_worker() -> None:
    of = gold({"type": "string", "pattern": "^(a+)+$"})
    items = [(prompt(of), completion(f"<think></think>{json.dumps(text)}")) for text in ("aa", "a" * 60 + "b", "aaa")]
    pool = WorkerPool(workers=1, timeout_s=1.0)
    try:
        scores = pool.score("json", Accuracy(TAGS), items)
    finally:
        pool.close()
    assert [score.outcome for score in scores] == [Outcome.OK, Outcome.TIMEOUT, Outcome.OK]
    assert [scores[0].value, scores[2].value] == [1.0, 1.0]
