"""What the dispatcher of reward workers keeps in mind: rewards, what is asked about, and workers."""

from __future__ import annotations

import math
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lightning_r1.rewards.base import Item, Reward, RewardError
from lightning_r1.rewards.channel import Channel
from lightning_r1.types import Outcome, RewardScore

HANGS_AFTER_ANSWERS, HANGS_AFTER_PROMPTS = 32, 8
"""So many timeouts in a row, over so many prompts, and nothing else: the reward hangs, not the answers."""
FIRST_WORD_S = 60.0
"""A worker that has not begun by then never will: what it was forked from may have held a lock."""
GRACE_S = 1.0
"""An async reward is stopped by its worker; the worker itself only if it has not even done that by then."""


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

    def hangs(self, score: RewardScore, prompt: str, timeout_s: float) -> str | None:
        """Why no more should be asked, if with this answer there have been only timeouts for too long."""
        if score.outcome is not Outcome.TIMEOUT:
            self.late.clear()
            return None
        self.late.append(prompt)
        prompts = len(set(self.late))
        if len(self.late) < HANGS_AFTER_ANSWERS or prompts < HANGS_AFTER_PROMPTS:
            return None
        return (
            f"reward.rewards.{self.name}: its last {len(self.late)} answers, about {prompts} prompts, all took more "
            f"than {timeout_s:g} s: it hangs; repair it, or set reward.workers.timeout_s higher, then give the same "
            "command again: it goes on from the newest checkpoint"
        )


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


class Cutter:
    """Cuts items into chunks; a group's rewards, begun one after the other, share what is sent."""

    def __init__(self) -> None:
        self._latest: tuple[Sequence[Item], int, list[Body]] = ((), 0, [])

    def chunks(self, scores: Scores, size: int) -> list[Chunk]:
        """Of so many items at most."""
        made_for, made_size, bodies = self._latest
        if made_for is not scores.items or made_size != size:
            bodies = [Body(scores.items[start : start + size]) for start in range(0, len(scores.items), size)]
            self._latest = (scores.items, size, bodies)
        places = iter(range(len(scores.items)))
        return [Chunk([Ask(scores, next(places)) for _ in body.items], body) for body in bodies]


class NurseryProcess(Protocol):
    """The process that forks workers, seen from here."""

    connection: socket.socket

    def end(self) -> str:
        """Wait for its end, which the end of the connection brings; says what it was."""
        ...


@dataclass(eq=False)
class Handle:
    """A worker, seen from here."""

    number: int
    is_async: bool
    channel: Channel
    rules: int
    """It knows the rewards with numbers below."""
    forked_at: float = field(default_factory=time.monotonic)
    ready: bool = False
    retired: bool = False
    asked: dict[int, Ask] = field(default_factory=dict)
    """In the order in which they were sent; a plain reward answers in that order."""
    answered: int = 0
    answered_at: float = 0.0
    restarted_at: float = 0.0

    def has_time(self, chunk: Chunk, most: int, recycle_after: int) -> bool:
        """Whether it can be given a chunk.

        Args:
            chunk: what is waiting.
            most: items that an async worker may have with it; that a plain worker may have before it.
            recycle_after: answers that it may give in all.
        """
        if not self.ready or self.is_async is not chunk.rule.is_async or chunk.rule.number >= self.rules:
            return False
        asked = len(self.asked)
        if self.answered + asked + len(chunk.asks) > recycle_after:
            return False
        if not asked:
            return True
        alone = chunk.asks[0].alone or any(ask.alone for ask in self.asked.values())
        fits = asked + len(chunk.asks) <= most if self.is_async else asked <= most
        return fits and not alone

    def began(self) -> float:
        """When the answer began that is due next."""
        sent = next(iter(self.asked.values())).sent
        return sent if self.is_async else max(sent, self.answered_at)

    def due(self, timeout_s: float) -> float:
        """When the clock of that answer runs out, or of a worker that has yet to begin; infinite for one that waits."""
        if not self.ready:
            return self.forked_at + FIRST_WORD_S
        if not self.asked:
            return math.inf
        return max(self.began(), self.restarted_at) + timeout_s + GRACE_S * self.is_async


def ending(status: int, tail: str) -> str:
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
