"""Data sets of others as rows, traces, preferences and safety labels.

A source is iterated once to prepare the data. What cannot be used is refused there, with its place, so that a
bad gold can never turn into a reward of 0 for everybody; or it is left out, counted and told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

from lightning_r1.data.programs import PROGRAM_READERS
from lightning_r1.data.readers import OPENR1_COLUMNS, TEXT_READERS, columns_reader, openr1_generations, text_of
from lightning_r1.data.records import records, tell
from lightning_r1.data.rows import DataError, Row, require
from lightning_r1.text.golds import check_gold
from lightning_r1.text.language import detect_language, script_of
from lightning_r1.types import Domain, Preference, SafetyLabel, Trace

PROBLEM_READERS = TEXT_READERS | PROGRAM_READERS

Item = TypeVar("Item", Row, Trace, Preference, SafetyLabel)


class Source(Generic[Item]):
    """What all sources have in common.

    Args:
        path: a hub id, a file or a folder, see :func:`lightning_r1.data.records.records`.
        subset: configuration of a hub id.
        split: of a hub id or a folder.
        revision: commit, tag or branch of a hub id.
        streaming: read while downloading, and keep nothing on disk.
        name: begins the ids; otherwise the end of the path, ``gsm8k`` of ``openai/gsm8k``.
        limit: at most so many items, the first ones.
        unique: keep only the first item of each question.
        language: ISO 639-1 code, or ``detect`` to tell it from each question's script.
        bad_rows: ``refuse`` a record that cannot be used, or ``drop`` and count it. A missing column is refused
            either way: then the schema is another.

    Raises:
        DataError: when iterated, see :func:`lightning_r1.data.records.records` and ``bad_rows``.
        ValueError: for a language that is not known.
    """

    columns: tuple[str, ...]
    """Columns that every record must have."""

    def __init__(
        self,
        path: str,
        *,
        subset: str | None = None,
        split: str = "train",
        revision: str | None = None,
        streaming: bool = False,
        name: str | None = None,
        limit: int | None = None,
        unique: bool = False,
        language: str = "en",
        bad_rows: Literal["refuse", "drop"] = "refuse",
    ) -> None:
        if language != "detect":
            script_of(language)
        self.path = str(path)
        self.place: dict[str, Any] = {"subset": subset, "split": split, "revision": revision, "streaming": streaming}
        self.name = name or self.path.rstrip("/").rpartition("/")[2].partition(".")[0]
        self.limit, self.unique, self.language, self.bad_rows = limit, unique, language, bad_rows
        self.left_out: Counter[str] = Counter()
        """What the last pass left out, by reason."""

    def items(self, fields: Mapping[str, Any], id: str) -> Iterable[Item]:
        """What a record holds; an id of its own goes before the given one.

        Raises:
            ValueError: if it cannot be used; names the key.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[Item]:
        """One pass over the data set, in its own order."""
        self.left_out.clear()
        given, first_bad = 0, ""
        seen: set[str] = set()
        for where, number, fields in records(self.path, **self.place):
            for column in self.columns:
                require(fields, column, where)
            try:
                items = list(self.items(fields, f"{self.name}/{number}"))
            except ValueError as error:
                if self.bad_rows == "refuse":
                    raise DataError(f"{where}: {error}; mend it, or leave such rows out with bad_rows=drop") from error
                self.left_out["unusable"] += 1
                first_bad = first_bad or f" (the first: {where}: {error})"
                continue
            for item in items:
                if self.unique and item.question in seen:
                    self.left_out["asked before"] += 1
                    continue
                if self.unique:
                    seen.add(item.question)
                given += 1
                yield item
                if given == self.limit:
                    self._tell(given, first_bad)
                    return
        self._tell(given, first_bad)

    def language_of(self, question: str) -> str:
        """The language to answer in."""
        return detect_language(question) if self.language == "detect" else self.language

    def _tell(self, given: int, first_bad: str) -> None:
        if self.left_out:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
            tell(f"data {self.name}: {given:,} kept, left out {reasons}{first_bad}")


def _check_gold(gold: Mapping[str, Any], column: str) -> None:
    try:
        check_gold(gold)
    except ValueError as error:
        raise ValueError(f"key {column!r}: {error}" if column else str(error)) from error


class SourceRows(Source[Row]):
    """Problems, or general prompts, which have no gold.

    Args:
        path: see :class:`Source`.
        reader: of a known schema (:mod:`lightning_r1.data.readers`, :mod:`lightning_r1.data.programs`); it decides
            about columns and gold.
        question: column of the question: a text, or a chat, whose last user message it is.
        answer: column of the gold answer: an object with ``kind``, or a bare value; null for general prompts.
        kind: of bare values (:mod:`lightning_r1.text.golds`).
        id: column of the ids; without it the place in the data set is the id.
        domain: what the prompts ask for.
        source: see :class:`Source`.
    """

    def __init__(
        self,
        path: str,
        *,
        reader: Literal["gsm8k", "math", "dapo", "hh_first_turn", "codeforces", "apps", "livecodebench", "mbpp"]
        | None = None,
        question: str = "question",
        answer: str | None = "answer",
        kind: str | None = None,
        id: str | None = None,
        domain: Domain = "reasoning",
        **source: Any,
    ) -> None:
        super().__init__(path, **source)
        if reader is not None and reader not in PROBLEM_READERS:
            raise ValueError(f"data.reader={reader!r}: expected one of {', '.join(PROBLEM_READERS)}")
        self.reader = PROBLEM_READERS[reader] if reader else columns_reader(question, answer, kind, id)
        self.columns, self.domain = self.reader.columns, domain

    def items(self, fields: Mapping[str, Any], id: str) -> Iterable[Row]:
        """See :class:`Source`."""
        problem = self.reader.read(fields)
        if self.domain == "reasoning" or problem.answer:
            _check_gold(problem.answer, self.reader.gold)
        own = f"{self.name}/{problem.id}" if problem.id else id
        yield Row(own, problem.question, problem.answer, self.domain, self.language_of(problem.question))


class SourceTraces(Source[Trace]):
    """Traces; those of our own jobs are read by :func:`lightning_r1.data.traces.jsonl_traces`.

    Args:
        path: see :class:`Source`.
        reader: ``openr1_math``: the generations that ended and that math-verify found right, with their gold.
        question: column of the question: a text, or a chat, whose last user message it is.
        completion: column of the completion, ``<think>`` included: a text, or a chat, whose last answer it is.
        domain: of the questions.
        source: see :class:`Source`.
    """

    def __init__(
        self,
        path: str,
        *,
        reader: Literal["openr1_math"] | None = None,
        question: str = "question",
        completion: str = "completion",
        domain: Domain = "reasoning",
        **source: Any,
    ) -> None:
        super().__init__(path, **source)
        if reader not in (None, "openr1_math"):
            raise ValueError(f"data.reader={reader!r}: expected openr1_math or null")
        self.reader, self.question, self.completion, self.domain = reader, question, completion, domain
        self.columns = OPENR1_COLUMNS if reader else (question, completion)

    def items(self, fields: Mapping[str, Any], id: str) -> Iterable[Trace]:
        """See :class:`Source`."""
        facts: dict[str, Any] = {"domain": self.domain, "provenance": {"dataset": self.path}}
        if self.reader is None:
            question = text_of(fields[self.question], self.question)
            completion = text_of(fields[self.completion], self.completion, role="assistant")
            yield Trace(id, question, completion, language=self.language_of(question), **facts)
            return
        question, gold = text_of(fields["problem"], "problem"), {"kind": "math", "value": fields["answer"]}
        _check_gold(gold, "answer")
        for place, text in openr1_generations(fields):
            own = f"{self.name}/{fields['uuid']}/{place}"
            yield Trace(own, question, text, gold, language=self.language_of(question), **facts)


class SourcePreferences(Source[Preference]):
    """Pairs of responses of which one was found better.

    Args:
        path: see :class:`Source`.
        question: column of the question: a text, or a chat, whose last user message it is.
        chosen: column of the better response: a text, or a chat, whose last answer it is.
        rejected: column of the worse one.
        scores: columns of the scores of the two, where there are any.
        least_gap: pairs whose scores are no further apart are left out; the R1 paper keeps gaps above 1
            (arXiv 2501.12948 v2, section 3.1).
        domain: what the questions ask for.
        source: see :class:`Source`.
    """

    def __init__(
        self,
        path: str,
        *,
        question: str = "prompt",
        chosen: str = "chosen",
        rejected: str = "rejected",
        scores: Sequence[str] | None = None,
        least_gap: float = 0.0,
        domain: Domain = "helpful",
        **source: Any,
    ) -> None:
        super().__init__(path, **source)
        self.responses, self.question, self.domain = (chosen, rejected), question, domain
        self.scores, self.least_gap = tuple(scores or ()), least_gap
        self.columns = (question, chosen, rejected, *self.scores)

    def items(self, fields: Mapping[str, Any], id: str) -> Iterable[Preference]:
        """See :class:`Source`."""
        question = text_of(fields[self.question], self.question)
        chosen, rejected = (text_of(fields[key], key, role="assistant") for key in self.responses)
        if chosen.strip() == rejected.strip():
            raise ValueError(f"keys {' and '.join(map(repr, self.responses))}: the two responses are the same")
        if self.scores:
            better, worse = (float(fields[key]) for key in self.scores)
            if not better - worse > self.least_gap:
                self.left_out["too even"] += 1
                return
        yield Preference(id, question, chosen, rejected, self.domain, self.language_of(question))


class SourceSafetyLabels(Source[SafetyLabel]):
    """Responses, each labelled safe or not; a record may hold several.

    Args:
        path: see :class:`Source`.
        question: column of the question.
        responses: columns of the responses.
        safe: columns that say whether each of them is safe.
        source: see :class:`Source`.

    Raises:
        ValueError: if there is not one label a response.
    """

    def __init__(
        self,
        path: str,
        *,
        question: str = "prompt",
        responses: Sequence[str] = ("response",),
        safe: Sequence[str] = ("is_safe",),
        **source: Any,
    ) -> None:
        super().__init__(path, **source)
        if len(responses) != len(safe):
            raise ValueError(f"data.safe={list(safe)}: expected as many columns as data.responses={list(responses)}")
        self.question, self.responses, self.safe = question, tuple(responses), tuple(safe)
        self.columns = (question, *self.responses, *self.safe)

    def items(self, fields: Mapping[str, Any], id: str) -> Iterable[SafetyLabel]:
        """See :class:`Source`."""
        question = text_of(fields[self.question], self.question)
        for place, (response, safe) in enumerate(zip(self.responses, self.safe, strict=True)):
            if not isinstance(fields[safe], bool | int):
                raise ValueError(f"key {safe!r} is {fields[safe]!r}, expected true or false")
            own = f"{id}/{place}" if len(self.responses) > 1 else id
            text = text_of(fields[response], response, role="assistant")
            yield SafetyLabel(own, question, text, bool(fields[safe]), self.language_of(question))
