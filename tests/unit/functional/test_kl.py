"""KL estimators: naive loops, and the table of expectations by exact enumeration of a small vocabulary."""

import math

import pytest
import torch

from lightning_r1.functional import kl_to_reference
from oracles.batches import random_batch
from oracles.naive_kl import forward_kl_gradient, kl, reverse_kl_gradient, softmax, token_kl

ESTIMATORS = ("k1", "k2", "k3", "k3_unbiased")
EXACT = 1e-12
VISIBLE = 1e-3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_the_naive_loop(estimator, seed):
    batch = random_batch(seed)
    ratio = (batch.logprobs - batch.old_logprobs).exp()
    actual = kl_to_reference(batch.logprobs, batch.ref_logprobs, estimator=estimator, ratio=ratio)
    for i, row in enumerate(batch.logprobs.tolist()):
        for t, logprob in enumerate(row):
            expected = token_kl(logprob, batch.ref_logprobs[i, t].item(), estimator, ratio[i, t].item())
            assert actual[i, t].item() == pytest.approx(expected, abs=1e-10)


def vocabulary(seed, size=7):
    """Logits of the policy, of the policy that sampled, and of the reference."""
    make = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=make, dtype=torch.float64) for _ in range(3)]


def expectation(estimator, policy_logits, sampling_logits, ref_logits):
    """Exact mean over tokens drawn from the sampling policy: the value, and the gradient by the logits."""
    leaf = policy_logits.clone().requires_grad_()
    logprobs = leaf.log_softmax(-1)
    sampling = sampling_logits.log_softmax(-1)
    ratio = (logprobs - sampling).exp()
    estimate = kl_to_reference(logprobs, ref_logits.log_softmax(-1), estimator=estimator, ratio=ratio)
    mean = (sampling.exp() * estimate).sum()
    mean.backward()
    return mean.item(), leaf.grad


def exact(policy_logits, ref_logits):
    """Reverse KL, its gradient, the forward KL's gradient: by hand, in Python floats."""
    p, q = softmax(policy_logits.tolist()), softmax(ref_logits.tolist())
    reverse, forward = reverse_kl_gradient(p, q), forward_kl_gradient(p, q)
    return kl(p, q), torch.tensor(reverse, dtype=torch.float64), torch.tensor(forward, dtype=torch.float64)


def error(actual, expected):
    return (actual - expected).abs().max().item()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_expected_value_on_policy(estimator, seed):
    policy, _, ref = vocabulary(seed)
    value, _ = expectation(estimator, policy, policy, ref)
    reverse_kl, _, _ = exact(policy, ref)
    if estimator == "k2":
        assert abs(value - reverse_kl) > VISIBLE, "biased"
    else:
        assert abs(value - reverse_kl) < EXACT


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("estimator", "of"), [("k1", "nothing"), ("k2", "reverse"), ("k3", "forward"), ("k3_unbiased", "reverse")]
)
def test_expected_gradient_on_policy(estimator, of, seed):
    policy, _, ref = vocabulary(seed)
    _, gradient = expectation(estimator, policy, policy, ref)
    _, reverse, forward = exact(policy, ref)
    claims = {"reverse": reverse, "forward": forward, "nothing": torch.zeros_like(reverse)}
    for name, claim in claims.items():
        if name == of:
            assert error(gradient, claim) < EXACT
        else:
            assert error(gradient, claim) > VISIBLE, f"also the gradient of {name}: the test cannot tell"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_only_k3_unbiased_is_right_off_policy(estimator, seed):
    policy, sampling, ref = vocabulary(seed)
    value, gradient = expectation(estimator, policy, sampling, ref)
    reverse_kl, reverse, forward = exact(policy, ref)
    if estimator == "k3_unbiased":
        assert abs(value - reverse_kl) < EXACT
        assert error(gradient, reverse) < EXACT
    else:
        assert abs(value - reverse_kl) > VISIBLE
        assert error(gradient, reverse) > VISIBLE
    assert error(gradient, forward) > VISIBLE


def test_unbiased_needs_the_live_ratio():
    """With the ratio detached the value is still right and the gradient is not."""
    policy, sampling, ref = vocabulary(0)
    leaf = policy.clone().requires_grad_()
    logprobs, sampled = leaf.log_softmax(-1), sampling.log_softmax(-1)
    ratio = (logprobs - sampled).exp().detach()
    estimate = kl_to_reference(logprobs, ref.log_softmax(-1), estimator="k3_unbiased", ratio=ratio)
    mean = (sampled.exp() * estimate).sum()
    mean.backward()
    reverse_kl, reverse, _ = exact(policy, ref)
    assert abs(mean.item() - reverse_kl) < EXACT
    assert error(leaf.grad, reverse) > VISIBLE


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_zero_at_equality(estimator):
    logprobs = random_batch(0).logprobs
    actual = kl_to_reference(logprobs, logprobs.clone(), estimator=estimator, ratio=torch.full_like(logprobs, 2.0))
    assert torch.equal(actual, torch.zeros_like(logprobs))


@pytest.mark.parametrize("estimator", ["k2", "k3", "k3_unbiased"])
def test_never_negative(estimator):
    logprobs = torch.zeros(601, dtype=torch.float64)
    ref = torch.arange(-300, 301, dtype=torch.float64) / 10
    actual = kl_to_reference(logprobs, ref, estimator=estimator, ratio=torch.full_like(ref, 0.5))
    assert (actual >= 0).all()
    assert (actual > 0).sum() == 600, "zero at d = 0 alone"


def test_k3_keeps_its_digits_where_the_policies_almost_agree():
    """d = 1e-8: k3 = d^2 / 2 = 5e-17; exp(d) - 1 - d in that order would lose every digit in float64."""
    d = torch.tensor(1e-8, dtype=torch.float64)
    actual = kl_to_reference(torch.zeros_like(d), d, estimator="k3").item()
    assert 0 <= actual < 1e-15
    actual = kl_to_reference(torch.zeros(()), torch.tensor(1e-3), estimator="k3").item()
    assert actual == pytest.approx(math.expm1(1e-3) - 1e-3, rel=1e-3)


def test_refusals_name_the_option():
    zeros = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="estimator='k4'"):
        kl_to_reference(zeros, zeros, estimator="k4")
    with pytest.raises(ValueError, match="ratio"):
        kl_to_reference(zeros, zeros, estimator="k3_unbiased")
