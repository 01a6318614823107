"""A rollout in flight is waited for as long as there is time, and no longer."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from helpers.slurm import FakeSlurm
from lightning_r1.experience.draft import Draft, Flight
from lightning_r1.experience.landing import lands, settled
from lightning_r1.parallel.interruption import Interrupted, interruption


class Slow:
    """A flight that takes so long, unless nobody wants it."""

    def __init__(self, seconds: float) -> None:
        self.over = threading.Event()
        self.seconds = seconds
        self.flight = Flight(self._fly, torch.device("cpu"))

    def _fly(self, still_wanted: Callable[[], None]) -> Draft:
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            still_wanted()
            self.over.wait(0.02)
        return Draft([], 1.0, 2.0)


@pytest.fixture(autouse=True)
def signalled() -> Iterator[None]:
    """As in a training run that has received SIGUSR1."""
    with interruption.listening(), interruption.waiting():
        signal.raise_signal(signal.SIGUSR1)
        interruption.saving_s = 20.0
        yield


def slurm_ends_in(seconds: float, folder: Path, patch: pytest.MonkeyPatch) -> None:
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + seconds))
    FakeSlurm(folder, patch).says(end=end)


def test_it_is_waited_for_where_there_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm_ends_in(300, tmp_path, monkeypatch)
    flight = Slow(0.8).flight
    assert lands(flight)
    kept = flight.state_dict()
    assert kept is not None
    assert kept["reward_seconds"] == 2.0
    assert (flight.result().waited_seconds or 0) > 0.5  # as long as the main thread did nothing else


def test_it_is_given_up_where_the_job_ends_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm_ends_in(15, tmp_path, monkeypatch)  # of which saving takes all
    started = time.monotonic()
    flight = Slow(60).flight
    assert not lands(flight)
    assert time.monotonic() - started < 10
    assert flight.state_dict() is None


def test_what_needs_the_engine_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    slow = Slow(60)
    with pytest.raises(Interrupted, match="it received SIGUSR1"):
        settled(slow.flight)
    assert slow.flight.flying(0)  # it is saved, if it lands in time
    slow.flight.abandon()
