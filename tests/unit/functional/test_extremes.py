"""Log-ratios of a thousand nats, rows with nothing to count, batches with nothing at all: still numbers."""

import itertools
import math

import pytest
import torch

from lightning_r1.functional import off_policy_sequence_mask, policy_loss, sampler_weights

OBJECTIVES = ("clip", "cispo", "sapo")
LEVELS = ("token", "sequence")
EXTREMES = (-1000.0, 1000.0)


def extreme_loss(dtype, shift, ref_shift, **options):
    """Every token is ``shift`` nats from the old policy and ``ref_shift`` from the reference."""
    logprobs = torch.full((4, 3), -1.5, dtype=dtype, requires_grad=True)
    old = logprobs.detach() - shift
    ref = logprobs.detach() + ref_shift
    advantages = torch.tensor([1.0, -1.0, 0.0, 0.5], dtype=dtype)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]).bool()
    out = policy_loss(logprobs, old, advantages, mask, denominator=4, ref_logprobs=ref, **options)
    out.loss.backward()
    return out, logprobs.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["sequence_mean", "token_mean", "constant"])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "k3_unbiased"])
@pytest.mark.parametrize("ratio_level", LEVELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_and_gradient_stay_finite(objective, ratio_level, estimator, reduction, dtype):
    for shift, ref_shift in itertools.product(EXTREMES, EXTREMES):
        out, grad = extreme_loss(
            dtype,
            shift,
            ref_shift,
            objective=objective,
            ratio_level=ratio_level,
            kl_estimator=estimator,
            reduction=reduction,
            kl_coef=0.1,
        )
        assert out.loss.isfinite(), (shift, ref_shift)
        assert grad.isfinite().all(), (shift, ref_shift)
        assert all(value.isfinite() for value in out.diagnostics.values())


@pytest.mark.parametrize("ratio_level", LEVELS)
def test_a_huge_ratio_is_clipped_like_any_other(ratio_level):
    """Row 1 (A = 1) stops at 1.2; row 2 (A = -1) stops at the dual clip 3: loss = -(1.2 - 3 + 0 + 0) / 4."""
    out, grad = extreme_loss(torch.float64, 1000.0, 0.0, ratio_level=ratio_level, dual_clip=3.0)
    assert out.loss.item() == pytest.approx((3.0 - 1.2) / 4, abs=1e-12)
    assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("ratio_level", LEVELS)
def test_a_vanished_ratio_is_clipped_like_any_other(ratio_level):
    """Row 1 (A = 1) is worth its ratio, nothing; row 2 (A = -1) stops at 0.8."""
    out, grad = extreme_loss(torch.float64, -1000.0, 0.0, ratio_level=ratio_level)
    assert out.loss.item() == pytest.approx(0.8 / 4, abs=1e-8)
    assert grad.abs().max() < 1e-8


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("ratio_level", LEVELS)
def test_a_micro_batch_without_a_counted_token_is_worth_zero(objective, ratio_level):
    logprobs = torch.full((2, 3), math.nan, requires_grad=True)
    nothing = torch.full((2, 3), math.nan)
    out = policy_loss(
        logprobs,
        nothing,
        torch.tensor([1.0, -1.0]),
        torch.zeros(2, 3, dtype=torch.bool),
        denominator=7,
        objective=objective,
        ratio_level=ratio_level,
        ref_logprobs=nothing,
        kl_coef=0.1,
    )
    out.loss.backward()
    assert out.loss.item() == 0.0
    assert torch.equal(logprobs.grad, torch.zeros(2, 3))
    assert all(value == 0 for value in out.diagnostics.values())


@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
def test_sampler_weights_at_extremes(level):
    old = torch.tensor([[0.0, 0.0], [-1000.0, -1000.0]])
    rollout = torch.tensor([[-1000.0, -1000.0], [0.0, 0.0]])
    mask = torch.ones(2, 2, dtype=torch.bool)
    truncated = sampler_weights(old, rollout, mask, mode="truncate", level=level, low=0.1, high=2.0)
    torch.testing.assert_close(truncated, torch.tensor([[2.0, 2.0], [0.1, 0.1]]))
    masked = sampler_weights(old, rollout, mask, mode="mask", level=level, low=0.1, high=2.0)
    assert torch.equal(masked, torch.zeros(2, 2))


def test_off_policy_sequence_mask_at_extremes():
    logprobs = torch.tensor([[-1000.0], [-1000.0], [0.0]])
    rollout = torch.tensor([[0.0], [0.0], [-1000.0]])
    advantages = torch.tensor([-1.0, 1.0, -1.0])
    keep = off_policy_sequence_mask(logprobs, rollout, advantages, torch.ones(3, 1, dtype=torch.bool), threshold=0.5)
    assert keep.tolist() == [False, True, True]
