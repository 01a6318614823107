"""Random minibatches in float64: ragged rows, holes inside rows, and one row with nothing to count."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """N completions of at most T tokens; every matrix is [N, T]."""

    logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    rollout_logprobs: Tensor
    entropy: Tensor
    token_weights: Tensor
    mask: Tensor
    advantages: Tensor
    """[N]"""
    sequence_mask: Tensor
    """[N] bool"""

    @property
    def tokens(self) -> int:
        return int(self.mask.sum())

    def rows(self, index) -> "Batch":
        return Batch(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def fill_masked(self, value: float) -> "Batch":
        """Write ``value`` into every masked position of every [N, T] number."""
        names = ("logprobs", "old_logprobs", "ref_logprobs", "rollout_logprobs", "entropy", "token_weights")
        filled = {name: getattr(self, name).masked_fill(~self.mask, value) for name in names}
        return replace(self, **filled)

    def denominator(self, reduction: str, token_budget: int = 1) -> float:
        """Counted here, by the definitions, not by the package."""
        sequences = len(self.mask)
        return {"sequence_mean": sequences, "token_mean": self.tokens, "constant": sequences * token_budget}[reduction]


def random_batch(seed: int, rows: int = 5, width: int = 6, spread: float = 0.35) -> Batch:
    """The third row is empty; others are ragged, some with a hole; advantages of both signs.

    ``spread`` is the standard deviation of log(pi_theta / pi_old): wide enough that tokens fall on
    both sides of every clip bound.
    """
    make = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=make, dtype=torch.float64)

    lengths = torch.randint(2, width + 1, (rows,), generator=make)
    lengths[0], lengths[2 % rows] = width, 0
    mask = torch.arange(width) < lengths[:, None]
    holes = torch.rand(rows, width, generator=make) < 0.15
    holes[:, 0] = False
    logprobs = -normal(rows, width).abs() - 0.1
    old_logprobs = logprobs + spread * normal(rows, width)
    advantages = normal(rows)
    advantages[0], advantages[1] = advantages[0].abs() + 0.1, -advantages[1].abs() - 0.1
    return Batch(
        logprobs=logprobs,
        old_logprobs=old_logprobs,
        ref_logprobs=logprobs + 0.5 * normal(rows, width),
        rollout_logprobs=old_logprobs + 0.5 * normal(rows, width),
        entropy=normal(rows, width).abs() + 0.5,
        token_weights=normal(rows, width).exp().clamp(max=2.0),
        mask=mask & ~holes,
        advantages=advantages,
        sequence_mask=torch.arange(rows) != 1,
    )
