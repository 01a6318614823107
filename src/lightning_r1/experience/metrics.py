"""What a rollout was like, over all ranks, under the fixed log names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from lightning_r1.experience.collect import Rollout
from lightning_r1.experience.queue import GroupQueue
from lightning_r1.models.codec import Codec
from lightning_r1.parallel.collectives import all_gather
from lightning_r1.rollout.statistics import completion_statistics
from lightning_r1.types import Completion, Outcome, ReplyKind, RewardScore


def rollout_metrics(rollout: Rollout, codec: Codec) -> dict[str, float]:
    """``rollout/...`` and ``time/...`` numbers of one rollout.

    Means are over the completions in the buffer of all ranks, of rewards over those that were scored:
    ``rollout/reward/<name>`` over completions of prompts it is for, and not there without any.
    ``rollout/outcome/<kind>`` is a share of all scores, ``rollout/outcome/<name>/<kind>`` of one reward's;
    ``rollout/dead_group_fraction`` a share of all groups that were sampled; seconds are the slowest rank's,
    ``time/reward_s`` those by which scoring outlasted sampling. With an environment there are besides
    ``rollout/turns_mean``, ``rollout/reply_length_mean`` and ``rollout/tool/<kind>``, a share of all replies.
    """
    completions = [completion for scored in rollout.scored for completion in scored.group.completions]
    rewards = [reward for scored in rollout.scored for reward in scored.rewards if not math.isnan(reward)]
    scores: dict[str, list[RewardScore]] = {}
    for scored in rollout.scored:
        for name, column in scored.breakdown.items():
            scores.setdefault(name, []).extend(column)
    outcomes = {name: Counter(score.outcome for score in column) for name, column in scores.items()}
    of_all = sum(outcomes.values(), Counter[Outcome]())

    # (sum, count) of each: ranks may differ in how much they scored, so that means are taken last
    parts = {
        name: (mean * len(completions), len(completions))
        for name, mean in completion_statistics(completions, codec).items()
    }
    parts |= _of_environment(completions)
    parts["reward_mean"] = (sum(rewards), len(rewards))
    for name, column in scores.items():
        honest = [score.value for score in column if score.outcome.counts]
        parts[f"reward/{name}"] = (sum(honest), len(honest))
    parts |= {f"outcome/{kind}": (of_all[kind], of_all.total()) for kind in Outcome}
    for name, of_reward in outcomes.items():
        parts |= {f"outcome/{name}/{kind}": (of_reward[kind], of_reward.total()) for kind in Outcome}
    parts["dead_group_fraction"] = (rollout.dead_groups, rollout.sampled_groups)
    seconds = {"time/rollout_s": rollout.generation_seconds, "time/reward_s": rollout.reward_seconds}

    everybody = all_gather((parts, seconds))
    # a rank may have no prompt that some reward is for
    names = dict.fromkeys(name for of_rank, _ in everybody for name in of_rank)
    means = {f"rollout/{name}": _mean([of_rank.get(name, (0, 0)) for of_rank, _ in everybody]) for name in names}
    return means | {name: max(times[name] for _, times in everybody) for name in seconds}


def _of_environment(completions: Sequence[Completion]) -> dict[str, tuple[float, int]]:
    """``rollout/turns_mean``, ``rollout/reply_length_mean`` a completion, and ``rollout/tool/<kind>`` of all replies.

    Nothing without an environment.
    """
    episodes = [one for one in completions if one.sampled is not None]
    if not episodes:
        return {}
    kinds = Counter(kind for one in episodes for kind in one.replies)
    return {
        "turns_mean": (sum(1 + len(one.replies) for one in episodes), len(episodes)),
        "reply_length_mean": (sum(len(one.token_ids) - one.length for one in episodes), len(episodes)),
        **{f"tool/{kind}": (kinds[kind], kinds.total()) for kind in get_args(ReplyKind)},
    }


def staleness_metrics(rollout: Rollout, queue: GroupQueue, *, step: int) -> dict[str, float]:
    """How old the completions of a rollout are, where they may be of older weights; over all ranks.

    ``rollout/staleness_mean`` in optimizer steps; ``rollout/queued_groups`` wait for a later rollout;
    ``time/rollout_wait_s`` is what sampling beside the update lasted longer than the update, on the slowest rank.

    Args:
        rollout: this rank's part.
        queue: of this rank, after the rollout.
        step: of the weights that will learn from it.
    """
    ages = [step - one.policy_version for scored in rollout.scored for one in scored.group.completions]
    everybody = all_gather(((sum(ages), len(ages)), len(queue), rollout.waited_seconds))
    of_ages, queued, waits = zip(*everybody, strict=True)
    waited = {} if None in waits else {"time/rollout_wait_s": max(waits)}
    return {
        "rollout/staleness_mean": _mean(list(of_ages)),
        "rollout/queued_groups": float(sum(queued)),
        **waited,
    }


def _mean(parts: list[tuple[float, int]]) -> float:
    count = sum(number for _, number in parts)
    return sum(total for total, _ in parts) / count if count else math.nan
