"""The reward of structured output, with credit on the way to it."""

from __future__ import annotations

import math
from typing import Any

from lightning_r1.rewards.accuracy import Accuracy, stated_answer
from lightning_r1.rewards.json_schema import faults, read_answer, valid_members
from lightning_r1.text.arithmetic import ExpressionError
from lightning_r1.text.golds import check_gold
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


class JSONSchema(Accuracy):
    """1 for JSON that the prompt's schema describes, with the values it asks for; for other prompts, accuracy.

    On the way there an answer earns ``parses`` for being JSON at all, and a part of ``members``: the share of the
    members that the schema names at its top which are there and valid. With the defaults there is no such credit.

    Args:
        tags: of the template.
        parses: worth of JSON that is not valid.
        members: worth of all members being valid where the whole is not.
        **accuracy: options of :class:`.Accuracy`.

    Raises:
        ValueError: if it would be worth as much to be wrong.
    """

    def __init__(self, tags: Tags, *, parses: float = 0.0, members: float = 0.0, **accuracy: Any) -> None:
        super().__init__(tags, **accuracy)
        if min(parses, members) < 0 or parses + members >= 1:
            raise ValueError(f"parses={parses}, members={members}: expected >= 0 each, and together less than 1")
        self.parses, self.members = parses, members

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """0 to 1; ``wrong_format`` where there is no JSON; the detail says what is wrong with it."""
        if prompt.answer.get("kind") != "json_schema":
            return super().__call__(prompt, completion)
        try:
            check_gold(prompt.answer)
        except ValueError as error:
            return RewardScore(math.nan, Outcome.UNSCORABLE, str(error))
        answer = stated_answer(completion.text, prompt.answer, self.tags)
        if answer is None:
            return RewardScore(0.0, Outcome.WRONG_FORMAT, "no answer after the thinking")
        try:
            value = read_answer(answer)
        except ExpressionError as error:
            return RewardScore(0.0, Outcome.WRONG_FORMAT, str(error))
        fault = faults(value, prompt.answer)
        if fault is None:
            return RewardScore(1.0, Outcome.OK, answer)
        credit = self.parses + (self.members * valid_members(value, prompt.answer) if self.members else 0.0)
        return RewardScore(credit, Outcome.OK, fault)
