"""Answers that say nothing: the "master keys" that judges have been found to call right.

arXiv 2507.08794 found that a colon, or "Thought process:", is taken for a right answer by many a judge, and that
a policy in training finds such keys by itself. What consists of nothing else needs no judge.
"""

from __future__ import annotations

import re
import unicodedata

from lightning_r1.text.tags import Tags

MASTER_KEYS = (
    ".",
    ",",
    ":",
    "Thought process:",
    "Let's solve this problem step by step.",
    "Solution",
    "\u89e3",
    "\u304b\u3044\u305b\u3064",
    "Respuesta",
)
"""Those of the paper that are more than white space."""

# "this problem" and its like may stand in the middle of an opener, so that a few words stand for many sentences
_OPENERS = re.compile(
    r"""(?:
      (?:my\ |the\ |here\ is\ (?:my\ |the\ )?|here\ s\ (?:my\ |the\ )?)?
      (?:thought\ process|thinking\ process|chain\ of\ thought|reasoning|final\ answer|answer|solution|explanation
        |response|analysis)
      (?:\ is|\ follows|\ below)?
    | (?:ok(?:ay)?|sure|certainly|of\ course|alright|well|so|now|hmm+)
    | (?:let\ (?:s|us|me)|i\ will|i\ ll|we\ will|we\ ll|we\ can|to)\ (?:now\ |first\ )?
      (?:solve|think|work|break|go|analy[sz]e|reason|tackle|approach|look|begin|start|consider|find|do)
      (?:\ (?:about|through|at|down|on|over|with|the|this|that|it|problem|question|task|answer|solution|carefully
        |together|out))*
    | step\ by\ step | step | by | carefully | thoughtfully | in\ detail
    | \u89e3 | \u89e3\u7b54 | \u89e3\u6cd5 | \u7b54\u6848 | \u7b54 | \u601d\u8003\u8fc7\u7a0b | \u89e3\u91ca
    | \u304b\u3044\u305b\u3064 | \u89e3\u8aac | respuesta | soluci\u00f3n | l\u00f6sung | antwort | r\u00e9ponse
    )(?:\ |$)""",
    re.VERBOSE,
)
_LONGEST = 400  # words of nothing but openers do not fill more


def says_nothing(answer: str, tags: Tags | None = None) -> bool:
    r"""Whether an answer is empty, only punctuation, or only words with which an answer may begin.

    A sign that is no punctuation is an answer (``\u221e``), and so is a single letter or digit.

    >>> [says_nothing(text) for text in (" :", "**Solution:**", "Let's solve this step by step.", "Solution: 4", "4")]
    [True, True, True, False, False]
    """
    for tag in () if tags is None else (tags.think_open, tags.think_close, tags.answer_open, tags.answer_close):
        answer = answer.replace(tag, " ")
    if len(answer) > _LONGEST and any(map(str.isalnum, answer)):
        return False
    words = " ".join("".join(symbol if _counts(symbol) else " " for symbol in answer).casefold().split())
    while words and (opener := _OPENERS.match(words)):
        words = words[opener.end() :]
    return not words


def _counts(symbol: str) -> bool:
    kind = unicodedata.category(symbol)
    return kind[0] in "LN" or (kind[0] in "SM" and not symbol.isascii())
