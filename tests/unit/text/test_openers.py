"""Answers that say nothing, and short ones that do say something."""

from __future__ import annotations

import time

import pytest

from lightning_r1.text.openers import MASTER_KEYS, says_nothing
from lightning_r1.text.tags import Tags


@pytest.mark.parametrize("key", [*MASTER_KEYS, "", " \n", "...", "!?!", "**", "$$", "---", "` `", "\u3002", "\u200b"])
def test_master_keys_say_nothing(key: str) -> None:
    assert says_nothing(key)
    assert says_nothing(f"  {key}\n")
    assert says_nothing(f"<answer>{key}</answer>", Tags())


@pytest.mark.parametrize(
    "text",
    [
        "Let's solve this step by step",
        "let\u2019s think step by step...",
        "Sure! Here is the solution:",
        "**Solution**: Let us work through the problem carefully.",
        "Okay, let me think about this.",
        "Thought process: Let's solve this problem step by step.",
        "Final answer:",
        "The answer is",
        "\u89e3\uff1a",
        "\u7b54\u6848\uff1a",
        "THOUGHT PROCESS",
    ],
)
def test_openers_say_nothing(text: str) -> None:
    assert says_nothing(text)


@pytest.mark.parametrize(
    "text",
    [
        "4", "x", "\u221e", "\u2205", "\U0001f44d", "No", "yes.", "The answer is 4.", "Solution: 4", "Rhine", "\u4e94",
        "Let's solve this step by step: 2+2=4", "step 4", "Not a solution", "soluble", "Wellington", "to be",
        "\\frac12", "nothing", "<answer>4</answer>", "a solution of salt in water",
    ],
)  # fmt: skip
def test_short_answers_say_something(text: str) -> None:
    assert not says_nothing(text, Tags())


def test_long_ones_cost_nothing() -> None:
    started = time.monotonic()
    assert says_nothing("." * 1_000_000)
    assert not says_nothing("let us think about the " * 50_000)
    assert not says_nothing("so " * 130 + "4")
    assert time.monotonic() - started < 5
