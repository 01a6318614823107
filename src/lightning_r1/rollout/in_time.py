"""Calls of another program that end in time, whatever the other program does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from lightning_r1.rollout.engine import EngineError

T = TypeVar("T")


def as_answered(jobs: Sequence[Callable[[], T]], at_once: int) -> Iterator[tuple[int, T]]:
    """Places and results of jobs, each as soon as it is done, ``at_once`` at a time.

    The first error ends it: what is not begun never is, and what is under way is left behind.
    """
    left, done = SimpleQueue[int](), SimpleQueue[tuple[int, Any, BaseException | None]]()
    over = threading.Event()
    for place in range(len(jobs)):
        left.put(place)

    def work() -> None:
        while not over.is_set():
            try:
                place = left.get_nowait()
            except Empty:
                return
            try:
                done.put((place, jobs[place](), None))
            except BaseException as error:
                done.put((place, None, error))

    try:
        for _ in range(min(at_once, len(jobs))):
            # a daemon: what never returns must not keep the process from ending
            threading.Thread(target=work, daemon=True).start()
        for _ in jobs:
            place, result, error = done.get()
            if error is not None:
                raise error
            yield place, result
    finally:
        over.set()


class InTime:
    """One thread in which calls are made, one after the other. A call that is late is left behind, with the thread.

    Args:
        name: of the other program, for messages.
        fix: what to do about it, for messages.
        gone: whether the other program has ended, so that waiting is in vain; looked at every second.
    """

    def __init__(self, name: str, fix: str, gone: Callable[[], bool] = lambda: False) -> None:
        self.name, self.fix, self.gone = name, fix, gone
        self.given_up = ""
        self._work: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        # a daemon: what never returns must not keep the process from ending
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __call__(self, what: str, work: Callable[[], T], *, seconds: float) -> T:
        """The result of ``work()``.

        Args:
            what: is done, for messages.
            work: done in the thread.
            seconds: it may take.

        Raises:
            EngineError: if it raised anything, if it is late, or the other program is gone; after the last two, at
                every further call.
        """
        if self.given_up:
            raise EngineError(f"{self.name}: {what}: {self.given_up}")
        self._work.put(work)
        result, error = self._wait(what, seconds)
        if isinstance(error, EngineError):
            raise error
        if error is not None:
            told = (str(error).strip() or "no message").splitlines()[0]
            raise EngineError(f"{self.name}: {what} failed ({type(error).__name__}: {told}); {self.fix}") from error
        return result

    def _wait(self, what: str, seconds: float) -> tuple[Any, BaseException | None]:
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            gone = self.gone()  # before the look for a result: it may have ended by giving one
            try:
                return self._done.get(timeout=max(0.0, min(1.0, left)))
            except Empty:
                why = "its process has ended" if gone else f"it did not end within {seconds:g} s" if left <= 0 else ""
            if why:
                self.given_up = f"given up before; {self.fix}"
                raise EngineError(f"{self.name}: {what}: {why}; {self.fix}")

    def _run(self) -> None:
        while True:
            work = self._work.get()
            try:
                self._done.put((work(), None))
            except BaseException as error:
                self._done.put((None, error))
