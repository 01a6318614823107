"""What is written while training goes on: one thing at a time, and its failure is everybody's."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lightning_r1.parallel.collectives import all_max


class Background:
    """A thread that writes; all ranks start one at the same step and ask for it at the same steps."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Do it in the background. What was started before has to be over, see :meth:`wait`."""
        assert self._thread is None, "wait for the former first"

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        # no daemon: a process that ends for another reason finishes its checkpoint
        self._thread = threading.Thread(target=run, name="checkpoint", daemon=False)
        self._thread.start()

    def wait(self) -> None:
        """Until it is done.

        Raises:
            Exception: what was raised in the thread.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            error.add_note("raised while a checkpoint was written beside training (callbacks.checkpoint.asynchronous)")
            raise error

    def look(self) -> None:
        """Go on at once, unless it is over on all ranks or has failed on one; all of them ask.

        Raises:
            Exception: what was raised in the thread.
        """
        if self._thread is None:
            return
        running, failed = self._thread.is_alive(), self._error is not None
        # failures are agreed upon by the threads, but one may see them a step before the other
        if all_max(float(failed)) or not all_max(float(running)):
            self.wait()

    def settle(self) -> None:
        """Wait, and leave an error to whoever has raised another."""
        if self._thread is not None:
            self._thread.join()
