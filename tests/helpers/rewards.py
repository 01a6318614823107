"""Rewards of a user's own, for configs that name them by dotted path."""

from __future__ import annotations

from pathlib import Path

from lightning_r1.types import Completion, Prompt


def digits_are_good(prompt: Prompt, completion: Completion, scale: float = 1.0) -> float:
    """How many digits stand in the completion, times ``scale``."""
    return scale * sum(character.isdigit() for character in completion.text)


def needs_a_limit(prompt: Prompt, completion: Completion, limit: int) -> float:
    """An option without a default."""
    return float(len(completion.token_ids) <= limit)


class Weighs:
    """A reward with an option that has no default, as a class."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, prompt: Prompt, completion: Completion) -> float | None:
        """``factor`` a token; what is longer than ten tokens cannot be scored."""
        tokens = len(completion.token_ids)
        return None if tokens > 10 else self.factor * tokens


def breaks(prompt: Prompt, completion: Completion) -> float:
    """Raises."""
    raise RuntimeError("broken")


def always(prompt: Prompt, completion: Completion, value: float = 0.5) -> float:
    """The same for everything: a reward that lies."""
    return value


def lies_until(prompt: Prompt, completion: Completion, mended: str) -> float:
    """The same for everything until a file is there, then how many different tokens were written."""
    return len(set(completion.token_ids)) / 8 if Path(mended).exists() else 0.5
