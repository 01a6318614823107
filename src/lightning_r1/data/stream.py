"""The order in which prompts are drawn: a function of seed and position, so that position is its state."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lightning_r1.types import Prompt


class PromptStream:
    """An endless stream of prompts: every epoch a new permutation.

    Args:
        prompts: all of them.
        seed: of the permutations.

    Raises:
        ValueError: if there are no prompts.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        if not prompts:
            raise ValueError("data.train: there are no prompts to draw from")
        self.prompts, self.seed = prompts, seed
        self._epoch = -1
        self._order: list[int] = []

    def at(self, position: int) -> Prompt:
        """The prompt drawn at this position; positions start at 0 and never end."""
        epoch, place = divmod(position, len(self.prompts))
        if epoch != self._epoch:
            self._order = list(range(len(self.prompts)))
            random.Random(f"{self.seed}/epoch/{epoch}").shuffle(self._order)
            self._epoch = epoch
        return self.prompts[self._order[place]]

    def epoch(self, position: int) -> float:
        """Passes over the prompts before this position."""
        return position / len(self.prompts)
