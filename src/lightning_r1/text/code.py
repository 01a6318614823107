"""Finding the program in a completion: the last fenced block after the thinking.

========================================  ===============================================================
what stands after the thinking            the program
========================================  ===============================================================
several blocks                            the last that names a language (```` ```python ````); where none
                                          does, the last that names none
a block in a language that is not asked   none: ```` ```json ```` and ```` ```output ```` are no programs
for
a block that is never closed              none: what was cut in its middle was not given. Blocks that were
                                          closed before it count
no fence, or an empty block               none: words and program cannot be told apart
a fence within a line                     opens a block if it names a language (``Here: ```python``), or
                                          follows ``<answer>``
longer than ``MOST_CHARACTERS``           none, without being looked through
========================================  ===============================================================

What is written before the last ``</think>`` is never taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lightning_r1.text.tags import Tags

MOST_CHARACTERS = 200_000
"""Of what follows the thinking; the longest programs that people send to contests have 64 KiB."""

_FENCE = "```"
_NAMES = {"python": "python", "py": "python", "cpp": "cpp", "c++": "cpp", "cxx": "cpp", "cc": "cpp"}
_WORD = re.compile(r"[^\s{}=]*")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. ``language`` is None where the fence names none, and lower-case otherwise."""

    source: str
    language: str | None


def find_program(text: str, tags: Tags, languages: Sequence[str] = ("python",)) -> Block | None:
    """The program that a completion states, or None; see the table above.

    Args:
        text: of the completion, thinking included.
        tags: of the template.
        languages: that are asked for; a block that names none is taken to be in the first.

    >>> find_program("<think>x</think>So:\\n```python\\nprint(1)\\n```\\nIt prints:\\n```\\n1\\n```", Tags())
    Block(source='print(1)\\n', language='python')
    >>> find_program("```\\nprint(1)\\n```", Tags()) is None
    True
    """
    closing = tags.after_thinking(text)
    if closing is None or len(closing) > MOST_CHARACTERS:
        return None
    named = unnamed = None
    for block in blocks(closing, tags):
        if block.language in languages:
            named = block
        elif block.language is None:
            unnamed = block
    program = named or (Block(unnamed.source, languages[0]) if unnamed else None)
    if program is None or not program.source.strip() or not _can_be_written(program.source):
        return None
    return program


def blocks(text: str, tags: Tags) -> Iterator[Block]:
    """Every closed fenced block of a text, in order; one pass, whatever the text is."""
    fence, indent, language = 0, 0, None  # fence: backticks of the open block's; 0 where none is open
    inside: list[str] = []
    for line in text.split("\n"):
        before, mark, info = line.rpartition(_FENCE)
        head = before.rstrip("`")
        ticks = len(before) - len(head) + len(_FENCE) if mark else 0
        if fence:
            if ticks >= fence and not head.strip() and _ends(info, tags):
                yield Block("".join(inside), language)
                fence = 0
            else:
                spaces = len(line) - len(line.lstrip(" "))
                inside.append(line[min(spaces, indent) :] + "\n")
        elif ticks:
            word = _WORD.match(info.strip().strip("{.}"))
            language = _language(word[0] if word else "")
            if language in _NAMES.values() or not head.strip() or head.rstrip().endswith(tags.answer_open):
                fence, inside = ticks, []
                indent = 0 if head.strip() else len(head)  # of a block in a list, say


def _ends(info: str, tags: Tags) -> bool:
    rest = info.strip()
    return not rest or rest.startswith(tags.answer_close)


def _language(word: str) -> str | None:
    """``Python3`` is ``python``, ``c++17`` is ``cpp``; another word stays itself."""
    lower = word.lower()
    return _NAMES.get(lower.rstrip("0123456789."), lower) or None


def _can_be_written(source: str) -> bool:
    """Half a surrogate pair cannot be put into a file."""
    try:
        source.encode()
    except UnicodeEncodeError:
        return False
    return True
