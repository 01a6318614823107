"""Rewards of a user's own, for configs that name them by dotted path."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def broken_while(prompt: Prompt, completion: Completion, marker: str) -> Any:
    """Counts tokens; while the file ``marker`` is there, it has the fault that is named in it."""
    if Path(marker).exists():
        fault = Path(marker).read_text()
        if fault == "raises":
            raise KeyError("solution")
        if fault == "exits":
            os._exit(7)
        if fault == "hangs":
            time.sleep(600)
        return {"nan": math.nan, "text": "1.0", "none": None}[fault]
    return float(len(completion.token_ids))


class ShortBatch:
    """A batch reward that loses its last verdict."""

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        """Never asked alone."""
        raise AssertionError

    def score_batch(self, items: Sequence[tuple[Prompt, Completion]]) -> list[float]:
        """One verdict too few."""
        return [1.0] * (len(items) - 1)
