"""What is counted while the policy moves, by loops. A masked position is never read."""

import math


def naive_diagnostics(logprobs, old_logprobs, advantages, mask, *, ratio_level, clip_low, clip_high):
    """Sums over counted tokens, and the largest ratio."""
    sums = dict.fromkeys(("tokens", "clip_fraction_low", "clip_fraction_high", "kl_old", "ratio_max"), 0.0)
    for now, old, advantage, counts in zip(logprobs, old_logprobs, advantages, mask, strict=True):
        log_ratios = [now[t] - old[t] for t in range(len(now)) if counts[t]]
        for log_ratio in log_ratios:
            level = log_ratio if ratio_level == "token" else sum(log_ratios) / len(log_ratios)
            ratio = math.exp(level)
            sums["tokens"] += 1
            sums["clip_fraction_low"] += ratio < 1 - clip_low and advantage < 0
            sums["clip_fraction_high"] += ratio > 1 + clip_high and advantage > 0
            sums["kl_old"] -= log_ratio
            sums["ratio_max"] = max(sums["ratio_max"], ratio)
    return sums
