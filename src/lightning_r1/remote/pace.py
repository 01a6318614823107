"""How fast an endpoint may be asked, over all threads of this process, and whether it is there at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PROBE_S = 30.0
"""An endpoint that is away is tried again so often."""
LONGEST_PAUSE_S = 600.0
"""Of all threads: an endpoint that asks for more is mistaken, or will say so again."""


class Pace:
    """Spaces requests evenly, so that no minute holds more than its share.

    Args:
        requests_per_minute: null is no limit.
        tokens_per_minute: of questions and answers together; null is no limit.
        clock: seconds.

    Raises:
        ValueError: for a limit that is not above 0.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = {"requests_per_minute": requests_per_minute, "tokens_per_minute": tokens_per_minute}
        for name, value in limits.items():
            if value is not None and value <= 0:
                raise ValueError(f"{name}={value}: expected > 0, or null for no limit")
        self._a_request = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._a_token = 60.0 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._lock = clock, threading.Lock()
        self._next = {"request": 0.0, "tokens": 0.0}
        self._paused_until = 0.0

    def book(self, tokens: float) -> float:
        """Take the next place; seconds until it is due.

        Args:
            tokens: that the question and its answer are expected to have; :meth:`correct` it afterwards.
        """
        with self._lock:
            now = self._clock()
            due = max(now, self._next["request"], self._next["tokens"])
            self._next = {"request": due + self._a_request, "tokens": due + tokens * self._a_token}
            return due - now

    def correct(self, tokens: float) -> None:
        """So many tokens more were used than booked, or fewer if negative."""
        with self._lock:
            self._next["tokens"] += tokens * self._a_token

    def pause(self, seconds: float) -> None:
        """The endpoint asked for a pause: it is meant for everybody, but for no longer than :data:`LONGEST_PAUSE_S`."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + min(seconds, LONGEST_PAUSE_S))

    def paused(self) -> float:
        """Seconds that are left of the pause."""
        with self._lock:
            return max(0.0, self._paused_until - self._clock())


class Presence:
    """Remembers that an endpoint is away, so that thousands of questions do not each wait out their deadline.

    When a question has run into its deadline and no other was answered meanwhile, the endpoint is away: others
    fail at once, but for one every :data:`PROBE_S` seconds, with a single try, until one is answered.

    Args:
        clock: seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._answered_at, self._probe_at = float("-inf"), 0.0
        self._why: str | None = None

    def answered(self) -> None:
        """It is there."""
        with self._lock:
            self._answered_at, self._why = self._clock(), None

    def gave_up(self, asked_at: float, why: str) -> None:
        """A question that began at ``asked_at`` (of the clock) got no answer."""
        with self._lock:
            if self._answered_at < asked_at:
                self._why, self._probe_at = why, self._clock() + PROBE_S

    def away(self) -> str | None:
        """Why it is away; None if it is not known to be, or if it is time to try again."""
        with self._lock:
            if self._why is None:
                return None
            if self._clock() < self._probe_at:
                return self._why
            self._probe_at = self._clock() + PROBE_S
            return None

    def probing(self) -> bool:
        """Whether it was away when last heard of: a single try is enough to know."""
        with self._lock:
            return self._why is not None
