"""vLLM beside the trainer: it samples from the policy's weights, and says so in its log-probabilities."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.correction import updates_of_last_rollout
from helpers.environments import Answers
from helpers.prompts import mini_codec, prompts_of_lengths
from helpers.vllm import QUICK, served_base, served_policy, vllm_rl
from lightning_r1.config.build import build
from lightning_r1.experience.parity import logprob_gap
from lightning_r1.rollout.engine import EngineError, RolloutEngine
from lightning_r1.rollout.environment import Reply
from lightning_r1.rollout.episodes import Budget, EpisodeEngine
from lightning_r1.rollout.sampling import truncate
from lightning_r1.rollout.vllm import VLLMEngine
from lightning_r1.train import train
from lightning_r1.types import Group, Sampling

HOW = Sampling(group_size=4, max_new_tokens=12)


@pytest.fixture(scope="module")
def engine() -> Iterator[VLLMEngine]:
    """One for all tests; each syncs what it needs. Buckets are small, so that there are several."""
    engine = VLLMEngine(served_policy(), mini_codec(), bucket_mib=0, more={"block_size": 32}, **QUICK)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_base(tmp_path_factory.mktemp("base"))


def sampled(engine: RolloutEngine, how: Sampling = HOW, **more: Any) -> list[Group]:
    prompts = prompts_of_lengths(mini_codec(), [4, 40, 7])
    return engine.generate(prompts, how, seeds=[11, 12, 13], **more)


def change(engine: VLLMEngine) -> None:
    with torch.no_grad():
        for parameter in engine.policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_weights_arrive_and_log_probabilities_are_the_trainers(engine: VLLMEngine, temperature: float) -> None:
    how = replace(HOW, temperature=temperature)
    for version in (1, 2, 3):
        change(engine)
        if version > 1:
            assert logprob_gap(engine.policy, engine.codec, sampled(engine, how), temperature) > 0.02, "stale"
        engine.sync_weights(version)
        groups = sampled(engine, how)
        assert logprob_gap(engine.policy, engine.codec, groups, temperature) < 1e-5
        assert {done.policy_version for group in groups for done in group.completions} == {version}


def test_groups_come_in_order_whole_and_as_soon_as_they_are(engine: VLLMEngine) -> None:
    engine.sync_weights(1)
    given: dict[int, Group] = {}
    told: list[tuple[int, int]] = []
    groups = sampled(engine, progress=lambda done, total: told.append((done, total)), finished=given.__setitem__)
    assert [len(group.prompt.token_ids) for group in groups] == [4, 40, 7]
    assert given == dict(enumerate(groups))
    assert sorted(told) == [(4, 12), (8, 12), (12, 12)]
    stops = set(engine.codec.stop_ids)
    for done in (done for group in groups for done in group.completions):
        assert len(done.token_ids) == len(done.logprobs) <= 12
        assert not stops & set(done.token_ids[:-1])
        assert (done.finish_reason == "stop") == (done.token_ids[-1] in stops)
    assert len({done.token_ids for done in groups[0].completions}) > 1


def test_a_rollout_is_made_again_identically_and_seeds_matter(engine: VLLMEngine) -> None:
    engine.sync_weights(1)
    first = sampled(engine)
    engine.sync_weights(1)
    assert sampled(engine) == first
    prompts = prompts_of_lengths(engine.codec, [4, 40, 7])
    assert engine.generate(prompts[1:2], HOW, seeds=[12])[0] == first[1], "alone as among others"
    assert (
        engine.generate(prompts[1:2], replace(HOW, group_size=2), seeds=[12])[0].completions
        == (first[1].completions[:2])
    )
    assert engine.generate(prompts[1:2], HOW, seeds=[99])[0] != first[1]


def test_a_cache_of_old_weights_would_be_wrong_and_is_emptied(
    engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the long prompt one page is shared by the group, and would be by the next rollout."""
    prompts = prompts_of_lengths(engine.codec, [40])

    def gap() -> float:
        return logprob_gap(engine.policy, engine.codec, engine.generate(prompts, HOW, seeds=[1]), 1.0)

    engine.sync_weights(1)
    assert gap() < 1e-5
    change(engine)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_forget", lambda: None)
        engine.sync_weights(2)
        assert gap() > 0.02
    engine.sync_weights(3)
    assert gap() < 1e-5


def test_stop_tokens_end_a_completion(engine: VLLMEngine) -> None:
    change(engine)
    engine.sync_weights(1)
    groups = sampled(engine, replace(HOW, group_size=16, max_new_tokens=40))
    reasons = [done.finish_reason for group in groups for done in group.completions]
    assert {"stop", "length"} == set(reasons)


def test_episodes_have_replies_in_them_and_the_trainers_log_probabilities_around_them(engine: VLLMEngine) -> None:
    """vLLM pauses wherever a call may have ended; an environment answers those that have."""
    change(engine)
    engine.sync_weights(1)
    world = Answers(("5", "1"), lambda prompt, seed, text: Reply("=" + str(len(text) % 10)))
    talking = EpisodeEngine(engine, world, engine.codec, Budget(max_turns=4, max_reply_tokens=4))
    how = replace(HOW, group_size=8, max_new_tokens=24)
    groups = sampled(talking, how)
    episodes = [done for group in groups for done in group.completions]
    assert max(len(done.replies) for done in episodes) == 3
    for done in episodes:
        assert len(done.token_ids) == len(done.logprobs) == len(done.sampled or ()) <= 24
        assert all((logprob < 0) is kept for logprob, kept in zip(done.logprobs, done.sampled or (), strict=True))
    assert logprob_gap(engine.policy, engine.codec, groups, 1.0) < 1e-5
    assert logprob_gap(engine.policy, engine.codec, [everything_counts(group) for group in groups], 1.0) > 0.1
    assert sampled(talking, how) == groups


def everything_counts(group: Group) -> Group:
    return replace(group, completions=tuple(replace(done, sampled=None) for done in group.completions))


def test_greedy_is_the_largest_logit_at_temperature_1(engine: VLLMEngine) -> None:
    engine.sync_weights(1)
    groups = sampled(engine, replace(HOW, temperature=0.0))
    assert all(len(set(group.completions)) == 1 and len(group.completions) == 4 for group in groups)
    assert logprob_gap(engine.policy, engine.codec, groups, 1.0) < 1e-5


@pytest.mark.parametrize("cut", [{"top_p": 0.7}, {"top_k": 5}, {"min_p": 0.1}, {"top_p": 0.8, "temperature": 0.6}])
def test_truncated_log_probabilities_are_of_the_distribution_that_was_sampled(
    engine: VLLMEngine, cut: dict[str, float]
) -> None:
    """Teacher-forced under our own truncation: what vLLM says after temperature, top-k, top-p and min-p."""
    engine.sync_weights(1)
    how = replace(HOW, **cut)
    worst = 0.0
    for group in sampled(engine, how):
        start = len(group.prompt.token_ids)
        for done in group.completions:
            with torch.no_grad():
                logits = engine.policy.model(torch.tensor([[*group.prompt.token_ids, *done.token_ids]])).logits[0]
            kept = truncate(logits.float() / how.temperature, how).log_softmax(-1)
            for place, (token, said) in enumerate(zip(done.token_ids, done.logprobs, strict=True)):
                worst = max(worst, abs(float(kept[start + place - 1, token]) - said))
    assert worst < 1e-4


def test_on_a_cpu_sleep_forgets_the_cache_and_waking_needs_nothing(engine: VLLMEngine) -> None:
    engine.sync_weights(1)
    before = sampled(engine)
    engine.sleep()
    engine.wake()
    assert sampled(engine) == before


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "coin/rl/metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["policy/loss"]]


def test_the_miniature_trains(base: Path, tmp_path: Path) -> None:
    """Through the real verb: every sync is probed to 1e-3 nats; an update at this rate moves ten times that."""
    summary = train(vllm_rl(tmp_path, base))
    assert summary["steps"] == 4
    rows = metrics(tmp_path)
    assert len(rows) == 4
    assert all(0.2 < float(row["rollout/reward/accuracy"]) < 0.9 for row in rows)
    assert all(float(row["rollout/format_fraction"]) > 0.5 for row in rows)
    assert all(float(row["rollout/parity_gap"]) < 1e-5 for row in rows)
    assert all(float(row["policy/logprob_gap"]) < 1e-5 for row in rows)
    assert all(float(row["optim/grad_norm"]) > 0 for row in rows)


class StaleEngine(VLLMEngine):
    """Takes the weights once and never again."""

    def sync_weights(self, version: int) -> None:
        if not getattr(self, "synced", False):
            super().sync_weights(version)
        self.synced, self.version = True, version


def test_a_stale_engine_is_an_error_or_without_the_probe_is_corrected(base: Path, tmp_path: Path) -> None:
    stale = f"rollout._target_={__name__}.StaleEngine"
    with pytest.raises(EngineError, match=r"rollout\.parity_tolerance=0\.001: after a sync .* differ from the policy"):
        train(vllm_rl(tmp_path / "probed", base, stale, "eval.sets=null"))

    run = build(vllm_rl(tmp_path / "blind", base, stale, "rollout.parity_tolerance=null", "eval.sets=null"))
    run.trainer.fit(run.module, run.datamodule)
    gap = run.module.latest["policy/logprob_gap"]
    updates = updates_of_last_rollout(run.module)
    run.close()
    assert gap > 1e-3
    assert max(abs(weight - 1) for weight in updates.weights) > 1e-2
    torch.testing.assert_close(updates.corrected, updates.by_formula, rtol=1e-4, atol=1e-7)
    assert (updates.corrected - updates.without).norm() > 1e-3 * updates.without.norm()


def test_a_process_that_was_killed_is_an_error_by_name(engine: VLLMEngine) -> None:
    """The last test of this engine."""
    engine.sync_weights(1)
    for process in engine._engine.engine_core.resources.engine_manager.processes:
        process.kill()
    with pytest.raises(EngineError, match=r"vLLM: .*(process has ended|EngineDeadError).*; look at vLLM's lines above"):
        sampled(engine, replace(HOW, max_new_tokens=40))
