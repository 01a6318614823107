"""Self-correction, watched as it emerges: how often the thinking turns back on itself.

The R1 paper (arXiv 2501.12948, the "aha moment", and its v2's count of reflective words over
training) counts words such as "wait"; the markers are the template's, because they depend on the
language of the thinking.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

ENGLISH_MARKERS = (
    "wait", "however", "but wait", "let me check", "let's check", "let me verify", "re-check",
    "recheck", "re-evaluate", "reevaluate", "mistake", "that's not right", "alternatively",
    "try again", "hold on", "hmm",
)  # fmt: skip


def count_reflections(thinking: str, markers: Sequence[str]) -> int:
    """How many times a marker stands in the thinking; words match whole, in any case.

    >>> count_reflections("Wait, that is 7. But wait: awaiting.", ("wait",))
    2
    >>> count_reflections("2+5=7;2*5=10!", (";",))
    1
    """
    return len(_pattern(tuple(markers)).findall(thinking)) if markers else 0


@lru_cache(maxsize=32)
def _pattern(markers: tuple[str, ...]) -> re.Pattern[str]:
    # longest first, so that "but wait" is one reflection and not two
    ordered = sorted(markers, key=len, reverse=True)
    words = (
        (r"\b" if marker[0].isalnum() else "") + re.escape(marker) + (r"\b" if marker[-1].isalnum() else "")
        for marker in ordered
    )
    return re.compile("|".join(words), re.IGNORECASE)
