"""Which answers to a problem are equal, where that has to be calculated: what a majority vote counts.

Nothing is calculated in this process: pairs of answers are sent to the workers that score rewards, as if one were the
gold of the other. What they cannot tell, because it takes too long, is different.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from lightning_r1.rewards.accuracy import answer_classes
from lightning_r1.rewards.base import Scorer
from lightning_r1.rewards.maths import CALCULATOR, Pairs, equal_answers, math_classes
from lightning_r1.text.arithmetic import ExpressionError
from lightning_r1.types import Completion, Prompt


class SameAnswer:
    """Asked like a reward: 1 if the completion is the answer ``value`` of the prompt but for how it is written."""

    preload = (CALCULATOR,)

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        """1 or 0."""
        try:
            return float(equal_answers(completion.text, prompt.answer["value"]))
        except ExpressionError:
            return 0.0


class CalculatedClasses:
    """Labels of answers, as :func:`.answer_classes` gives them, with mathematical ones calculated, each pair once.

    Args:
        scorer: where that is done.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._same = SameAnswer()
        self._known: dict[tuple[str, str], bool] = {}

    def __call__(self, answers: Sequence[str], gold: Mapping[str, Any]) -> list[Hashable]:
        """A label for each answer to one problem."""
        if gold.get("kind") != "math":
            return answer_classes(answers, gold)
        return math_classes(answers, self._equal)

    def _equal(self, pairs: Pairs) -> list[bool]:
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        items = [
            (Prompt("pair", "", "", (), {"kind": "math", "value": one}), Completion((), (), "stop", text=other))
            for one, other in new
        ]
        # not a number where the worker was killed, which is equal to nothing
        scores = self.scorer.score("same_answer", self._same, items) if items else []
        self._known |= {pair: score.value == 1 for pair, score in zip(new, scores, strict=True)}
        return [self._known[pair] for pair in pairs]
