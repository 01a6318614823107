"""Every choice that makes a policy-gradient run what it is; the presets are in ``conf/algo/``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lightning_r1.experience.collect import Credit, DeadGroups
from lightning_r1.functional.advantages import Baseline, Std
from lightning_r1.functional.importance import CorrectionLevel
from lightning_r1.functional.kl import KLEstimator
from lightning_r1.functional.policy_loss import Objective, RatioLevel
from lightning_r1.functional.reduction import Reduction
from lightning_r1.types import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """Sampling, credit, objective and reference of a GRPO run."""

    prompts_per_rollout: int = 32
    """B, over all ranks."""
    minibatches_per_rollout: int = 1
    """Optimizer steps in one pass over a rollout."""
    num_iterations: int = 1
    """Passes over a rollout."""
    whole_groups: bool = False
    """The completions of a prompt are in the same minibatch, where it is computed once; the paper deals at random."""
    sampling: Sampling = field(default_factory=Sampling)

    std: Std = "sample"
    baseline: Baseline = "mean"
    per_reward: bool = False
    """Normalise each reward within its group before they are added (GDPO)."""
    dead_groups: DeadGroups = "keep"
    """What happens to groups whose rewards are all equal, see :class:`.Credit`."""
    max_refills: int = 4
    keep_surplus: bool = False
    """Informative groups that a refill gave beyond what the rollout needed wait for the next ones. They are of
    older weights then."""
    max_queue_age: int = 1
    """Rollouts after which a waiting group is dropped."""
    overlap_rollouts: bool = False
    """The next rollout is sampled while this one trains, by the weights that this one began with: every rollout
    but the first is of the weights of one rollout ago."""
    mask_truncated: bool = False
    """Leave completions that ran into the token limit out of the update."""

    objective: Objective = "clip"
    ratio_level: RatioLevel = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    reduction: Reduction = "sequence_mean"
    entropy_coef: float = 0.0

    kl_coef: float = 0.0
    """Weight of the KL to the reference; at 0 no reference is held."""
    kl_estimator: KLEstimator = "k3"
    reference_refresh_steps: int = 0
    """The reference becomes the policy at the first rollout so many steps later; 0 is never."""

    sampler_correction: Literal["none", "truncate", "mask"] = "none"
    correction_level: CorrectionLevel = "token"
    correction_low: float = 0.0
    correction_high: float = 2.0
    off_policy_threshold: float | None = None
    """Leave out completions of negative advantage that drifted further, in nats a token."""

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        for name in ("prompts_per_rollout", "minibatches_per_rollout", "num_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"algo.{name}={getattr(self, name)}: expected >= 1")
        if self.max_queue_age < 1:
            raise ValueError(f"algo.max_queue_age={self.max_queue_age}: expected >= 1 (rollouts)")

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer steps between two rollouts."""
        return self.minibatches_per_rollout * self.num_iterations

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether the policy moves between sampling and an update. If not, the log-probabilities of
        the step itself, detached, are the old ones, and a forward is saved. They are those of the policy when
        the rollout's first update begins; to what sampled before, the sampler correction is made."""
        return self.updates_per_rollout > 1 or self.steps_behind > 0

    @property
    def queue_age(self) -> int:
        """Rollouts that a surplus group may wait."""
        return self.max_queue_age if self.keep_surplus else 0

    @property
    def steps_behind(self) -> int:
        """Optimizer steps by which the weights that sampled a completion may be behind the rollout that uses it."""
        return self.updates_per_rollout * (self.queue_age + self.overlap_rollouts)

    @property
    def credit(self) -> Credit:
        """The part that turns rewards into advantages."""
        return Credit(
            std=self.std,
            baseline=self.baseline,
            per_reward=self.per_reward,
            dead_groups=self.dead_groups,
            max_refills=self.max_refills,
            mask_truncated=self.mask_truncated,
        )
