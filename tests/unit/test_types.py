"""The nouns: what sampling refuses, and which outcomes are honest."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_r1.types import Outcome, Sampling


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_size": 0}, "sampling.group_size=0: expected >= 1"),
        ({"max_new_tokens": 0}, "sampling.max_new_tokens=0: expected >= 1"),
        ({"temperature": -0.1}, "sampling.temperature=-0.1: expected >= 0"),
        ({"top_p": 0}, "sampling.top_p=0: expected in (0, 1]"),
        ({"top_p": 1.01}, "sampling.top_p=1.01: expected in (0, 1]"),
        ({"top_k": -1}, "sampling.top_k=-1: expected >= 0"),
        ({"min_p": -0.1}, "sampling.min_p=-0.1: expected in [0, 1)"),
        ({"min_p": 1}, "sampling.min_p=1: expected in [0, 1)"),
    ],
    ids=str,
)
def test_what_no_sampler_can_do(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the message is compared below
        Sampling(**fields)
    assert message in str(refusal.value)


def test_the_edges_of_the_ranges() -> None:
    Sampling(group_size=1, max_new_tokens=1, temperature=0, top_p=1, top_k=0, min_p=0)
    Sampling(top_p=1e-6, min_p=0.999, top_k=10**6, temperature=100)


def test_two_outcomes_are_honest_rewards() -> None:
    assert [outcome for outcome in Outcome if outcome.counts] == [Outcome.OK, Outcome.WRONG_FORMAT]
