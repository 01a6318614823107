"""Files that several nodes see."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def appears(there: Callable[[], bool], folder: Path, *, seconds: float) -> bool:
    """Whether it is there within so many seconds: what another node wrote is shown with a delay.

    Args:
        there: whether what is waited for is to be seen.
        folder: in which it will be.
        seconds: 0 looks once.
    """
    deadline = time.monotonic() + seconds
    while not there():
        if time.monotonic() >= deadline:
            return False
        time.sleep(1)
        list(folder.glob("*"))  # has the folder read again
    return True
