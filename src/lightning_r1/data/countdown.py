"""Countdown: reach a target from given numbers, each used once, in any order, with ``+ - * /``.

The task on which R1-Zero's behaviour was first reproduced in the open (TinyZero). Problems are
generated, and solvable because the generator makes the target from the numbers. Which split a
problem belongs to is a hash of its numbers and target: the two splits are disjoint by construction.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

from lightning_r1.data.rows import Row, Split, split_of

QUESTION = (
    "Using the numbers {numbers}, create an equation that equals {target}. You can use basic arithmetic "
    "operations (+, -, *, /) and each number must be used exactly once. Give the expression as the answer, "
    "for example (1 + 2) / 3."
)


def countdown_rows(
    split: Split,
    *,
    size: int,
    seed: int = 0,
    fewest_numbers: int = 3,
    most_numbers: int = 4,
    largest_number: int = 99,
    largest_target: int = 99,
    heldout_one_in: int = 8,
    question: str = QUESTION,
) -> Iterator[Row]:
    """``size`` different problems of one split, the same for the same seed.

    Args:
        split: ``train`` or ``heldout``.
        size: how many.
        seed: of the generator.
        fewest_numbers: in a problem.
        most_numbers: in a problem.
        largest_number: numbers are 1..this.
        largest_target: targets are 1..this.
        heldout_one_in: one problem in so many is held out.
        question: the text, with ``{numbers}`` and ``{target}``.

    Raises:
        ValueError: if so many different problems were not found.
    """
    rng = random.Random(f"countdown/{seed}")
    seen: set[str] = set()
    found = 0
    for _ in range(1000 * size + 1000):
        if found == size:
            return
        numbers = [rng.randint(1, largest_number) for _ in range(rng.randint(fewest_numbers, most_numbers))]
        value = _combine(rng, list(map(Fraction, numbers)))
        if value.denominator != 1 or not 1 <= value <= largest_target:
            continue
        key = f"{','.join(map(str, sorted(numbers)))}={value}"
        if key in seen or split_of(key, heldout_one_in) != split:
            continue
        seen.add(key)
        found += 1
        text = question.replace("{numbers}", str(numbers)).replace("{target}", str(value))
        gold = {"kind": "expression", "numbers": numbers, "target": int(value), "ordered": False}
        yield Row(f"countdown/{key}", text, gold)
    if found < size:
        raise ValueError(f"data.size={size}: only {found} different problems found; lower it or widen the ranges")


def _combine(rng: random.Random, values: list[Fraction]) -> Fraction:
    """Join random pairs by random operations until one value is left."""
    while len(values) > 1:
        left = values.pop(rng.randrange(len(values)))
        right = values.pop(rng.randrange(len(values)))
        joined = [left + right, left - right, left * right]
        if right:
            joined.append(left / right)
        values.append(rng.choice(joined))
    return values[0]
