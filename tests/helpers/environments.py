"""Environments that say what the test says."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lightning_r1.rollout.environment import Reply
from lightning_r1.types import Prompt


class Answers:
    """Every stop text is answered by ``answer(prompt, seed, text)``; remembers what it was asked.

    Args:
        stops: texts.
        answer: gives a reply, None, or raises.
    """

    failure = Reply("?", open="(", close=")")

    def __init__(self, stops: tuple[str, ...], answer: Callable[[Prompt, int, str], Reply | None]) -> None:
        self.stops, self.answer = stops, answer
        self.asked: list[str] = []
        self.opened: list[tuple[str, int]] = []
        self.closed = False
        self._lock = threading.Lock()

    def open(self, prompt: Prompt, seed: int) -> _Talk:
        self.opened.append((prompt.id, seed))
        return _Talk(self, prompt, seed)

    def close(self) -> None:
        self.closed = True


class _Talk:
    def __init__(self, world: Answers, prompt: Prompt, seed: int) -> None:
        self.world, self.prompt, self.seed = world, prompt, seed

    def reply(self, text: str) -> Reply | None:
        with self.world._lock:
            self.world.asked.append(text)
        return self.world.answer(self.prompt, self.seed, text)


class Numbers:
    """An environment for configs: behind every ``1``-like call it writes a number that depends on the text so far."""

    stops = ("5", "</think>")

    def open(self, prompt: Prompt, seed: int) -> Numbers:
        return self

    def reply(self, text: str) -> Reply:
        return Reply(str(10 + len(text) % 90))


def hangs(seconds: float = 60.0) -> None:
    """For longer than any test waits."""
    time.sleep(seconds)
