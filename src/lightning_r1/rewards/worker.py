"""The other side of :mod:`lightning_r1.rewards.workers`: the process that asks rewards, one answer at a time.

A worker is forked by :mod:`lightning_r1.rewards.nursery` with the rewards already imported. It reads chunks
of items from its socket and writes a line of JSON for each answer. It trusts what it reads; what it writes
is read by the trainer as plain data, for a reward has met text there that a model wrote.

A chunk is ``>II`` (lengths of head and body), the head ``[reward, [number of each item]]`` in JSON, and the
body, the pickled items. The lines are:

* ``["answer", number, value, outcome, detail]``;
* ``["ready"]``, once; ``["importing"]``: an import goes on, which restarts the clock of the answer;
* ``["retired"]``: the worker takes no more, and nobody is to blame.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import pickle
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from lightning_r1.rewards.base import Item, Reward, as_score, crash
from lightning_r1.types import Outcome, RewardScore

HEAD = struct.Struct(">II")
SHORTEST_BETWEEN_NOTICES_S = 0.1


class Worker:
    """Asks rewards until its socket is closed.

    Args:
        connection: to the trainer.
        rewards: by number.
        timeout_s: of one answer; for plain rewards the trainer looks at the clock.
    """

    def __init__(self, connection: socket.socket, rewards: Mapping[int, Reward], timeout_s: float) -> None:
        self.connection, self.rewards, self.timeout_s = connection, rewards, timeout_s
        self.pid, self.inbox = os.getpid(), bytearray()
        self.noticed = 0.0
        self.limits: set[asyncio.Timeout] = set()  # of the answers in the making, where there are many

    def run(self) -> None:
        """Plain rewards, one answer after the other."""
        self._begin()
        while data := self.connection.recv(1 << 20):
            for reward, asked in self._chunks(data):
                for number, (prompt, completion) in asked:
                    try:
                        score = as_score(reward(prompt, completion))
                    except BaseException as error:
                        score = self._survived(error)
                    signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm left behind would hit the next answer
                    self.answer(number, score)

    async def run_async(self) -> None:
        """Async rewards, as many at once as the trainer sends."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()  # the loop itself holds them weakly

        def read() -> None:
            data = self.connection.recv(1 << 20)
            for reward, asked in self._chunks(data):
                for number, item in asked:
                    tasks.add(task := loop.create_task(self._ask(number, reward, item)))
                    task.add_done_callback(tasks.discard)
            if not data:
                ended.set()

        self._begin()
        loop.add_reader(self.connection, read)
        await ended.wait()

    def _begin(self) -> None:
        sys.meta_path.insert(0, _Notices(self))
        self.tell("ready")

    def _chunks(self, data: bytes) -> Iterator[tuple[Reward, list[tuple[int, Item]]]]:
        """The chunks that are whole with these bytes: a reward, and the items to ask it about by number."""
        self.inbox += data
        while len(self.inbox) >= HEAD.size:
            of_head, of_body = HEAD.unpack_from(self.inbox)
            if len(self.inbox) < (length := HEAD.size + of_head + of_body):
                return
            reward, numbers = json.loads(self.inbox[HEAD.size : HEAD.size + of_head])
            items = pickle.loads(self.inbox[HEAD.size + of_head : length])
            del self.inbox[:length]
            yield self.rewards[reward], list(zip(numbers, items, strict=True))

    async def _ask(self, number: int, reward: Reward, item: Item) -> None:
        try:
            async with asyncio.timeout(self.timeout_s) as limit:
                self.limits.add(limit)
                try:
                    verdict = reward(*item)
                    score = as_score(await verdict if inspect.isawaitable(verdict) else verdict)
                finally:
                    self.limits.discard(limit)
        except BaseException as error:
            out_of_time = isinstance(error, TimeoutError) and limit.expired()
            score = timed_out(self.timeout_s) if out_of_time else self._survived(error)
        self.answer(number, score)

    def _survived(self, error: BaseException) -> RewardScore:
        if os.getpid() != self.pid:  # a reward forked, and this is the child
            os._exit(1)
        if isinstance(error, MemoryError):
            return crash(MemoryError("more than reward.workers.memory_mib"))
        return crash(error)

    def answer(self, number: int, score: RewardScore) -> None:
        """Tell the trainer a score."""
        self.tell("answer", number, float(score.value), score.outcome.value, score.detail)
        if score.outcome is Outcome.CRASH and score.detail.startswith("MemoryError"):
            self.tell("retired")  # what else was half done then, nobody knows
            os._exit(0)

    def tell(self, *line: Any) -> None:
        """Write a line."""
        if os.getpid() != self.pid:
            os._exit(1)
        self.connection.sendall(json.dumps(line).encode() + b"\n")

    def importing(self) -> None:
        """Tell that an import goes on, now and then."""
        now = time.monotonic()
        if os.getpid() == self.pid and now - self.noticed > SHORTEST_BETWEEN_NOTICES_S:
            self.noticed = now
            self.tell("importing")
            for limit in self.limits:
                limit.reschedule(asyncio.get_running_loop().time() + self.timeout_s)


class _Notices:
    """A finder that finds nothing: it only sees that something is looked for."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """See :meth:`Worker.importing`."""
        self.worker.importing()


def timed_out(timeout_s: float) -> RewardScore:
    """The score of an answer for which there was no time."""
    return RewardScore(math.nan, Outcome.TIMEOUT, f"no answer after {timeout_s:g} s")
