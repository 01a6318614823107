"""Prompts by hand, under the miniature's template and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_r1.models.codec import Codec
from lightning_r1.models.tokenizer import number_tokenizer
from lightning_r1.text.templates import Template
from lightning_r1.types import Prompt

# one token each; as stop strings they end about one token in ten of a random model
MANY_STOPS = tuple("+-*/=()?;!,.")


def mini_template(**fields: Any) -> Template:
    """The miniature's template; ``fields`` replace its own."""
    mini = {"name": "mini", "prompt": "{question}", "prefill": "<think>", "reflection_markers": (";",)}
    return Template(**{**mini, **fields})


def mini_codec(**fields: Any) -> Codec:
    """The miniature's template, ``fields`` replaced, with a tokenizer of its own."""
    return Codec(mini_template(**fields), number_tokenizer())


def number_prompt(codec: Codec, question: str, value: int | str, *, id: str | None = None) -> Prompt:
    """A prompt whose right answer is a number."""
    return codec.prompt(question, {"kind": "number", "value": value}, id=id or f"test/{question}")


def prompts_of_lengths(codec: Codec, lengths: Sequence[int]) -> list[Prompt]:
    """One prompt of each length, all different; tokens of a question and the ``<think>`` behind it.

    >>> [len(prompt.token_ids) for prompt in prompts_of_lengths(mini_codec(), [4, 7, 7])]
    [4, 7, 7]
    """
    prompts = []
    for index, length in enumerate(lengths):
        # two digits are one token
        question = "".join(str(10 + (7 * index + 3 * place) % 90) for place in range(length - 1))
        prompts.append(number_prompt(codec, question, index, id=f"test/{index}"))
    return prompts
