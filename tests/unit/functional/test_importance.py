"""Sampler weights and the off-policy sequence mask against naive loops and worked rows."""

import math

import pytest
import torch

from lightning_r1.functional import off_policy_sequence_mask, sampler_weights
from oracles.batches import random_batch
from oracles.naive_importance import naive_off_policy_mask, naive_sampler_weights

MODES = ("truncate", "mask")
LEVELS = ("token", "sequence", "geometric")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("low", "high"), [(0.0, 2.0), (0.5, 1.5), (0.8, 3.0)])
def test_sampler_weights_equal_the_naive_loop(mode, level, low, high, seed):
    batch = random_batch(seed)
    options = {"mode": mode, "level": level, "low": low, "high": high}
    actual = sampler_weights(batch.old_logprobs, batch.rollout_logprobs, batch.mask, **options)
    rows = batch.old_logprobs.tolist(), batch.rollout_logprobs.tolist(), batch.mask.tolist()
    expected = torch.tensor(naive_sampler_weights(*rows, **options), dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


# One completion of two counted tokens with ratios 4 and 1/2: product 2, geometric mean sqrt(2).
RATIOS = [4.0, 0.5, 7.0]


@pytest.mark.parametrize(
    ("mode", "level", "expected"),
    [
        ("truncate", "token", [1.8, 0.6, 0.0]),
        ("mask", "token", [0.0, 0.0, 0.0]),
        ("truncate", "sequence", [1.8, 1.8, 0.0]),
        ("mask", "sequence", [0.0, 0.0, 0.0]),
        ("truncate", "geometric", [math.sqrt(2), math.sqrt(2), 0.0]),
        ("mask", "geometric", [math.sqrt(2), math.sqrt(2), 0.0]),
    ],
)
def test_sampler_weights_worked(mode, level, expected):
    old = torch.tensor([RATIOS], dtype=torch.float64).log().requires_grad_()
    mask = torch.tensor([[True, True, False]])
    actual = sampler_weights(old, torch.zeros_like(old), mask, mode=mode, level=level, low=0.6, high=1.8)
    torch.testing.assert_close(actual, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-12)
    assert not actual.requires_grad


def test_weights_are_trainer_over_sampler_and_inside_the_bounds_untouched():
    old, rollout = torch.tensor([[-1.0]], dtype=torch.float64), torch.tensor([[-1.5]], dtype=torch.float64)
    for mode in MODES:
        for level in LEVELS:
            actual = sampler_weights(old, rollout, torch.tensor([[True]]), mode=mode, level=level)
            assert actual.item() == pytest.approx(math.exp(0.5), abs=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", LEVELS)
def test_the_same_sampler_has_weight_one(mode, level):
    batch = random_batch(0)
    actual = sampler_weights(batch.old_logprobs, batch.old_logprobs, batch.mask, mode=mode, level=level)
    assert torch.equal(actual, batch.mask.double())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [-0.3, 0.0, 0.1, 0.3])
def test_off_policy_sequence_mask_equals_the_naive_loop(threshold, seed):
    batch = random_batch(seed, rows=40)
    inputs = batch.logprobs, batch.rollout_logprobs, batch.advantages, batch.mask
    actual = off_policy_sequence_mask(*inputs, threshold=threshold)
    assert actual.tolist() == naive_off_policy_mask(*(x.tolist() for x in inputs), threshold=threshold)
    assert 0 < (~actual).sum() < (batch.advantages < 0).sum(), "some negative completions go, some stay"


@pytest.mark.parametrize(
    ("advantage", "drifts", "keep"),
    [
        (-1.0, [1.2, 0.0], False),  # the mean, 0.6, is beyond 0.5
        (-1.0, [0.8, 0.0], True),  # 0.4 is not
        (-1.0, [-3.0, 0.0], True),  # the policy has come nearer
        (1.0, [9.0, 9.0], True),  # positive advantages always stay
        (0.0, [9.0, 9.0], True),
        (-1.0, [0.5, 0.5], True),  # exactly the threshold stays
    ],
)
def test_off_policy_sequence_mask_worked(advantage, drifts, keep):
    """Drift is log(pi_sampler / pi_theta), the mean over counted tokens; the last column is masked."""
    logprobs = torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    rollout = torch.tensor([[*drifts, 50.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    actual = off_policy_sequence_mask(logprobs, rollout, torch.tensor([advantage]), mask, threshold=0.5)
    assert actual.tolist() == [keep]
    assert actual.dtype == torch.bool


@pytest.mark.parametrize(("option", "value"), [("mode", "cut"), ("level", "batch")])
def test_a_wrong_option_is_refused_by_its_name(option, value):
    batch = random_batch(0)
    with pytest.raises(ValueError, match=f"{option}='{value}'"):
        sampler_weights(batch.old_logprobs, batch.rollout_logprobs, batch.mask, **{option: value})
