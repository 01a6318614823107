"""The SFT phases hold the paper's numbers, and the sampling jobs compose, bind and pass their checks."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.utils import instantiate

from lightning_r1.config.build_sampling import check_sampling
from lightning_r1.config.checks import check_rules
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.schema import check_signatures

SAID = ["model.path=org/model", "data.sources.traces.path=traces.jsonl"]


def sft(*overrides: str) -> dict[str, Any]:
    config = compose_config("train", [*SAID, *overrides])
    check_signatures(config)
    check_rules(config)
    return config


@pytest.mark.parametrize("phase", ["sft", "cold_start_sft", "rejection_sft", "distill_sft"])
def test_a_phase_is_the_papers_without_a_word_more(phase: str) -> None:
    config = sft(f"phase={phase}", *(["data.sources.general.path=g.jsonl"] if phase == "rejection_sft" else []))
    assert (config["phase"]["name"], config["phase"]["kind"]) == (phase, "sft")
    data, schedule = config["data"], config["schedule"]
    assert (data["epochs"], data["batch_size"], data["max_tokens"]) == (2, 64, 32768)
    assert (schedule["shape"], schedule["final_fraction"]) == ("cosine", 0.1)
    assert config["optim"]["lr"] == (1e-4 if phase == "distill_sft" else 5e-6)
    assert config["trainer"]["max_steps"] == -1
    assert list(config["reward"]) == ["workers", "stop_at"]  # what grades held-out answers
    assert "algo" not in config
    assert list(data["sources"]) == (["traces", "general"] if phase == "rejection_sft" else ["traces"])
    assert config["eval"]["sampling"]["max_new_tokens"] == 32768


@pytest.mark.parametrize(
    ("size", "lr"),
    [
        ("qwen_1_5b", 1e-4), ("qwen_7b", 8e-5), ("qwen_14b", 7e-5), ("qwen_32b", 6e-5), ("llama_8b", 5e-5),
        ("llama_70b", 2e-5),
    ],
)  # fmt: skip
def test_learning_rates_of_distillation(size: str, lr: float) -> None:
    assert sft("phase=distill_sft", f"optim=distill_{size}")["optim"]["lr"] == lr


def test_what_is_said_wins_over_the_phase() -> None:
    config = sft("phase=cold_start_sft", "optim=adamw", "schedule=linear", "trainer.max_steps=7")
    assert config["optim"]["lr"] == 3e-6
    assert config["schedule"]["shape"] == "linear"
    assert config["trainer"]["max_steps"] == 7


def test_the_language_reward_is_added_to_the_rules() -> None:
    config = compose_config(
        "train", ["model.path=org/model", "data=countdown", "trainer.max_steps=1", "reward=rules_and_language"]
    )
    check_signatures(config)
    assert config["reward"]["weights"] == {"accuracy": 1.0, "format": 1.0, "language": 1.0}
    assert list(config["reward"]["rewards"]) == ["accuracy", "format", "language"]


def job(*overrides: str) -> dict[str, Any]:
    return compose_config("sample", ["model.path=org/model", "data=countdown", *overrides])


@pytest.mark.parametrize("name", ["default", "cold_start", "rejection_sampling"])
def test_every_job_composes_binds_and_passes_the_checks(name: str) -> None:
    config = job(f"sample={name}")
    check_sampling(config)
    for fault in instantiate(config["sample"]["faults"], _convert_="all").values():
        assert fault("So it is seven.", "en") is False


def test_the_two_jobs_of_the_paper() -> None:
    cold, rejection = (job(f"sample={name}")["sample"] for name in ("cold_start", "rejection_sampling"))
    assert cold["sampling"]["temperature"] == 1.0
    assert (cold["max_per_prompt"], cold["max_total"]) == (1, 5000)
    assert (rejection["max_per_prompt"], rejection["max_total"]) == (4, None)
    assert cold["require"] == rejection["require"] == {"accuracy": 1.0, "format": 1.0}
    assert set(rejection["faults"]) - set(cold["faults"]) == {"long_paragraph", "code"}
    assert cold["rewrite"] is rejection["rewrite"] is None


PAIRS = ("sample=label_pairs", "sample.pairs.judge.client.base_url=http://h/v1", "sample.pairs.judge.client.model=m")


def test_pairs_are_labelled_with_the_papers_numbers() -> None:
    config = job("data=helpful_prompts", *PAIRS)
    check_sampling(config)
    options = config["sample"]["pairs"]
    assert (options["judge"]["queries"], options["min_gap"], options["balance_lengths"]) == (4, 1.0, True)
    assert list(config["reward"]) == ["workers", "stop_at"]
    assert instantiate(options["judge"], _convert_="all").canaries.alarm == "stop"
    assert config["name"] == "label_pairs_local"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (PAIRS[:1], r"sample\.pairs\.judge\.client\.base_url is not set"),
        ((*PAIRS, "sample.sampling.group_size=1"), r"sample\.sampling\.group_size=1: a pair needs two"),
        ((*PAIRS, "+sample.rewrite={}", "+sample.rewrite.client=x"), r"sample/rewrite: it is for traces"),
        ((*PAIRS, "sample.pairs.judge.querys=2"), r"did you mean sample\.pairs\.judge\.queries"),
        ((*PAIRS, "sample.prompts_a_part=0"), r"sample\.prompts_a_part=0"),
    ],
    ids=["no endpoint", "no pair", "rewriting", "a typo", "no part"],
)  # fmt: skip
def test_pairs_that_cannot_be_labelled(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_sampling(job(*overrides))


def test_an_endpoint_that_rewrites() -> None:
    with pytest.raises(ConfigError, match=r"sample\.rewrite\.client\.base_url is not set"):
        job("sample/rewrite=endpoint")
    said = ["sample.rewrite.client.base_url=http://host:8000/v1", "sample.rewrite.client.model=writer"]
    check_sampling(job("sample/rewrite=endpoint", *said))
    with pytest.raises(ConfigError, match=r"sample\.rewrite\.client\.deadline_s='soon': expected a number"):
        check_sampling(job("sample/rewrite=endpoint", *said, "sample.rewrite.client.deadline_s=soon"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sample.sampling.group_siz=2", r"did you mean sample\.sampling\.group_size\?"),
        ("sample.max_totl=2", r"did you mean sample\.max_total\?"),
        (
            "sample=hot_start",
            r"sample=hot_start: there is no such choice; did you mean cold_start\? There are: cold_start, default",
        ),
    ],
)
def test_a_wrong_key_is_told(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        job(override)
