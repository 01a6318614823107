"""Finding structured output in a completion, and what a schema for it may be: JSON behind the thinking.

==================================================  =====================================================
what stands after the thinking                      the answer
==================================================  =====================================================
``<answer>...</answer>``                            what is in the last of them, read as the rows below
fenced blocks                                       the last closed one that says ``json``, else the last
                                                    that names no language
neither                                             all of it
==================================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightning_r1.text.answers import last_tagged
from lightning_r1.text.code import blocks
from lightning_r1.text.tags import Tags

MOST_CHARACTERS = 100_000
"""Of an answer."""
_DEEPEST = 60
"""Levels of a schema."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def find_json(text: str, tags: Tags) -> str | None:
    """The text of the JSON that a completion states, or None where there is nothing; it may be no JSON.

    >>> find_json('<think>{}</think>Here:\\n```json\\n{"a": 1}\\n```', Tags())
    '{"a": 1}'
    >>> find_json('<think>?</think><answer>[1]</answer>', Tags())
    '[1]'
    """
    closing = tags.after_thinking(text)
    if closing is None:
        return None
    inside = last_tagged(closing, tags)
    answer = closing if inside is None else inside
    if len(answer) > MOST_CHARACTERS:
        return answer.strip()
    named = unnamed = None
    for block in blocks(answer, tags):
        if block.language == "json":
            named = block.source
        elif block.language is None:
            unnamed = block.source
    found = named if named is not None else unnamed if unnamed is not None else answer
    return found.strip() or None


def check_schema_text(gold: Mapping[str, Any]) -> None:
    """Refuse what cannot be a schema, or would be looked for elsewhere; whether it is a valid one is not asked here.

    Raises:
        ValueError: names the key.
    """
    schema, values = gold["schema"], gold.get("values", {})
    if not isinstance(schema, Mapping):
        raise ValueError(f"answer.schema is a {type(schema).__name__}: expected an object, a JSON Schema")
    if not isinstance(values, Mapping):
        raise ValueError(f"answer.values is a {type(values).__name__}: expected an object, values by member")
    for key, value in _members(schema):
        if key in _REFERENCES and not (isinstance(value, str) and value.startswith("#")):
            raise ValueError(
                f"answer.schema: {key}={value!r}: expected a place in the schema itself, like #/$defs/name"
            )


def _members(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every key and value in it.

    Raises:
        ValueError: if it is too deep.
    """
    layer: list[Any] = [schema]
    for _ in range(_DEEPEST):
        if not layer:
            return
        members = [pair for node in layer if isinstance(node, Mapping) for pair in node.items()]
        yield from members
        lists = [item for node in layer if isinstance(node, list | tuple) for item in node]
        layer = [
            node for node in (*(value for _, value in members), *lists) if isinstance(node, Mapping | list | tuple)
        ]
    raise ValueError(f"answer.schema: more than {_DEEPEST} levels")
