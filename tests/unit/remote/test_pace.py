"""The pace of questions, by a clock of the test's own: no thread, no waiting."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lightning_r1.remote.pace import LONGEST_PAUSE_S, PROBE_S, Pace, Presence


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seed", range(5))
def test_no_minute_holds_more_than_its_share(seed: int) -> None:
    rng, clock = random.Random(seed), Clock()
    pace = Pace(requests_per_minute=30, tokens_per_minute=6000, clock=clock)
    due: list[tuple[float, float]] = []
    for _ in range(200):
        clock.now += rng.choice([0.0, 0.5, 3.0])
        tokens = rng.choice([10.0, 100.0, 900.0])
        due.append((clock.now + pace.book(tokens), tokens))
    times = [time for time, _ in due]
    assert times == sorted(times)
    for start in times:
        inside = [tokens for time, tokens in due if start <= time < start + 60]
        assert len(inside) <= 30 + 1e-6
        assert sum(inside) <= 6000 + 900  # the last may reach over its end


def test_without_limits_nobody_waits() -> None:
    pace = Pace(clock=Clock())
    assert [pace.book(1e9) for _ in range(5)] == [0.0] * 5


def test_what_was_booked_too_much_is_given_back() -> None:
    clock = Clock()
    pace = Pace(tokens_per_minute=60, clock=clock)
    assert pace.book(10) == 0
    pace.correct(-7)
    assert pace.book(1) == pytest.approx(3)
    pace.correct(5)
    assert pace.book(1) == pytest.approx(9)


def test_no_endpoint_pauses_a_process_for_good() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    pace.pause(1e9)
    assert pace.paused() == LONGEST_PAUSE_S
    clock.now += LONGEST_PAUSE_S
    assert pace.paused() == 0


def test_a_pause_is_everybodys_and_ends() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    pace.pause(5)
    pace.pause(2)
    assert pace.paused() == 5
    clock.now += 4
    assert pace.paused() == 1
    clock.now += 4
    assert pace.paused() == 0


@pytest.mark.parametrize("options", [{"requests_per_minute": 0}, {"tokens_per_minute": -1.0}], ids=str)
def test_limits_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(options))}=.*: expected > 0, or null for no limit"):
        Pace(**options)


def test_who_is_away_is_asked_now_and_then() -> None:
    clock = Clock()
    presence = Presence(clock=clock)
    assert presence.away() is None
    presence.gave_up(clock.now - 10, "nobody there")
    assert presence.away() == "nobody there"
    assert presence.probing()
    clock.now += PROBE_S
    assert presence.away() is None  # this one tries
    assert presence.away() == "nobody there"  # the others do not
    presence.answered()
    assert presence.away() is None
    assert not presence.probing()


def test_one_that_answers_others_is_not_away() -> None:
    clock = Clock()
    presence = Presence(clock=clock)
    asked_at = clock.now
    clock.now += 5
    presence.answered()
    clock.now += 5
    presence.gave_up(asked_at, "slow")
    assert presence.away() is None
