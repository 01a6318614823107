"""All rewards of a run: each runs over the completions it is for, then they are added with their weights.

R1 adds its rewards directly (arXiv 2501.12948, section 2.2 and eq. 4): weights exist, and are 1
unless said otherwise. Which rewards a completion gets is decided by its prompt's domain (v2, eq. 8 to
10: rules on reasoning prompts, a reward model on general ones). A reward that is not for a prompt is
*absent* from its breakdown: neither 0, which would count in means, nor NaN, which would spoil the sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from lightning_r1.rewards.base import (
    BatchReward,
    InProcessScorer,
    Item,
    Pending,
    Reward,
    RewardError,
    Scorer,
    at_once,
    attribute,
)
from lightning_r1.rewards.outcomes import NEVER, StopAt
from lightning_r1.rewards.threads import ThreadScorer
from lightning_r1.types import Domain, Group, Prompt, RewardScore, ScoredGroup

DOMAINS: tuple[str, ...] = get_args(Domain)
Routes = Mapping[str, Sequence[str]]


class RewardSuite:
    """Named rewards and their weights.

    Args:
        rewards: by name.
        weights: by name; 1 where nothing is said.
        scorer: where rules run; a reward that only waits runs in threads of this process, and a
            :class:`.BatchReward` at the end of a rollout, whatever the scorer. It is closed with the suite.
        routes: by name, the domains a reward is for; every domain where nothing is said.
        stop_at: shares of failed scores at which the run should stop; for those who hold whole rollouts.

    Raises:
        ValueError: if there is no reward, a weight or a route names none, or a route no domain.
    """

    def __init__(
        self,
        rewards: Mapping[str, Reward],
        weights: Mapping[str, float] | None = None,
        scorer: Scorer | None = None,
        routes: Routes | None = None,
        stop_at: StopAt = NEVER,
    ) -> None:
        if not rewards:
            raise ValueError("reward.rewards is empty: there is nothing to learn from; name at least one reward")
        unknown = set(weights or ()) - set(rewards)
        if unknown:
            raise ValueError(f"reward.weights names {sorted(unknown)}, but the rewards are {sorted(rewards)}")
        check_routes(rewards, routes or {})
        self.rewards = dict(rewards)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in rewards}
        self.routes = {name: tuple((routes or {}).get(name, DOMAINS)) for name in rewards}
        self.scorer: Scorer = scorer or InProcessScorer()
        self.stop_at = stop_at
        self._threads = ThreadScorer()
        self._started = False

    def asked(self, prompt: Prompt) -> Iterator[str]:
        """Names of the rewards that are for a prompt."""
        return (name for name in self.rewards if self._is_for(name, prompt))

    def _is_for(self, name: str, prompt: Prompt) -> bool:
        is_for = attribute(self.rewards[name], "is_for")
        return prompt.domain in self.routes[name] and (is_for is None or is_for(prompt))

    def expect(self, prompts: Sequence[Prompt]) -> None:
        """Told what will be asked, rewards and their workers begin to get ready; does not wait for them.

        Raises:
            ValueError: see :meth:`check_covers`.
            RewardError: if a reward cannot run where it should.
        """
        self.check_covers(prompts)
        for name, reward in self.rewards.items():
            if expect := attribute(reward, "expect"):
                expect([prompt for prompt in prompts if self._is_for(name, prompt)])
        self.scorer.prepare(self._rules())

    def check_covers(self, prompts: Iterable[Prompt]) -> None:
        """Refuse prompts that no reward is for: their completions would all be worth the same.

        Raises:
            ValueError: names the first kind of prompt without a reward.
        """
        for prompt in prompts:
            if next(self.asked(prompt), None) is not None:
                continue
            if not any(prompt.domain in domains for domains in self.routes.values()):
                raise ValueError(
                    f"reward.routes: there are {prompt.domain} prompts, but no reward is for them; add "
                    f"{prompt.domain!r} to a reward's domains, or leave these prompts out of the data"
                )
            raise ValueError(
                f"reward.rewards: no reward is for prompts like {prompt.id!r}, whose answers are "
                f"{prompt.answer.get('kind', 'of no kind')!r}; add one that is, or leave these prompts out of the data"
            )

    def to(self, device: Any) -> None:
        """Move the rewards that are models to the device of the rollout."""
        for reward in self.rewards.values():
            if move := getattr(reward, "to", None):
                move(device)

    def start(self) -> None:
        """Let the rewards prove themselves, and get ready to ask them. Done once; again it does nothing.

        Raises:
            RewardError: names the first that cannot be used, and why.
        """
        if self._started:
            return
        self.scorer.prepare(self._rules())
        for name, reward in self.rewards.items():
            if start := attribute(reward, "start"):
                try:
                    start()
                except (ValueError, RuntimeError) as error:
                    raise RewardError(f"reward.rewards.{name}: {error}") from error
        self.scorer.start(self._rules())
        self._started = True

    def watch(self, step: int) -> dict[str, float]:
        """What the rewards have to say about themselves after a rollout, by log name.

        Args:
            step: optimizer steps so far.

        Raises:
            RewardError: if one of them wants the run to stop.
        """
        metrics: dict[str, float] = {}
        for name, reward in self.rewards.items():
            if watch := attribute(reward, "watch"):
                try:
                    metrics |= watch(step)
                except (ValueError, RuntimeError) as error:
                    raise RewardError(f"reward.rewards.{name}: {error}") from error
        return metrics

    def close(self) -> None:
        """Let go of whatever the rewards and their scorers hold."""
        self._threads.close()
        self.scorer.close()
        for reward in self.rewards.values():
            if close := attribute(reward, "close"):
                close()

    def open(self) -> Scoring:
        """Begin to score a rollout that is still being sampled."""
        self.start()
        return Scoring(self)

    def score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Rewards of every completion of every group; a breakdown holds those that its prompt has."""
        scoring = self.open()
        for place, group in enumerate(groups):
            scoring.add(place, group)
        return scoring.result()

    def scorer_of(self, reward: Reward) -> Scorer:
        """Where a reward runs that is no :class:`.BatchReward`."""
        return self.scorer if self._is_a_rule(reward) else self._threads

    def _rules(self) -> list[tuple[str, Reward]]:
        return [(name, reward) for name, reward in self.rewards.items() if self._is_a_rule(reward)]

    @staticmethod
    def _is_a_rule(reward: Reward) -> bool:
        return not isinstance(reward, BatchReward) and not at_once(reward)

    def total(self, scores: Mapping[str, RewardScore]) -> float:
        """The weighted sum, or NaN where a part is no honest reward."""
        if not all(score.outcome.counts for score in scores.values()):
            return math.nan
        return sum(self.weights[name] * score.value for name, score in scores.items())


class Scoring:
    """The rewards of a rollout whose groups are whole one after the other; see :meth:`RewardSuite.open`.

    What takes time elsewhere begins when a group is added. What runs here, on the device that samples,
    waits for the end.
    """

    def __init__(self, suite: RewardSuite) -> None:
        self._suite = suite
        self._groups: dict[int, Group] = {}
        self._pending: dict[int, dict[str, Pending | None]] = {}

    def add(self, place: int, group: Group) -> None:
        """Begin to score a group; ``place`` is that of its prompt."""
        items = _items(group)
        self._groups[place] = group
        # a batch reward has its name in the breakdown, and is asked at the end
        self._pending[place] = {
            name: None if isinstance(reward, BatchReward) else self._suite.scorer_of(reward).begin(name, reward, items)
            for name in self._suite.asked(group.prompt)
            for reward in [self._suite.rewards[name]]
        }

    def result(self) -> list[ScoredGroup]:
        """All groups with their rewards, in the order of places.

        Raises:
            RewardError: if a reward cannot be asked at all.
        """
        together = self._together()
        scored = []
        for place in sorted(self._groups):
            group = self._groups[place]
            breakdown = {
                name: [next(together[name]) for _ in group.completions] if pending is None else pending.result()
                for name, pending in self._pending[place].items()
            }
            totals = (
                self._suite.total({name: scores[number] for name, scores in breakdown.items()})
                for number in range(len(group.completions))
            )
            scored.append(ScoredGroup(group, tuple(totals), breakdown))
        return scored

    def _together(self) -> dict[str, Iterator[RewardScore]]:
        """The scores of each batch reward, over all groups that it is for."""
        items: dict[str, list[Item]] = {}
        for place in sorted(self._groups):
            for name, pending in self._pending[place].items():
                if pending is None:
                    items.setdefault(name, []).extend(_items(self._groups[place]))
        here = InProcessScorer()
        return {
            name: iter(here.score(name, self._suite.rewards[name], items[name]) if items[name] else ())
            for name in items
        }


def _items(group: Group) -> list[Item]:
    return [(group.prompt, completion) for completion in group.completions]


def check_routes(rewards: Iterable[str], routes: Routes) -> None:
    """Refuse routes of rewards or to domains that do not exist.

    Raises:
        ValueError: names the key, the value and what there is.
    """
    for name, domains in routes.items():
        if name not in rewards:
            raise ValueError(f"reward.routes.{name}: there is no such reward; the rewards are {sorted(rewards)}")
        if isinstance(domains, str) or not domains:
            raise ValueError(f"reward.routes.{name}={domains!r}: expected a list of domains out of {list(DOMAINS)}")
        unknown = [domain for domain in domains if domain not in DOMAINS]
        if unknown:
            raise ValueError(f"reward.routes.{name}: {unknown[0]!r} is no domain; choose from {list(DOMAINS)}")
