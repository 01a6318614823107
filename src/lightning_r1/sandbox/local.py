"""A sandbox on this machine: keepers kept warm, one for each program that runs at the same time."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_r1.sandbox.base import GoOn, Language, Limits, Program, SandboxError, Status, TestRun
from lightning_r1.sandbox.session import Broken, Session

_STANDARD = Limits()

Start = Callable[[], tuple[Session, Callable[[], None]]]
"""Starts a keeper, and gives what is to be done once it is gone."""


def starter(command: Sequence[str], setup: Callable[[str], Mapping[str, Any]], *, work: bool) -> Start:
    """Starts keepers on this machine's file system, each with a folder of its own to compile in.

    Args:
        command: see :class:`~lightning_r1.sandbox.session.Session`.
        setup: is given the folder, empty without ``work``.
    """

    def start() -> tuple[Session, Callable[[], None]]:
        folder = tempfile.mkdtemp(prefix=f"sandbox-{os.getpid()}-") if work else ""
        try:
            return Session(command, setup(folder)), lambda: _remove(folder)
        except BaseException:
            _remove(folder)
            raise

    return start


class LocalSandbox:
    """Runs programs in keeper processes; a backend is a way to start one.

    Args:
        name: of the backend.
        languages: that it knows.
        start: a keeper.
        at_once: programs that run at the same time; further callers wait.
    """

    def __init__(
        self,
        name: str,
        languages: Sequence[Language],
        start: Start,
        at_once: int,
    ) -> None:
        if at_once < 1:
            raise ValueError(f"at_once={at_once}: expected at least 1")
        self.name, self.languages, self.at_once = name, tuple(languages), at_once
        self._start = start
        self._slots = threading.BoundedSemaphore(at_once)
        self._idle: list[tuple[Session, Callable[[], None]]] = []
        self._owner = os.getpid()
        self._end = weakref.finalize(self, _close_all, self._idle, self._owner)

    def run(
        self, program: Program, inputs: Sequence[str], limits: Limits = _STANDARD, *, go_on: GoOn | None = None
    ) -> list[TestRun]:
        """See :meth:`lightning_r1.sandbox.base.Sandbox.run`."""
        if program.language not in self.languages:
            raise SandboxError(
                f"language={program.language!r}: this sandbox was opened for {', '.join(self.languages)}"
            )
        if program.language == "cpp" and program.function is not None:
            raise SandboxError(f"function={program.function!r}: C++ programs read stdin and write stdout")
        if os.getpid() != self._owner:
            raise SandboxError("a sandbox does not survive a fork: open it in the process that uses it")
        with self._slots:
            return self._run(program, inputs, limits, go_on)

    def close(self) -> None:
        """End every idle keeper; a closed sandbox starts new ones when it is used again."""
        _close_all(self._idle, self._owner)

    def _run(self, program: Program, inputs: Sequence[str], limits: Limits, go_on: GoOn | None) -> list[TestRun]:
        started = time.monotonic()
        try:
            session, after, failed = self._begin(program, limits)
        except (SandboxError, OSError) as error:
            return [TestRun(Status.BROKEN, b"", time.monotonic() - started, str(error))]
        except Broken as error:
            return [TestRun(Status.COMPILE_ERROR, b"", time.monotonic() - started, str(error))]
        runs = [] if failed is None else [failed]
        whole = False
        try:
            for place, data in enumerate(inputs if failed is None else ()):
                runs.append(session.test(data, limits))
                if go_on is not None and not go_on(place, runs[-1]):
                    break
            session.end(by_itself=failed is not None)
            whole = True
        except Broken as error:
            if len(runs) < len(inputs):
                runs.append(TestRun(Status.BROKEN, b"", time.monotonic() - started, str(error)))
        finally:
            if whole:
                self._idle.append((session, after))
            else:
                _end(session, after)
        return runs

    def _begin(self, program: Program, limits: Limits) -> tuple[Session, Callable[[], None], TestRun | None]:
        """A session that has the program, and what is wrong with it.

        Raises:
            Broken: if the source ended two drivers in turn: nothing but the compiler has run, so it is to blame.
        """
        for last in (False, True):
            session, after = self._take()
            try:
                return session, after, session.begin(program, limits)
            except BaseException as error:
                _end(session, after)
                if last or not isinstance(error, Broken):
                    raise
        raise AssertionError

    def _take(self) -> tuple[Session, Callable[[], None]]:
        while True:
            try:
                session, after = self._idle.pop()
            except IndexError:
                return self._start()
            if session.alive():
                return session, after
            _end(session, after)


def _remove(folder: str) -> None:
    if folder:
        os.chmod(folder, 0o700)  # the driver closes it to the program
        shutil.rmtree(folder, ignore_errors=True)


def _close_all(idle: list[tuple[Session, Callable[[], None]]], owner: int) -> None:
    while idle and os.getpid() == owner:
        _end(*idle.pop())


def _end(session: Session, after: Callable[[], None]) -> None:
    session.close()
    after()
