"""The work of a step benchmark: what every system is given, and prompts and rewards for models that know nothing.

Imported in reward workers: nothing heavy in here.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass

from lightning_r1.data.rows import Row
from lightning_r1.types import Completion, Prompt

PREFILL = "<think>"
"""Of ``template=mini``: behind every question."""


@dataclass(frozen=True)
class Work:
    """What all systems do."""

    model: str
    """Folder of the model."""
    prompts: int = 24
    group_size: int = 8
    max_new_tokens: int = 112
    lengths: str = "natural"
    kl_coef: float = 0.0
    rows_per_forward: int = 192
    """Of TRL; ours are cut by tokens, as many as these rows have."""
    steps: int = 8
    """Measured in each turn, after one to warm up."""
    threads: int | None = 1
    prompt_tokens: int | None = None
    """Of random prompts; None takes the miniature's task, with its rules for rewards."""
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def tokens_per_forward(self) -> int | None:
        """Of ours; None leaves the miniature's own."""
        if self.prompt_tokens is None:
            return None
        return self.rows_per_forward * (self.prompt_tokens + self.max_new_tokens)


def random_rows(tokens: int, count: int = 64) -> Iterator[Row]:
    """Questions of random letters, for a tokenizer with a token a byte and ``template=mini``.

    Args:
        tokens: of each prompt.
        count: different ones.
    """
    rng = random.Random(tokens)
    for number in range(count):
        letters = "".join(rng.choices(string.ascii_lowercase, k=tokens - len(PREFILL)))
        yield Row(f"random/{number}", letters, {"kind": "number", "value": number})


def luck(prompt: Prompt, completion: Completion) -> float:
    """A reward that half of all completions have, whatever wrote them."""
    return lucky(completion.token_ids)


def lucky(token_ids: tuple[int, ...] | list[int]) -> float:
    """See :func:`luck`."""
    return float(sum(token_ids) % 2)
