"""Threads in which replies are made, each within its time: one that is late is left behind, with its thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_LOOK_S = 0.1  # between two looks whether a call has begun


class Late(Exception):
    """A result that did not come in time."""


class Asked(Generic[T]):
    """A call that is, or will be, made in some thread."""

    def __init__(self, number: int, make: Callable[[], T]) -> None:
        self.number, self.make = number, make
        self.began: float | None = None
        self.done = threading.Event()
        self.late = False
        self.error: BaseException | None = None
        self.value: T | None = None

    def run(self) -> None:
        """Make it; called in a thread."""
        self.began = time.monotonic()
        try:
            self.value = self.make()
        except BaseException as error:
            self.error = error
        self.done.set()


class Replies:
    """See the module.

    Args:
        at_once: calls that are made at a time.
        seconds: that each may take, from when it is begun.
    """

    def __init__(self, at_once: int, seconds: float) -> None:
        self.seconds = seconds
        self._work: SimpleQueue[Asked | None] = SimpleQueue()
        self._threads = self._asked = 0
        for _ in range(at_once):
            self._hire()

    def ask(self, make: Callable[[], T]) -> Asked[T]:
        """Let a call be made as soon as a thread is free."""
        asked = Asked(self._asked, make)
        self._asked += 1
        self._work.put(asked)
        return asked

    def result(self, asked: Asked[T]) -> T | None:
        """What a call gave. To be asked in the order of the calls.

        Raises:
            Late: if it took too long.
            BaseException: what it raised.
        """
        while not asked.done.wait(self._left(asked)):
            if asked.began is not None and time.monotonic() >= asked.began + self.seconds:
                asked.late = True
                self._hire()  # in place of the thread that is left with it
                raise Late
        if asked.error is not None:
            raise asked.error
        return asked.value

    def _left(self, asked: Asked) -> float:
        return _LOOK_S if asked.began is None else max(asked.began + self.seconds - time.monotonic(), 0.0)

    def _hire(self) -> None:
        # a daemon: what never returns must not keep the process from ending
        threading.Thread(target=self._serve, name="environment", daemon=True).start()
        self._threads += 1

    def _serve(self) -> None:
        while (asked := self._work.get()) is not None:
            asked.run()
            if asked.late:
                return  # another thread has taken this one's place

    def __enter__(self) -> Replies:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in range(self._threads):
            self._work.put(None)
