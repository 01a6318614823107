"""Ragged rows by hand, for buffers and batches."""

from __future__ import annotations

from collections.abc import Sequence as Ordered

import torch

from lightning_r1.experience.batching import Sequences


def ragged(lengths: Ordered[tuple[int, int]]) -> Sequences:
    """Rows of (prompt, completion) lengths; token ids, advantages and log-probabilities tell rows apart.

    Row r has the advantage r + 1, prompt tokens 100 r + 10, 100 r + 11, ..., completion tokens
    100 r + 50, ..., and the log-probabilities -(r + 0.01 t) as sampled, and 10 and 20 less as
    recomputed and of the reference.
    """
    rows = range(len(lengths))
    sampled = [-(row + 0.01 * torch.arange(1, lengths[row][1] + 1)) for row in rows]
    return Sequences(
        prompt_ids=[100 * row + 10 + torch.arange(lengths[row][0]) for row in rows],
        completion_ids=[100 * row + 50 + torch.arange(lengths[row][1]) for row in rows],
        advantages=torch.arange(1.0, len(lengths) + 1),
        rollout_logprobs=sampled,
        old_logprobs=[values - 10 for values in sampled],
        ref_logprobs=[values - 20 for values in sampled],
    )
