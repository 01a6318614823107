"""Signals that come exactly where they hurt."""

from __future__ import annotations

import signal
from typing import Any

import pytest


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
        struck = calls[0] == call

        def told(done: int, total: int) -> None:
            nonlocal struck
            if struck and done:
                struck = False
                signal.raise_signal(number)
            progress(done, total)

        return original(self, *arguments, progress=told, **named)

    patch.setattr(engine, "generate", generate)
