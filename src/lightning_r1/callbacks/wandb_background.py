"""What W&B may be slow at is done beside the training, and its end within a time.

Numbers are only handed to W&B's own process. Tables and artifacts ask the server, which takes half a minute each time
when it does not answer; ``run.finish()`` waits for hours where it answers 500 (``finish_timeout`` of W&B 0.31 bounds
uploads, and no retries of other requests). What has not been sent then lies on disk, for ``wandb sync``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from queue import Full, Queue
from threading import Thread
from typing import Any

_MOST_WAITING = 1000
_GRACE_S = 5.0


class Background:
    """Does one thing after the other, in a thread that keeps nobody from leaving."""

    def __init__(self) -> None:
        self._tasks: Queue[Callable[[], None]] = Queue(_MOST_WAITING)
        self._thread: Thread | None = None

    def do(self, task: Callable[[], None]) -> None:
        """Put a task behind the others; it handles its own errors.

        Raises:
            RuntimeError: if too many are waiting.
        """
        if self._thread is None:
            self._thread = Thread(target=self._work, daemon=True, name="wandb-background")
            self._thread.start()
        try:
            self._tasks.put_nowait(task)
        except Full:
            raise RuntimeError(f"{_MOST_WAITING} tables and artifacts are waiting to be sent") from None

    def finish(self, seconds: float) -> bool:
        """Wait until all is done; whether it is."""
        until = time.monotonic() + seconds
        while self._tasks.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)
        return not self._tasks.unfinished_tasks

    def _work(self) -> None:
        while True:
            self._tasks.get()()
            self._tasks.task_done()


def finish_within(run: Any, seconds: float, *, exit_code: int) -> bool:
    """End a run; if that takes too long, end W&B's own process instead.

    Args:
        run: of W&B.
        seconds: that it may take.
        exit_code: of the run; 0 is a good end.

    Returns:
        Whether the run has ended by itself.

    Raises:
        Exception: of ``run.finish()``.
    """
    errors: list[Exception] = []

    def finish() -> None:
        try:
            run.finish(exit_code=exit_code)
        except Exception as error:
            errors.append(error)

    thread = Thread(target=finish, daemon=True, name="wandb-finish")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _end_service()
        thread.join(_GRACE_S)
        return False
    if errors:
        raise errors[0]
    return True


def _end_service() -> None:
    """Else it would be waited for again when the interpreter exits."""
    import wandb

    with suppress(Exception):  # it may have ended
        process = wandb.setup()._connection._proc._process  # type: ignore[union-attr]
        process.terminate()
        process.wait(_GRACE_S)
    with suppress(Exception):
        wandb.teardown()
