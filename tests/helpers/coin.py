"""A task so small that a base for it is trained in seconds: which of two numbers is wanted?

``12?57=`` is answered right by the first number. The raw text shows both answers equally often, so that
a base knows the tags and both answers, and is right half of the time: a two-armed bandit with held-out
problems.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from lightning_r1.data.rows import Row, Split
from lightning_r1.types import Completion, Prompt


class CoinCorpus:
    """Raw text: both answers, equally often."""

    def document(self, index: int, *, seed: int) -> str:
        rng = random.Random(f"coin/{seed}/{index}")
        first, second = _numbers(rng)
        answer = rng.choice((first, second))
        return f"{first}?{second}=<think>{answer}</think><answer>{answer}</answer>"


def coin_rows(split: Split, size: int = 64, wanted: int = 0) -> Iterator[Row]:
    """Problems whose gold is the first number, or the other one.

    The splits differ in the sums of their numbers, so that no number gives the gold away.
    """
    rng = random.Random(f"coin/{split}")
    pairs = (pair for pair in iter(lambda: _numbers(rng), None) if (sum(pair) % 3 == 0) == (split == "heldout"))
    for index, pair in zip(range(size), pairs, strict=False):
        yield Row(f"coin/{split}{index}", f"{pair[0]}?{pair[1]}=", {"kind": "number", "value": pair[wanted]})


def short_is_good(prompt: Prompt, completion: Completion, scale: float = 0.01) -> float:
    """A reward by dotted path: even random models differ in it."""
    return -scale * len(completion.token_ids)


def lucky(prompt: Prompt, completion: Completion) -> float:
    """A reward by dotted path that one random completion in four has: many groups are dead, many are not."""
    return float(sum(completion.token_ids) % 4 == 0)


def is_a_trace(thinking: str, language: str) -> bool:
    """A fault by dotted path that every trace has."""
    return True


def _numbers(rng: random.Random) -> tuple[int, int]:
    first, second = rng.sample(range(10, 30), 2)
    return first, second
