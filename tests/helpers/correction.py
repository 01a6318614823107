"""The update that the sampler correction makes, beside the one that its formula asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_r1.experience.batching import micro_batches
from lightning_r1.modules.grpo import GRPO
from oracles.naive_importance import naive_sampler_weights


@dataclass
class Updates:
    """Gradients, flat, and the token weights of the formula."""

    without: Tensor
    corrected: Tensor
    by_formula: Tensor
    weights: list[float]


def updates_of_last_rollout(module: GRPO) -> Updates:
    """Of the whole last rollout as one minibatch, on policy: the ratio is 1, so that nothing is clipped.

    By the formula the gradient is that of ``-sum_i sum_t A_i w_it logp_it / tokens``, with
    ``w = exp(logp - what the sampler said)``, bounded.
    """
    assert module.last_rollout is not None
    sequences = module.last_rollout.sequences
    (batch,) = micro_batches(sequences, 1 << 20, module.codec.pad_id)
    tokens = sum(map(len, sequences.completion_ids))
    plan = replace(module.algorithm, kl_coef=0.0, entropy_coef=0.0, reduction="token_mean")

    def gradient(loss: Tensor) -> Tensor:
        grads = torch.autograd.grad(loss, list(module.policy.parameters()))
        return torch.cat([grad.flatten() for grad in grads]).double()

    found = []
    for correction in ("none", "truncate"):
        module.algorithm = replace(plan, sampler_correction=correction)
        found.append(gradient(module.loss(batch, float(tokens))[0]))
    module.algorithm = plan
    scores = module.policy(
        batch.input_ids, batch.prompt_lengths, batch.completion_mask, temperature=plan.sampling.temperature
    )
    weights = naive_sampler_weights(
        scores.logprobs.tolist(),
        batch.rollout_logprobs.tolist(),
        batch.completion_mask.tolist(),
        mode="truncate",
        level=plan.correction_level,
        low=plan.correction_low,
        high=plan.correction_high,
    )
    terms = batch.advantages.unsqueeze(1) * torch.tensor(weights) * scores.logprobs
    by_formula = gradient(-terms[batch.completion_mask].sum() / tokens)
    counted = [
        w for row, counts in zip(weights, batch.completion_mask.tolist(), strict=True) for w in row[: sum(counts)]
    ]
    return Updates(*found, by_formula, counted)
