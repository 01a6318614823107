"""The tags around thinking and answer, and how a completion is taken apart.

One rule for every reader (rewards, metrics, evaluation): the answer stands *after the last closing
think tag*. What the policy writes while it thinks is never graded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["summary", "response"]
"""What of a completion is judged: what follows its thinking (helpfulness), or all of it (harmlessness)."""


@dataclass(frozen=True, slots=True)
class Tags:
    """The four tags. R1-Zero's template (arXiv 2501.12948 table 1) names these defaults."""

    think_open: str = "<think>"
    think_close: str = "</think>"
    answer_open: str = "<answer>"
    answer_close: str = "</answer>"

    def __post_init__(self) -> None:
        """Refuse empty or equal tags."""
        names = (self.think_open, self.think_close, self.answer_open, self.answer_close)
        if not all(names) or len(set(names)) != 4:
            raise ValueError(f"tags={names}: expected four different, non-empty tags")

    def thinking(self, text: str) -> str:
        """What stands between the think tags; to the end if they are never closed.

        >>> Tags().thinking("<think>2+2=4</think><answer>4</answer>")
        '2+2=4'
        >>> Tags().thinking("<think>2+2=")
        '2+2='
        """
        _, opened, rest = text.partition(self.think_open)
        if not opened:
            rest = text
        inside, closed, _ = rest.rpartition(self.think_close)
        return inside if closed else rest

    def after_thinking(self, text: str) -> str | None:
        """What follows the last closing think tag, or None if there is none."""
        _, closed, rest = text.rpartition(self.think_close)
        return rest if closed else None

    def is_strict(self, text: str) -> bool:
        """Whether the text is exactly ``<think>...</think> <answer>...</answer>``.

        Each tag once, in order, both parts non-empty, nothing but white space around them.

        >>> Tags().is_strict("<think>a</think>\\n<answer>b</answer>")
        True
        >>> Tags().is_strict("<think>a</think><answer>b</answer> and more")
        False
        """
        tags = (self.think_open, self.think_close, self.answer_open, self.answer_close)
        rest, parts = text, []
        for tag in tags:
            if text.count(tag) != 1:
                return False
            before, found, rest = rest.partition(tag)
            if not found:
                return False  # the tags are there, but not in this order
            parts.append(before.strip())
        before_thinking, thinking, between, answer = parts
        return bool(thinking and answer) and not (before_thinking or between or rest.strip())
