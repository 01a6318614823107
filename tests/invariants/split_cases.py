"""A tiny policy and five completions of it: shares of the loss for any rows, for the split tests.

The policy is real enough for a gradient by parameters: features -> tanh -> output head -> softmax
over seven tokens. A micro-batch is cut to its own longest completion, as a trainer would, and its
padding is NaN.
"""

import itertools
from dataclasses import dataclass

import torch

from lightning_r1.functional import (
    minibatch_denominator,
    off_policy_sequence_mask,
    policy_loss,
    sampler_weights,
    selected_logprobs,
)

ROWS, WIDTH, FEATURES, HIDDEN, VOCABULARY, BUDGET = 5, 6, 3, 4, 7, 8
LENGTHS = (6, 1, 4, 0, 3)
OPTIONS = (("clip", "cispo", "sapo"), ("sequence_mean", "token_mean", "constant"), ("token", "sequence"))


@dataclass(frozen=True)
class Case:
    objective: str
    reduction: str
    ratio_level: str


CASES = tuple(Case(*options) for options in itertools.product(*OPTIONS))


class Minibatch:
    """Everything fixed: features, tokens, who sampled them, and what they earned."""

    def __init__(self):
        make = torch.Generator().manual_seed(11)

        def normal(*shape):
            return torch.randn(*shape, generator=make, dtype=torch.float64)

        self.parameters = [normal(FEATURES, HIDDEN), normal(VOCABULARY, HIDDEN), normal(VOCABULARY)]
        self.features = normal(ROWS, WIDTH, FEATURES)
        self.targets = torch.randint(VOCABULARY, (ROWS, WIDTH), generator=make)
        self.mask = torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]
        self.mask[0, 2] = False
        self.advantages = torch.tensor([1.0, -0.7, 0.4, 2.0, -1.2], dtype=torch.float64)
        now, _ = self.score(self.parameters, range(ROWS), WIDTH)
        self.old_logprobs = now + 0.4 * normal(ROWS, WIDTH)
        self.ref_logprobs = now + 0.4 * normal(ROWS, WIDTH)
        self.rollout_logprobs = self.old_logprobs + 0.4 * normal(ROWS, WIDTH)

    def score(self, parameters, rows, width):
        """Log-probabilities and entropies [n, width]; NaN where nothing counts."""
        projection, weight, bias = parameters
        rows = list(rows)
        mask = self.mask[rows, :width]
        hidden = torch.tanh(self.features[rows, :width][mask] @ projection)
        logprobs, entropy = selected_logprobs(
            hidden, weight, self.targets[rows, :width][mask], bias=bias, temperature=0.8, chunk_rows=3
        )
        padding = torch.full(mask.shape, torch.nan, dtype=torch.float64)
        return padding.masked_scatter(mask, logprobs), padding.masked_scatter(mask, entropy)


def share(minibatch, rows, case, denominator):
    """The rows' share of the loss, the share's gradient by the parameters (flat), and its diagnostics."""
    rows = list(rows)
    width = max(LENGTHS[row] for row in rows)
    mask = minibatch.mask[rows, :width]
    old, ref, rollout = (
        x[rows, :width] for x in (minibatch.old_logprobs, minibatch.ref_logprobs, minibatch.rollout_logprobs)
    )
    parameters = [p.clone().requires_grad_() for p in minibatch.parameters]
    logprobs, entropy = minibatch.score(parameters, rows, width)
    advantages = minibatch.advantages[rows]
    out = policy_loss(
        logprobs,
        old,
        advantages,
        mask,
        denominator=denominator,
        objective=case.objective,
        ratio_level=case.ratio_level,
        reduction=case.reduction,
        clip_high=0.28,
        dual_clip=2.0,
        ref_logprobs=ref,
        kl_coef=0.1,
        kl_estimator="k3_unbiased",
        token_weights=sampler_weights(old, rollout, mask, level=case.ratio_level, high=1.5),
        sequence_mask=off_policy_sequence_mask(logprobs, rollout, advantages, mask, threshold=0.05),
        entropy=entropy,
        entropy_coef=0.05,
    )
    out.loss.backward()
    return out.loss.item(), torch.cat([p.grad.flatten() for p in parameters]), out.diagnostics


def denominator_of(case, rows):
    """Sequences and tokens counted over ``rows``, which must be all of the minibatch's."""
    lengths = [LENGTHS[row] - (row == 0) for row in rows]
    return minibatch_denominator(
        sequences=len(lengths), tokens=sum(lengths), reduction=case.reduction, token_budget=BUDGET
    )
