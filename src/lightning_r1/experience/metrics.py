"""What a rollout was like, over all ranks, under the fixed log names."""

from __future__ import annotations

import math
from collections import Counter
from statistics import fmean

from lightning_r1.experience.collect import Rollout
from lightning_r1.models.codec import Codec
from lightning_r1.parallel.collectives import all_gather
from lightning_r1.rollout.statistics import completion_statistics
from lightning_r1.types import Outcome


def rollout_metrics(rollout: Rollout, codec: Codec) -> dict[str, float]:
    """``rollout/...`` and ``time/...`` numbers of one rollout.

    Means are over the completions in the buffer of all ranks; ``rollout/outcome/<kind>`` is a share
    of all scores; ``rollout/dead_group_fraction`` a share of all groups that were sampled; seconds
    are the slowest rank's.
    """
    completions = [completion for scored in rollout.scored for completion in scored.group.completions]
    rewards = [reward for scored in rollout.scored for reward in scored.rewards if not math.isnan(reward)]
    breakdown = {
        name: [score.value for scored in rollout.scored for score in scored.breakdown[name] if score.outcome.counts]
        for name in rollout.scored[0].breakdown
    }
    outcomes = Counter(
        score.outcome for scored in rollout.scored for column in scored.breakdown.values() for score in column
    )
    of_rank = completion_statistics(completions, codec) | {
        "reward_mean": _mean(rewards),
        **{f"reward/{name}": _mean(values) for name, values in breakdown.items()},
        **{f"outcome/{kind}": outcomes[kind] / outcomes.total() for kind in Outcome},
        "dead_group_fraction": rollout.dead_groups / rollout.sampled_groups,
    }
    seconds = {"time/rollout_s": rollout.generation_seconds, "time/reward_s": rollout.reward_seconds}
    everybody = all_gather((len(completions), of_rank, seconds))
    rows = sum(count for count, _, _ in everybody)
    means = {
        f"rollout/{name}": sum(count * numbers[name] for count, numbers, _ in everybody) / rows for name in of_rank
    }
    return means | {name: max(times[name] for _, _, times in everybody) for name in seconds}


def _mean(values: list[float]) -> float:
    return fmean(values) if values else math.nan
