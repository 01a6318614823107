"""Structured output: JSON that a schema describes.

The gold is a schema, and values that some members must have::

    {"kind": "json_schema", "schema": {"type": "object", "required": ["city"], ...}, "values": {"city": "Paris"}}

:class:`.Accuracy` gives 1 for a valid answer and 0 for any other; :class:`JSONSchema` gives credit on the way there.
The schema is the data's own, the answer a model's: it is read by a parser that neither hangs nor raises on it, and
validated in a worker that is killed behind its time (a ``pattern`` can take for ever). Nothing is fetched: a schema
refers to places in itself only. ``format`` is a remark of the schema's, as in the standard, and checks nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from referencing import Registry

from lightning_r1.text.arithmetic import ExpressionError
from lightning_r1.text.program_output import read_value
from lightning_r1.text.structured import MOST_CHARACTERS

_SAMPLES: tuple[Any, ...] = ({}, [], "", 0, True, None)


def check_schema(gold: Mapping[str, Any]) -> None:
    """Refuse a schema that is none, or that never ends.

    Raises:
        ValueError: says what is wrong with it, and where.
    """
    schema = gold["schema"]
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        for sample in _SAMPLES:
            list(_validator(_text(gold)).iter_errors(sample))
    except SchemaError as error:
        raise ValueError(f"answer.schema: {error.json_path}: {error.message[:300]}") from error
    except RecursionError as error:
        raise ValueError("answer.schema: it refers to itself without end") from error
    except Exception as error:  # a reference to nowhere, a pattern that is none
        raise ValueError(f"answer.schema: {' '.join(str(error).split())[:300]}") from error


def grade_json_schema(answer: str, gold: Mapping[str, Any]) -> bool:
    """Whether an answer is JSON, valid, and has the gold's values.

    Raises:
        ExpressionError: if it is no JSON.
    """
    return faults(read_answer(answer), gold) is None


def read_answer(answer: str) -> Any:
    """The value of a text.

    Raises:
        ExpressionError: if it is no JSON, or too long.
    """
    if len(answer) > MOST_CHARACTERS:
        raise ExpressionError(f"{len(answer)} characters, more than {MOST_CHARACTERS}")
    try:
        return read_value(answer)
    except (ValueError, RecursionError) as error:
        raise ExpressionError(f"no JSON ({error})") from error


def faults(value: Any, gold: Mapping[str, Any]) -> str | None:
    """The first thing that is wrong with a value; None if it is valid."""
    try:
        error = next(_validator(_text(gold)).iter_errors(value), None)
    except (ArithmeticError, RecursionError, ValueError) as trouble:
        return type(trouble).__name__  # no answer leaves its group by making the validator raise
    return None if error is None else f"{error.json_path}: {error.message}"[:300]


def valid_members(value: Any, gold: Mapping[str, Any]) -> float:
    """The share of the schema's own members (``properties``, ``required``, the gold's values) that are as they should.

    One that is required has to be there; another one counts if it is there. 0 without any.
    """
    schema = gold["schema"]
    described = [*schema.get("properties", {}), *schema.get("required", ()), *gold.get("values", {})]
    required = {*schema.get("required", ()), *gold.get("values", {})}
    names = [
        name for name in dict.fromkeys(described) if name in required or (isinstance(value, dict) and name in value)
    ]
    if not isinstance(value, dict) or not names:
        return 0.0
    try:
        wrong = {error.path[0] for error in _validator(_text(gold)).iter_errors(value) if error.path}
    except (ArithmeticError, RecursionError, ValueError):
        return 0.0
    return sum(name in value and name not in wrong for name in names) / len(names)


def _text(gold: Mapping[str, Any]) -> str:
    """The whole demand as one schema."""
    values = gold.get("values") or {}
    constants = {"type": "object", "required": [*values], "properties": {k: {"const": v} for k, v in values.items()}}
    return json.dumps([gold["schema"], constants if values else {}])


@lru_cache(maxsize=512)
def _validator(text: str) -> _Both:
    schema, constants = json.loads(text)
    # a registry of its own: the library's would fetch what it does not know
    kind = validator_for(schema, default=Draft202012Validator)
    return _Both(kind(schema, registry=Registry()), Draft202012Validator(constants, registry=Registry()))


class _Both:
    """A schema, and the values besides: each with its own root, so that references stay right."""

    def __init__(self, schema: Any, constants: Any) -> None:
        self.validators = (schema, constants)

    def iter_errors(self, value: Any) -> Any:
        for validator in self.validators:
            yield from validator.iter_errors(value)
