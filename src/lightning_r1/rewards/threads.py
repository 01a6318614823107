"""Rewards in threads of this process: they only wait for something else, a sandbox, an endpoint.

No thread can be killed, so such a reward keeps a deadline of its own. One that does not, and from which nothing comes
back for an hour while it is asked, ends the run with its name, instead of keeping a cluster waiting for ever.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread

from lightning_r1.rewards.base import Item, Later, Pending, Reward, RewardError, at_once, score_one
from lightning_r1.types import RewardScore

STALL_S = 3600.0
CLOSE_S = 60.0
"""What is being asked when the run ends is waited for so long."""


class ThreadScorer:
    """Asks each reward in ``at_once`` threads of its own; a :class:`.Scorer`.

    Args:
        stall_s: without a single answer, after which a reward is given up.
    """

    def __init__(self, stall_s: float = STALL_S) -> None:
        self.stall_s = stall_s
        self._threads: dict[int, _Threads] = {}
        weakref.finalize(self, _end, self._threads, 0.0)  # also when it is forgotten

    def begin(self, name: str, reward: Reward, items: Sequence[Item]) -> Pending:
        """See :class:`.Scorer`."""
        threads = self._threads.get(id(reward))
        if threads is None:
            threads = self._threads[id(reward)] = _Threads(name, reward)
        began, asked = time.monotonic(), [threads.ask(item) for item in items]
        return Later(lambda: [self._wait(threads, one, began) for one in asked])

    def score(self, name: str, reward: Reward, items: Sequence[Item]) -> list[RewardScore]:
        """See :class:`.Scorer`."""
        return self.begin(name, reward, items).result()

    def prepare(self, rewards: Sequence[tuple[str, Reward]]) -> None:
        """There is nothing to do."""

    def start(self, rewards: Sequence[tuple[str, Reward]]) -> None:
        """There is nothing to do."""

    def close(self) -> None:
        """Wait for what is being asked, but not for long, and for no more."""
        _end(self._threads, time.monotonic() + CLOSE_S)
        self._threads.clear()

    def _wait(self, threads: _Threads, asked: Future[RewardScore], began: float) -> RewardScore:
        while not asked.done():
            left = max(began, threads.answered_at) + self.stall_s - time.monotonic()
            if left <= 0:
                threads.stalled = True
                raise RewardError(
                    f"reward.rewards.{threads.name}: no answer for {self.stall_s:g} s: it hangs; give it a deadline of "
                    "its own, then give the same command again: it goes on from the newest checkpoint"
                )
            try:
                asked.result(left)
            except TimeoutError:
                continue
        return asked.result()


def _end(threads: Mapping[int, _Threads], until: float) -> None:
    for of_reward in threads.values():
        of_reward.end(until)


class _Threads:
    """The threads of one reward. They are daemons: the process can end while one of them hangs."""

    def __init__(self, name: str, reward: Reward) -> None:
        self.name, self.reward = name, reward
        self.answered_at, self.stalled = 0.0, False
        self._most, self._threads = at_once(reward), list[Thread]()
        self._queue: SimpleQueue[tuple[Future[RewardScore], Item] | None] = SimpleQueue()

    def ask(self, item: Item) -> Future[RewardScore]:
        """Begin to score."""
        asked: Future[RewardScore] = Future()
        self._queue.put((asked, item))
        if len(self._threads) < self._most:
            self._threads.append(Thread(target=self._work, name=f"{self.name}_{len(self._threads)}", daemon=True))
            self._threads[-1].start()
        return asked

    def end(self, until: float) -> None:
        """Ask no more, and let the threads end."""
        while True:
            try:
                left = self._queue.get_nowait()
            except Empty:
                break
            if left is not None:
                left[0].cancel()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(0.0 if self.stalled else max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        while (asked := self._queue.get()) is not None:
            future, item = asked
            future.set_running_or_notify_cancel()
            try:
                future.set_result(score_one(self.reward, *item))
            except BaseException as error:
                future.set_exception(error)
            self.answered_at = time.monotonic()
