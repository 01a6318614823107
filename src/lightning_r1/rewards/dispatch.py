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
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from lightning_r1.rewards.base import Item, Reward, RewardError, as_score
from lightning_r1.rewards.channel import Channel
from lightning_r1.rewards.nursery import LENGTH
from lightning_r1.rewards.worker import HEAD, timed_out
from lightning_r1.types import Outcome, RewardScore

LARGEST_CHUNK = 16
"""Items sent together: a worker's next answer need not wait for the trainer."""
GRACE_S = 1.0
"""An async reward is stopped by its worker; the worker itself only if it has not even done that by then."""
HANGS_AFTER_ANSWERS, HANGS_AFTER_PROMPTS = 32, 8
"""So many timeouts in a row, over so many prompts, and nothing else: the reward hangs, not the answers."""


@dataclass(eq=False)
class Rule:
    """A reward as the workers know it."""

    number: int
    name: str
    reward: Reward
    is_async: bool
    loaded: threading.Event = field(default_factory=threading.Event)
    error: str | None = None
    """Why it cannot be asked; it never can be again."""
    late: list[str] = field(default_factory=list)
    """Ids of the prompts of its latest answers, as long as they are all timeouts."""


class Scores:
    """The scores of some items, in the making; see :class:`.Pending`."""

    def __init__(self, rule: Rule, items: Sequence[Item]) -> None:
        self.rule, self.items = rule, items
        self.scores: list[RewardScore | None] = [None] * len(items)
        self.left = len(items)
        self.error: str | None = None
        self.done = threading.Event()
        if not items:
            self.done.set()

    def settle(self, place: int, score: RewardScore) -> None:
        """One of them is made."""
        self.scores[place] = score
        self.left -= 1
        if not self.left:
            self.done.set()

    def fail(self, error: str) -> None:
        """None of them will be."""
        self.error = error
        self.done.set()

    def result(self) -> list[RewardScore]:
        """See :class:`.Pending`."""
        self.done.wait()
        if self.error:
            raise RewardError(self.error)
        return list(self.scores)  # type: ignore[arg-type]


@dataclass(slots=True)
class Ask:
    """One item for one reward."""

    scores: Scores
    place: int
    alone: bool = False
    """It is asked by itself: a worker died with several, and this may be who did it."""
    sent: float = 0.0

    @property
    def rule(self) -> Rule:
        """The reward."""
        return self.scores.rule


class Body:
    """Items to send; the same for all rewards that are asked about them."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self._pickled: bytes | None = None

    def pickled(self) -> bytes:
        """Made when it is first sent."""
        if self._pickled is None:
            self._pickled = pickle.dumps(self.items, pickle.HIGHEST_PROTOCOL)
        return self._pickled


@dataclass(slots=True)
class Chunk:
    """Items of one body for one reward."""

    asks: list[Ask]
    body: Body

    @property
    def rule(self) -> Rule:
        """The reward."""
        return self.asks[0].rule


@dataclass(eq=False)
class Handle:
    """A worker, seen from here."""

    number: int
    is_async: bool
    channel: Channel
    rules: int
    """It knows the rewards with numbers below."""
    ready: bool = False
    retired: bool = False
    asked: dict[int, Ask] = field(default_factory=dict)
    """In the order in which they were sent; a plain reward answers in that order."""
    answered: int = 0
    answered_at: float = 0.0
    restarted_at: float = 0.0

    def began(self) -> float:
        """When the answer began that is due next."""
        sent = next(iter(self.asked.values())).sent
        return sent if self.is_async else max(sent, self.answered_at)

    def due(self, timeout_s: float) -> float:
        """When the clock of that answer runs out."""
        return max(self.began(), self.restarted_at) + timeout_s + GRACE_S * self.is_async


class Dispatcher:
    """Feeds the workers of one pool.

    Args:
        launch: starts the nursery, and gives its process, a socket to it, and a function for what it wrote last.
        workers: plain workers.
        timeout_s: of one answer.
        recycle_after: answers of a worker.
        at_once: items that an async worker has at a time.
        import_s: imports may restart the clock of one answer for so long.
    """

    def __init__(
        self,
        launch: Callable[[], tuple[subprocess.Popen[bytes], socket.socket, Callable[[], str]]],
        *,
        workers: int,
        timeout_s: float,
        recycle_after: int,
        at_once: int,
        import_s: float,
    ) -> None:
        self.workers, self.timeout_s, self.recycle_after = workers, timeout_s, recycle_after
        self.at_once, self.import_s = at_once, import_s
        self.process, control, self.last_words = launch()
        self.selector = selectors.DefaultSelector()
        self.control = Channel(control, self.selector)
        self.woken, self.wakes = socket.socketpair()
        self.selector.register(self.woken, selectors.EVENT_READ)
        self.wakes.setblocking(False)
        self.wishes: deque[Callable[[], None]] = deque()
        self.queues: dict[bool, deque[Chunk]] = {False: deque(), True: deque()}
        self.rules: list[Rule] = []
        self.handles: dict[int, Handle] = {}
        self.numbers = count()
        self.stillborn = 0
        self.latest: tuple[Sequence[Item], int, list[Body]] = ((), 0, [])
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
        if rule.is_async:
            size = min(size, self.at_once)
        made_for, made_size, bodies = self.latest
        if made_for is not items or made_size != size:  # a group's rewards are begun one after the other
            bodies = [Body(items[start : start + size]) for start in range(0, len(items), size)]
            self.latest = (items, size, bodies)
        places = iter(range(len(items)))
        chunks = [Chunk([Ask(scores, next(places)) for _ in body.items], body) for body in bodies]
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
        self.wishes.append(wish)
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended, and so have all scores
            self.wakes.send(b"w")
        if not self.thread.is_alive() and self.thread.ident is not None:
            self._carry_out()

    # the thread

    def _run(self) -> None:
        try:
            while not self.closing:
                self._carry_out()
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

    def _carry_out(self) -> None:
        while self.wishes:
            self.wishes.popleft()()

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
            self.queues[scores.rule.is_async].extend(chunks)

    def _assign(self) -> None:
        """Give waiting chunks to workers that have time, and make workers where they are missing."""
        for is_async, queue in self.queues.items():
            while queue and (handle := self._free(is_async, queue[0], len(queue))):
                self._give(handle, queue.popleft())
            for handle in [one for one in self.handles.values() if one.is_async is is_async and not one.asked]:
                if handle.answered >= self.recycle_after or (queue and queue[0].rule.number >= handle.rules):
                    self._drop(handle)
            ours = sum(handle.is_async is is_async for handle in self.handles.values())
            for _ in range(min(len(queue), (1 if is_async else self.workers) - ours)):
                self._fork(is_async)

    def _free(self, is_async: bool, chunk: Chunk, waiting: int) -> Handle | None:
        """The worker for a chunk: one that has nothing to do, or soon will have."""
        best: Handle | None = None
        for handle in self.handles.values():
            if handle.is_async is not is_async or not handle.ready or chunk.rule.number >= handle.rules:
                continue
            asked = len(handle.asked)
            if handle.answered + asked >= self.recycle_after:
                continue
            if is_async:
                alone = chunk.asks[0].alone or any(ask.alone for ask in handle.asked.values())
                room = not asked if alone else asked + len(chunk.asks) <= self.at_once
            else:
                # a second chunk bridges the way here and back, but should not wait behind a slow answer at the end
                room = not asked or (asked <= LARGEST_CHUNK // 4 and waiting > self.workers)
            if room and (best is None or asked < len(best.asked)):
                best = handle
        return best

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
        due = [handle.due(self.timeout_s) for handle in self.handles.values() if handle.asked]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for handle in list(self.handles.values()):
            if not handle.asked or handle.due(self.timeout_s) > now:
                continue
            self._read(handle)  # this thread may have been kept waiting: it has no say if the answer is here
            if handle.asked and handle.due(self.timeout_s) <= now:
                self._drop(handle)
                self._give_back(handle, timed_out(self.timeout_s))

    def _serve(self, channel: Channel, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            channel.flush()
        if channel is self.control:
            for line in channel.lines():
                self._of_nursery(*json.loads(line))
            if not channel.open:
                self._wait_for_process()
                self._break(f"the reward workers' nursery ended (exit {self.process.returncode}): {self.last_words()}")
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
            self._drop(handle)
            self.stillborn += not handle.ready
            if self.stillborn > self.workers + 1:
                self._break(f"reward.workers: workers {_ending(*facts)} before their first answer")
            blameless = handle.retired or not handle.asked
            detail = f"the worker {_ending(*facts)}"
            self._give_back(handle, None if blameless else RewardScore(math.nan, Outcome.CRASH, detail))

    def _read(self, handle: Handle) -> None:
        for line in handle.channel.lines():
            try:
                self._of_worker(handle, *json.loads(line))
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                # a reward that writes where it should not
                self._drop(handle)
                detail = f"the worker wrote {line[:100]!r} ({type(error).__name__})"
                self._give_back(handle, RewardScore(math.nan, Outcome.CRASH, detail))
                return

    def _of_worker(self, handle: Handle, what: str, *facts: Any) -> None:
        now = time.monotonic()
        if what == "answer":
            number, value, outcome, detail = facts
            if not handle.is_async and number != next(iter(handle.asked)):
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
        rule = ask.rule
        if score.outcome is not Outcome.TIMEOUT:
            rule.late.clear()
            return
        rule.late.append(ask.scores.items[ask.place][0].id)
        prompts = len(set(rule.late))
        if len(rule.late) >= HANGS_AFTER_ANSWERS and prompts >= HANGS_AFTER_PROMPTS:
            self._fail(
                rule,
                f"reward.rewards.{rule.name}: its last {len(rule.late)} answers, about {prompts} prompts, all took "
                f"more than {self.timeout_s:g} s: it hangs; repair it, or set reward.workers.timeout_s higher",
            )

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
        queue = self.queues[rule.is_async]
        for chunk in [chunk for chunk in queue if chunk.rule is rule]:
            queue.remove(chunk)
            chunk.asks[0].scores.fail(error)
        for handle in self.handles.values():
            for ask in handle.asked.values():
                if ask.rule is rule:
                    ask.scores.fail(error)

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
        self.selector.close()
        self.woken.close()
        self.wakes.close()
        self._wait_for_process()
        self._carry_out()

    def _wait_for_process(self) -> None:
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _ending(status: int, tail: str) -> str:
    """A wait status in words, and what was said before."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        how = f"died of {signal.Signals(number).name}" + (" (out of memory?)" if number == signal.SIGKILL else "")
    else:
        how = f"left with exit status {os.waitstatus_to_exitcode(status)}"
    fatal = tail.rfind("Fatal Python error")
    tail = tail[fatal:][:600] if fatal >= 0 else tail[-300:]
    said = "; ".join(line.strip() for line in tail.splitlines() if line.strip())
    return f"{how}: {said}" if said else how
