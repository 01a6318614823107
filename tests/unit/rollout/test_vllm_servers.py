"""Several vLLM servers as one engine: each gets the weights and its share of the prompts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.fake_vllm import GENERATE, FakeVLLM, serving
from helpers.models import tiny_policy
from helpers.prompts import prompts_of_lengths
from helpers.quick import quick_rl, random_base
from helpers.ranks import on_ranks
from lightning_r1.experience.parity import logprob_gap
from lightning_r1.models.codec import Codec
from lightning_r1.rollout import vllm_server, vllm_servers
from lightning_r1.rollout.vllm_server import VLLMServerEngine
from lightning_r1.rollout.vllm_servers import VLLMServersEngine
from lightning_r1.train import train
from lightning_r1.types import Sampling

HOW = Sampling(group_size=3, max_new_tokens=6)


def test_prompts_are_shared_and_the_samples_are_those_of_one_server(codec: Codec) -> None:
    fakes = [FakeVLLM(tiny_policy(seed=seed), codec) for seed in (7, 8, 9)]
    prompts = prompts_of_lengths(codec, [4, 9, 6, 5])
    with serving(fakes[0]) as one, serving(fakes[1]) as two, serving(fakes[2]) as alone:
        several = VLLMServersEngine(tiny_policy(), codec, base_urls=[one.url, two.url])
        single = VLLMServerEngine(several.policy, codec, base_url=alone.url)
        told: list[int] = []
        groups = []
        for engine in (several, single):
            engine.sync_weights(3)
            groups.append(
                engine.generate(prompts, HOW, seeds=[1, 2, 3, 4], finished=lambda index, _: told.append(index))
            )
    assert groups[0] == groups[1]
    assert logprob_gap(several.policy, codec, groups[0], 1.0) < 1e-5
    assert [fake.calls.count(GENERATE) for fake in fakes] == [2, 2, 4]
    assert [fake.calls.count("r1_finish") for fake in fakes] == [1, 1, 1]
    assert sorted(told) == sorted([*range(4)] * 2)


def test_ranks_with_one_prompt_ask_different_servers(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes = [FakeVLLM(tiny_policy(), codec) for _ in range(2)]
    with serving(fakes[0]) as one, serving(fakes[1]) as two:

        def work(length: int) -> Any:
            engine = VLLMServersEngine(tiny_policy(), codec, base_urls=[one.url, two.url])
            engine.sync_weights(1)
            return engine.generate(prompts_of_lengths(codec, [length]), HOW, seeds=[length])

        on_ranks(monkeypatch, [vllm_server, vllm_servers], [partial(work, 4), partial(work, 7)])
    assert [fake.calls.count(GENERATE) for fake in fakes] == [1, 1]
    assert [fake.calls.count("r1_start") for fake in fakes] == [1, 1]  # rank 0 sends, once


def test_a_run_trains_from_two_servers(codec: Codec, tmp_path: Path) -> None:
    fakes = [FakeVLLM(tiny_policy(seed=seed), codec) for seed in (7, 8)]
    with serving(fakes[0]) as one, serving(fakes[1]) as two:
        options = ["rollout=vllm_servers", f"rollout.base_urls=[{one.url},{two.url}]", "algo.sampler_correction=mask"]
        train(quick_rl(tmp_path, random_base(tmp_path / "base"), *options, "rollout.parity_tolerance=1e-4"))
    assert all(fake.calls.count(GENERATE) >= 3 for fake in fakes)


def test_no_server_is_a_mistake(codec: Codec) -> None:
    with pytest.raises(ValueError, match=r"rollout\.base_urls=\[\]"):
        VLLMServersEngine(tiny_policy(), codec, base_urls=[])
