"""What a reward is, and how many of them are run over a rollout.

A reward is any callable ``(prompt, completion) -> RewardScore | float | None``, so a plain function
named by its dotted path in the config is one. ``None`` says "cannot be scored". What such a
function raises is counted as a crash, by its name, and leaves the completion out of its group; it
never becomes a 0 among honest ones.

:class:`Scorer` is the seam where the work is done: in this process here; workers that can be killed
take its place without any reward noticing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

Reward = Callable[[Prompt, Completion], RewardScore | float | None]
Item = tuple[Prompt, Completion]


class Scorer(Protocol):
    """Runs one reward over many completions."""

    def score(self, name: str, reward: Reward, items: Sequence[Item]) -> list[RewardScore]:
        """One score for each item, in order."""
        ...


class InProcessScorer:
    """Runs rewards here, one after the other. For rules of our own, which cannot hang."""

    def score(self, name: str, reward: Reward, items: Sequence[Item]) -> list[RewardScore]:
        """See :class:`Scorer`."""
        return [score_one(reward, prompt, completion) for prompt, completion in items]


def score_one(reward: Reward, prompt: Prompt, completion: Completion) -> RewardScore:
    """Run a reward on one completion; what it raises becomes a typed outcome."""
    try:
        verdict = reward(prompt, completion)
    except Exception as error:
        return RewardScore(math.nan, Outcome.CRASH, f"{type(error).__name__}: {error}")
    if verdict is None:
        return RewardScore(math.nan, Outcome.UNSCORABLE)
    if isinstance(verdict, int | float):
        verdict = RewardScore(float(verdict))
    if not isinstance(verdict, RewardScore):
        return RewardScore(math.nan, Outcome.CRASH, f"returned a {type(verdict).__name__}, not a number")
    if verdict.outcome.counts and not math.isfinite(verdict.value):
        return RewardScore(math.nan, Outcome.CRASH, f"returned {verdict.value}")
    return verdict
