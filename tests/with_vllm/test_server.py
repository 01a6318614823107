"""A real vLLM server: the trainer's weights go to it over HTTP, its samples are the trainer's."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.models import tiny_policy
from helpers.prompts import mini_codec, prompts_of_lengths
from helpers.vllm import served_base, vllm_rl
from helpers.vllm_process import vllm_server
from lightning_r1.config.build import build
from lightning_r1.experience.parity import logprob_gap
from lightning_r1.models.load import load_model
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.engine import EngineError, RolloutEngine
from lightning_r1.rollout.vllm_server import VLLMServerEngine
from lightning_r1.train import train
from lightning_r1.types import Group, Sampling

HOW = Sampling(group_size=4, max_new_tokens=12)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def url(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("server") / "log"
    with vllm_server(base, log) as address:
        try:
            yield address
        finally:
            print(log.read_text()[-4000:])  # noqa: T201


@pytest.fixture
def engine(url: str, base: Path) -> VLLMServerEngine:
    policy = Policy(load_model(str(base), dtype="float32", attention="sdpa", dropout=0.0)).eval()
    return VLLMServerEngine(policy, mini_codec(), base_url=url, bucket_mib=0, start_s=300.0)


def sampled(engine: RolloutEngine, how: Sampling = HOW) -> list[Group]:
    return engine.generate(prompts_of_lengths(mini_codec(), [4, 40, 7]), how, seeds=[11, 12, 13])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_weights_arrive_and_log_probabilities_are_the_trainers(engine: VLLMServerEngine, temperature: float) -> None:
    how = replace(HOW, temperature=temperature)
    for version in (1, 2):
        with torch.no_grad():
            for parameter in engine.policy.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        if version > 1:
            assert logprob_gap(engine.policy, engine.codec, sampled(engine, how), temperature) > 0.02, "stale"
        engine.sync_weights(version)
        groups = sampled(engine, how)
        assert logprob_gap(engine.policy, engine.codec, groups, temperature) < 1e-5
        assert sampled(engine, how) == groups, "made again identically"
        assert {done.policy_version for group in groups for done in group.completions} == {version}
    greedy = sampled(engine, replace(how, temperature=0.0))
    assert logprob_gap(engine.policy, engine.codec, greedy, 1.0) < 1e-5


def test_an_update_that_is_broken_off_is_begun_anew(engine: VLLMServerEngine) -> None:
    engine.sync_weights(1)
    engine.routes.remote("r1_start")  # and nothing more
    engine.sync_weights(2)
    assert logprob_gap(engine.policy, engine.codec, sampled(engine), 1.0) < 1e-5


def test_another_runs_weights_are_an_error(engine: VLLMServerEngine, url: str) -> None:
    engine.sync_weights(1)
    other = VLLMServerEngine(engine.policy, engine.codec, base_url=url)
    other.sync_weights(7)
    with pytest.raises(EngineError, match=r"samples with weights of version 7, this run is at 1"):
        sampled(engine)


def test_another_model_is_refused(url: str) -> None:
    other = VLLMServerEngine(tiny_policy("qwen3", hidden_size=64), mini_codec(), base_url=url)
    with pytest.raises(EngineError, match=r"it serves hidden_size=32, this run needs 64"):
        other.wake()


def test_what_the_server_cannot_load_is_an_error_by_name(engine: VLLMServerEngine) -> None:
    engine.wake()
    with pytest.raises(EngineError, match=r"/collective_rpc: HTTP 500"):
        engine.routes.remote("r1_receive", ["model.norm.weight"], ["float32"], [[3]], "AAAA")
    engine.sync_weights(1)
    assert logprob_gap(engine.policy, engine.codec, sampled(engine), 1.0) < 1e-5


def test_the_miniature_trains_from_a_server(url: str, base: Path, tmp_path: Path) -> None:
    summary = train(vllm_rl(tmp_path, base, server=url))
    assert summary["steps"] == 4
    with (tmp_path / "coin/rl/metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["policy/loss"]]
    assert len(rows) == 4
    assert all(float(row["rollout/parity_gap"]) < 1e-5 for row in rows)
    assert all(float(row["policy/logprob_gap"]) < 1e-5 for row in rows)
    assert all(0.2 < float(row["rollout/reward/accuracy"]) < 0.9 for row in rows)
    assert all(float(row["optim/grad_norm"]) > 0 for row in rows)
    assert json.loads((tmp_path / "coin/rl/summary.json").read_text())["phase"] == "r1_zero"


def test_a_server_without_its_weights_is_found_at_the_first_step(
    url: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions are right, nothing is sent: only the probe can see it."""
    run = build(vllm_rl(tmp_path, base, "eval.sets=null", server=url))
    run.module.engine.sync_weights(0)
    monkeypatch.setattr(run.module.engine, "_over_http", lambda weights: None)
    with pytest.raises(EngineError, match=r"rollout\.parity_tolerance=0\.001: after a sync"):
        run.trainer.fit(run.module, run.datamodule)
    assert run.trainer.global_step == 1
