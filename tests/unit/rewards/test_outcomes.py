"""When so much could not be scored that the run should stop."""

from __future__ import annotations

import math
from typing import Any

import pytest

from helpers.ranks import on_ranks
from lightning_r1.parallel.collectives import together
from lightning_r1.parallel.interruption import Interrupted
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.outcomes import NEVER, StopAt, Tally
from lightning_r1.types import Completion, Group, Outcome, Prompt, RewardScore, ScoredGroup

PROMPT = Prompt("p", "q", "q", (1,), {"kind": "number"})


def scored(**outcomes: str) -> ScoredGroup:
    """``a="kw"``: reward a was ok and in the wrong format; c, t and u are a crash, a timeout, unscorable."""
    kinds = dict(zip("kwtcu", Outcome, strict=True))
    breakdown = {
        name: [RewardScore(0.0 if kinds[one].counts else math.nan, kinds[one], f"{name} {one}") for one in letters]
        for name, letters in outcomes.items()
    }
    count = len(next(iter(outcomes.values())))
    return ScoredGroup(Group(PROMPT, (Completion((1,), (0.0,), "stop"),) * count), (0.0,) * count, breakdown)


@pytest.mark.parametrize(
    ("letters", "stop_at", "stops"),
    [
        ("kwww", StopAt(), None),
        ("kkkc", StopAt(), None),
        ("kkcc", StopAt(), "crash"),
        ("ttkk", StopAt(), "timeout"),
        ("uukk", StopAt(), "unscorable"),
        ("ctuk", StopAt(), None),  # each kind by itself
        ("kkcc", StopAt(crash=None), None),
        ("cccc", StopAt(crash=1.0), "crash"),
        ("kccc", StopAt(crash=1.0), None),
        ("kkkt", StopAt(timeout=0.25), "timeout"),
        ("cccc", NEVER, None),
        ("kkkk", StopAt(1e-9, 1e-9, 1e-9), None),
    ],
)
def test_shares(letters: str, stop_at: StopAt, stops: str | None) -> None:
    tally = Tally().add([scored(a=letters)])
    if stops is None:
        tally.check(stop_at)
        return
    with pytest.raises(RewardError, match=rf"^reward\.rewards\.a: \d of 4 completions ended in {stops} \(reward\.stop"):
        tally.check(stop_at)


def test_each_reward_is_counted_by_itself_over_all_groups() -> None:
    tally = Tally().add([scored(a="kk", b="kc")]).add([scored(b="cc"), scored(a="kk")])
    with pytest.raises(RewardError) as caught:
        tally.check(StopAt())
    assert str(caught.value) == (
        "reward.rewards.b: 3 of 4 completions ended in crash (reward.stop_at.crash=0.5): b c; repair it, then give the "
        "same command again: it goes on from the newest checkpoint"
    )


def test_ranks_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [[scored(a="cckk")], [scored(a="kkkk")], [scored(a="cccc")]]

    def work(rank: int) -> Any:
        try:
            Tally().add(groups[rank]).over_ranks().check(StopAt())
        except RewardError as error:
            return str(error)

    said = on_ranks(monkeypatch, [], [lambda rank=rank: work(rank) for rank in range(3)])
    assert len(set(said)) == 1
    assert "6 of 12 completions ended in crash" in said[0]


def test_what_one_rank_cannot_go_on_with_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rank: int) -> Any:
        def fails() -> int:
            if rank == 1:
                raise RewardError("reward.rewards.a: gone")
            return rank

        try:
            return together(fails, RewardError)
        except RewardError as error:
            return str(error)

    assert (
        on_ranks(monkeypatch, [], [lambda rank=rank: work(rank) for rank in range(3)]) == ["reward.rewards.a: gone"] * 3
    )
    assert on_ranks(monkeypatch, [], [lambda rank=rank: work(2 * rank) for rank in range(2)]) == [0, 2]


def test_ranks_that_fail_in_different_ways_all_end_in_the_first_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(rank: int) -> Any:
        def fails() -> None:
            raise (RewardError("its judge is gone"), Interrupted("it received SIGTERM"))[rank]

        try:
            together(fails, Interrupted, RewardError)
        except (Interrupted, RewardError) as raised:
            return type(raised), str(raised)

    ended = on_ranks(monkeypatch, [], [lambda rank=rank: work(rank) for rank in range(2)])
    assert ended == [(Interrupted, "it received SIGTERM")] * 2


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"reward\.stop_at\.timeout=.*expected a share in \(0, 1\], or null"):
        StopAt(timeout=share)
