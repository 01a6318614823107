r"""Finding the answer in a completion: the last ``<answer>``, the last balanced ``\boxed{}``."""

from __future__ import annotations

from lightning_r1.text.tags import Tags

_BOX = r"\boxed{"


def extract_answer(text: str, tags: Tags) -> str | None:
    r"""The answer as the policy states it after its thinking, or None if it states none.

    The last complete ``<answer>...</answer>`` after the last ``</think>``; inside it, or where
    there is no such tag, the last balanced ``\boxed{...}``.

    >>> extract_answer("<think>7?</think><answer>8</answer>", Tags())
    '8'
    >>> extract_answer(r"<think>\boxed{7}</think> So \boxed{\frac{1}{2}}.", Tags())
    '\\frac{1}{2}'
    >>> extract_answer("<answer>8</answer>", Tags()) is None
    True
    """
    closing = tags.after_thinking(text)
    if closing is None:
        return None
    before, closed, _ = closing.rpartition(tags.answer_close)
    if closed:
        _, opened, inside = before.rpartition(tags.answer_open)
        if opened:
            boxed = last_boxed(inside)
            return (boxed if boxed is not None else inside).strip() or None
    boxed = last_boxed(closing)
    return boxed.strip() or None if boxed is not None else None


def last_boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}`` whose braces balance, or None.

    >>> last_boxed(r"\boxed{1} then \boxed{\{2, 3\}}")
    '\\{2, 3\\}'
    """
    start = text.rfind(_BOX)
    while start >= 0:
        depth, position = 1, start + len(_BOX)
        while position < len(text):
            character = text[position]
            if character == "\\":
                position += 2  # an escaped brace does not count
                continue
            depth += (character == "{") - (character == "}")
            if depth == 0:
                return text[start + len(_BOX) : position]
            position += 1
        start = text.rfind(_BOX, 0, start)
    return None
