"""Signals that come exactly where they hurt."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from lightning_r1.parallel.collectives import rank
from lightning_r1.rollout.group import GroupEngine


def strike(
    patch: pytest.MonkeyPatch, owner: Any, name: str, *, call: int = 1, number: signal.Signals = signal.SIGUSR1
) -> list[int]:
    """Let the process be signalled at the beginning of the n-th call of a method; returns the calls so far, counted."""
    original, calls = getattr(owner, name), [0]

    def struck(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            signal.raise_signal(number)
        return original(*arguments, **named)

    patch.setattr(owner, name, struck)
    return calls


def strike_in_sampling(
    patch: pytest.MonkeyPatch, engine: Any, *, call: int, number: signal.Signals = signal.SIGUSR1
) -> None:
    """The same in the middle of the n-th call of an engine, when some tokens have been sampled."""
    original, calls = engine.generate, [0]

    def generate(self: Any, *arguments: Any, progress: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            progress = _struck(progress, number)
        return original(self, *arguments, progress=progress, **named)

    patch.setattr(engine, "generate", generate)


class StruckEngine(GroupEngine):
    """Signals its own process in the n-th call; ``STRIKE=rank:call:signal`` says which."""

    calls = 0

    def generate(self, *arguments: Any, progress: Any = None, **named: Any) -> Any:
        self.calls += 1
        where = os.environ.get("STRIKE", "")
        if where.startswith(f"{rank()}:{self.calls}:"):
            progress = _struck(progress, signal.Signals[where.split(":")[2]])
        return super().generate(*arguments, progress=progress, **named)


def _struck(progress: Callable[[int, int], None], number: signal.Signals) -> Callable[[int, int], None]:
    """A signal when the first completion is whole."""
    over = False

    def told(done: int, total: int) -> None:
        nonlocal over
        if done and not over:
            over = True
            signal.raise_signal(number)
        progress(done, total)

    return told
