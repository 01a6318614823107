"""What a sick run is sick of, as far as its rollouts show it; see :mod:`.causes`."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import correlation, fmean

from lightning_r1.callbacks.causes import Cause, RolloutFacts, Sight


@dataclass(kw_only=True)
class RolloutCause(Cause):
    """A cause that every rollout shows."""

    def look(self, sight: Sight) -> str | None:
        """See :meth:`.Cause.look`; steps without a rollout tell nothing."""
        return None if sight.rollout is None else self.sick(sight.rollout, sight)

    def sick(self, facts: RolloutFacts, sight: Sight) -> str | None:
        """A sentence, an empty one, or None where this rollout tells nothing."""
        raise NotImplementedError


@dataclass(kw_only=True)
class AllTruncated(RolloutCause):
    """Nearly every completion runs into the token limit.

    Args:
        fraction: of completions.
    """

    fraction: float
    hint = "raise algo.sampling.max_new_tokens, or look at template.stop: the model may never write a stop token"

    def sick(self, facts: RolloutFacts, sight: Sight) -> str:
        """At least the fraction."""
        cut, length = sight.numbers["rollout/truncated_fraction"], sight.numbers["rollout/length_mean"]
        return (
            f"{cut:.0%} of the completions ran into the limit, at {length:.0f} tokens" if cut >= self.fraction else ""
        )


@dataclass(kw_only=True)
class NoStopToken(RolloutCause):
    """Model, template and engine do not agree where a completion ends."""

    hint = "add the token that the model ends with to template.stop"

    def sick(self, facts: RolloutFacts, sight: Sight) -> str:
        """The model's end stops nothing, or completions end where nothing stops them."""
        if sight.foreign_end:
            return f"the model ends with token {' or '.join(map(str, sight.foreign_end))}, at which nothing stops"
        return f"{facts.unstopped:.0%} of the completions ended without a stop token" if facts.unstopped else ""


@dataclass(kw_only=True)
class ConstantReward(RolloutCause):
    """Every completion of every group earns the same, and it is not the most that any has earned."""

    hint = "look at rollouts/ and the reward function: is an answer found, is the gold right, is a model loaded?"
    best: float = field(default=-math.inf, init=False)
    varied: bool = field(default=False, init=False)

    def sick(self, facts: RolloutFacts, sight: Sight) -> str | None:
        """Unless the task is solved."""
        same, solved = self._same(facts), self._solved(facts)
        self._remember(facts)
        if same is None or not sight.by_reward:
            return None
        return f"every reward is {facts.lowest:g}" if same and not solved else ""

    def _same(self, facts: RolloutFacts) -> bool | None:
        return None if math.isnan(facts.lowest) else facts.lowest == facts.highest

    def _solved(self, facts: RolloutFacts) -> bool:
        return self.varied and facts.lowest >= self.best

    def _remember(self, facts: RolloutFacts) -> None:
        if not math.isnan(facts.highest):
            self.best = max(self.best, facts.highest)
            self.varied |= facts.lowest < facts.highest


@dataclass(kw_only=True)
class Solved(ConstantReward):
    """Every completion earns as much as the best of the run: nothing is left to learn."""

    hint = "nothing is left to learn from these prompts: end the run, or take harder ones"

    def sick(self, facts: RolloutFacts, sight: Sight) -> str | None:
        """The counterpart of :class:`ConstantReward`."""
        same, solved = self._same(facts), self._solved(facts)
        self._remember(facts)
        if same is None or not sight.by_reward:
            return None
        return f"every completion earns {facts.lowest:g}, as much as the best so far" if same and solved else ""


@dataclass(kw_only=True)
class DeadGroups(RolloutCause):
    """Rewards differ, but in no group: there is no advantage.

    Args:
        fraction: of the groups that were sampled.
    """

    fraction: float
    hint = "take prompts that are neither too easy nor too hard, a larger algo.sampling.group_size, or refill"

    def sick(self, facts: RolloutFacts, sight: Sight) -> str | None:
        """Where all rewards are one, that is told instead."""
        if not sight.by_reward:
            return None
        dead = sight.numbers["rollout/dead_group_fraction"]
        return f"{dead:.0%} of the groups have equal rewards" if dead >= self.fraction and _differ(facts) else ""


def _differ(facts: RolloutFacts) -> bool:
    return facts.lowest < facts.highest


@dataclass(kw_only=True)
class WrongFormat(RolloutCause):
    """A reward finds nothing to score in nearly all completions.

    Args:
        fraction: of its scores.
    """

    fraction: float
    hint = "look at rollouts/: the template's tags, template.prefill or algo.sampling.max_new_tokens may not fit"

    def sick(self, facts: RolloutFacts, sight: Sight) -> str:
        """The worst of the rewards."""
        name = max(facts.wrong_format, key=lambda reward: facts.wrong_format[reward], default="")
        share = facts.wrong_format.get(name, 0.0)
        return f"{name} found nothing to score in {share:.0%} of the completions" if share >= self.fraction else ""


@dataclass(kw_only=True)
class UnsyncedWeights(RolloutCause):
    """Completions are of older weights than those that learn from them.

    Args:
        age: optimizer steps that are allowed.
    """

    age: int
    hint = "the engine does not take the policy's weights: look at its sync_weights"

    def sick(self, facts: RolloutFacts, sight: Sight) -> str:
        """Older than allowed."""
        return f"completions are of weights {facts.age} steps ago" if facts.age > self.age else ""


@dataclass(kw_only=True)
class ThinkingCollapse(RolloutCause):
    """The policy has all but stopped thinking.

    Args:
        fraction: of the longest that it thought in this run.
        window: rollouts of which means are taken.
    """

    fraction: float
    window: int = 5
    hint = "short answers pay: look at rollouts/, at rewards of length, and at how easy the prompts are"
    recent: list[float] = field(default_factory=list, init=False)
    peak: float = field(default=0.0, init=False)

    def sick(self, facts: RolloutFacts, sight: Sight) -> str | None:
        """Below the fraction of the peak."""
        mean = _moving_mean(self.recent, sight.numbers["rollout/think_length_mean"], self.window)
        if mean is None:
            return None
        self.peak = max(self.peak, mean)
        low = mean < self.fraction * self.peak
        return f"thinking has {mean:.1f} tokens, and had {self.peak:.1f}" if low else ""


@dataclass(kw_only=True)
class RepetitionGrowth(RolloutCause):
    """Completions repeat themselves more and more: length is won by going in circles.

    Args:
        growth: of the share of repeated n-grams, over the least of this run.
        window: rollouts of which means are taken.
    """

    growth: float
    window: int = 5
    hint = "add lightning_r1.rewards.repetition.Repetition, or lower what length earns (reward=cosine, overlong)"
    recent: list[float] = field(default_factory=list, init=False)
    least: float = field(default=1.0, init=False)

    def sick(self, facts: RolloutFacts, sight: Sight) -> str | None:
        """Grown beyond the bound."""
        mean = _moving_mean(self.recent, facts.repetition, self.window)
        if mean is None:
            return None
        self.least = min(self.least, mean)
        return f"{mean:.0%} of what is written stood before" if mean > self.least + self.growth else ""


@dataclass(kw_only=True)
class PreferenceDrift(RolloutCause):
    """Preference rewards rise while rule rewards fall: the reward model is being hacked (R1 paper v2, figure 6).

    Args:
        window: rollouts that are looked at.
        agreement: Spearman's rank correlation with time that a rise, and its negative that a fall, has at least.
        fall: of the rule rewards' mean, from the first to the last fifth of the window.
    """

    window: int
    agreement: float
    fall: float
    hint = "end the stage earlier (the paper: 400 steps), lower the preference rewards' weights, or raise algo.kl_coef"
    preference: list[float] = field(default_factory=list, init=False)
    rules: list[float] = field(default_factory=list, init=False)

    def sick(self, facts: RolloutFacts, sight: Sight) -> str | None:
        """Both trends are clear, and the fall is large."""
        if math.isnan(facts.preference) or math.isnan(facts.rules):
            return None
        self.preference = [*self.preference, facts.preference][-self.window :]
        self.rules = [*self.rules, facts.rules][-self.window :]
        if len(self.rules) < self.window:
            return None
        fifth = max(self.window // 5, 1)
        before, after = fmean(self.rules[:fifth]), fmean(self.rules[-fifth:])
        up, down = trend(self.preference), -trend(self.rules)
        if min(up, down) < self.agreement or before - after < self.fall:
            return ""
        return (
            f"over {self.window} rollouts preference rewards rise, rule rewards fall from {before:.2f} to {after:.2f}"
        )


def trend(values: Sequence[float]) -> float:
    """Spearman's rank correlation with time, -1 to 1; 0 where all values are equal.

    >>> trend([1, 2, 4, 3]), trend([5, 5, 5])
    (0.8, 0.0)
    """
    if len(set(values)) < 2:
        return 0.0
    # values of one size share the mean of their ranks
    order = sorted(values)
    ranks = [bisect_left(order, value) + bisect_right(order, value) for value in values]
    return correlation(range(len(values)), ranks)


def _moving_mean(recent: list[float], value: float, window: int) -> float | None:
    """Mean of the last values, this one included; None as long as they are fewer."""
    if not math.isnan(value):
        recent.append(value)
    del recent[:-window]
    return fmean(recent) if len(recent) == window else None
