"""Diagnostics: sums equal naive counts, and sums over any split combine to the whole."""

import pytest
import torch

from lightning_r1.functional import policy_loss
from lightning_r1.functional.diagnostics import combine, logprob_gap, per_token
from oracles.batches import random_batch
from oracles.naive_diagnostics import naive_diagnostics

LEVELS = ("token", "sequence")
CLIPS = {"clip_low": 0.2, "clip_high": 0.28}
SPLITS = ([[0, 1, 2, 3, 4]], [[0], [1], [2], [3], [4]], [[4, 2], [0, 1, 3]], [[2], [0, 1, 3, 4]])


def sums(batch, ratio_level="token", **options):
    return policy_loss(
        batch.logprobs,
        batch.old_logprobs,
        batch.advantages,
        batch.mask,
        denominator=1,
        ratio_level=ratio_level,
        ref_logprobs=batch.ref_logprobs,
        entropy=batch.entropy,
        **CLIPS,
        **options,
    ).diagnostics | logprob_gap(batch.old_logprobs, batch.rollout_logprobs, batch.mask)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ratio_level", LEVELS)
def test_sums_equal_the_naive_count(ratio_level, seed):
    batch = random_batch(seed, rows=12, spread=1.2)
    actual = sums(batch, ratio_level)
    rows = (x.tolist() for x in (batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask))
    expected = naive_diagnostics(*rows, ratio_level=ratio_level, **CLIPS)
    assert expected["clip_fraction_low"] > 0
    assert expected["clip_fraction_high"] > 0
    counted = batch.mask
    expected["entropy"] = sum(batch.entropy[counted].tolist())
    gaps = [abs(a - b) for a, b in zip(batch.old_logprobs[counted], batch.rollout_logprobs[counted], strict=True)]
    expected["logprob_gap"], expected["logprob_gap_max"] = float(sum(gaps)), float(max(gaps))
    d = (batch.ref_logprobs - batch.logprobs)[counted]
    expected["kl_ref"] = sum((d.exp() - d - 1).tolist())
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert float(actual[name]) == pytest.approx(value, abs=1e-10), name


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("ratio_level", LEVELS)
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "k3_unbiased"])
def test_parts_combine_to_the_whole(estimator, ratio_level, split):
    batch = random_batch(3)
    whole = sums(batch, ratio_level, kl_estimator=estimator)
    parts = combine([sums(batch.rows(index), ratio_level, kl_estimator=estimator) for index in split])
    assert parts.keys() == whole.keys()
    for name, value in whole.items():
        assert float(parts[name]) == pytest.approx(float(value), abs=1e-10), name
    averages, expected = per_token(parts), per_token(whole)
    assert averages == pytest.approx(expected, abs=1e-10)


def test_per_token_divides_sums_and_leaves_maxima():
    totals = {"tokens": torch.tensor(4), "entropy": torch.tensor(6.0), "ratio_max": torch.tensor(1.5)}
    assert per_token(totals) == {"entropy": 1.5, "ratio_max": 1.5}


def test_per_token_of_nothing_is_zero():
    assert per_token({"tokens": torch.tensor(0), "entropy": torch.tensor(0.0)}) == {"entropy": 0.0}


def test_clip_fractions_count_exactly_the_tokens_without_a_policy_gradient():
    batch = random_batch(1, rows=12)
    logprobs = batch.logprobs.clone().requires_grad_()
    out = policy_loss(logprobs, batch.old_logprobs, batch.advantages, batch.mask, denominator=1, **CLIPS)
    out.loss.backward()
    dead = (logprobs.grad == 0) & batch.mask
    assert out.diagnostics["clip_fraction_low"] == (dead & (batch.advantages < 0).unsqueeze(-1)).sum()
    assert out.diagnostics["clip_fraction_high"] == (dead & (batch.advantages > 0).unsqueeze(-1)).sum()


def test_optional_quantities_appear_only_where_given():
    batch = random_batch(0)
    bare = policy_loss(batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask, denominator=1).diagnostics
    assert bare.keys() == {"tokens", "clip_fraction_low", "clip_fraction_high", "kl_old", "ratio_max"}
    assert bare["tokens"] == batch.tokens


def test_diagnostics_carry_no_gradient():
    batch = random_batch(0)
    logprobs, entropy = batch.logprobs.clone().requires_grad_(), batch.entropy.clone().requires_grad_()
    out = policy_loss(
        logprobs,
        batch.old_logprobs,
        batch.advantages,
        batch.mask,
        denominator=1,
        ref_logprobs=batch.ref_logprobs,
        kl_coef=0.1,
        entropy=entropy,
        entropy_coef=0.1,
    )
    assert not any(value.requires_grad for value in out.diagnostics.values())
    gap = logprob_gap(logprobs, batch.rollout_logprobs, batch.mask)
    assert not any(value.requires_grad for value in gap.values())
