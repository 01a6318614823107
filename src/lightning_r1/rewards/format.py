"""The format reward: 1 if thinking and answer stand between their tags, else 0 (R1 paper, section 2.2)."""

from __future__ import annotations

from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


class Format:
    """Strict: each tag once, in order, nothing outside (:meth:`lightning_r1.text.tags.Tags.is_strict`).

    Args:
        tags: of the template.
    """

    def __init__(self, tags: Tags) -> None:
        self.tags = tags

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """1 or 0."""
        if self.tags.is_strict(completion.text):
            return RewardScore(1.0)
        return RewardScore(0.0, Outcome.WRONG_FORMAT)
