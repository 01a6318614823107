"""Does a sampler have the policy's weights? Its own log-probabilities say so, compared with the policy's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from lightning_r1.experience.batching import Sequences, pad, sampled_masks
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy, evaluating
from lightning_r1.parallel.collectives import all_max, together
from lightning_r1.rollout.engine import EngineError, RolloutEngine
from lightning_r1.types import Group, Prompt, Sampling

PROMPTS, TOKENS = 4, 16
"""Of a probe, on each rank."""


def parity_gap(
    engine: RolloutEngine,
    policy: Policy,
    codec: Codec,
    prompts: Sequence[Prompt],
    *,
    seeds: Sequence[int],
    temperature: float,
    tolerance: float,
) -> float:
    """Compare a few sampled tokens in both places; collective.

    They are sampled as in the rollout that follows, through the engine's prefix cache, so that a cache of old
    weights is seen as old weights are.

    Args:
        engine: has just been given the policy's weights.
        policy: whose weights they are.
        codec: template and tokenizer.
        prompts: of the rollout that follows, at least one; the first few are used.
        seeds: one a prompt.
        temperature: of the rollout; its truncation is left out, for the policy scores the whole distribution.
        tolerance: in nats a token.

    Returns:
        Mean absolute difference in nats a token, the largest of any rank.

    Raises:
        EngineError: if it is above the tolerance, on all ranks.
    """
    sampling = Sampling(group_size=1, max_new_tokens=TOKENS, temperature=temperature)
    groups = together(lambda: engine.generate(prompts[:PROMPTS], sampling, seeds=seeds[:PROMPTS]), EngineError)
    own = logprob_gap(policy, codec, groups, temperature)
    gap = all_max(own if math.isfinite(own) else math.inf)
    if gap > tolerance:
        raise EngineError(
            f"rollout.parity_tolerance={tolerance:g}: after a sync the engine's log-probabilities differ from the "
            f"policy's by {gap:.3g} nats a token, so it does not sample from the policy's weights. Look at its "
            "sync_weights and at who else writes to it; if rollout.dtype is coarser than the policy's, raise it"
        )
    return gap


def logprob_gap(policy: Policy, codec: Codec, groups: Sequence[Group], temperature: float) -> float:
    """Mean absolute difference between the engine's log-probabilities and the policy's, in nats a token."""
    rows = [(group.prompt, completion) for group in groups for completion in group.completions]
    completion_ids = [torch.tensor(completion.token_ids) for _, completion in rows]
    batch = pad(
        Sequences(
            [torch.tensor(prompt.token_ids) for prompt, _ in rows],
            completion_ids,
            torch.zeros(len(rows)),
            [torch.tensor(completion.logprobs) for _, completion in rows],
            sampled=sampled_masks([completion.sampled for _, completion in rows], completion_ids),
        ),
        codec.pad_id,
    ).to(policy.model.device)
    with evaluating(policy):
        scores = policy(batch.input_ids, batch.prompt_lengths, batch.completion_mask, temperature=temperature)
    assert batch.rollout_logprobs is not None
    return float((scores.logprobs - batch.rollout_logprobs)[batch.completion_mask].abs().mean())
