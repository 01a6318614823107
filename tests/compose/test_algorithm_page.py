"""The page on the algorithm: every set of overrides composes, and what is said to equal TRL does."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate

from lightning_r1.config.checks import check_rules
from lightning_r1.config.compose import compose_config
from lightning_r1.config.schema import check_signatures
from lightning_r1.functional import (
    group_relative_advantages,
    off_policy_sequence_mask,
    per_reward_advantages,
    policy_loss,
)
from lightning_r1.modules.algorithm import Algorithm
from oracles.batches import Batch, random_batch
from oracles.trl_grpo import trl_loss, trl_scored_rollout

PAGE = (Path(__file__).parents[2] / "recipes/guides/algorithm.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("<!-- equivalents -->")[1].split("<!-- /equivalents -->")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| theirs")
]
SETS = {theirs: ours.strip("`").split() for theirs, ours, _ in ROWS if ours != "none"}
# the options of a TRL row as the oracle names them; advantages are computed elsewhere than the loss
LOSS = {
    "loss_type": "loss_type",
    "importance_sampling_level": "level",
    "epsilon": "epsilon",
    "epsilon_high": "epsilon_high",
    "delta": "delta",
    "beta": "beta",
    "use_bias_correction_kl": "bias_correction",
    "off_policy_mask_threshold": "off_policy_threshold",
}
CREDIT = {"scale_rewards": "scale_rewards", "multi_objective_aggregation": "aggregation"}
OTHER = {"use_vllm", "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"}
TRL = [(theirs, equal) for theirs, _, equal in ROWS if theirs.startswith("TRL") and "use_vllm" not in theirs]


@cache
def composed(*overrides: str) -> dict[str, Any]:
    """The overrides on top of a phase of RL."""
    return compose_config("train", ["phase=r1_zero", "model=qwen2_5_1_5b", "data=gsm8k", *overrides])


def options(theirs: str) -> dict[str, Any]:
    """What a TRL row sets, over TRL's defaults."""
    said = dict(re.findall(r"(\w+)=([\w.-]+)", theirs))
    assert said.keys() <= LOSS.keys() | CREDIT.keys() | OTHER, f"{theirs}: the oracle does not know an option"
    plain = {"True": True, "False": False}
    values = {key: plain[value] if value in plain else _number_or_text(value) for key, value in said.items()}
    return {"loss_type": "dapo", "use_bias_correction_kl": True, **values}


def _number_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value


def our_loss(algo: Algorithm, batch: Batch) -> tuple[float, torch.Tensor]:
    """As :meth:`lightning_r1.modules.grpo.GRPO.loss` computes it."""
    logprobs = batch.logprobs.clone().requires_grad_()
    keep = None
    if algo.off_policy_threshold is not None:
        keep = off_policy_sequence_mask(
            batch.logprobs, batch.rollout_logprobs, batch.advantages, batch.mask, threshold=algo.off_policy_threshold
        )
    out = policy_loss(
        logprobs,
        batch.old_logprobs,
        batch.advantages,
        batch.mask,
        denominator=batch.denominator(algo.reduction, algo.sampling.max_new_tokens),
        objective=algo.objective,
        ratio_level=algo.ratio_level,
        clip_low=algo.clip_low,
        clip_high=algo.clip_high,
        dual_clip=algo.dual_clip,
        reduction=algo.reduction,
        ref_logprobs=batch.ref_logprobs if algo.kl_coef else None,
        kl_coef=algo.kl_coef,
        kl_estimator=algo.kl_estimator,
        sequence_mask=keep,
    )
    out.loss.backward()
    assert logprobs.grad is not None
    return out.loss.item(), logprobs.grad


def test_the_table_is_read() -> None:
    assert len(SETS) > 20
    assert len(TRL) > 10
    assert {theirs.split(",")[0].split()[0] for theirs in SETS} >= {"TRL", "verl", "OpenRLHF", "NeMo-RL", "prime-rl"}


@pytest.mark.parametrize("theirs", SETS)
def test_a_set_composes_and_passes_the_rules(theirs: str) -> None:
    config = composed(*SETS[theirs])
    check_signatures(config)
    check_rules(config)


@pytest.mark.parametrize(("theirs", "equal"), TRL, ids=lambda part: part if part.startswith("TRL") else "")
def test_a_row_that_says_equal_is(theirs: str, equal: str) -> None:
    assert equal.startswith("yes")
    algo: Algorithm = instantiate(composed(*SETS[theirs])["algo"])
    said = options(theirs)
    # wide enough that every bound on the page is met from both sides
    batch = random_batch(0, rows=24, spread=1.0)
    drift = torch.linspace(0, 1.2, 24, dtype=torch.float64).unsqueeze(-1)
    batch = replace(batch, rollout_logprobs=batch.logprobs + drift)
    value, grad, _, _ = trl_loss(
        batch,
        **{LOSS[key]: value for key, value in said.items() if key in LOSS},
        max_completion_length=algo.sampling.max_new_tokens,
    )
    ours, our_grad = our_loss(algo, batch)
    assert ours == pytest.approx(value, abs=1e-7)
    torch.testing.assert_close(our_grad, grad, rtol=0, atol=1e-7)

    rewards = torch.randint(0, 3, (6, 4, 2), generator=torch.Generator().manual_seed(0)).double()
    credit = {CREDIT[key]: value for key, value in said.items() if key in CREDIT}
    theirs_advantages = trl_scored_rollout(rewards.reshape(-1, 2), group_size=4, **credit)["advantages"].view(6, 4)
    if algo.per_reward:
        advantages = per_reward_advantages(rewards, torch.ones(2, dtype=torch.float64), std=algo.std)
    else:
        advantages = group_relative_advantages(rewards.sum(-1), std=algo.std, baseline=algo.baseline)
    torch.testing.assert_close(advantages, theirs_advantages, rtol=0, atol=1e-6)
