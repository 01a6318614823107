"""Mathematical answers, ordinary and hostile: our reward workers beside math-verify called where the peers call it.

Ours is the whole way of training: suite, pool, accuracy reward. Theirs is ``parse`` of gold and completion and
``verify``, in the main thread of one process with the library's own alarms; that process is one of its own here, so
that it can be killed where no alarm is heard. Of the hostile answers it gets a part, all kinds alike, because of the
time; what the rest would take is extrapolated and said so.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from rich.table import Table

from lightning_r1.benchmarks.math_verify_alone import verify_all
from lightning_r1.benchmarks.math_work import (
    Timed,
    TimedWithoutFilter,
    Work,
    as_item,
    hostile_answers,
    ordinary,
    spread,
)
from lightning_r1.callbacks.console import console
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rewards.workers import WorkerPool
from lightning_r1.types import Group, Outcome

OURS, THEIRS = "ours", "directly"
_KILLED = "killed"


@dataclass(slots=True)
class Turn:
    """How one system did on one kind of work."""

    system: str
    work: str
    answers: int
    seconds: float = 0.0
    """For all of them, measured from outside."""
    worst_s: float = 0.0
    """For one answer."""
    outcomes: dict[str, int] = field(default_factory=dict)
    mistakes: int = 0
    """Graded, and not as the answer was made."""
    asked: int = 0
    """Of the answers, how many were; the rest is extrapolated."""

    def count(self, outcome: str) -> None:
        """One more that ended like this."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    @property
    def total_s(self) -> float:
        """For all answers."""
        return self.seconds * self.answers / self.asked

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.asked / self.seconds


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the comparison.

    Args:
        config: ``conf/benchmark/rewards.yaml``, resolved.

    Returns:
        Of each system and kind of work what :class:`Turn` says, with ``answers_per_s`` and ``total_s``.
    """
    plain, evil = ordinary(config["ordinary"]), hostile_answers(config["hostile"])
    turns = [
        ours("ordinary", plain, config),
        ours("hostile", evil, config),
        ours("hostile, filter off", spread(evil, config["unfiltered"]), config, TimedWithoutFilter()),
        theirs("ordinary", plain, spread(plain, config["direct_ordinary"]), config),
        theirs("hostile", evil, spread(evil, config["direct_hostile"]), config),
    ]
    _tell(turns, config)
    return {
        "work": {name: value for name, value in config.items() if name != "name"},
        "turns": [{**asdict(turn), "answers_per_s": turn.rate, "total_s": turn.total_s} for turn in turns],
    }


def ours(name: str, work: Sequence[Work], config: Mapping[str, Any], reward: Timed | None = None) -> Turn:
    """Through suite and pool."""
    reward = reward or Timed()
    pool = WorkerPool(workers=config["workers"], timeout_s=config["timeout_s"])
    suite = RewardSuite({"accuracy": reward}, scorer=pool)
    turn = Turn(OURS, name, len(work), asked=len(work))
    items = [as_item(one, number) for number, one in enumerate(work)]
    try:
        suite.start()
        suite.score([Group(prompt, (completion,)) for prompt, completion in items[:1]])
        started = time.perf_counter()
        scored = suite.score([Group(prompt, (completion,)) for prompt, completion in items])
        turn.seconds = time.perf_counter() - started
        scores = [group.breakdown["accuracy"][0] for group in scored]
        killed = [item for item, score in zip(items, scores, strict=True) if score.outcome is Outcome.TIMEOUT]
        turn.worst_s = max((float(score.detail) for score in scores if score.outcome.counts), default=0.0)
        # what a killed answer costs is measured from outside, where nothing else is going on
        for prompt, completion in killed[:3]:
            started = time.perf_counter()
            suite.score([Group(prompt, (completion,))])
            turn.worst_s = max(turn.worst_s, time.perf_counter() - started)
    finally:
        suite.close()
    for (_, _, _, value), score in zip(work, scores, strict=True):
        turn.count(score.outcome.value)
        turn.mistakes += score.outcome.counts and score.value != value
    return turn


def theirs(name: str, work: Sequence[Work], asked: Sequence[Work], config: Mapping[str, Any]) -> Turn:
    """One answer after the other in a process that is started anew where it does not come back."""
    turn = Turn(THEIRS, name, len(work))
    process, connection = _start(config["direct_timeout_s"])
    for number, one in enumerate(asked):
        if turn.seconds > config["direct_most_s"]:
            break
        prompt, completion = as_item(one, number)
        started = time.perf_counter()
        connection.send((prompt.answer["value"], completion.text))
        answered = connection.poll(config["direct_patience_s"])
        try:
            outcome, value = connection.recv() if answered else (_KILLED, None)
        except EOFError:
            outcome, value = Outcome.CRASH.value, None
        seconds = time.perf_counter() - started
        if value is None:
            process.kill()
            process.join()
            process, connection = _start(config["direct_timeout_s"])
        else:
            turn.mistakes += value != one[3]
        turn.asked += 1
        turn.seconds += seconds
        turn.worst_s = max(turn.worst_s, seconds)
        turn.count("timeout" if outcome == "ok" and seconds >= config["direct_timeout_s"] else outcome)
    process.kill()
    process.join()
    return turn


def _start(timeout_s: int) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=verify_all, args=(there, timeout_s), daemon=True)
    process.start()
    there.close()
    here.recv()  # imported, and warm
    return process, here


def _tell(turns: Sequence[Turn], config: Mapping[str, Any]) -> None:
    table = Table(
        title=f"Mathematical answers: ours on {config['workers']} workers with {config['timeout_s']:g} s an answer; "
        f"math-verify in one main thread with alarms of {config['direct_timeout_s']} s",
        title_justify="left",
    )
    for column in ("", "answers", "a second", "worst, s", "all, s", "outcomes", "not as made"):
        told = column in ("", "outcomes")
        table.add_column(column, justify="left" if told else "right", min_width=12 if told else None)
    for turn in turns:
        extrapolated = turn.asked < turn.answers
        table.add_row(
            f"{turn.system}: {turn.work}",
            f"{turn.asked:,} of {turn.answers:,}" if extrapolated else f"{turn.answers:,}",
            f"{turn.rate:,.1f}",
            f"{turn.worst_s:.2f}",
            f"{turn.total_s:,.1f}" + (" *" if extrapolated else ""),
            "\n".join(f"{count:,} {name}" for name, count in sorted(turn.outcomes.items(), key=lambda pair: -pair[1])),
            f"{turn.mistakes:,}",
        )
    console.print(table)
    console.print("* extrapolated from those that were asked, all kinds alike; killed: no alarm was heard")
