"""What ends a process before its work is done, and the exit status that says so.

Slurm's SIGUSR1 before the time limit (SIGUSR2 in a sweep), SIGTERM of a preemption or ``scancel``, Ctrl-C, a
deadline: each asks the process to leave. While nothing can be lost, a signal raises :class:`Interrupted` where it
comes. While a policy trains (:meth:`Interruption.waiting`) it only sets a flag: the work looks at it where it can
leave, and all ranks leave together.

Exit statuses, so that nothing that depends on a run starts too early (``afterok``):

====================  ====================================================================================
0 ``FINISHED``        the work is done, and only then
1 ``FAILED``          an error; its message stands above
2 ``MISTAKEN``        a mistake in the command or the config
75 ``UNFINISHED``     interrupted; the same command goes on (``EX_TEMPFAIL`` of sysexits.h)
====================  ====================================================================================
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

FINISHED, FAILED, MISTAKEN, UNFINISHED = 0, 1, 2, 75

# SIGUSR2 is what submitit has Slurm send, to a handler of its own that ends the work where it is
_ASKED_BY = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)

_HEARD = b"\nCtrl-C: the run leaves as soon as it can, and is saved; once more, and it ends at once\n"


class Interrupted(BaseException):
    """The work was left before its end; the message says why. Whatever is saved, the same command goes on from there.

    No ``Exception``: what deals with errors must not take it for one.
    """

    told = False
    """Whether somebody has been told how it goes on."""
    requeue = True
    """Whether a Slurm job that was left so should run again: not where a person pressed Ctrl-C."""


class Interruption:
    """Whether this process is asked to leave; there is one, :data:`interruption`, as signals are the process's."""

    abandoned = False
    """Whether a second Ctrl-C has ended the work at once, nothing saved."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self.cause = ""
        self.stop_at = math.inf
        """``time.time()`` from which on what can be made again is left."""
        self.saving_s = 0.0
        """Seconds that are needed at the end, to save what cannot be made again."""
        self.children: set[int] = set()
        """Processes that are to be asked as well, because whoever ends this one may not know of them."""
        self._by_hand = self._listens = self._waits = False
        self._pid = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, SIGUSR1, SIGUSR2 and SIGTERM raise :class:`Interrupted`. A second one within changes nothing.

        Ctrl-C raises KeyboardInterrupt, on the first rank alone: a terminal sends it to all, and a rank that ended by
        itself would be taken for one that has crashed.
        """
        if self._listens or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._listens, self._pid, self.abandoned = True, os.getpid(), False
        before = {number: signal.signal(number, self._handle) for number in _ASKED_BY}
        before[signal.SIGINT] = signal.signal(signal.SIGINT, self._handle if first_of_job() else signal.SIG_IGN)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            self._forget()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within it, signals and Ctrl-C wait until the work looks; a second Ctrl-C does not wait."""
        if not self._listens or self._waits:
            yield
            return
        self._waits = True
        try:
            yield
        finally:
            self._waits = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within a wait that looks at nothing, signals raise where they come, if this is the main thread."""
        waits = self._waits and threading.current_thread() is threading.main_thread()
        if waits:
            self._waits = False
        try:
            if waits:
                self.look()
            yield
        finally:
            self._waits = waits or self._waits

    @property
    def wanted(self) -> str:
        """Why the process should leave now, or nothing."""
        if self.cause or time.time() < self.stop_at:
            return self.cause
        return "the time limit is near"

    def look(self) -> None:
        """Leave, if that is wanted.

        Raises:
            Interrupted: says why.
        """
        if cause := self.wanted:
            raise self.interrupted(cause)

    def interrupted(self, cause: str) -> Interrupted:
        """What to raise."""
        raised = Interrupted(cause)
        raised.requeue = not self._by_hand
        return raised

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a fork inherits the handler: it is not the one that is asked
            return
        cause = "Ctrl-C" if number == signal.SIGINT else f"it received {signal.Signals(number).name}"
        first, self.cause = not self.cause, self.cause or cause
        for child in self.children:
            # always by SIGTERM: a terminal sends Ctrl-C to all, and the second one would not wait
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        if number == signal.SIGINT:
            again, self._by_hand = self._by_hand, True
            self.abandoned = again and self._waits
            if again or not self._waits:
                raise KeyboardInterrupt
            os.write(2, _HEARD)  # no print: a signal may come in the middle of one
        elif first and not self._waits:  # while one goes up, another does not disturb what it closes
            raise self.interrupted(self.cause)


interruption = Interruption()
"""Of this process."""


def alone_with_ctrl_c(launcher: Any) -> None:
    """Let ranks that Lightning starts never see Ctrl-C, which a terminal sends to all: one that ended by itself, say
    while it still imports, would be taken for a crash, and all would be killed. This process asks them.

    Args:
        launcher: of a strategy; None, or one that starts no processes, is left as it is.
    """
    start = getattr(launcher, "_call_children_scripts", None)
    if start is None:
        return

    def shielded() -> None:
        # a process inherits what is blocked
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    launcher._call_children_scripts = shielded


def first_of_job(environment: Any = os.environ) -> bool:
    """Whether this process speaks for all that were started together; known before they know each other."""
    numbers = (environment.get(name, "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"))
    return all(number in ("", "0") for number in numbers)
