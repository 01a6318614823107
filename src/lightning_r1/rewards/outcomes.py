"""How the scoring of a rollout went, and when it went so badly that nothing is learned from it.

What a reward could not score is left out of its group, by name, and one such completion costs nothing. When
half of them are left out, the reward is broken and the run would learn from the other half's accident.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from lightning_r1.parallel import collectives
from lightning_r1.rewards.base import RewardError
from lightning_r1.types import Outcome, ScoredGroup

_FIXES = {
    Outcome.CRASH: "repair it",
    Outcome.TIMEOUT: "make it faster, or raise reward.workers.timeout_s",
    Outcome.UNSCORABLE: "look at the golds of the data, with recipes/doctor.py",
}
_TOLD = 3


@dataclass(frozen=True, slots=True)
class StopAt:
    """Shares of a rollout's completions, of each reward by itself, at which the run is stopped; None never does."""

    crash: float | None = 0.5
    timeout: float | None = 0.5
    unscorable: float | None = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        for outcome in _FIXES:
            share = self.share(outcome)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"reward.stop_at.{outcome}={share}: expected a share in (0, 1], or null for never")

    def share(self, outcome: Outcome) -> float | None:
        """Of one kind."""
        return getattr(self, outcome.value, None)


NEVER = StopAt(None, None, None)


@dataclass(slots=True)
class Tally:
    """Outcomes by reward, and the first different details of those that do not count."""

    outcomes: dict[str, Counter[Outcome]] = field(default_factory=dict)
    details: dict[tuple[str, Outcome], list[str]] = field(default_factory=dict)

    def add(self, scored: Iterable[ScoredGroup]) -> Tally:
        """Count these too; returns itself."""
        for group in scored:
            for name, scores in group.breakdown.items():
                counter = self.outcomes.setdefault(name, Counter())
                for score in scores:
                    counter[score.outcome] += 1
                    if not score.outcome.counts:
                        self._tell(name, score.outcome, score.detail)
        return self

    def over_ranks(self) -> Tally:
        """The sum over all ranks, the same on each."""
        total = Tally()
        for tally in collectives.all_gather(self):
            for name, counter in tally.outcomes.items():
                total.outcomes.setdefault(name, Counter()).update(counter)
            for (name, outcome), details in tally.details.items():
                for detail in details:
                    total._tell(name, outcome, detail)
        return total

    def check(self, stop_at: StopAt) -> None:
        """Stop where nothing can be learned.

        Raises:
            RewardError: names the first reward whose share is too high, what it said, and what to do.
        """
        for name, counter in self.outcomes.items():
            for outcome, fix in _FIXES.items():
                limit, count, total = stop_at.share(outcome), counter[outcome], counter.total()
                if limit is not None and count and count >= limit * total:
                    details = " | ".join(self.details.get((name, outcome), []))
                    raise RewardError(
                        f"reward.rewards.{name}: {count} of {total} completions ended in {outcome} "
                        f"(reward.stop_at.{outcome}={limit:g}){': ' if details else ''}{details}; {fix}, then give the "
                        "same command again: it goes on from the newest checkpoint"
                    )

    def _tell(self, name: str, outcome: Outcome, detail: str) -> None:
        told = self.details.setdefault((name, outcome), [])
        line = " ".join(detail.split())[:300]
        if line and line not in told and len(told) < _TOLD:
            told.append(line)
