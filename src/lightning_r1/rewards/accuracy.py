"""The accuracy reward: 1 if the answer is right, else 0 (R1 paper, section 2.2).

The prompt's gold answer names its grader by ``kind`` (:mod:`lightning_r1.text.golds`). Only what
stands after the thinking is graded (:func:`lightning_r1.text.answers.extract_answer`), and no text
of the model is ever executed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from lightning_r1.text.answers import extract_answer
from lightning_r1.text.arithmetic import ExpressionError, parse_expression, parse_number
from lightning_r1.text.golds import check_gold
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


class Accuracy:
    """Grades the answer of a completion against its prompt's gold.

    Args:
        tags: of the template.
    """

    def __init__(self, tags: Tags) -> None:
        self.tags = tags

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """1 or 0; ``wrong_format`` where there is no answer, ``unscorable`` for a bad gold."""
        try:
            check_gold(prompt.answer)
        except ValueError as error:
            return RewardScore(math.nan, Outcome.UNSCORABLE, str(error))
        answer = extract_answer(completion.text, self.tags)
        if answer is None:
            return RewardScore(0.0, Outcome.WRONG_FORMAT, "no answer after the thinking")
        try:
            return RewardScore(float(GRADERS[prompt.answer["kind"]](answer, prompt.answer)), Outcome.OK, answer)
        except ExpressionError as error:
            return RewardScore(0.0, Outcome.WRONG_FORMAT, f"{answer!r}: {error}")


def grade_number(answer: str, gold: Mapping[str, Any]) -> bool:
    """The same number, exactly: ``0.5`` is ``1/2``, ``0.333`` is not ``1/3``."""
    return parse_number(answer) == parse_number(str(gold["value"]))


def grade_expression(answer: str, gold: Mapping[str, Any]) -> bool:
    """An expression of the gold's value that uses each of its numbers exactly once.

    >>> gold = {"numbers": [2, 5, 1], "target": 9, "ordered": True}
    >>> grade_expression("(2*5)-1", gold), grade_expression("(5*2)-1", gold), grade_expression("9", gold)
    (True, False, False)
    """
    expression = parse_expression(answer)
    wanted = tuple(parse_number(str(number)) for number in gold["numbers"])
    same = expression.numbers == wanted if gold.get("ordered") else Counter(expression.numbers) == Counter(wanted)
    allowed = set(gold.get("operators", "+-*/"))
    return same and expression.operators <= allowed and expression.value == parse_number(str(gold["target"]))


def grade_text(answer: str, gold: Mapping[str, Any]) -> bool:
    """The same text but for case and white space."""
    return answer.casefold().split() == str(gold["value"]).casefold().split()


GRADERS: dict[str, Callable[[str, Mapping[str, Any]], bool]] = {
    "number": grade_number,
    "expression": grade_expression,
    "text": grade_text,
}
