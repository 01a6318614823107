"""All rewards of a run: each runs over the rollout, then they are added with their weights.

R1 adds its rewards directly (arXiv 2501.12948, section 2.2 and eq. 4): weights exist, and are 1
unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightning_r1.rewards.base import InProcessScorer, Reward, Scorer
from lightning_r1.types import Group, RewardScore, ScoredGroup


class RewardSuite:
    """Named rewards and their weights.

    Args:
        rewards: by name.
        weights: by name; 1 where nothing is said.
        scorer: where they run.

    Raises:
        ValueError: if there is no reward, or a weight names none.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        weights: Mapping[str, float] | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        if not rewards:
            raise ValueError("reward.rewards is empty: there is nothing to learn from; name at least one reward")
        unknown = set(weights or ()) - set(rewards)
        if unknown:
            raise ValueError(f"reward.weights names {sorted(unknown)}, but the rewards are {sorted(rewards)}")
        self.rewards = dict(rewards)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in rewards}
        self.scorer: Scorer = scorer or InProcessScorer()

    def score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Rewards of every completion of every group."""
        items = [(group.prompt, completion) for group in groups for completion in group.completions]
        columns = {name: self.scorer.score(name, reward, items) for name, reward in self.rewards.items()}
        scored, start = [], 0
        for group in groups:
            end = start + len(group.completions)
            breakdown = {name: column[start:end] for name, column in columns.items()}
            totals = tuple(
                self._total({name: scores[place] for name, scores in breakdown.items()}) for place in range(end - start)
            )
            scored.append(ScoredGroup(group, totals, breakdown))
            start = end
        return scored

    def _total(self, scores: Mapping[str, RewardScore]) -> float:
        """The weighted sum, or NaN where a part is no honest reward."""
        if not all(score.outcome.counts for score in scores.values()):
            return math.nan
        return sum(self.weights[name] * score.value for name, score in scores.items())
