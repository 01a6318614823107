"""The template bound to a tokenizer: the one place where text becomes token ids and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import compress, takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from lightning_r1.text.templates import Template
from lightning_r1.types import Completion, Prompt

PROBE = "Wait, 2 * 15?1=9 (1.5) x"
"""A question whose tokens tell one way of cutting a text from another."""


class Codec:
    """Template and tokenizer together.

    Args:
        template: how questions are asked.
        tokenizer: of the model.

    Raises:
        ValueError: if a stop string is not a single token, or the tags do not survive a round trip
            through the tokenizer.
    """

    def __init__(self, template: Template, tokenizer: PreTrainedTokenizerBase) -> None:
        self.template = template
        self.tokenizer = tokenizer
        self.pad_id: int = tokenizer.pad_token_id
        self.stop_ids: tuple[int, ...] = (
            tokenizer.eos_token_id,
            *(self._single_token(text) for text in template.stop),
        )
        self._check_tags()
        self._open_id = self._token(template.tags.think_open)
        self._close_id = self._token(template.tags.think_close)
        tags = template.tags
        marks = (tags.think_open, tags.think_close, tags.answer_open, tags.answer_close)
        self._completing: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._reserved = {*self.stop_ids, *tokenizer.all_special_ids, *self.tokens_of(marks)}

    def prompt(self, question: str, answer: Mapping[str, Any], *, id: str, **facts: Any) -> Prompt:
        """Render and tokenise a question, once; ``facts`` are the prompt's other fields."""
        text = self.template.render(question)
        return Prompt(id=id, question=question, text=text, token_ids=self.encode(text), answer=answer, **facts)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, the tokenizer's own BOS in front if it has that habit."""
        return tuple(self.tokenizer.encode(text))

    def trace_ids(self, question: str, completion: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of a prompt and of the completion to learn after it, which ends with EOS.

        The prefill belongs to the completion here, so that the policy learns to open its thinking itself; it
        is cut into the same tokens as in :meth:`prompt`.

        Args:
            question: of the trace.
            completion: as rewards read it (:meth:`completion_text`). One that opens its thinking with other white
                space than the prefill is given the prefill's.
        """
        template, end = self.template, self.tokenizer.eos_token_id
        opened = template.prefill.lstrip()
        space = template.prefill.removesuffix(opened)
        prompt_ids = self.encode(template.render(question, prefill=False))
        if opened.strip() and completion.startswith(opened.strip()) and not completion.startswith(opened):
            completion = opened + completion.removeprefix(opened.strip()).lstrip()
        if not opened or not completion.startswith(opened):
            return prompt_ids, (*self.encode_more(space + completion), end)
        prefilled = self.encode(template.render(question))
        # a tokenizer may join the prompt's last characters with the prefill's first
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt_ids, prefilled, strict=False)))
        rest = self.encode_more(completion.removeprefix(opened))
        return prefilled[:shared], (*prefilled[shared:], *rest, end)

    def completion_text(self, token_ids: Sequence[int]) -> str:
        """A completion as rewards read it: EOS and padding removed from its end, the prefill put back.

        A stop string of the template stays: it is part of what was written (``</answer>``, say).
        """
        hidden, kept = {self.tokenizer.eos_token_id, self.pad_id}, list(token_ids)
        while kept and kept[-1] in hidden:
            kept.pop()
        return self.template.completion_text(self.decode(kept))

    def completing(self, texts: Sequence[str]) -> tuple[int, ...]:
        """Every token that may complete one of some texts: those in which the last character of one stands."""
        ends = tuple(sorted({text[-1] for text in texts}))
        if ends not in self._completing:
            tokens = ((token, self.decode([token])) for token in sorted(self.tokenizer.get_vocab().values()))
            self._completing[ends] = tuple(token for token, text in tokens if any(end in text for end in ends))
        return self._completing[ends]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of some tokens, special ones included."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=False))

    def thinking_tokens(self, completion: Completion) -> float:
        """Tokens of a completion's thinking, tags not counted.

        Exact where the closing tag is one token; elsewhere the completion's tokens by the thinking's
        share of its characters, because tokenising it again would cost more than the number is worth.
        """
        ids = completion.token_ids
        if completion.sampled is not None:  # what an environment wrote is no thinking of the policy's
            ids = tuple(compress(ids, completion.sampled))
        if self._close_id is None:
            thinking = self.template.tags.thinking(completion.text)
            return len(ids) * len(thinking) / max(len(completion.text), 1)
        if self._close_id in ids:
            thinking_ids = ids[: len(ids) - 1 - ids[::-1].index(self._close_id)]
            return len(thinking_ids) - (self._open_id in thinking_ids)
        return len(ids) - (bool(ids) and ids[-1] in self.stop_ids)

    def fingerprint(self) -> str:
        """Twelve hex digits over template, vocabulary, stop tokens, and how a text is cut into tokens."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        contract = [self.template.fingerprint(), vocabulary, self.stop_ids, self.pad_id, self.probe()]
        return hashlib.sha256(json.dumps(contract).encode()).hexdigest()[:12]

    def probe(self) -> tuple[int, ...]:
        """Token ids of a fixed text: the same vocabulary can be cut in other ways."""
        return self.encode(self.template.render(PROBE))

    def encode_more(self, text: str) -> list[int]:
        """Token ids of a text that stands behind others."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def encode_plain(self, text: str) -> list[int]:
        """The same of a text that nobody vouches for: it can neither end a turn nor open or close the thinking.

        What spells a special token is cut into the tokens of its characters, or left out where the tokenizer has none
        for them; so are tags of the template that are one token.
        """
        ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return [token for token in ids if token not in self._reserved]

    def tokens_of(self, texts: Sequence[str]) -> list[int]:
        """Token ids of those texts that are one token."""
        return [token for token in map(self._token, texts) if token is not None]

    def _token(self, text: str) -> int | None:
        ids = self.encode_more(text)
        return ids[0] if len(ids) == 1 else None

    def _single_token(self, text: str) -> int:
        token = self._token(text)
        if token is None:
            raise ValueError(
                f"template.stop: {text!r} is not one token of this tokenizer, and a completion stops at a token. "
                "Remove it from template.stop (EOS always stops)."
            )
        return token

    def _check_tags(self) -> None:
        tags = self.template.tags
        for tag in (tags.think_open, tags.think_close, tags.answer_open, tags.answer_close):
            ids = self.encode_more(tag)
            if tag not in self.tokenizer.decode(ids, skip_special_tokens=False):
                raise ValueError(
                    f"template.tags: {tag!r} does not survive this tokenizer, so no completion could ever be "
                    "read. Use tags it can write, or another tokenizer."
                )
