"""The format reward is the strict reading of the tags."""

from __future__ import annotations

import pytest

from lightning_r1.rewards.format import Format
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

PROMPT = Prompt("test/1", "q", "q", (1,), {"kind": "number", "value": 1})


def score(text: str, tags: Tags | None = None) -> RewardScore:
    return Format(tags or Tags())(PROMPT, Completion((1,), (0.0,), "stop", text=text))


@pytest.mark.parametrize(
    "text", ["<think>a</think><answer>b</answer>", "\n<think>wrong</think> \n <answer>also wrong</answer>\n"]
)
def test_right(text: str) -> None:
    assert score(text) == RewardScore(1.0, Outcome.OK)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<think>a</think>b",
        "<think>a</think><answer></answer>",
        "<answer>b</answer><think>a</think>",
        "<think>a<think>b</think></think><answer>c</answer>",
        "<think>a</think><answer>b</answer><answer>b</answer>",
        "<think>a</think><answer>b</answer>.",
    ],
)
def test_wrong(text: str) -> None:
    wrong = score(text)
    assert (wrong.value, wrong.outcome) == (0.0, Outcome.WRONG_FORMAT)


def test_the_tags_are_the_templates() -> None:
    tags = Tags("[", "]", "{", "}")
    assert score("[a]{b}", tags).value == 1
    assert score("<think>a</think><answer>b</answer>", tags).value == 0
