"""What stands where the mask is False, NaN and infinities included, changes no value and no gradient."""

import math

import pytest
import torch

from lightning_r1.functional import off_policy_sequence_mask, policy_loss, reduce_tokens, sampler_weights
from lightning_r1.functional.diagnostics import logprob_gap, policy_diagnostics
from oracles.batches import random_batch

GARBAGE = (math.nan, math.inf, -math.inf, 1e30)
REDUCTIONS = ("sequence_mean", "token_mean", "constant")


def run(batch, *, kl_estimator, **options):
    logprobs = batch.logprobs.clone().requires_grad_()
    entropy = batch.entropy.clone().requires_grad_()
    out = policy_loss(
        logprobs,
        batch.old_logprobs,
        batch.advantages,
        batch.mask,
        denominator=3,
        ref_logprobs=batch.ref_logprobs,
        kl_coef=0.1,
        kl_estimator=kl_estimator,
        token_weights=batch.token_weights,
        sequence_mask=batch.sequence_mask,
        entropy=entropy,
        entropy_coef=0.1,
        **options,
    )
    out.loss.backward()
    return out, logprobs.grad, entropy.grad


@pytest.mark.parametrize("kl_estimator", ["k1", "k2", "k3", "k3_unbiased"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ratio_level", ["token", "sequence"])
@pytest.mark.parametrize("objective", ["clip", "cispo", "sapo"])
def test_policy_loss(objective, ratio_level, reduction, kl_estimator):
    batch = random_batch(3)
    options = {"objective": objective, "ratio_level": ratio_level, "reduction": reduction}
    clean, grad, entropy_grad = run(batch.fill_masked(0.0), kl_estimator=kl_estimator, **options)
    assert grad.abs().sum() > 0
    assert torch.equal(grad[~batch.mask], torch.zeros_like(grad[~batch.mask]))
    for garbage in GARBAGE:
        dirty, dirty_grad, dirty_entropy_grad = run(batch.fill_masked(garbage), kl_estimator=kl_estimator, **options)
        assert torch.equal(dirty.loss, clean.loss)
        assert torch.equal(dirty.policy, clean.policy)
        assert torch.equal(dirty_grad, grad)
        assert torch.equal(dirty_entropy_grad, entropy_grad)
        for name, value in clean.diagnostics.items():
            assert torch.equal(dirty.diagnostics[name], value), name


@pytest.mark.parametrize("name", ["logprobs", "old_logprobs", "ref_logprobs", "token_weights", "entropy"])
@pytest.mark.parametrize("ratio_level", ["token", "sequence"])
def test_policy_loss_with_garbage_in_one_input_alone(name, ratio_level):
    batch = random_batch(4).fill_masked(0.0)
    dirty_batch = random_batch(4).fill_masked(math.nan)
    one_dirty = type(batch)(**{**vars(batch), name: getattr(dirty_batch, name)})
    clean, grad, entropy_grad = run(batch, kl_estimator="k3_unbiased", ratio_level=ratio_level)
    dirty, dirty_grad, dirty_entropy_grad = run(one_dirty, kl_estimator="k3_unbiased", ratio_level=ratio_level)
    assert torch.equal(dirty.loss, clean.loss)
    assert torch.equal(dirty_grad, grad)
    assert torch.equal(dirty_entropy_grad, entropy_grad)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("garbage", GARBAGE)
def test_reduce_tokens(reduction, garbage):
    batch = random_batch(5)
    leaf = batch.fill_masked(garbage).logprobs.requires_grad_()
    value = reduce_tokens(leaf, batch.mask, reduction=reduction, denominator=2.0)
    value.backward()
    clean = batch.fill_masked(0.0).logprobs.requires_grad_()
    clean_value = reduce_tokens(clean, batch.mask, reduction=reduction, denominator=2.0)
    clean_value.backward()
    assert torch.equal(value, clean_value)
    assert torch.equal(leaf.grad, clean.grad)


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("level", ["token", "sequence", "geometric"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_sampler_weights(mode, level, garbage):
    batch = random_batch(6)
    dirty, clean = batch.fill_masked(garbage), batch.fill_masked(0.0)
    weights = [
        sampler_weights(b.old_logprobs, b.rollout_logprobs, b.mask, mode=mode, level=level, low=0.5, high=2.0)
        for b in (dirty, clean)
    ]
    assert torch.equal(*weights)
    assert torch.equal(weights[0][~batch.mask], torch.zeros_like(weights[0][~batch.mask]))


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("seed", range(4))
def test_off_policy_sequence_mask(seed, garbage):
    batch = random_batch(seed)
    dirty, clean = batch.fill_masked(garbage), batch.fill_masked(0.0)
    for threshold in (-0.5, 0.0, 0.1, 0.5):
        keep = [
            off_policy_sequence_mask(b.logprobs, b.rollout_logprobs, b.advantages, b.mask, threshold=threshold)
            for b in (dirty, clean)
        ]
        assert torch.equal(*keep)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_diagnostics(garbage):
    batch = random_batch(6)
    dirty, clean = batch.fill_masked(garbage), batch.fill_masked(0.0)

    def sums(b):
        return policy_diagnostics(
            ratio=b.token_weights,
            log_ratio=b.logprobs,
            advantages=b.advantages.unsqueeze(-1),
            mask=b.mask,
            clip_low=0.2,
            clip_high=0.2,
            kl=b.ref_logprobs,
            entropy=b.entropy,
        ) | logprob_gap(b.old_logprobs, b.rollout_logprobs, b.mask)

    expected = sums(clean)
    for name, value in sums(dirty).items():
        assert torch.equal(value, expected[name]), name
