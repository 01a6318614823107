"""One answer: what the model writes, told apart while it writes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_r1.models.answering import Answered, Answerer, Habits
from lightning_r1.models.asked import Message
from lightning_r1.text.streaming import Part, ThinkingSplit
from lightning_r1.text.tags import Tags

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Turn:
    """An answer that is being written.

    Args:
        answerer: writes it.
        messages: the conversation, up to the question.
        tags: around the thinking.
        show: given every part, as soon as it is there.
    """

    def __init__(
        self, answerer: Answerer, messages: Sequence[Message], tags: Tags, show: Callable[[Part], None]
    ) -> None:
        self.answerer, self.messages, self.show = answerer, messages, show
        opened = answerer.prompt(messages).rstrip().endswith(tags.think_open)
        self._split = ThinkingSplit(tags, thinking=opened)
        self._said: list[str] = []

    @property
    def answer(self) -> str:
        """What stands outside the thinking: all that later turns are shown."""
        return "".join(self._said).strip()

    def write(self, habits: Habits, options: Mapping[str, Any]) -> Answered:
        """Let the model write it.

        Raises:
            ValueError: if the conversation fills the model's context.
            KeyboardInterrupt: on Ctrl-C; what was written until then stands.
        """
        room = self.answerer.room(self.messages)
        if room < 1:
            raise ValueError(f"the conversation fills the model's context of {self.answerer.context} tokens")
        limit = min(room, options["max_new_tokens"] or room)
        try:
            return self.answerer.answer(self.messages, self._hear, habits, max_new_tokens=limit)
        finally:
            self._tell(self._split.rest())

    def _hear(self, piece: str) -> None:
        self._tell(self._split.feed(piece))

    def _tell(self, parts: Sequence[Part]) -> None:
        for thinking, text in parts:
            if not thinking:
                self._said.append(text)
            self.show((thinking, printable(text)))


def printable(text: str) -> str:
    """Without control characters: a model may not move a terminal's cursor.

    >>> printable("a\\x1b[2Jb\\tc\\n")
    'a[2Jb\\tc\\n'
    """
    return _CONTROL.sub("", text)


def readable(text: str) -> str:
    """A line as it was read, with ``\ufffd`` for bytes that were no text: no tokenizer takes those.

    >>> readable("2+2\\udcff")
    '2+2\ufffd'
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def asked(question: str, system: str | None) -> list[Message]:
    """A conversation that begins with a question."""
    first: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": question}]
