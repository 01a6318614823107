"""The objective against naive loops, a hand-worked example, REINFORCE on policy, and gradcheck."""

import math

import pytest
import torch

from lightning_r1.functional import policy_loss
from oracles.batches import random_batch
from oracles.naive_policy_loss import naive_policy_loss
from oracles.scalars import gradients, leaves

OBJECTIVES = ("clip", "cispo", "sapo")
LEVELS = ("token", "sequence")
REDUCTIONS = ("sequence_mean", "token_mean", "constant")
BUDGET = 8
CLIPS = {"clip_low": 0.2, "clip_high": 0.28}
TAUS = {"sapo_temperatures": (0.8, 1.3)}

EXTRAS = {
    "plain": {},
    "dual_clip": {"dual_clip": 1.4},
    "k1": {"kl_coef": 0.3, "kl_estimator": "k1"},
    "k2": {"kl_coef": 0.3, "kl_estimator": "k2"},
    "k3": {"kl_coef": 0.3, "kl_estimator": "k3"},
    "k3_unbiased": {"kl_coef": 0.3, "kl_estimator": "k3_unbiased"},
    "weights": {"token_weights": True},
    "sequence_mask": {"sequence_mask": True},
    "entropy": {"entropy_coef": 0.2},
    "everything": {
        "kl_coef": 0.3,
        "kl_estimator": "k3_unbiased",
        "token_weights": True,
        "sequence_mask": True,
        "entropy_coef": 0.2,
        "dual_clip": 1.4,
    },
}


def tensors_for(batch, options):
    """Replace the ``True`` of an option by the batch's tensor, and add what its coefficients need."""
    tensors = {name: getattr(batch, name) for name, value in options.items() if value is True}
    if "kl_coef" in options:
        tensors["ref_logprobs"] = batch.ref_logprobs
    if "entropy_coef" in options:
        tensors["entropy"] = batch.entropy.clone().requires_grad_()
    return options | tensors


def ours(batch, options, reduction="sequence_mean"):
    logprobs = batch.logprobs.clone().requires_grad_()
    options = tensors_for(batch, options)
    denominator = batch.denominator(reduction, BUDGET)
    out = policy_loss(
        logprobs,
        batch.old_logprobs,
        batch.advantages,
        batch.mask,
        denominator=denominator,
        reduction=reduction,
        **options,
    )
    out.loss.backward()
    return out, logprobs.grad, options["entropy"].grad if "entropy" in options else None


def naive(batch, options, reduction="sequence_mean"):
    logprobs, entropy = leaves(batch.logprobs), leaves(batch.entropy)
    matrices = {name: getattr(batch, name).tolist() for name, value in options.items() if value is True}
    loss = naive_policy_loss(
        logprobs,
        batch.old_logprobs.tolist(),
        batch.advantages.tolist(),
        batch.mask.tolist(),
        ref_logprobs=batch.ref_logprobs.tolist(),
        entropy=entropy,
        reduction=reduction,
        token_budget=BUDGET,
        **(options | matrices),
    )
    loss.backward()
    return loss.item(), gradients(logprobs), gradients(entropy)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ratio_level", LEVELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("extra", EXTRAS)
def test_value_and_gradient_equal_the_naive_loop(objective, ratio_level, extra, seed):
    batch = random_batch(seed)
    options = {"objective": objective, "ratio_level": ratio_level} | CLIPS | TAUS | EXTRAS[extra]
    for reduction in REDUCTIONS:
        out, grad, entropy_grad = ours(batch, options, reduction)
        value, naive_grad, naive_entropy_grad = naive(batch, options, reduction)
        assert abs(out.loss.item() - value) < 1e-10
        torch.testing.assert_close(grad, naive_grad, rtol=0, atol=1e-10)
        if entropy_grad is not None:
            torch.testing.assert_close(entropy_grad, naive_entropy_grad, rtol=0, atol=1e-10)
            assert entropy_grad.abs().sum() > 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_policy_share_is_the_loss_without_kl_and_entropy(objective, seed):
    batch = random_batch(seed)
    options = {"objective": objective} | CLIPS | TAUS
    out, _, _ = ours(batch, options | EXTRAS["everything"], "token_mean")
    without = {"token_weights": True, "sequence_mask": True, "dual_clip": 1.4}
    value, _, _ = naive(batch, options | without, "token_mean")
    assert abs(out.policy.item() - value) < 1e-10
    assert not out.policy.requires_grad
    assert abs(out.loss.item() - value) > 1e-3


def test_hand_worked_example():
    """Two completions of two tokens, A = +1 and -1, clip 0.2, sequence mean over two.

    ratios  row 1: 1.5, 0.5   min(1.5, 1.2) = 1.2 (no gradient)   min(0.5, 0.8) = 0.5 (gradient 0.5)
            row 2: 1.5, 0.5   min(-1.5, -1.2) = -1.5 (gradient)   min(-0.5, -0.8) = -0.8 (no gradient)
    J = ((1.2 + 0.5) / 2 + (-1.5 - 0.8) / 2) / 2 = (0.85 - 1.15) / 2 = -0.15
    dJ/dlogp: each live token ratio * A / 2 / 2 = 0.125 and -0.375
    """
    ratios = torch.tensor([[1.5, 0.5], [1.5, 0.5]], dtype=torch.float64)
    logprobs = ratios.log().requires_grad_()
    mask = torch.ones(2, 2, dtype=torch.bool)
    advantages = torch.tensor([1.0, -1.0], dtype=torch.float64)
    out = policy_loss(logprobs, torch.zeros_like(ratios), advantages, mask, denominator=2)
    out.loss.backward()
    assert out.loss.item() == pytest.approx(0.15, abs=1e-15)
    expected = torch.tensor([[0.0, -0.125], [0.375, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(logprobs.grad, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ratio_level", LEVELS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_on_policy_gradient_is_reinforce(objective, ratio_level, reduction, seed):
    """Old = current, no KL: d loss / d log pi = -A_i, divided as the reduction says; nothing is clipped."""
    batch = random_batch(seed)
    logprobs = batch.logprobs.clone().requires_grad_()
    denominator = batch.denominator(reduction, BUDGET)
    out = policy_loss(
        logprobs,
        logprobs.detach(),
        batch.advantages,
        batch.mask,
        denominator=denominator,
        objective=objective,
        ratio_level=ratio_level,
        reduction=reduction,
    )
    out.loss.backward()
    reinforce, mean_advantage = torch.zeros_like(logprobs), 0.0
    for i, row in enumerate(batch.mask.tolist()):
        per_token = 1 / denominator / (sum(row) if reduction == "sequence_mean" else 1) if any(row) else 0
        for t, counts in enumerate(row):
            if counts:
                reinforce[i, t] = -batch.advantages[i] * per_token
                mean_advantage += batch.advantages[i].item() * per_token
    torch.testing.assert_close(logprobs.grad, reinforce, rtol=0, atol=1e-12)
    if objective == "clip":
        assert out.loss.item() == pytest.approx(-mean_advantage, abs=1e-12)
    assert out.diagnostics["clip_fraction_low"] == out.diagnostics["clip_fraction_high"] == 0


def test_on_policy_value_of_a_centred_group_is_zero_under_sequence_mean():
    batch = random_batch(0, rows=4).rows([0, 1, 3])
    centred = batch.advantages - batch.advantages.mean()
    out = policy_loss(batch.logprobs, batch.logprobs, centred, batch.mask, denominator=3)
    assert abs(out.loss.item()) < 1e-15
    out = policy_loss(batch.logprobs, batch.logprobs, centred, batch.mask, denominator=1, reduction="token_mean")
    assert abs(out.loss.item()) > 1e-2, "a token mean weighs long completions more: not zero"


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("ratio_level", LEVELS)
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "k3_unbiased"])
def test_gradcheck(objective, ratio_level, estimator):
    """CISPO stops the gradient of its clipped ratio, so only a constant clip(ratio, 1, 1) can be checked so."""
    batch = random_batch(7)
    clips = {"clip_low": 0.0, "clip_high": 0.0} if objective == "cispo" else CLIPS

    def loss(logprobs, entropy):
        return policy_loss(
            logprobs,
            batch.old_logprobs,
            batch.advantages,
            batch.mask,
            denominator=5,
            objective=objective,
            ratio_level=ratio_level,
            ref_logprobs=batch.ref_logprobs,
            kl_coef=0.3,
            kl_estimator=estimator,
            token_weights=batch.token_weights,
            entropy=entropy,
            entropy_coef=0.1,
            **clips,
        ).loss

    leaf = batch.logprobs.clone().requires_grad_(), batch.entropy.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, leaf, eps=1e-6, atol=1e-8, rtol=1e-6)


def test_cispo_gives_clipped_tokens_a_gradient_and_none_through_the_ratio():
    """d/dlogp of sg(clip(rho)) A logp is sg(clip(rho)) A: 1.28 above, 1.1 inside, 0.8 below."""
    ratios = torch.tensor([[3.0, 1.1, 0.2]], dtype=torch.float64)
    logprobs = ratios.log().requires_grad_()
    out = policy_loss(
        logprobs,
        torch.zeros_like(ratios),
        torch.tensor([2.0], dtype=torch.float64),
        torch.ones(1, 3, dtype=torch.bool),
        denominator=1,
        objective="cispo",
        reduction="token_mean",
        **CLIPS,
    )
    out.loss.backward()
    factors = (1.28, 1.1, 0.8)
    expected = torch.tensor([[-2.0 * f for f in factors]], dtype=torch.float64)
    torch.testing.assert_close(logprobs.grad, expected, rtol=0, atol=1e-12)
    value = -sum(2.0 * f * math.log(r) for f, r in zip(factors, (3.0, 1.1, 0.2), strict=True))
    assert out.loss.item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"objective": "ppo"}, "objective"),
        ({"ratio_level": "word"}, "ratio_level"),
        ({"reduction": "mean"}, "reduction"),
        ({"kl_estimator": "k4", "kl_coef": 0.1, "ref_logprobs": True}, "estimator"),
        ({"kl_coef": 0.1}, "kl_coef"),
        ({"entropy_coef": 0.1}, "entropy_coef"),
        ({"dual_clip": 1.2}, "dual_clip"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(options, name):
    batch = random_batch(0)
    options = {key: getattr(batch, key) if value is True else value for key, value in options.items()}
    with pytest.raises(ValueError, match=name):
        policy_loss(batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask, denominator=1, **options)
