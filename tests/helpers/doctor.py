"""Runs that are ill, and their examination."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.coin import coin_rows
from helpers.quick import overrides_of, quick_rl
from lightning_r1.config.compose import compose_config
from lightning_r1.data.rows import Row
from lightning_r1.doctor.findings import Finding
from lightning_r1.doctor.run import doctor
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.types import Completion, Group, Prompt

Found = Mapping[str, Sequence[Finding]]


def examined(output: Path, base: Path, *overrides: str) -> Found:
    """What the doctor finds about a small run on the coin task."""
    said = overrides_of(quick_rl, output, base)
    return doctor(compose_config("doctor", [*said, "algo.sampling.max_new_tokens=40", *overrides]))


def told(found: Found, check: str, level: str) -> str:
    """What a check said at this level, with the fixes."""
    return "; ".join(f"{one.text} -> {one.fix}" for one in found[check] if one.level == level)


def failures(found: Found) -> list[str]:
    """The checks in which something failed."""
    return [check for check, of_check in found.items() if any(one.level == "failed" for one in of_check)]


def rows_with_bad_golds(split: str, size: int = 8, kind: str = "expression", **more: Any) -> Iterator[Row]:
    """Rows of which one has a gold that nobody can reach, or none that a grader knows."""
    for place, row in enumerate(coin_rows("train", size)):
        bad = {
            "expression": {"kind": "expression", "numbers": [2, 2], "target": 9},
            "number": {"kind": "number", "value": "a lot"},
            "choice": {"kind": "choice", "value": "b"},
        }[kind]
        yield replace(row, answer=bad) if place == 3 else row


def rows_of_every_kind(split: str, **more: Any) -> Iterator[Row]:
    """A gold of each kind that can be checked by itself, and one of a rule, which cannot."""
    golds: list[dict[str, Any]] = [
        {"kind": "number", "value": "1/2"},
        {"kind": "expression", "numbers": [3, 5, 7, 2], "target": 21},
        {"kind": "expression", "numbers": [2, 5, 1], "target": 9, "ordered": True, "operators": "+-*"},
        {"kind": "text", "value": "Paris"},
        {"kind": "math", "value": r"\frac{1}{2}"},
        {"kind": "choice", "value": "C"},
        {"kind": "rule", "rule": "helpers.coin.is_a_trace"},
    ]
    for place, gold in enumerate(golds):
        yield Row(f"kinds/{place}", f"{place + 10}?{place + 11}=", gold)


def rows_in_words(split: str, **more: Any) -> Iterator[Row]:
    """Questions in letters that the miniature's tokenizer does not know."""
    return (replace(row, question="Q" + row.question) for row in coin_rows("train", 8))


def slow(prompt: Prompt, completion: Completion) -> float:
    """A reward that thinks for long about long answers."""
    time.sleep(0.3 if "9**9" in completion.text else 0)
    return 1.0


def hangs(prompt: Prompt, completion: Completion) -> float:
    """A reward that never comes back."""
    while True:
        time.sleep(0.01)


class OtherWeights(GroupEngine):
    """Tells log-probabilities that are not the policy's."""

    def generate(self, *arguments: Any, **how: Any) -> list[Group]:
        """As the group engine, a little more sure of itself."""
        return [
            replace(
                group,
                completions=tuple(
                    replace(one, logprobs=tuple(value + 0.02 for value in one.logprobs)) for one in group.completions
                ),
            )
            for group in super().generate(*arguments, **how)
        ]
