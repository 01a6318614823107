"""Every loss, mask, weight and advantage that TRL 1.16 also has: TRL's own code on the same tensors."""

from dataclasses import replace

import pytest
import torch

from lightning_r1.functional import (
    group_relative_advantages,
    off_policy_sequence_mask,
    per_reward_advantages,
    policy_loss,
    sampler_weights,
)
from lightning_r1.functional.diagnostics import per_token
from oracles.batches import random_batch
from oracles.trl_grpo import GRPOTrainer, trl_loss, trl_scored_rollout

BUDGET = 8
EXACT = 1e-9
ROUNDED = 1e-7
"""TRL keeps SAPO's temperatures and the Bessel factor n / (n - 1) of its standard deviation in float32."""

# name: (TRL's words, our words, reduction, tolerance)
CASES = {
    "grpo": ({"loss_type": "grpo"}, {}, "sequence_mean", EXACT),
    "grpo, clip higher": (
        {"loss_type": "grpo", "epsilon": 0.1, "epsilon_high": 0.28},
        {"clip_low": 0.1, "clip_high": 0.28},
        "sequence_mean",
        EXACT,
    ),
    "bnpo": ({"loss_type": "bnpo"}, {}, "token_mean", EXACT),
    "dapo": ({"loss_type": "dapo", "epsilon_high": 0.28}, {"clip_high": 0.28}, "token_mean", EXACT),
    "dr_grpo": ({"loss_type": "dr_grpo", "max_completion_length": BUDGET}, {}, "constant", EXACT),
    "gspo": (
        {"loss_type": "grpo", "level": "sequence", "epsilon": 0.05, "epsilon_high": 0.08},
        {"ratio_level": "sequence", "clip_low": 0.05, "clip_high": 0.08},
        "sequence_mean",
        EXACT,
    ),
    "gspo, token mean": ({"loss_type": "bnpo", "level": "sequence"}, {"ratio_level": "sequence"}, "token_mean", EXACT),
    # TRL clamps the ratio at epsilon_high itself and has no lower bound
    "cispo": (
        {"loss_type": "cispo", "epsilon_high": 1.25},
        {"objective": "cispo", "clip_low": 1.0, "clip_high": 0.25},
        "token_mean",
        EXACT,
    ),
    "sapo": ({"loss_type": "sapo"}, {"objective": "sapo"}, "sequence_mean", ROUNDED),
    "sapo, sequence ratio": (
        {"loss_type": "sapo", "level": "sequence"},
        {"objective": "sapo", "ratio_level": "sequence"},
        "sequence_mean",
        ROUNDED,
    ),
    "dual clip": ({"loss_type": "grpo", "delta": 1.3}, {"dual_clip": 1.3}, "sequence_mean", EXACT),
    "k3": ({"loss_type": "grpo", "beta": 0.3}, {"kl_coef": 0.3}, "sequence_mean", EXACT),
    "k3, gspo": (
        {"loss_type": "grpo", "beta": 0.3, "level": "sequence"},
        {"kl_coef": 0.3, "ratio_level": "sequence"},
        "sequence_mean",
        EXACT,
    ),
    "k3 bias corrected": (
        {"loss_type": "dapo", "beta": 0.3, "bias_correction": True},
        {"kl_coef": 0.3, "kl_estimator": "k3_unbiased"},
        "token_mean",
        EXACT,
    ),
    "sampler weights": ({"loss_type": "dapo", "weights": True}, {"token_weights": True}, "token_mean", EXACT),
    "sampler weights, cispo": (
        {"loss_type": "cispo", "epsilon_high": 1.25, "weights": True},
        {"objective": "cispo", "clip_low": 1.0, "clip_high": 0.25, "token_weights": True},
        "token_mean",
        EXACT,
    ),
    "off-policy mask": (
        {"loss_type": "grpo", "off_policy_threshold": 0.05},
        {"threshold": 0.05},
        "sequence_mean",
        EXACT,
    ),
    # TRL's bonus is a mean over tokens whatever the loss; under a token mean so is ours
    "entropy bonus": ({"loss_type": "bnpo", "entropy_coef": 0.2}, {"entropy_coef": 0.2}, "token_mean", EXACT),
    "everything": (
        {
            "loss_type": "dapo",
            "epsilon_high": 0.28,
            "delta": 1.4,
            "beta": 0.3,
            "bias_correction": True,
            "weights": True,
            "off_policy_threshold": 0.05,
            "entropy_coef": 0.2,
        },
        {
            "clip_high": 0.28,
            "dual_clip": 1.4,
            "kl_coef": 0.3,
            "kl_estimator": "k3_unbiased",
            "token_weights": True,
            "threshold": 0.05,
            "entropy_coef": 0.2,
        },
        "token_mean",
        EXACT,
    ),
}


def our_loss(batch, options, reduction):
    logprobs = batch.logprobs.clone().requires_grad_()
    entropy = batch.entropy.clone().requires_grad_()
    options = dict(options)
    if options.get("token_weights"):
        options["token_weights"] = batch.token_weights
    if "kl_coef" in options:
        options["ref_logprobs"] = batch.ref_logprobs
    if "threshold" in options:
        options["sequence_mask"] = off_policy_sequence_mask(
            batch.logprobs, batch.rollout_logprobs, batch.advantages, batch.mask, threshold=options.pop("threshold")
        )
    out = policy_loss(
        logprobs,
        batch.old_logprobs,
        batch.advantages,
        batch.mask,
        denominator=batch.denominator(reduction, BUDGET),
        reduction=reduction,
        entropy=entropy,
        **options,
    )
    out.loss.backward()
    grad = torch.zeros_like(entropy) if entropy.grad is None else entropy.grad
    return out, logprobs.grad, grad


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient(case, seed):
    theirs, ours, reduction, tolerance = CASES[case]
    batch = random_batch(seed)
    value, grad, entropy_grad, _ = trl_loss(batch, **theirs)
    out, our_grad, our_entropy_grad = our_loss(batch, ours, reduction)
    assert abs(out.loss.item() - value) < tolerance
    torch.testing.assert_close(our_grad, grad, rtol=0, atol=tolerance)
    torch.testing.assert_close(our_entropy_grad, entropy_grad, rtol=0, atol=tolerance)
    assert grad.abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_logged_numbers(seed):
    """Clip fractions, KL and entropy: TRL's means over tokens (kept in float32 by TRL)."""
    batch = random_batch(seed, rows=12)
    options = {"kl_coef": 0.3, "kl_estimator": "k3_unbiased"}
    _, _, _, metrics = trl_loss(batch, loss_type="grpo", beta=0.3, bias_correction=True)
    averages = per_token(our_loss(batch, options, "sequence_mean")[0].diagnostics)
    assert averages["clip_fraction_low"] == pytest.approx(metrics["clip_ratio/low_mean"], abs=1e-6)
    assert averages["clip_fraction_high"] == pytest.approx(metrics["clip_ratio/high_mean"], abs=1e-6)
    assert averages["kl_ref"] == pytest.approx(metrics["kl"], abs=1e-6)
    assert averages["entropy"] == pytest.approx(metrics["entropy"], abs=1e-6)
    assert averages["clip_fraction_low"] > 0
    assert averages["clip_fraction_high"] > 0


@pytest.mark.parametrize("threshold", [-0.2, 0.0, 0.2])
def test_off_policy_mask(threshold):
    batch = random_batch(1, rows=40)
    theirs = GRPOTrainer.get_off_policy_mask(
        batch.advantages.unsqueeze(-1), batch.logprobs, batch.rollout_logprobs, batch.mask, threshold
    )
    ours = off_policy_sequence_mask(
        batch.logprobs, batch.rollout_logprobs, batch.advantages, batch.mask, threshold=threshold
    )
    assert torch.equal(ours.long(), theirs.squeeze(-1).long())
    assert 0 < ours.sum() < 40


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("low", "high"), [(0.5, 2.0), (0.9, 1.1)])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_sampler_weights(level, mode, low, high, seed):
    """TRL pads whole completions only, so no holes and no empty row here; it stores the sampler's in float32."""
    batch = random_batch(seed).rows([0, 1, 3, 4])
    lengths = [3, 6, 1, 4]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    rollout = batch.rollout_logprobs.float().double()
    scored = trl_scored_rollout(
        torch.zeros(4, 1, dtype=torch.float64),
        group_size=4,
        old_logprobs=batch.old_logprobs,
        sampling_logprobs=[row[:n] for row, n in zip(rollout.tolist(), lengths, strict=True)],
        importance_mode=f"{level}_{mode}",
        clip_min=low,
        clip_max=high,
    )
    theirs = scored["importance_sampling_ratio"].expand(4, 6)
    ours = sampler_weights(batch.old_logprobs, rollout, mask, mode=mode, level=level, low=low, high=high)
    torch.testing.assert_close(ours[mask], theirs[mask], rtol=0, atol=EXACT)


def rewards(seed, *shape, unscored=True):
    make = torch.Generator().manual_seed(seed)
    values = torch.randint(-2, 4, shape, generator=make).double() / 2
    return values.masked_fill(torch.rand(shape, generator=make) < 1 / 6, torch.nan) if unscored else values


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("scale_rewards", "std"), [("group", "sample"), ("none", "none")])
def test_group_advantages(scale_rewards, std, seed):
    values = rewards(seed, 6, 4)
    theirs = trl_scored_rollout(values.reshape(-1, 1), group_size=4, scale_rewards=scale_rewards)["advantages"]
    tolerance = EXACT if std == "none" else ROUNDED
    torch.testing.assert_close(group_relative_advantages(values, std=std), theirs.view(6, 4), rtol=0, atol=tolerance)


@pytest.mark.parametrize("seed", range(3))
def test_per_reward_advantages(seed):
    values, weights = rewards(seed, 6, 4, 3, unscored=False), torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    theirs = trl_scored_rollout(
        values.reshape(-1, 3), reward_weights=weights, aggregation="normalize_then_sum", group_size=4
    )["advantages"]
    torch.testing.assert_close(per_reward_advantages(values, weights), theirs.view(6, 4), rtol=0, atol=ROUNDED)


def test_trl_can_disagree():
    """The oracle is not ours in disguise: one flipped advantage is seen."""
    batch = random_batch(0)
    flipped = replace(batch, advantages=-batch.advantages)
    value, _, _, _ = trl_loss(flipped, loss_type="grpo")
    assert abs(our_loss(batch, {}, "sequence_mean")[0].loss.item() - value) > 1e-2
