"""Rows: problems before the template has seen them, and where they come from."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from lightning_r1.models.codec import Codec
from lightning_r1.text.golds import check_gold
from lightning_r1.text.language import detect_language, script_of
from lightning_r1.types import Domain, Prompt

Split = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True)
class Row:
    """A question and its gold answer (see :mod:`lightning_r1.text.golds`); a general one has none."""

    id: str
    question: str
    answer: Mapping[str, Any] = field(default_factory=dict)
    domain: Domain = "reasoning"
    language: str = "en"
    token_budget: int | None = None
    """Most tokens of a completion, if fewer than the run's; null is as many."""


class DataError(ValueError):
    """Data that cannot be used; the message names file, line and key."""


def jsonl_rows(
    path: str | Path,
    *,
    question: str = "question",
    answer: str = "answer",
    kind: str | None = None,
    language: str = "en",
) -> Iterator[Row]:
    """Rows of a JSON-lines file.

    A line may have an ``id``, a ``language``, a ``token_budget`` and a ``domain`` of its own; one of a general domain
    needs no gold.

    Args:
        path: the file.
        question: key of the question.
        answer: key of the gold answer: an object with ``kind``, or a bare value.
        kind: the kind of bare values.
        language: of lines that do not name theirs: an ISO 639-1 code, or ``detect`` to tell it from the script.

    Raises:
        DataError: for a missing file, and for a line that is no JSON object, lacks a key or has
            a value that cannot be used; names file, line and key.
        ValueError: for a language that is not known.
    """
    if language != "detect":
        script_of(language)
    for where, number, fields in json_objects(path):
        domain = _domain(fields, where)
        text = require(fields, question, where)
        gold = require(fields, answer, where) if domain == "reasoning" else fields.get(answer, {})
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: key {question!r} is {text!r}, expected a non-empty text")
        yield Row(
            id=str(fields.get("id", f"{Path(path).stem}/{number}")),
            question=text,
            answer=_gold(gold, kind, f"{where}: key {answer!r}") if gold != {} or domain == "reasoning" else {},
            domain=domain,
            language=_language(fields, text, language, where),
            token_budget=_token_budget(fields, where),
        )


def _domain(fields: Mapping[str, Any], where: str) -> Domain:
    domain = fields.get("domain", "reasoning")
    if domain not in get_args(Domain):
        raise DataError(
            f"{where}: key 'domain' is {domain!r}, expected one of {', '.join(get_args(Domain))}; rename it if it "
            "means something else"
        )
    return domain


def _gold(gold: Any, kind: str | None, where: str) -> Mapping[str, Any]:
    if not isinstance(gold, dict):
        gold = {"kind": kind, "value": gold}
    try:
        check_gold(gold)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    return gold


def _language(fields: Mapping[str, Any], question: str, otherwise: str, where: str) -> str:
    given = fields.get("language", otherwise)
    if given == "detect":
        return detect_language(question)
    try:
        script_of(given)
    except ValueError as error:
        raise DataError(f"{where}: key 'language': {error}") from error
    return given


def _token_budget(fields: Mapping[str, Any], where: str) -> int | None:
    budget = fields.get("token_budget")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
        raise DataError(f"{where}: key 'token_budget' is {budget!r}, expected a whole number >= 1, or null")
    return budget


def joined(**sources: Iterable[Row]) -> Iterator[Row]:
    """The rows of several sources, one after the other; their names are for the config alone."""
    return itertools.chain.from_iterable(sources.values())


def json_objects(path: str | Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Where it stands (for messages), line number and fields of each object in a JSON-lines file.

    Raises:
        DataError: for a missing file, and for a line that is no JSON object.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"data: {file} does not exist; set the path to a JSON-lines file")
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{file} line {number}"
                yield where, number, _fields(line, where)


def _fields(line: bytes, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error})") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise DataError(f"{where}: expected an object, found {type(fields).__name__}")
    return fields


def require(fields: Mapping[str, Any], key: str, where: str) -> Any:
    """The value of a key.

    Raises:
        DataError: if it is not there; names the keys that are.
    """
    if key not in fields:
        raise DataError(f"{where}: key {key!r} is missing; the line has {', '.join(fields) or 'no keys'}")
    return fields[key]


def as_prompts(rows: Iterable[Row], codec: Codec) -> list[Prompt]:
    """Render and tokenise rows, once; the part of an id before the slash names its source."""
    return [
        codec.prompt(
            row.question,
            row.answer,
            id=row.id,
            source=row.id.split("/")[0],
            domain=row.domain,
            language=row.language,
            token_budget=row.token_budget,
        )
        for row in rows
    ]


def split_of(key: str, heldout_one_in: int) -> Split:
    """The split a problem belongs to, by a hash of the problem: the two can never share one.

    >>> split_of("2?5?1=9", 8) == split_of("2?5?1=9", 8)
    True
    """
    digest = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return "heldout" if digest % heldout_one_in == 0 else "train"
