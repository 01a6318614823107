"""The thread that feeds the reward workers, takes their answers and holds the clock over each.

All its state belongs to that thread; others only leave wishes in a queue and wake it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from lightning_r1.rewards.asks import Ask, Body, Chunk, Cutter, Handle, NurseryProcess, Rule, Scores, ending
from lightning_r1.rewards.base import Item, as_score
from lightning_r1.rewards.channel import Channel
from lightning_r1.rewards.nursery import LENGTH
from lightning_r1.rewards.wishes import Wishes
from lightning_r1.rewards.worker import HEAD, timed_out
from lightning_r1.types import Outcome, RewardScore

LARGEST_CHUNK = 16
"""Items sent together: a worker's next answer need not wait for the trainer."""


class Dispatcher:
    """Feeds the workers of one pool.

    Args:
        launch: starts the nursery.
        workers: plain workers.
        timeout_s: of one answer.
        recycle_after: answers of a worker.
        at_once: items that an async worker has at a time.
        import_s: imports may restart the clock of one answer for so long.
    """

    def __init__(
        self,
        launch: Callable[[], NurseryProcess],
        *,
        workers: int,
        timeout_s: float,
        recycle_after: int,
        at_once: int,
        import_s: float,
    ) -> None:
        self.workers, self.timeout_s, self.recycle_after = workers, timeout_s, recycle_after
        self.at_once, self.import_s = at_once, import_s
        self.nursery = launch()
        self.selector = selectors.DefaultSelector()
        self.control = Channel(self.nursery.connection, self.selector)
        self.woken, self.wakes = socket.socketpair()
        self.selector.register(self.woken, selectors.EVENT_READ)
        self.wakes.setblocking(False)
        self.wishes = Wishes()
        self.queues: dict[bool, deque[Chunk]] = {False: deque(), True: deque()}
        self.rules: list[Rule] = []
        self.under_way: set[Scores] = set()
        self.handles: dict[int, Handle] = {}
        self.numbers = count()
        self.stillborn = 0
        self.cutter = Cutter()
        self.error: str | None = None
        self.closing = False
        self.pid = os.getpid()
        self.thread = threading.Thread(target=self._run, name="rewards", daemon=True)
        self.thread.start()

    # what other threads may call

    def load(self, rule: Rule, preload: tuple[str, ...], pickled: bytes) -> None:
        """Let the nursery import a reward."""
        self._wish(lambda: self._load(rule, preload, pickled))

    def begin(self, rule: Rule, items: Sequence[Item]) -> Scores:
        """Begin to score."""
        scores = Scores(rule, items)
        size = max(1, min(-(-len(items) // (2 * self.workers)), LARGEST_CHUNK))
        size = min(size, self.recycle_after, self.at_once if rule.is_async else size)
        chunks = self.cutter.chunks(scores, size)
        self._wish(lambda: self._take(scores, chunks))
        return scores

    def close(self) -> None:
        """End the nursery and the thread."""
        if self.pid != os.getpid():
            return  # a fork of the trainer has a copy of all this, but no say in it
        self.closing = True
        self._wish(lambda: None)
        self.thread.join()

    def _wish(self, wish: Callable[[], None]) -> None:
        self.wishes.add(wish)
        with contextlib.suppress(OSError):  # full: it is awake; closed: it is over
            self.wakes.send(b"w")

    # the thread

    def _run(self) -> None:
        try:
            while not self.closing:
                self.wishes.carry_out()
                self._assign()
                events = self.selector.select(self._patience())
                for key, mask in events:
                    if key.fileobj is self.woken:
                        self.woken.recv(4096)
                    else:
                        self._serve(key.data, mask)
                self._look_at_the_clock()
            self._break("the reward workers were closed")
        except BaseException as error:
            self._break(f"the reward workers' thread failed ({type(error).__name__}: {error})")
            raise
        finally:
            self._end()

    def _load(self, rule: Rule, preload: tuple[str, ...], pickled: bytes) -> None:
        self.rules.append(rule)
        if self.error:
            self._fail(rule, self.error)
        else:
            self._command("load", rule.number, preload, pickled)

    def _take(self, scores: Scores, chunks: Iterable[Chunk]) -> None:
        if error := self.error or scores.rule.error:
            scores.fail(error)
        else:
            self.under_way.add(scores)
            self.queues[scores.rule.is_async].extend(chunks)

    def _assign(self) -> None:
        """Give waiting chunks to workers that have time, and make workers where they are missing."""
        for is_async, queue in self.queues.items():
            while queue and (handle := self._free(queue[0], len(queue))):
                self._give(handle, queue.popleft())
            for handle in [one for one in self.handles.values() if one.is_async is is_async and not one.asked]:
                worn = queue and handle.answered + len(queue[0].asks) > self.recycle_after
                if worn or (queue and queue[0].rule.number >= handle.rules):
                    self._drop(handle)
            ours = sum(handle.is_async is is_async for handle in self.handles.values())
            for _ in range(min(len(queue), (1 if is_async else self.workers) - ours)):
                self._fork(is_async)

    def _free(self, chunk: Chunk, waiting: int) -> Handle | None:
        """The worker for a chunk: the one with least to do, of those that have time."""
        # a second chunk bridges the way here and back, but should not wait behind a slow answer at the end
        ahead = LARGEST_CHUNK // 4 if waiting > self.workers else 0
        most = self.at_once if chunk.rule.is_async else ahead
        free = [one for one in self.handles.values() if one.has_time(chunk, most, self.recycle_after)]
        return min(free, key=lambda handle: len(handle.asked), default=None)

    def _give(self, handle: Handle, chunk: Chunk) -> None:
        now, numbers = time.monotonic(), []
        for ask in chunk.asks:
            ask.sent = now
            numbers.append(number := next(self.numbers))
            handle.asked[number] = ask
        head, body = json.dumps([chunk.rule.number, numbers]).encode(), chunk.body.pickled()
        handle.channel.send(HEAD.pack(len(head), len(body)) + head + body)

    def _fork(self, is_async: bool) -> None:
        ours, theirs = socket.socketpair()
        handle = Handle(next(self.numbers), is_async, Channel(ours, self.selector), rules=len(self.rules))
        self.handles[handle.number] = handle
        self._command("fork", handle.number, "async" if is_async else "plain", fd=theirs.detach())

    def _command(self, *command: Any, fd: int | None = None) -> None:
        pickled = pickle.dumps(command)
        self.control.send(LENGTH.pack(len(pickled)) + pickled, fd)

    def _patience(self) -> float | None:
        """Seconds until the next clock runs out."""
        due = min((handle.due(self.timeout_s) for handle in self.handles.values()), default=math.inf)
        return max(0.0, due - time.monotonic()) if due < math.inf else None

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for handle in list(self.handles.values()):
            if handle.due(self.timeout_s) <= now:
                self._read(handle)  # this thread may have been kept waiting: it has no say if the answer is here
            if handle.due(self.timeout_s) <= now:
                self._lost(handle, "said nothing in time", timed_out(self.timeout_s))

    def _serve(self, channel: Channel, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            channel.flush()
        if channel is self.control:
            for line in channel.lines():
                self._of_nursery(*json.loads(line))
            if not channel.open:
                self._break(f"the process above the reward workers ended: {self.nursery.end()}")
        else:
            handle = next((one for one in self.handles.values() if one.channel is channel), None)
            if handle is not None:
                self._read(handle)

    def _of_nursery(self, what: str, number: int, *facts: Any) -> None:
        if what == "loaded":
            rule = self.rules[number]
            if facts[0] is not None:
                self._fail(
                    rule,
                    f"reward.rewards.{rule.name}: a worker cannot import it ({facts[0]}); define it in a module that "
                    "can be imported from everywhere, or give it an attribute at_once=<threads> to run it in this "
                    "process",
                )
            rule.loaded.set()
        elif (handle := self.handles.get(number)) is not None:
            self._read(handle)  # its last answers
            self._lost(handle, ending(*facts))

    def _read(self, handle: Handle) -> None:
        for line in handle.channel.lines():
            try:
                self._of_worker(handle, *json.loads(line))
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                # a reward that writes where it should not
                self._lost(handle, f"wrote {line[:100]!r} ({type(error).__name__})")
                return

    def _of_worker(self, handle: Handle, what: str, *facts: Any) -> None:
        now = time.monotonic()
        if what == "answer":
            number, value, outcome, detail = facts
            if not handle.is_async and number != next(iter(handle.asked), None):
                raise KeyError(number)
            score = as_score(RewardScore(float(value), Outcome(outcome), str(detail)))
            ask = handle.asked.pop(number)
            handle.answered, handle.answered_at = handle.answered + 1, now
            self._settle(ask, score)
        elif what == "importing":
            if handle.asked and now < handle.began() + self.import_s:
                handle.restarted_at = now
        elif what == "ready":
            handle.ready, self.stillborn = True, 0
        elif what == "retired":
            handle.retired = True
            handle.answered = self.recycle_after
        else:
            raise ValueError(what)

    def _settle(self, ask: Ask, score: RewardScore) -> None:
        ask.scores.settle(ask.place, score)
        if not ask.scores.left:
            self.under_way.discard(ask.scores)
        if error := ask.rule.hangs(score, ask.scores.items[ask.place][0].id, self.timeout_s):
            self._fail(ask.rule, error)

    def _lost(self, handle: Handle, how: str, guilty: RewardScore | None = None) -> None:
        """A worker is gone, or has to go; unless what it wrote last was reason enough already."""
        if handle.number not in self.handles:
            return
        self._drop(handle)
        self.stillborn += not handle.ready
        if self.stillborn > self.workers + 1:
            self._break(f"reward.workers: workers {how} before their first answer")
        crash = RewardScore(math.nan, Outcome.CRASH, f"the worker {how}")
        self._give_back(handle, None if handle.retired or not handle.asked else guilty or crash)

    def _give_back(self, handle: Handle, guilty: RewardScore | None) -> None:
        """What a lost worker had: who is guilty gets that score, the others are asked again."""
        asks = list(handle.asked.values())
        handle.asked.clear()
        if guilty is not None:
            if len(asks) == 1 or not handle.is_async:
                self._settle(asks.pop(0), guilty)
            else:
                # any of them may be: each is asked by itself
                for ask in asks:
                    ask.alone = True
        queue = self.queues[handle.is_async]
        for ask in reversed(asks):
            if not ask.rule.error:
                queue.appendleft(Chunk([ask], Body([ask.scores.items[ask.place]])))

    def _drop(self, handle: Handle) -> None:
        """Let go of a worker; the nursery kills what is left of it."""
        del self.handles[handle.number]
        handle.channel.close()
        self._command("kill", handle.number)

    def _fail(self, rule: Rule, error: str) -> None:
        """A reward cannot be asked any more."""
        rule.error = error
        rule.loaded.set()
        self.queues[rule.is_async] = deque(one for one in self.queues[rule.is_async] if one.rule is not rule)
        for scores in [one for one in self.under_way if one.rule is rule]:
            self.under_way.remove(scores)
            scores.fail(error)

    def _break(self, error: str) -> None:
        """Nothing can be asked any more."""
        self.error = error
        for rule in self.rules:
            if not rule.error:
                self._fail(rule, error)

    def _end(self) -> None:
        for handle in list(self.handles.values()):
            handle.channel.close()
        self.control.close()  # the nursery ends with it
        for end in (self.selector, self.woken, self.wakes):
            end.close()
        self.nursery.end()
        self.wishes.end()
