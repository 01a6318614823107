"""The letter that a completion chooses, where the question gives options.

Written as ``ANSWER: C`` on the last line (the way GPQA and MMLU are asked in the R1 paper, appendix D), in a
box, between answer tags, or alone on the last line.
"""

from __future__ import annotations

import re

from lightning_r1.text.answers import extract_answer
from lightning_r1.text.tags import Tags

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed)\b|[*_$`{}#]")
_LEAD = r"(?:the\s)?(?:(?:final|correct|best|right)\s)?(?:(?:answer|option|choice)\s?(?:is\s?)?:?\s?){0,2}"
# many candidates are no choice: "A, B", "(A) or (C)"; but "C, a weak acid", "A and I mean it"
_ALONE = r"(?![)\]]?\s?(?:[,;/&+|]|or\b|and\b)\s?[(\[]?(?-i:[A-HJ-Z])\s?(?:[)\].,;/&+|]|or\b|and\b|$))"
_WHOLE = re.compile(_LEAD + rf"[(\[]?([A-Z]){_ALONE}" + r"(?:[)\].:,](?:\s.*)?)?", re.IGNORECASE)
# inside a sentence only a capital is a letter: "the answer is a bit longer"
_STATED = re.compile(r"(?i:\banswer)\s?(?i:is\s?)?:?\s?[(\[]?([A-Z])(?![\w'’])" + _ALONE)
# a choice is short; more is read as the text of an option behind its letter
_LONGEST_LINE = 2000


def extract_choice(text: str, tags: Tags) -> str | None:
    r"""The letter chosen after the thinking, in capitals, or None if none is.

    The last ``<answer>`` or ``\boxed{}`` decides where there is one; else the last line that says
    ``answer: C``; else a last line that is a letter alone.

    >>> extract_choice("<think>A?</think>It must be C.\nANSWER: C", Tags())
    'C'
    >>> extract_choice(r"<think>A?</think>So \boxed{\text{(b)}}", Tags())
    'B'
    >>> extract_choice("<think>ANSWER: C</think>A hard question.", Tags()) is None
    True
    """
    closing = tags.after_thinking(text)
    if closing is None:
        return None
    inside = extract_answer(text, tags)
    if inside is not None:
        return _letter(inside) or _last_stated(inside)
    lines = [line for line in closing.splitlines() if line.strip()]
    return _last_stated(closing) or (_letter(lines[-1]) if lines else None)


def _letter(line: str) -> str | None:
    """The letter that the whole line comes down to."""
    match = _WHOLE.fullmatch(_plain(line))
    return match[1].upper() if match else None


def _last_stated(text: str) -> str | None:
    for line in reversed(text.splitlines()):
        if stated := _STATED.findall(_plain(line)):
            return stated[-1]
    return None


def _plain(line: str) -> str:
    """Without markup, white space as single spaces."""
    return " ".join(_MARKUP.sub(" ", line[-_LONGEST_LINE:]).split())
