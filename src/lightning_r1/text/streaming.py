"""Thinking told from answer while a completion is still being written."""

from __future__ import annotations

from lightning_r1.text.tags import Tags

Part = tuple[bool, str]
"""Whether it is thinking, and the text."""


class ThinkingSplit:
    """Takes a completion apart piece by piece; the think tags themselves are left out.

    >>> split = ThinkingSplit(Tags(), thinking=True)
    >>> split.feed("2+2=4</thi"), split.feed("nk>4"), split.rest()
    ([(True, '2+2=4')], [(False, '4')], [])

    Args:
        tags: of the thinking.
        thinking: whether the prompt has opened the thinking already.
    """

    def __init__(self, tags: Tags, *, thinking: bool) -> None:
        self.thinking = thinking
        self._turns = {tags.think_open: True, tags.think_close: False}
        self._held = ""

    def feed(self, piece: str) -> list[Part]:
        """What is known of the text so far; the beginning of what may be a tag is held back."""
        text, parts = self._held + piece, []
        while found := [(text.index(tag), tag) for tag in self._turns if tag in text]:
            place, tag = min(found)
            parts.append((self.thinking, text[:place]))
            self.thinking, text = self._turns[tag], text[place + len(tag) :]
        longest = min(len(text), max(map(len, self._turns)) - 1)
        keep = next((size for size in range(longest, 0, -1) if self._begins(text[-size:])), 0)
        parts.append((self.thinking, text[: len(text) - keep]))
        self._held = text[len(text) - keep :]
        return [part for part in parts if part[1]]

    def rest(self) -> list[Part]:
        """What was held back, at the end of the completion."""
        held, self._held = self._held, ""
        return [(self.thinking, held)] if held else []

    def _begins(self, text: str) -> bool:
        return any(tag.startswith(text) for tag in self._turns)
