"""Numbers measured once by calling TRL 1.16.0 on a closed-form batch, kept as literals.

Unlike ``test_against_trl`` they stay if TRL changes. Four completions (lengths 5, 3, 4, 1) of at
most five tokens, i = row, t = column:
logp = -.5 - .1 i - .07 t; old = logp + .3 sin(1 + 2 i + 3 t); ref = logp + .2 cos(.5 + i - 2 t).
"""

import pytest
import torch

from lightning_r1.functional import group_relative_advantages, policy_loss

LENGTHS = torch.tensor([5, 3, 4, 1])
ADVANTAGES = torch.tensor([1.0, -0.5, 0.75, -1.25], dtype=torch.float64)
ROWS, TOKENS, BUDGET = 4, 13, 8

CISPO_UNBOUNDED_BELOW = {"objective": "cispo", "clip_low": 1.0}
GSPO = {"ratio_level": "sequence"}

# TRL's name of the case: (our options, denominator, loss, sum of d loss / d logp)
CASES = {
    "grpo": ({}, ROWS, -0.046336167, 0.126163833),
    "grpo beta .04, bias-corrected": (
        {"kl_coef": 0.04, "kl_estimator": "k3_unbiased"},
        ROWS,
        -0.045921484,
        0.127543764,
    ),
    "grpo beta .04, plain k3": ({"kl_coef": 0.04}, ROWS, -0.045871159, 0.127441395),
    "grpo epsilon_high .28": ({"clip_high": 0.28}, ROWS, -0.056580217, 0.063419783),
    "gspo 3e-4 / 4e-4": (GSPO | {"clip_low": 3e-4, "clip_high": 4e-4}, ROWS, 0.009261911, -0.428106839),
    "gspo .2": (GSPO, ROWS, -0.049885746, -0.049885746),
    "bnpo = dapo": ({"reduction": "token_mean"}, TOKENS, -0.406169388, -0.175400158),
    # two accumulation steps of a generation batch that spans four: TRL divides by tokens * 2 / 4
    "dapo GA=2 S=4": ({"reduction": "token_mean"}, TOKENS * 2 / 4, -0.812338777, -0.350800315),
    "dr_grpo L=8": ({"reduction": "constant"}, ROWS * BUDGET, -0.165006314, -0.071256314),
    # luspo: the sequence ratio, tokens summed, sequences averaged
    "luspo": (GSPO | {"reduction": "constant"}, ROWS, -1.331861602, -1.331861602),
    # TRL's cispo clamps the ratio at epsilon_high itself: 5.0 is our 1 + 4.0, its default .2 our 1 - 0.8
    "cispo epsilon_high 5": (
        CISPO_UNBOUNDED_BELOW | {"clip_high": 4.0, "reduction": "token_mean"},
        TOKENS,
        0.295340889,
        -0.426728415,
    ),
    "cispo epsilon_high .2": (
        CISPO_UNBOUNDED_BELOW | {"clip_high": -0.8, "reduction": "token_mean"},
        TOKENS,
        0.055538462,
        -0.080769231,
    ),
    # TRL keeps the temperatures in float32, which moves the eighth digit
    "sapo": ({"objective": "sapo"}, ROWS, -0.103661863, -0.057688067),
}


def closed_form_batch():
    i = torch.arange(4, dtype=torch.float64)[:, None]
    t = torch.arange(5, dtype=torch.float64)
    logprobs = -0.5 - 0.1 * i - 0.07 * t
    old = logprobs + 0.3 * (1 + 2 * i + 3 * t).sin()
    ref = logprobs + 0.2 * (0.5 + i - 2 * t).cos()
    return logprobs.requires_grad_(), old.detach(), ref.detach(), t < LENGTHS[:, None]


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient(case):
    options, denominator, loss, gradient = CASES[case]
    logprobs, old, ref, mask = closed_form_batch()
    out = policy_loss(logprobs, old, ADVANTAGES, mask, denominator=denominator, ref_logprobs=ref, **options)
    out.loss.backward()
    tolerance = 1e-7 if case == "sapo" else 1e-9
    assert out.loss.item() == pytest.approx(loss, abs=tolerance)
    assert logprobs.grad.sum().item() == pytest.approx(gradient, abs=tolerance)


@pytest.mark.parametrize(
    ("options", "right", "wrong"),
    [
        ({}, 0.4999000, -1.4997001),
        ({"std": "none", "baseline": "leave_one_out"}, 0.3333333, -1.0),
    ],
)
def test_advantages_of_one_miss_among_four(options, right, wrong):
    actual = group_relative_advantages(torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64), **options)
    assert actual[0].tolist() == pytest.approx([right, wrong, right, right], abs=1e-7)
