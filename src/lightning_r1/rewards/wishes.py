"""What other threads want of the one that feeds the reward workers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Wishes:
    """Carried out in order by one thread; once that has ended, by whoever comes with one."""

    def __init__(self) -> None:
        self._wishes: deque[Callable[[], None]] = deque()
        self._lock = threading.RLock()  # a collector of garbage may close a pool within
        self._over = False

    def add(self, wish: Callable[[], None]) -> None:
        """Leave a wish: before the end or behind it, never between."""
        with self._lock:
            self._wishes.append(wish)
            if self._over:
                self.carry_out()

    def carry_out(self) -> None:
        """All that is left here by now."""
        while self._wishes:
            self._wishes.popleft()()

    def end(self) -> None:
        """Carry out what is left; the thread will not come again."""
        with self._lock:
            self._over = True
            self.carry_out()
