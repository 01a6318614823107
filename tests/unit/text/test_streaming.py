"""Thinking told from answer while it is written: however the text is cut, the parts are the same."""

from __future__ import annotations

import random

import pytest

from lightning_r1.text.streaming import ThinkingSplit
from lightning_r1.text.tags import Tags

TEXTS = {
    "2+2=4</think><answer>4</answer>": ("2+2=4", "<answer>4</answer>"),
    "<think>a < b</think> c</thin k>": ("a < b", " c</thin k>"),
    "<think>a</think>b<think>c</think>d": ("ac", "bd"),
    "a</think": ("a</think", ""),
    "": ("", ""),
}


def parts(pieces: list[str], *, thinking: bool = True) -> tuple[str, str]:
    """All that was thought, and all that was said."""
    split = ThinkingSplit(Tags(), thinking=thinking)
    heard = [part for piece in pieces for part in split.feed(piece)] + split.rest()
    assert all(text for _, text in heard)
    return tuple("".join(text for thinking, text in heard if thinking is which) for which in (True, False))  # type: ignore[return-value]


@pytest.mark.parametrize(("text", "expected"), TEXTS.items())
def test_however_it_is_cut(text: str, expected: tuple[str, str]) -> None:
    rng = random.Random(text)
    for _ in range(50):
        cuts = sorted(rng.sample(range(len(text) + 1), min(len(text), rng.randint(0, 6))))
        pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert parts(pieces) == expected
    assert parts(list(text)) == expected


def test_a_model_that_has_not_begun_to_think_is_answering() -> None:
    assert parts(["hello ", "<th", "ink>hm</think>bye"], thinking=False) == ("hm", "hello bye")


def test_nothing_waits_that_cannot_be_a_tag() -> None:
    split = ThinkingSplit(Tags(), thinking=True)
    assert split.feed("2 <") == [(True, "2 ")]
    assert split.feed(" 3") == [(True, "< 3")]
