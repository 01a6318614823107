"""Several ranks in one process: threads that meet wherever ranks would exchange something."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import pytest

from lightning_r1.parallel import collectives

T = TypeVar("T")


def on_ranks(
    monkeypatch: pytest.MonkeyPatch, modules: Sequence[ModuleType], works: Sequence[Callable[[], T]]
) -> list[T]:
    """Run ``works[r]`` as rank r of ``len(works)`` and return what each made.

    A rank that waits for one that does not come is an error, as it would be a hang in life.

    Args:
        monkeypatch: undoes the replacement.
        modules: those that imported functions of :mod:`lightning_r1.parallel.collectives`.
        works: one function a rank.
    """
    ranks = Ranks(len(works))
    for module in (collectives, *modules):
        for name in ("rank", "world_size", "all_gather", "all_sum", "all_max"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(ranks, name))
    with ThreadPoolExecutor(len(works)) as threads:
        futures = [threads.submit(ranks.run, number, work) for number, work in enumerate(works)]
    failures = [error for future in futures if (error := future.exception())]
    # a rank that failed leaves the others waiting: what it raised says more than what they raise
    failures.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    if failures:
        raise failures[0]
    return [future.result() for future in futures]


class Ranks:
    """The collectives, over threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.here = threading.local()
        self.barrier = threading.Barrier(count, timeout=30)
        self.values: list[Any] = [None] * count

    def run(self, number: int, work: Callable[[], T]) -> T:
        """``work()`` as this rank."""
        self.here.rank = number
        try:
            result = work()
            self.barrier.wait()  # nobody leaves while another still has something to exchange
            return result
        except BaseException:
            self.barrier.abort()
            raise

    def rank(self) -> int:
        """This thread's rank."""
        return self.here.rank

    def world_size(self) -> int:
        """Of this set of ranks."""
        return self.count

    def all_gather(self, value: T) -> list[T]:
        """Everybody's value, by rank."""
        self.values[self.rank()] = value
        self.barrier.wait()
        everybody = list(self.values)
        self.barrier.wait()
        return everybody

    def all_sum(self, value: float) -> float:
        """Sum over ranks."""
        return sum(self.all_gather(value))

    def all_max(self, value: float) -> float:
        """Largest over ranks."""
        return max(self.all_gather(value))
