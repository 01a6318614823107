"""A call of another program ends: with its result, with its error by name, or at its deadline."""

from __future__ import annotations

import threading

import pytest

from lightning_r1.rollout.engine import EngineError
from lightning_r1.rollout.in_time import InTime


def test_results_come_from_one_thread() -> None:
    call = InTime("prog", "restart it")
    names = {call("asking", lambda: threading.current_thread().name, seconds=5) for _ in range(3)}
    assert names == {"prog"}


def test_an_error_is_named_and_does_not_end_it() -> None:
    call = InTime("prog", "restart it")

    def fail() -> None:
        raise KeyError("first\nsecond")

    with pytest.raises(EngineError, match=r"prog: asking failed \(KeyError: 'first.*\); restart it") as told:
        call("asking", fail, seconds=5)
    assert isinstance(told.value.__cause__, KeyError)
    assert call("asking", lambda: 3, seconds=5) == 3


def test_an_engines_own_error_is_not_wrapped() -> None:
    def fail() -> None:
        raise EngineError("as it is")

    with pytest.raises(EngineError, match=r"^as it is$"):
        InTime("prog", "restart it")("asking", fail, seconds=5)


def test_what_never_returns_is_left_behind_and_never_asked_again() -> None:
    call, forever = InTime("prog", "restart it"), threading.Event()
    with pytest.raises(EngineError, match=r"prog: asking did not end within 0.05 s; restart it"):
        call("asking", lambda: forever.wait(60), seconds=0.05)
    with pytest.raises(EngineError, match=r"prog: asking again: given up"):
        call("asking again", lambda: 1, seconds=5)
    forever.set()
