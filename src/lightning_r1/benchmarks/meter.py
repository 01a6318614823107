"""Seconds and peak memory of a step and of its two halves: the rollout, and the update that learns from it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from lightning_r1.benchmarks.peak import forget_peak, peak_gib, used_gib


@dataclass
class Meter:
    """A stopwatch that a step and the rollout in it switch over.

    On a CPU the peak is that of the process's resident memory, which Linux can be told to forget; on a GPU that of
    torch's allocator there.
    """

    device: str = "cpu"
    seconds: list[float] = field(default_factory=list)
    """Of each step."""
    rollout_seconds: list[float] = field(default_factory=list)
    update_seconds: list[float] = field(default_factory=list)
    peak_gib: float = 0.0
    update_peak_gib: float = 0.0
    update_need_gib: float = 0.0
    """Of the update's peak, what was not there when it began: activations and gradients."""
    start_gib: float = 0.0

    def begin(self) -> None:
        """The model is loaded, and nothing else."""
        gc.collect()
        self.start_gib = used_gib(self.device)
        forget_peak(self.device)

    def step_begins(self) -> None:
        """A step, with its update's side of the watch."""
        self._synchronize()
        forget_peak(self.device)
        self.step_started = time.perf_counter()
        self.rolled_out = 0.0
        self.level_gib = used_gib(self.device)

    def step_ends(self) -> None:
        """See :meth:`step_begins`."""
        self._synchronize()
        whole = time.perf_counter() - self.step_started
        self.seconds.append(whole)
        self.rollout_seconds.append(self.rolled_out)
        self.update_seconds.append(whole - self.rolled_out)
        self._note(update=True)

    def around_rollout(self, rollout: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; what it takes is the rollout's."""

        def metered(*arguments: Any, **options: Any) -> Any:
            self._synchronize()
            self._note(update=True)
            started = time.perf_counter()
            made = rollout(*arguments, **options)
            self._synchronize()
            self.rolled_out += time.perf_counter() - started
            self._note(update=False)
            self.level_gib = used_gib(self.device)
            return made

        return metered

    def _note(self, *, update: bool) -> None:
        """Take the peak since the last time, for one half, and forget it."""
        peak = peak_gib(self.device)
        self.peak_gib = max(self.peak_gib, peak)
        if update and len(self.seconds) > 1:  # the first step warms up
            self.update_peak_gib = max(self.update_peak_gib, peak)
            self.update_need_gib = max(self.update_need_gib, peak - self.level_gib)
        forget_peak(self.device)

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
