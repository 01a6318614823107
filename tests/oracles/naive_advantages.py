"""Group-relative advantages by loops, with Python's own ``statistics``.

DeepSeekMath (arXiv 2402.03300) section 4.1.2; RLOO (arXiv 2402.14740); GDPO normalises each reward
first. ``rewards`` is a list of groups; NaN marks a completion that could not be scored.
"""

import math
import statistics


def naive_advantages(rewards, *, std="sample", baseline="mean", epsilon=1e-4):
    """One list of advantages a group.

    >>> naive_advantages([[3.0, 1.0]], std="none")
    [[1.0, -1.0]]
    """
    return [_group(group, std, baseline, epsilon) for group in rewards]


def naive_per_reward_advantages(rewards, weights, *, std="sample", epsilon=1e-4):
    """``rewards[b][g][k]``: normalise each k within its group, add, normalise over everything."""
    batch, group_size, kinds = len(rewards), len(rewards[0]), len(weights)
    flat = []
    for b in range(batch):
        columns = []
        for k in range(kinds):
            columns.append(_group([rewards[b][g][k] for g in range(group_size)], std, "mean", epsilon))
        for g in range(group_size):
            scored = not any(math.isnan(rewards[b][g][k]) for k in range(kinds))
            flat.append(sum(weights[k] * columns[k][g] for k in range(kinds)) if scored else math.nan)
    whole = _group(flat, std, "mean", epsilon)
    return [whole[b * group_size : (b + 1) * group_size] for b in range(batch)]


def naive_informative(rewards):
    """Whether a group holds two different scores."""
    return [len({r for r in group if not math.isnan(r)}) > 1 for group in rewards]


def _group(group, std, baseline, epsilon):
    scored = [r for r in group if not math.isnan(r)]
    if len(set(scored)) < 2:
        return [0.0] * len(group)
    spread = {"sample": statistics.stdev, "population": statistics.pstdev}.get(std)
    divisor = 1.0 if spread is None else spread(scored) + epsilon
    advantages = []
    for i, reward in enumerate(group):
        others = [r for j, r in enumerate(group) if j != i and not math.isnan(r)]
        if math.isnan(reward):
            advantages.append(0.0)
        else:
            advantages.append((reward - statistics.fmean(others if baseline == "leave_one_out" else scored)) / divisor)
    return advantages
