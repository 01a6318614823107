"""Every file of every group composes, binds to the signatures it names, and passes the rules it can."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_r1.benchmarks.preset_headers import presets
from lightning_r1.config.checks import check_rules
from lightning_r1.config.compose import CONF, compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.parallel_rules import PARALLEL_RULES
from lightning_r1.config.schema import check_signatures
from lightning_r1.pipeline.graph import plan

# what a user has to say, so that a choice can be composed alone
SAID = {
    "model.path": "org/model",
    "teacher.path": "org/teacher",
    "data.folder": "lessons",
    "data.rows.path": "problems.jsonl",
    "environment.world._target_": "lightning_r1.rollout.calculator.Calculator",
    "reward.rewards.helpfulness.path": "org/helpful",
    "reward.rewards.harmlessness.path": "org/harmless",
    "reward.rewards.judge.base_url": "http://host:8000/v1",
    "reward.rewards.judge.model": "org/judge",
    "reward.rewards.judge.path": "org/judge",
    "eval.sets.heldout.path": "problems.jsonl",
    "data.sources.traces.path": "traces.jsonl",
    "data.sources.general.path": "general.jsonl",
    "trainer.max_steps": "10",
    "rollout.base_url": "http://host:8000",
    "rollout.base_urls": "[http://one:8000,http://two:8000]",
}
PRIMARY = ("train", "sample", "pipeline", "report", "evaluate", "benchmark", "teach", "doctor", "export", "serve")
NOT_TRAIN = {"pipeline", "cluster", "benchmark", "sample", "local", "hydra", "paths", "gpu", "assumed"}
PROGRAMS = {("data", "codeforces"), ("data", "apps"), ("data", "mbpp")}
# what a choice is for
# what else has to be said with it
WITH = {
    ("rollout", "vllm"): ["algo.sampler_correction=truncate"],
    ("rollout", "vllm_server"): ["algo.sampler_correction=truncate"],
    ("rollout", "vllm_servers"): ["algo.sampler_correction=truncate"],
}
PHASE_OF = {
    ("trainer", "epochs"): "reasoning_rl",
    ("algo", "distill"): "distill_on_policy",
    ("experiment", "mini_sft"): "cold_start_sft",
    ("experiment", "mini_kd"): "distill_kd",
}
CHOICES = [
    (group.name, file.stem)
    for group in sorted(CONF.iterdir())
    if group.is_dir() and group.name not in NOT_TRAIN
    for file in sorted(group.glob("*.yaml"))
    if group.name != "experiment" or file.stem not in presets()  # test_presets has them
]


def compose(*overrides: str) -> dict[str, Any]:
    """Compose train.yaml, saying whatever is mandatory in it."""
    said: list[str] = []
    while True:
        try:
            return compose_config("train", [*overrides, *said])
        except ConfigError as error:
            key = str(error).split(" is not set")[0]
            if key not in SAID:
                raise
            said.append(f"{key}={SAID[key]}")


def test_there_is_something_to_check() -> None:
    groups = {group for group, _ in CHOICES}
    assert {
        "phase",
        "model",
        "data",
        "template",
        "algo",
        "rollout",
        "optim",
        "schedule",
        "eval",
        "experiment",
    } <= groups
    assert len(CHOICES) > 35


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_binds_and_passes_the_rules(
    group: str, choice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = [f"phase={PHASE_OF[group, choice]}"] if (group, choice) in PHASE_OF else []
    reward = ["reward=rules_and_code"] if (group, choice) in PROGRAMS else []
    config = compose(f"{group}={choice}", *phase, *reward, *WITH.get((group, choice), []))
    check_signatures(config)
    found = type("Spec", (), {"origin": "somewhere"})
    monkeypatch.setattr("lightning_r1.config.engine_rules.importlib.util.find_spec", lambda name: found)
    if (group, choice) == ("trainer", "epochs"):  # for data that count epochs
        with pytest.raises(ConfigError, match="max_steps=-1"):
            check_rules(config)
        return
    if config["phase"]["kind"] == "rl" and config["model"]["architecture"] is not None:
        with pytest.raises(ConfigError, match="pretrain"):
            check_rules(config)
        return
    if config["model"].get("made_by"):
        config["model"]["path"] = "org/model"  # made by another run, not there now
    check_rules(config)


@pytest.mark.parametrize("file", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_experiment_says_command_hardware_and_metric(file: Path) -> None:
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert header[0] == "# @package _global_"
    for word in ("command", "hardware", "metric"):
        assert any(line.startswith(f"#   {word} ") for line in header), f"{file.name}: no {word}"
    assert f"experiment={file.stem}" in file.read_text()


@pytest.mark.parametrize("name", [file.stem for file in CONF.glob("*.yaml")])
def test_every_primary_config_is_known(name: str) -> None:
    assert name in PRIMARY


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONF)))
def test_every_file_is_yaml_and_says_what_it_is(file: Path) -> None:
    text = file.read_text()
    assert yaml.safe_load(text) is not None
    assert text.startswith("#") or file.parent.name in ("schedule", "trainer", "callbacks", "paths"), "no first comment"


def test_the_presets_hold_the_papers_numbers() -> None:
    def algo(preset: str) -> dict[str, Any]:
        return compose(f"algo={preset}")["algo"]

    paper = algo("r1_paper")
    assert paper["sampling"]["group_size"] == 16
    assert paper["prompts_per_rollout"] // paper["minibatches_per_rollout"] == 32
    assert paper["prompts_per_rollout"] * 16 == 8192
    assert (paper["clip_low"], paper["clip_high"]) == (10.0, 10.0)
    assert (paper["kl_coef"], paper["reference_refresh_steps"]) == (0.001, 400)
    assert paper["sampling"]["temperature"] == 1.0
    assert (algo("grpo")["std"], algo("grpo")["reduction"], algo("grpo")["kl_estimator"]) == (
        "sample",
        "sequence_mean",
        "k3",
    )
    assert (algo("dr_grpo")["std"], algo("dr_grpo")["reduction"]) == ("none", "constant")
    dapo = algo("dapo")
    assert (dapo["clip_low"], dapo["clip_high"], dapo["reduction"]) == (0.2, 0.28, "token_mean")
    assert (dapo["dead_groups"], dapo["mask_truncated"], dapo["kl_coef"]) == ("refill", True, 0.0)
    gspo = algo("gspo")
    assert (gspo["ratio_level"], gspo["clip_low"], gspo["clip_high"]) == ("sequence", 3e-4, 4e-4)
    assert (algo("cispo")["objective"], algo("cispo")["clip_low"]) == ("cispo", 1.0)
    assert algo("sapo")["objective"] == "sapo"
    assert compose()["optim"]["lr"] == 3e-6


def test_all_of_r1_has_the_ranks_that_its_jobs_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task a GPU, counted by Slurm; and what no rank can hold is sharded."""
    for name, value in {"SLURM_NTASKS": "32", "SLURM_NNODES": "8", "SLURM_JOB_NAME": "r1"}.items():
        monkeypatch.setenv(name, value)
    nodes = yaml.safe_load((CONF / "pipeline" / "r1.yaml").read_text())["nodes"]
    assert not any("devices" in override for node in nodes.values() for override in node["overrides"])
    for name in ("r1_zero", "student_sft", "helpful", "r1_zero_scores", "lessons"):
        verb = nodes[name].get("verb", "train")
        config = compose_config(verb, of_node(nodes[name]["overrides"]))
        assert (config["trainer"]["devices"], config["trainer"]["num_nodes"]) == (4, 8)
        for rule in PARALLEL_RULES:
            rule(config)
    for node in nodes.values():
        if "parallel" in (overrides := " ".join(node["overrides"])) and node.get("verb", "train") == "train":
            assert "parallel=fsdp" not in overrides  # the base's phases are experiments, and those are sharded


def of_node(overrides: list[str]) -> list[str]:
    """With the pipeline's own choices, and whatever comes from other nodes."""
    choices = {"size": "r1_7b", "base": "qwen2_5_7b", "student": "qwen2_5_1_5b", "sets": "[aime24]"}
    choices["student_optim"] = "distill_qwen_1_5b"
    filled = overrides
    for name, choice in choices.items():
        filled = [one.replace(f"${{pipeline.{name}}}", choice) for one in filled]
    phase = " ".join(filled)
    if "distill_sft" in phase:
        filled.append("data.sources.traces.path=traces.jsonl")
    if "@teacher" in phase:
        filled += ["teacher.path=org/teacher", "traces.path=traces.jsonl"]
    return filled


@pytest.mark.parametrize("name", ["r1", "r1_1_5b"])
def test_all_of_r1_composes_at_each_size(name: str) -> None:
    config = compose_config("pipeline", [f"pipeline={name}", "pipeline.general_traces=general.jsonl"])
    nodes = plan(config["pipeline"], output_dir="outputs", extra=[])
    trained = {node.name: node.config for node in nodes if node.command.verb == "train"}
    assert trained["rejection_sft"]["model"]["path"] == trained["r1_zero"]["model"]["path"]  # the base again
    of_base = [one for name, one in trained.items() if not name.startswith("student")]
    assert {one["parallel"]["strategy"] for one in of_base} == {"fsdp"}
    assert {one["model"]["name"] for one in of_base} == {config["pipeline"]["base"]}
