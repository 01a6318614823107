"""What a reward is, and how many of them are run over a rollout.

A reward is any callable ``(prompt, completion) -> RewardScore | float | None``, so a plain function
named by its dotted path in the config is one. ``None`` says "cannot be scored". What such a
function raises is counted as a crash, by its name, and leaves the completion out of its group; it
never becomes a 0 among honest ones. There are four kinds:

==========================  ====================================================================
kind                        where it runs
==========================  ====================================================================
plain callable              in worker processes, one answer at a time, killed behind its time
``async def``               in a worker process with an event loop, many at once, killed if it blocks
``at_once = n``, a number   in ``n`` threads of this process: it only waits for something else (a
                            sandbox, an endpoint), and keeps a deadline of its own; the run ends if
                            nothing comes back for an hour (:mod:`lightning_r1.rewards.threads`)
:class:`BatchReward`        here, once at the end of a rollout: a model, moved to the rollout's
                            device before, if it has ``to(device)``
==========================  ====================================================================

The first two are pickled to get there (:mod:`lightning_r1.rewards.workers`). A reward is a function
of prompt and completion: in which worker it is asked, and in which order, must make no difference.

An object may have any of these besides, and ``preload``, names of modules to import before the first answer:

* ``is_for(prompt) -> bool``: it is not asked about other prompts, and absent from their breakdown;
* ``expect(prompts)``: told beforehand, in every rank's main process, what it will be asked about;
* ``start()``: called once before the first scoring, in every rank's main process; it proves itself
  there, and raises ValueError or RuntimeError in one line if it cannot;
* ``watch(step) -> dict[str, float]``: called once a rollout on rank 0, gives metrics to log under
  ``rollout/...``; may raise the same to stop the run;
* ``close()``: called at the end.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

Verdict = RewardScore | float | None
Reward = Callable[[Prompt, Completion], Verdict | Awaitable[Verdict]]
Item = tuple[Prompt, Completion]

MAX_DETAIL = 2000
"""Characters of a score's detail that are kept: it is for people, and may quote a whole answer."""


class RewardError(ValueError):
    """A reward with which a run cannot go on; the message names it and the fix, in one line."""


@runtime_checkable
class BatchReward(Protocol):
    """A reward that scores many completions together."""

    def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:
        """One completion, as any reward."""
        ...

    def score_batch(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """One verdict for each item, in order."""
        ...


class Pending(Protocol):
    """Scores that may still be in the making."""

    def result(self) -> list[RewardScore]:
        """One score for each item, in order; waits for them.

        Raises:
            RewardError: if they can never be made.
        """
        ...


class Scorer(Protocol):
    """Runs rewards over many completions."""

    def begin(self, name: str, reward: Reward, items: Sequence[Item]) -> Pending:
        """Begin to score; returns at once."""
        ...

    def score(self, name: str, reward: Reward, items: Sequence[Item]) -> list[RewardScore]:
        """One score for each item, in order."""
        ...

    def prepare(self, rewards: Sequence[tuple[str, Reward]]) -> None:
        """Begin to get ready to be asked for these, by name; returns at once.

        Raises:
            RewardError: if one of them cannot be run here.
        """
        ...

    def start(self, rewards: Sequence[tuple[str, Reward]]) -> None:
        """Be ready to be asked for these.

        Raises:
            RewardError: if one of them cannot be run here.
        """
        ...

    def close(self) -> None:
        """Give everything back that was started."""
        ...


class InProcessScorer:
    """Runs rewards here, when the result is wanted: batch rewards at once, others one after the other.

    For tests and for debugging: what hangs here hangs the run.
    """

    def begin(self, name: str, reward: Reward, items: Sequence[Item]) -> Pending:
        """See :class:`Scorer`."""
        return Later(lambda: self.score(name, reward, items))

    def score(self, name: str, reward: Reward, items: Sequence[Item]) -> list[RewardScore]:
        """See :class:`Scorer`."""
        if isinstance(reward, BatchReward):
            return score_together(name, reward, items)
        return [score_one(reward, prompt, completion) for prompt, completion in items]

    def prepare(self, rewards: Sequence[tuple[str, Reward]]) -> None:
        """There is nothing to do."""

    def start(self, rewards: Sequence[tuple[str, Reward]]) -> None:
        """There is nothing to do."""

    def close(self) -> None:
        """There is nothing to do."""


class Later:
    """Scores that are made, or waited for, when they are wanted."""

    def __init__(self, make: Callable[[], list[RewardScore]]) -> None:
        self._make = make

    def result(self) -> list[RewardScore]:
        """See :class:`Pending`."""
        return self._make()


def attribute(reward: Reward, name: str, otherwise: Any = None) -> Any:
    """An attribute of a reward, or of the function of which it is a partial."""
    return getattr(reward, name, getattr(getattr(reward, "func", None), name, otherwise))


def at_once(reward: Reward) -> int:
    """In how many threads of this process a reward wants to be asked; 0 for all other kinds."""
    wanted = attribute(reward, "at_once", 0)
    return wanted if isinstance(wanted, int) else 0


def is_async(reward: Reward) -> bool:
    """Whether it is an ``async def``, or an object with such a call."""
    return inspect.iscoroutinefunction(reward) or inspect.iscoroutinefunction(type(reward).__call__)


def score_one(reward: Reward, prompt: Prompt, completion: Completion) -> RewardScore:
    """Run a reward on one completion; what it raises becomes a typed outcome."""
    try:
        verdict = reward(prompt, completion)
        if inspect.isawaitable(verdict):
            verdict = asyncio.run(_wait(verdict))
        return as_score(verdict)
    except (Exception, SystemExit) as error:
        return crash(error)


async def _wait(verdict: Awaitable[Verdict]) -> Verdict:
    return await verdict


def score_together(name: str, reward: BatchReward, items: Sequence[Item]) -> list[RewardScore]:
    """Run a batch reward on all items.

    What it raises is not caught: where nothing at all was scored there is nothing to learn from.

    Raises:
        RewardError: if it does not give one verdict for each item.
    """
    verdicts = reward.score_batch(items)
    if len(verdicts) != len(items):
        raise RewardError(f"reward.rewards.{name}: score_batch gave {len(verdicts)} verdicts for {len(items)} items")
    return [as_score(verdict) for verdict in verdicts]


def crash(error: BaseException) -> RewardScore:
    """What becomes of an answer whose reward raised."""
    return RewardScore(math.nan, Outcome.CRASH, _short(f"{type(error).__name__}: {error}"))


def as_score(verdict: Any) -> RewardScore:
    """A verdict with its outcome; what is no number is a crash."""
    if verdict is None:
        return RewardScore(math.nan, Outcome.UNSCORABLE)
    if isinstance(verdict, int | float):
        verdict = RewardScore(float(verdict))
    if not isinstance(verdict, RewardScore):
        return RewardScore(math.nan, Outcome.CRASH, f"returned a {type(verdict).__name__}, not a number")
    if not (isinstance(verdict.value, int | float) and isinstance(verdict.outcome, Outcome)):
        return RewardScore(math.nan, Outcome.CRASH, _short(f"returned {verdict!r}, not a number with an Outcome"))
    if verdict.outcome.counts and not math.isfinite(verdict.value):
        return RewardScore(math.nan, Outcome.CRASH, f"returned {verdict.value}")
    if len(verdict.detail) > MAX_DETAIL:
        return RewardScore(verdict.value, verdict.outcome, _short(verdict.detail))
    return verdict


def _short(detail: str) -> str:
    return detail if len(detail) <= MAX_DETAIL else detail[: MAX_DETAIL - 3] + "..."
