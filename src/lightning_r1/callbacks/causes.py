"""What a sick run is sick of, as far as each optimizer step shows it; :mod:`.rollout_causes` has the others.

A cause looks at every step and says what it sees: a sentence with numbers where the run is sick, nothing where it is
healthy, None where the step tells nothing about it. Only what is seen ``warn_after`` times in a row is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """What a rollout was like over all ranks, besides its metrics."""

    lowest: float
    """Of the summed rewards that are honest; NaN where there is none."""
    highest: float
    wrong_format: Mapping[str, float]
    """By reward, the share of scores that found nothing to score."""
    unstopped: float
    """Share of completions that ended before the token limit without a stop token."""
    age: int
    """Steps by which the oldest completion's weights are behind the policy that learns from it."""
    repetition: float
    """Share of repeated n-grams in a few completions."""
    preference: float = float("nan")
    """Mean of the rewards that are models or for general prompts, NaN without."""
    rules: float = float("nan")
    """Mean of the rewards by rules that reasoning prompts have, NaN without."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a step shows."""

    numbers: Mapping[str, float]
    """The step's metrics; those of the rollout only where it began with one."""
    steps_left: int = 1
    rollout: RolloutFacts | None = None
    """Of the rollout that the step began with, if it did."""
    teaches: bool = True
    """Whether there is an advantage in the experience that the step learned from."""
    by_reward: bool = True
    """Whether the phase learns from rewards; a distillation only logs them."""
    exact: bool = True
    """Whether the engine's log-probabilities are the trainer's own numbers."""
    foreign_end: tuple[int, ...] = ()
    """The model's own end tokens, if none of them stops a completion."""


@dataclass(kw_only=True)
class Cause:
    """A way to be sick.

    Args:
        warn_after: sights in a row until it is told.
        stop_after: sights in a row until the run is ended; null never ends it.

    Raises:
        ValueError: for counts that are not in order.
    """

    warn_after: int
    stop_after: int | None = None
    count: int = field(default=0, init=False)
    told: bool = field(default=False, init=False)

    of_rollouts: ClassVar[bool] = True
    """Whether only phases with rollouts can have it."""
    unit: ClassVar[str] = "rollout"
    hint: ClassVar[str] = ""
    """What to do."""

    def __post_init__(self) -> None:
        """Refuse what can never be told."""
        name = f"watchdog, {type(self).__name__}"
        if self.warn_after < 1:
            raise ValueError(f"{name}: warn_after={self.warn_after}, expected >= 1")
        if self.stop_after is not None and self.stop_after < self.warn_after:
            raise ValueError(f"{name}: stop_after={self.stop_after}, expected >= warn_after={self.warn_after} or null")

    def look(self, sight: Sight) -> str | None:
        """A sentence where the run is sick of it, an empty one where it is not, None where this tells nothing."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Whatever it remembers."""
        return {name: _copied(getattr(self, name)) for name in self._memory()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember it again; what another version of the cause remembered is left out."""
        for name in self._memory():
            if name in state:
                setattr(self, name, _copied(state[name]))

    def _memory(self) -> list[str]:
        return [item.name for item in fields(self) if not item.init]


def _copied(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


@dataclass(kw_only=True)
class StepCause(Cause):
    """A cause that every step shows, by one of its metrics."""

    metric: ClassVar[str] = ""
    unit: ClassVar[str] = "step"

    def look(self, sight: Sight) -> str | None:
        """See :meth:`Cause.look`; a metric that is not there tells nothing."""
        value = sight.numbers.get(self.metric)
        if value is None or not self.applies(sight):
            return None
        return self.sick(value, sight)

    def applies(self, sight: Sight) -> bool:
        """Whether the step can tell."""
        return True

    def sick(self, value: float, sight: Sight) -> str:
        """A sentence, or an empty one."""
        raise NotImplementedError


@dataclass(kw_only=True)
class ZeroGradient(StepCause):
    """Advantages are there, and no parameter has a gradient."""

    metric = "optim/grad_norm"
    of_rollouts = False
    hint = "no parameter learns: look for frozen weights, masked rows (algo.mask_truncated), or a loss that is cut off"

    def applies(self, sight: Sight) -> bool:
        """A rollout without any advantage has another cause."""
        return sight.teaches

    def sick(self, value: float, sight: Sight) -> str:
        """Exactly 0."""
        return "the gradient is 0" if value == 0 else ""


@dataclass(kw_only=True)
class ZeroLearningRate(StepCause):
    """The learning rate is 0 and steps remain."""

    metric = "optim/lr"
    of_rollouts = False
    hint = "nothing is learned: look at optim.lr and the schedule (warmup_steps, final_fraction, decay_fraction)"

    def sick(self, value: float, sight: Sight) -> str:
        """Exactly 0."""
        return f"the learning rate is 0 and {sight.steps_left} steps remain" if value == 0 and sight.steps_left else ""


@dataclass(kw_only=True)
class LogprobGap(StepCause):
    """An engine in this process whose log-probabilities are not the trainer's.

    Args:
        gap: mean absolute difference in nats a token. Rounding is 1e-6 in float32, about 1e-2 in bfloat16.
    """

    gap: float
    metric = "policy/logprob_gap"
    hint = "sampler and trainer are not the same policy: unsynced weights, another temperature, or dropout"

    def applies(self, sight: Sight) -> bool:
        """Another program's numbers are never quite ours, and are corrected for that."""
        return sight.exact

    def sick(self, value: float, sight: Sight) -> str:
        """Above the bound."""
        return f"sampler and trainer differ by {value:.3g} nats a token" if value > self.gap else ""


@dataclass(kw_only=True)
class EntropyCollapse(StepCause):
    """The policy is certain of every token: groups become alike.

    Args:
        entropy: nats a token.
    """

    entropy: float
    metric = "policy/entropy"
    hint = "raise algo.clip_high or algo.entropy_coef, or lower the learning rate; a solved task ends like this too"

    def sick(self, value: float, sight: Sight) -> str:
        """Below the bound."""
        return f"the entropy is {value:.2g} nats a token" if value < self.entropy else ""


@dataclass(kw_only=True)
class KLExplosion(StepCause):
    """The policy has left the reference.

    Args:
        kl: nats a token. Single steps may be higher: the estimate has a long tail.
    """

    kl: float
    metric = "policy/kl_ref"
    hint = "lower the learning rate, raise algo.kl_coef, or refresh the reference (algo.reference_refresh_steps)"

    def sick(self, value: float, sight: Sight) -> str:
        """Above the bound."""
        return f"the KL to the reference is {value:.3g} nats a token" if value > self.kl else ""


@dataclass(kw_only=True)
class RatioExplosion(StepCause):
    """Some token became many times likelier since it was sampled.

    Args:
        ratio: the largest of a step.
    """

    ratio: float
    metric = "policy/ratio_max"
    hint = "lower the learning rate or algo.minibatches_per_rollout, or set algo.dual_clip"

    def sick(self, value: float, sight: Sight) -> str:
        """Above the bound."""
        return f"the largest ratio is {value:.3g}" if value > self.ratio else ""


@dataclass(kw_only=True)
class MostlyClipped(StepCause):
    """The clip takes the gradient of most tokens away.

    Args:
        fraction: of tokens.
    """

    fraction: float
    metric = "policy/clip_fraction_low"
    hint = "lower the learning rate or algo.num_iterations, or raise algo.clip_low and algo.clip_high"

    def sick(self, value: float, sight: Sight) -> str:
        """Above the bound, both sides together."""
        value += sight.numbers.get("policy/clip_fraction_high", 0.0)
        return f"{value:.0%} of the tokens are clipped" if value > self.fraction else ""
