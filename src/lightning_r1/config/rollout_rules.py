"""Rules for rollouts that learn from completions of older weights: a queue of groups, overlapped rollouts."""

from __future__ import annotations

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get
from lightning_r1.config.schema import locate


def older_completions_are_corrected(config: Config) -> None:
    """What older weights sampled is weighted for the policy that has moved on."""
    for key in ("overlap_rollouts", "keep_surplus"):
        if get(config, f"algo.{key}") and get(config, "algo.sampler_correction") == "none":
            raise ConfigError(
                f"algo.{key}=true: it trains on completions of older weights; correct for that with "
                "algo.sampler_correction=truncate"
            )


def a_surplus_comes_from_refills(config: Config) -> None:
    """Without refills every rollout uses all that it samples."""
    if get(config, "algo.keep_surplus") and get(config, "algo.dead_groups") != "refill":
        raise ConfigError(
            f"algo.keep_surplus=true: with algo.dead_groups={get(config, 'algo.dead_groups')} there is no surplus; set "
            "algo.dead_groups=refill or algo.keep_surplus=false"
        )


def overlapped_rollouts_do_not_meet_the_update(config: Config) -> None:
    """An engine beside the update has weights and random numbers of its own."""
    target = get(config, "rollout._target_")
    if not get(config, "algo.overlap_rollouts") or target is None:
        return
    engine = locate(target, "rollout._target_")
    if not (getattr(engine, "beside_training", False) or getattr(engine, "can_have_own_weights", False)):
        raise ConfigError(
            f"algo.overlap_rollouts=true: {target} cannot sample while the policy trains; choose rollout=group, or "
            "algo.overlap_rollouts=false"
        )


ROLLOUT_RULES = (
    older_completions_are_corrected,
    a_surplus_comes_from_refills,
    overlapped_rollouts_do_not_meet_the_update,
)
