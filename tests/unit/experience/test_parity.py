"""An engine with other weights than the policy's is an error right after the sync, on every kind of run."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.correction import updates_of_last_rollout
from helpers.engine import CopyEngine
from helpers.models import tiny_policy
from helpers.phases import long_is_good
from helpers.prompts import prompts_of_lengths
from helpers.quick import quick_rl, random_base
from helpers.ranks import on_ranks
from lightning_r1.config.build import build
from lightning_r1.experience import collect as collect_module
from lightning_r1.experience import parity
from lightning_r1.experience.collect import Credit, collect
from lightning_r1.experience.parity import PROMPTS, TOKENS, logprob_gap, parity_gap
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import EngineError
from lightning_r1.train import train
from lightning_r1.types import Sampling

COPY = [
    "rollout=hf", "rollout._target_=helpers.engine.CopyEngine", "eval.sets=null",
    "algo.sampler_correction=truncate", "algo.dead_groups=keep",
]  # fmt: skip


def naive_gap(policy: Policy, engine: CopyEngine, prompts: list, temperature: float) -> float:
    """One forward a row, one number a token, in Python."""
    groups = engine.generate(
        prompts[:PROMPTS], Sampling(group_size=1, max_new_tokens=TOKENS, temperature=temperature), seeds=[1, 2, 3, 4]
    )
    gaps = []
    for group in groups:
        done = group.completions[0]
        ids = [*group.prompt.token_ids, *done.token_ids]
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids])).logits[0]
        for place, (token, said) in enumerate(zip(done.token_ids, done.logprobs, strict=True)):
            row = logits[len(group.prompt.token_ids) + place - 1] / temperature
            gaps.append(abs(float(row[token] - row.logsumexp(-1)) - said))
    return sum(gaps) / len(gaps)


def test_the_gap_is_the_mean_difference_of_what_both_say_of_a_token(codec: Codec) -> None:
    policy = tiny_policy()
    engine = CopyEngine(policy, codec)
    prompts = prompts_of_lengths(codec, [4, 7, 5, 9, 6])
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.1)
    how = {"seeds": [1, 2, 3, 4, 5], "temperature": 0.7}

    stale = parity_gap(engine, policy, codec, prompts, tolerance=9.0, **how)
    assert stale == pytest.approx(naive_gap(policy, engine, prompts, 0.7), rel=1e-4)
    assert stale > 0.05
    with pytest.raises(EngineError, match=r"rollout.parity_tolerance=0.01: .* differ from the policy's by \d") as told:
        parity_gap(engine, policy, codec, prompts, tolerance=0.01, **how)
    assert "\n" not in str(told.value)

    engine.sync_weights(1)
    assert parity_gap(engine, policy, codec, prompts, tolerance=1e-4, **how) < 1e-5


def test_numbers_that_are_none_are_no_parity(codec: Codec) -> None:
    policy = tiny_policy()
    engine = CopyEngine(policy, codec)
    with torch.no_grad():
        next(policy.parameters()).fill_(float("nan"))
    with pytest.raises(EngineError, match="by inf nats"):
        parity_gap(engine, policy, codec, prompts_of_lengths(codec, [4]), seeds=[1], temperature=1.0, tolerance=100.0)


def test_a_synced_engine_trains_and_the_gap_is_logged(tmp_path: Path) -> None:
    train(quick_rl(tmp_path, random_base(tmp_path / "base"), *COPY))
    with (tmp_path / "coin/rl/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    assert all(float(row["rollout/parity_gap"]) < 1e-5 for row in rows)


def test_one_step_without_its_weights_is_seen(tmp_path: Path) -> None:
    """The second sync is the one after the first optimizer step, at the miniature's learning rate."""
    with pytest.raises(EngineError, match=r"rollout\.parity_tolerance=0\.0001: after a sync"):
        train(quick_rl(tmp_path, random_base(tmp_path / "base"), *COPY, "+rollout.stale_from=2"))


def test_an_exact_engine_or_no_tolerance_is_not_probed(tmp_path: Path) -> None:
    base = random_base(tmp_path / "base")
    run = build(quick_rl(tmp_path, base, *COPY, "+rollout.stale_from=2", "+rollout.parity_tolerance=null"))
    run.trainer.fit(run.module, run.datamodule)
    assert run.trainer.global_step == 3
    assert "rollout/parity_gap" not in run.module.latest
    assert run.module.engine.syncs == 3
    run.close()
    assert run.module.engine.closed


def test_a_stale_engine_that_is_not_probed_shows_in_the_gap_and_is_weighed(tmp_path: Path) -> None:
    """What the probe guards against: log-probabilities of old weights; the correction's weights are their ratio."""
    base = random_base(tmp_path / "base")
    gaps, updates = {}, {}
    for stale_from in (0, 2):
        run = build(
            quick_rl(tmp_path, base, *COPY, f"+rollout.stale_from={stale_from}", "+rollout.parity_tolerance=null")
        )
        run.trainer.fit(run.module, run.datamodule)
        gaps[stale_from] = run.module.latest["policy/logprob_gap"]
        updates[stale_from] = updates_of_last_rollout(run.module)
    assert gaps[0] < 1e-5
    assert gaps[2] > 1e-3
    stale = updates[2]
    assert max(abs(weight - 1) for weight in stale.weights) > 1e-2
    torch.testing.assert_close(stale.corrected, stale.by_formula, rtol=1e-4, atol=1e-7)
    assert (stale.corrected - stale.without).norm() > 1e-3 * stale.without.norm()


def test_the_gap_of_groups_ignores_padding(codec: Codec) -> None:
    policy = tiny_policy()
    engine = CopyEngine(policy, codec)
    prompts = prompts_of_lengths(codec, [4, 11])
    groups = engine.generate(prompts, Sampling(group_size=3, max_new_tokens=9), seeds=[1, 2])
    assert logprob_gap(policy, codec, groups, 1.0) < 1e-5
    assert logprob_gap(policy, codec, groups, 0.5) > 0.1


def test_a_gap_on_one_rank_and_an_engine_that_fails_on_one_are_raised_on_all(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, other = tiny_policy(), tiny_policy(seed=1)
    prompts = prompts_of_lengths(codec, [4, 7])

    class Failing(CopyEngine):
        def generate(self, *arguments: Any, **how: Any) -> Any:
            raise EngineError("the server is gone")

    def work(engine: CopyEngine) -> str:
        with pytest.raises(EngineError) as told:
            parity_gap(engine, policy, codec, prompts, seeds=[1, 2], temperature=1.0, tolerance=0.01)
        return str(told.value)

    right, stale, gone = CopyEngine(policy, codec), CopyEngine(other, codec), Failing(policy, codec)
    first, second = on_ranks(monkeypatch, [parity], [partial(work, right), partial(work, stale)])
    assert first == second
    assert "rollout.parity_tolerance=0.01" in first
    assert on_ranks(monkeypatch, [parity], [partial(work, right), partial(work, gone)]) == ["the server is gone"] * 2


def test_an_engine_that_fails_on_one_rank_ends_the_rollout_of_all(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(CopyEngine):
        def generate(self, *arguments: Any, **how: Any) -> Any:
            raise EngineError("the server is gone")

    policy = tiny_policy()
    prompts = prompts_of_lengths(codec, [4, 7])

    def work(engine: CopyEngine) -> str:
        with pytest.raises(EngineError) as told:
            collect(
                lambda taken, count: (prompts, [1, 2]), engine, RewardSuite({"length": long_is_good}),
                sampling=Sampling(group_size=2, max_new_tokens=4), credit=Credit(), groups=2,
            )  # fmt: skip
        return str(told.value)

    works = [partial(work, CopyEngine(policy, codec)), partial(work, Failing(policy, codec))]
    assert on_ranks(monkeypatch, [collect_module], works) == ["the server is gone"] * 2
