"""A call of another program ends: with its result, with its error by name, or at its deadline."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from lightning_r1.rollout.engine import EngineError
from lightning_r1.rollout.in_time import InTime, as_answered


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
    with pytest.raises(EngineError, match=r"prog: asking: it did not end within 0.05 s; restart it"):
        call("asking", lambda: forever.wait(60), seconds=0.05)
    with pytest.raises(EngineError, match=r"prog: asking again: given up before; restart it"):
        call("asking again", lambda: 1, seconds=5)
    forever.set()


def test_a_program_that_has_ended_is_not_waited_for() -> None:
    forever, gone = threading.Event(), [False]
    call = InTime("prog", "restart it", lambda: gone[0])
    assert call("asking", lambda: 3, seconds=3600) == 3
    gone[0] = True
    with pytest.raises(EngineError, match=r"prog: asking: its process has ended; restart it"):
        call("asking", lambda: forever.wait(60), seconds=3600)
    forever.set()


def test_jobs_come_as_they_are_done_and_the_first_error_ends_them() -> None:
    gate, begun = threading.Event(), []

    def job(place: int) -> int:
        begun.append(place)
        if place == 0:
            gate.wait(60)
        return 10 * place

    answered = as_answered([partial(job, place) for place in range(3)], at_once=2)
    assert [next(answered), next(answered)] == [(1, 10), (2, 20)]
    gate.set()
    assert list(answered) == [(0, 0)]
    assert list(as_answered([], at_once=2)) == []

    begun.clear()
    gate.clear()

    def fails(place: int) -> int:
        begun.append(place)
        if place != 1:
            gate.wait(60)  # does not end by itself: nobody waits for it
        raise KeyError(place)

    with pytest.raises(KeyError, match="1"):
        list(as_answered([partial(fails, place) for place in range(5)], at_once=2))
    assert set(begun) <= {0, 1, 2}
    gate.set()
