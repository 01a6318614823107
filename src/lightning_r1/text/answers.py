r"""Finding the answer in a completion: the last ``<answer>``, the last balanced ``\boxed{}``."""

from __future__ import annotations

import re

from lightning_r1.text.tags import Tags

_BOX = r"\boxed{"
_TOKENS = re.compile(r"\\boxed\{|\\(?!\\boxed\{).|[{}]", re.DOTALL)  # an escaped brace is no brace


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
    inside = last_tagged(closing, tags)
    boxed = last_boxed(closing if inside is None else inside)
    answer = boxed if boxed is not None else inside
    return answer.strip() or None if answer is not None else None


def last_tagged(text: str, tags: Tags) -> str | None:
    """Content of the last opening tag that is closed, up to its first closing tag."""
    last_close = text.rfind(tags.answer_close)
    start = text.rfind(tags.answer_open, 0, last_close) if last_close >= 0 else -1
    if start < 0:
        return None
    return text[start + len(tags.answer_open) :].partition(tags.answer_close)[0]


def last_boxed(text: str) -> str | None:
    r"""Content of the last ``\boxed{...}`` whose braces balance, or None.

    >>> last_boxed(r"\boxed{1} then \boxed{\{2, 3\}}")
    '\\{2, 3\\}'
    """
    # one pass with a stack: a text of nothing but "\\boxed{" must not cost its length squared
    opened: list[int] = []  # where each open brace's content starts; -1 for braces that are no box
    last: tuple[int, int] | None = None
    for token in _TOKENS.finditer(text):
        if token[0] == _BOX:
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(-1)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start >= 0 and (last is None or start > last[0]):
                last = (start, token.start())
    return None if last is None else text[last[0] : last[1]]
