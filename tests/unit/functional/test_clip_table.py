"""The clip's truth table: sign of the advantage x ratio below, inside, above; value and gradient."""

import math

import pytest
import torch

from lightning_r1.functional import policy_loss
from lightning_r1.functional.policy_loss import clipped_surrogate

LOW, HIGH, DUAL = 0.2, 0.28, 3.0

# advantage, ratio, surrogate / advantage, gradient live
TABLE = [
    (1.5, 0.10, 0.10, True),
    (1.5, 0.79, 0.79, True),
    (1.5, 0.81, 0.81, True),
    (1.5, 1.00, 1.00, True),
    (1.5, 1.27, 1.27, True),
    (1.5, 1.29, 1.28, False),
    (1.5, 9.00, 1.28, False),
    (-0.5, 0.10, 0.80, False),
    (-0.5, 0.79, 0.80, False),
    (-0.5, 0.81, 0.81, True),
    (-0.5, 1.00, 1.00, True),
    (-0.5, 1.27, 1.27, True),
    (-0.5, 1.29, 1.29, True),
    (-0.5, 9.00, 9.00, True),
    (0.0, 0.10, 0.10, False),
    (0.0, 9.00, 9.00, False),
]
# with the dual clip only the last negative row changes
DUAL_TABLE = [row for row in TABLE if row[:2] != (-0.5, 9.00)] + [
    (-0.5, 2.99, 2.99, True),
    (-0.5, 3.01, 3.00, False),
    (-0.5, 9.00, 3.00, False),
]
CASES = [(*row, None) for row in TABLE] + [(*row, DUAL) for row in DUAL_TABLE]


def check(logprobs, loss, advantage, value, live, live_gradient):
    loss.backward()
    assert loss.item() == pytest.approx(-advantage * value, abs=1e-12)
    if live:
        torch.testing.assert_close(logprobs.grad, live_gradient, rtol=0, atol=1e-12)
    else:
        assert torch.equal(logprobs.grad, torch.zeros_like(logprobs.grad)), "exactly zero"


@pytest.mark.parametrize(("advantage", "ratio", "value", "live", "dual_clip"), CASES)
def test_token_level(advantage, ratio, value, live, dual_clip):
    logprobs = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    out = policy_loss(
        logprobs,
        torch.zeros(1, 1, dtype=torch.float64),
        torch.tensor([advantage], dtype=torch.float64),
        torch.tensor([[True]]),
        denominator=1,
        clip_low=LOW,
        clip_high=HIGH,
        dual_clip=dual_clip,
    )
    gradient = torch.full((1, 1), -advantage * ratio, dtype=torch.float64)
    check(logprobs, out.loss, advantage, value, live, gradient)


@pytest.mark.parametrize(("advantage", "ratio", "value", "live", "dual_clip"), CASES)
def test_sequence_level_decides_for_the_whole_completion(advantage, ratio, value, live, dual_clip):
    """Two counted tokens with log-ratios r + 2 and r - 2: each alone would be clipped, their mean decides."""
    centre = math.log(ratio)
    logprobs = torch.tensor([[centre + 2, centre - 2, math.nan]], dtype=torch.float64, requires_grad=True)
    out = policy_loss(
        logprobs,
        torch.zeros(1, 3, dtype=torch.float64),
        torch.tensor([advantage], dtype=torch.float64),
        torch.tensor([[True, True, False]]),
        denominator=1,
        ratio_level="sequence",
        clip_low=LOW,
        clip_high=HIGH,
        dual_clip=dual_clip,
    )
    each = -advantage * ratio / 2
    gradient = torch.tensor([[each, each, 0.0]], dtype=torch.float64)
    check(logprobs, out.loss, advantage, value, live, gradient)


@pytest.mark.parametrize(("advantage", "ratio", "value", "live", "dual_clip"), CASES)
def test_clipped_surrogate_alone(advantage, ratio, value, live, dual_clip):
    leaf = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    surrogate = clipped_surrogate(leaf, torch.tensor(advantage, dtype=torch.float64), LOW, HIGH, dual_clip)
    surrogate.backward()
    assert surrogate.item() == pytest.approx(advantage * value, abs=1e-12)
    assert leaf.grad.item() == (advantage if live else 0.0)


def test_the_papers_epsilon_of_ten_never_clips_a_negative_advantage():
    """R1's clip ratio of 10: 1 - 10 < 0 never binds, and above 11 the pessimistic minimum keeps the ratio."""
    ratios = torch.tensor([1e-3, 1.0, 11.5, 100.0], dtype=torch.float64, requires_grad=True)
    surrogate = clipped_surrogate(ratios, torch.tensor(-1.0), 10.0, 10.0)
    surrogate.sum().backward()
    torch.testing.assert_close(surrogate.detach(), -ratios.detach())
    assert ratios.grad.tolist() == [-1.0] * 4
    ratios.grad = None
    surrogate = clipped_surrogate(ratios, torch.tensor(1.0), 10.0, 10.0)
    surrogate.sum().backward()
    assert surrogate.tolist() == [1e-3, 1.0, 11.0, 11.0]
    assert ratios.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_dual_clip_must_lie_above_the_upper_bound():
    with pytest.raises(ValueError, match="dual_clip"):
        clipped_surrogate(torch.ones(1), torch.ones(1), LOW, HIGH, 1 + HIGH)
