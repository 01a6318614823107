"""The accuracy reward: 1 if the answer is right, else 0 (R1 paper, section 2.2).

The prompt's gold answer names its grader by ``kind`` (:mod:`lightning_r1.text.golds`). Only what
stands after the thinking is graded (:func:`lightning_r1.text.answers.extract_answer`), and no text
of the model is ever executed.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from importlib import import_module
from typing import Any

from lightning_r1.rewards.gym import grade_gym
from lightning_r1.rewards.maths import CALCULATOR, grade_math, math_classes
from lightning_r1.text.answers import extract_answer
from lightning_r1.text.arithmetic import ExpressionError, parse_expression, parse_number
from lightning_r1.text.choices import LETTERS, extract_choice
from lightning_r1.text.golds import check_gold
from lightning_r1.text.hostile import hostile
from lightning_r1.text.math_answers import read_number
from lightning_r1.text.program_output import read_value
from lightning_r1.text.structured import find_json
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

_LATE = {"math": CALCULATOR, "json_schema": "lightning_r1.rewards.json_schema"}
"""Modules that take long to import, by the kind of gold that needs them."""
_SHOWN = 400
"""Characters of a refused answer that its score quotes."""


class Accuracy:
    """Grades the answer of a completion against its prompt's gold.

    Args:
        tags: of the template.
    """

    def __init__(self, tags: Tags) -> None:
        self.tags = tags
        self.preload: tuple[str, ...] = ()

    def expect(self, prompts: Iterable[Prompt]) -> None:
        """Told what it will be asked about: who calculates is imported beforehand only if there is mathematics.

        Raises:
            ValueError: for a schema that is none; names the prompt.
        """
        kinds = set()
        for prompt in prompts:
            kinds.add(prompt.answer.get("kind"))
            if prompt.answer.get("kind") == "json_schema":
                _check_schema(prompt)
        self.preload = tuple(module for kind, module in _LATE.items() if kind in kinds)

    def is_for(self, prompt: Prompt) -> bool:
        """All but programs: those run in a sandbox only (:mod:`lightning_r1.rewards.code`)."""
        return prompt.answer.get("kind") != "code"

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """1 or 0; ``wrong_format`` where there is no answer, ``unscorable`` for a bad gold."""
        try:
            check_gold(prompt.answer)
        except ValueError as error:
            return RewardScore(math.nan, Outcome.UNSCORABLE, str(error))
        if prompt.answer["kind"] == "rule":
            return RewardScore(float(_rule(prompt.answer["rule"])(prompt.question, completion.text)))
        grader = GRADERS.get(prompt.answer["kind"])
        if grader is None:
            return RewardScore(math.nan, Outcome.UNSCORABLE, f"no grader here for {prompt.answer['kind']!r}")
        answer = stated_answer(completion.text, prompt.answer, self.tags)
        if answer is None:
            return RewardScore(0.0, Outcome.WRONG_FORMAT, "no answer after the thinking")
        try:
            return RewardScore(float(grader(answer, prompt.answer)), Outcome.OK, answer)
        except ExpressionError as error:
            return RewardScore(0.0, Outcome.WRONG_FORMAT, f"{answer[:_SHOWN]!r}: {error}")


def _check_schema(prompt: Prompt) -> None:
    try:
        import_module(_LATE["json_schema"]).check_schema(prompt.answer)
    except ValueError as error:
        raise ValueError(f"data: {prompt.id}: {error}") from error


def _grade_json_schema(answer: str, gold: Mapping[str, Any]) -> bool:
    valid: bool = import_module(_LATE["json_schema"]).grade_json_schema(answer, gold)
    return valid


@cache
def _rule(path: str) -> Callable[[str, str], bool]:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def stated_answer(text: str, gold: Mapping[str, Any], tags: Tags) -> str | None:
    """What a completion answers, read as the gold's kind is; None where it states nothing.

    A program is no statement: it is told right from wrong, not from its equal.
    """
    if gold.get("kind") == "code":
        return None
    if gold.get("kind") == "json_schema":
        return find_json(text, tags)
    answer = extract_answer(text, tags)
    if gold.get("kind") != "choice":
        return answer
    return extract_choice(text, tags) or _option(answer, gold.get("options", ()))


def _option(answer: str | None, options: Sequence[str]) -> str | None:
    """The letter of the only option whose text this is."""
    words = (answer or "").casefold().split()
    letters = [letter for letter, option in zip(LETTERS, options, strict=False) if option.casefold().split() == words]
    return letters[0] if words and len(letters) == 1 else None


def answer_classes(answers: Sequence[str], gold: Mapping[str, Any]) -> list[Hashable]:
    """A label for each answer to one problem: answers that the grader cannot tell apart share it.

    What a majority vote counts. Equal numbers are one answer, however they are written. Of mathematical answers
    those share a label that are equal without being calculated; :class:`.CalculatedClasses` asks for the rest.

    >>> one, other, text = answer_classes(["0.5", "1/2", "half"], {"kind": "number", "value": 3})
    >>> one == other, one == text
    (True, False)
    """
    if gold.get("kind") == "math":
        return math_classes(answers)
    return [_answer_class(answer, gold) for answer in answers]


def _answer_class(answer: str, gold: Mapping[str, Any]) -> Hashable:
    try:
        if gold.get("kind") == "number":
            return _number(answer)
        if gold.get("kind") == "expression":
            expression = parse_expression(answer)
            numbers = expression.numbers if gold.get("ordered") else tuple(sorted(expression.numbers))
            return expression.value, numbers, expression.operators <= _operators(gold)
        if gold.get("kind") == "json_schema":
            return json.dumps(read_value(answer), sort_keys=True)
    except (ExpressionError, ValueError):
        pass  # it is an answer all the same, and stands for what it says
    return tuple(answer.casefold().split())


def _operators(gold: Mapping[str, Any]) -> set[str]:
    return set(gold.get("operators", "+-*/"))


def grade_number(answer: str, gold: Mapping[str, Any]) -> bool:
    r"""The same number, exactly: ``0.5`` is ``1/2``, ``0.333`` is not ``1/3``; or within the gold's tolerances.

    Also as mathematics writes it: ``x=\frac{1}{2}``, ``30^\circ``, ``18\text{ dollars}``.

    >>> grade_number("0.333", {"value": "1/3"}), grade_number("0.333", {"value": "1/3", "absolute_tolerance": 0.001})
    (False, True)
    """
    number, wanted = _number(answer), parse_number(str(gold["value"]))
    absolute, relative = (Fraction(str(gold.get(f"{what}_tolerance", 0))) for what in ("absolute", "relative"))
    return abs(number - wanted) <= max(absolute, relative * abs(wanted))


def _number(answer: str) -> Fraction:
    """The number that an answer is.

    Raises:
        ExpressionError: if it is none.
    """
    try:
        return parse_number(answer)
    except ExpressionError:
        number = None if hostile(answer) else read_number(answer)
        if number is None:
            raise
        return number


def grade_expression(answer: str, gold: Mapping[str, Any]) -> bool:
    """An expression of the gold's value that uses each of its numbers exactly once.

    >>> gold = {"numbers": [2, 5, 1], "target": 9, "ordered": True}
    >>> grade_expression("(2*5)-1", gold), grade_expression("(5*2)-1", gold), grade_expression("9", gold)
    (True, False, False)
    """
    expression = parse_expression(answer)
    wanted = tuple(parse_number(str(number)) for number in gold["numbers"])
    same = expression.numbers == wanted if gold.get("ordered") else Counter(expression.numbers) == Counter(wanted)
    right = expression.value == parse_number(str(gold["target"]))
    return same and right and expression.operators <= _operators(gold)


def grade_text(answer: str, gold: Mapping[str, Any]) -> bool:
    """The same text but for case and white space."""
    return answer.casefold().split() == str(gold["value"]).casefold().split()


def grade_choice(answer: str, gold: Mapping[str, Any]) -> bool:
    """The same letter."""
    return answer == gold["value"]


GRADERS: dict[str, Callable[[str, Mapping[str, Any]], bool]] = {
    "number": grade_number,
    "expression": grade_expression,
    "text": grade_text,
    "math": grade_math,
    "choice": grade_choice,
    "gym": grade_gym,
    "json_schema": _grade_json_schema,
}
