"""From sampled completions to traces worth learning from: right, well formed, readable, and not too many of one.

R1 does it twice: with R1-Zero's samples for the cold start, and with those of its reasoning-RL policy for the
large SFT (arXiv 2501.12948 v1, sections 2.3.1 and 2.3.3). Every completion that is left out is counted under
the name of the first thing that was wrong with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lightning_r1.rewards.base import Reward, RewardError, at_once, score_one
from lightning_r1.text.filters import TraceFilter
from lightning_r1.types import Outcome, ScoredGroup, Trace

KEPT, TRUNCATED, DUPLICATE, SURPLUS = "kept", "truncated", "duplicate", "surplus"


@dataclass(frozen=True)
class Selection:
    """What is kept of a group of completions."""

    filter: TraceFilter
    """Names the first fault in the thinking."""
    require: Mapping[str, float]
    """By reward, the least value. A reward that is not for the prompt's domain is not asked for."""
    max_per_prompt: int = 1
    judge: Reward | None = None
    """Decides in place of the rewards that cannot be scored, for want of a rule; 1 is right."""

    def __post_init__(self) -> None:
        """Refuse to keep nothing."""
        if self.max_per_prompt < 1:
            raise ValueError(f"sample.max_per_prompt={self.max_per_prompt}: expected >= 1")

    def select_all(
        self, scored: Sequence[ScoredGroup], provenance: Mapping[str, Any]
    ) -> list[tuple[list[Trace], Counter[str]]]:
        """:meth:`select` of each group, in order; a judge that only waits is asked about several at once."""
        with ThreadPoolExecutor(at_once(self.judge) or 1 if self.judge else 1) as threads:
            return list(threads.map(lambda group: self.select(group, provenance), scored))

    def select(self, scored: ScoredGroup, provenance: Mapping[str, Any]) -> tuple[list[Trace], Counter[str]]:
        """The traces of a group.

        Args:
            scored: a group with the values of its rewards.
            provenance: facts that every trace is given besides its own.

        Returns:
            The traces, in the order of sampling; and of all completions, how many were ``kept``, ``surplus`` (good
            as far as was looked, but more than wanted of a prompt), ``duplicate``, or had which fault.
        """
        traces: list[Trace] = []
        counts: Counter[str] = Counter()
        good: set[str] = set()
        for place, completion in enumerate(scored.group.completions):
            fault: str | None = TRUNCATED if completion.finish_reason == "length" else None
            if completion.text in good:
                fault = DUPLICATE
            fault = fault or self.fault_of(scored, place)
            if fault is None and len(traces) == self.max_per_prompt:
                fault = SURPLUS
            # a judge may be a large model: it is asked last
            fault = fault or self.judged(scored, place)
            if fault in (None, SURPLUS):
                good.add(completion.text)
            if fault is None:
                traces.append(trace_of(scored, place, provenance))
            counts[fault or KEPT] += 1
        return traces, counts

    def fault_of(self, scored: ScoredGroup, place: int) -> str | None:
        """The first reward that is too low, or the first fault in the thinking; None if there is none."""
        for name, least in self.require.items():
            scores = scored.breakdown.get(name)
            if scores is None or scores[place].outcome is Outcome.UNSCORABLE:
                continue
            if not scores[place].outcome.counts or scores[place].value < least:
                return name
        return self.filter.fault_of(trace_of(scored, place, {}))

    def judged(self, scored: ScoredGroup, place: int) -> str | None:
        """``judge``, if there was no rule and the judge does not call it right; ``unjudged`` without a judge.

        Raises:
            RewardError: if the judge is away: what it would have called right would be missing.
        """
        scores = [scored.breakdown[name][place] for name in self.require if name in scored.breakdown]
        if all(score.outcome is not Outcome.UNSCORABLE for score in scores):
            return None
        if self.judge is None:
            return "unjudged"
        verdict = score_one(self.judge, scored.group.prompt, scored.group.completions[place])
        if verdict.outcome is Outcome.TIMEOUT:
            raise RewardError(f"the judge is away: {verdict.detail}; start again when it is back, to go on from here")
        return None if verdict.outcome.counts and verdict.value >= 1 else "judge"


def trace_of(scored: ScoredGroup, place: int, provenance: Mapping[str, Any]) -> Trace:
    """A completion as a trace, its rewards and its length among the facts."""
    prompt, completion = scored.group.prompt, scored.group.completions[place]
    rewards = {name: scores[place].value for name, scores in scored.breakdown.items() if scores[place].outcome.counts}
    return Trace(
        id=f"{prompt.id}/{place}",
        question=prompt.question,
        completion=completion.text,
        answer=prompt.answer,
        domain=prompt.domain,
        language=prompt.language,
        provenance={**provenance, "rewards": rewards, "tokens": len(completion.token_ids)},
    )
