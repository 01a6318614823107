"""The experiments for real models: their headers are true, their commands compose, and they fit what they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_r1.benchmarks.preset_headers import Header, chosen, presets, read_header
from lightning_r1.benchmarks.presets_on_paper import estimate, patient_of, rounded
from lightning_r1.benchmarks.shapes import random_model
from lightning_r1.config import checks
from lightning_r1.config.build import check
from lightning_r1.config.compose import CONF, compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.doctor.memory import case_of, settings_of
from lightning_r1.doctor.patient import Patient

HEADERS = presets()
PAPER = {
    "distill_qwen_1_5b": ("Qwen/Qwen2.5-Math-1.5B", 1e-4),
    "distill_qwen_7b": ("Qwen/Qwen2.5-Math-7B", 8e-5),
    "distill_qwen_14b": ("Qwen/Qwen2.5-14B", 7e-5),
    "distill_qwen_32b": ("Qwen/Qwen2.5-32B", 6e-5),
    "distill_llama_8b": ("meta-llama/Llama-3.1-8B", 5e-5),
    "distill_llama_70b": ("meta-llama/Llama-3.3-70B-Instruct", 2e-5),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shapes")


def test_what_was_asked_for_is_there() -> None:
    sizes, phases = (
        ("1_5b", "7b", "32b"),
        ("r1_zero", "cold_start", "reasoning_rl", "rejection_sft", "all_scenarios_rl"),
    )
    assert {f"r1_{size}/{phase}" for size in sizes for phase in phases} <= set(HEADERS)
    alone = {"r1_zero_countdown", "r1_zero_gsm8k", "r1_zero_gsm8k_lora", "r1_zero_gsm8k_qlora"}
    assert alone | {"reasoning_rl_math", "code_rl"} | set(PAPER) <= set(HEADERS)


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_true(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = read_header(name)
    assert f"experiment={name}" in header.overrides
    assert_started_with_what_is_named(header)
    assert "metric    not yet run" in HEADERS[name].read_text(encoding="utf-8")
    monkeypatch.setattr(checks, "_is_model", lambda path: True)  # the phase before makes it
    with patient_of(header, folder) as patient:
        check({key: value for key, value in patient.config.items() if key != "doctor"})
        found = estimate(patient)
    assert found.fits == "yes"
    printed = f"{header.gib:.0f} {header.hours:g}", f"{found.gib:.0f} {float(rounded(found.hours)):g}"
    assert printed[0] == printed[1], "say what python recipes/benchmark.py benchmark=presets_on_paper prints"


def assert_started_with_what_is_named(header: Header) -> None:
    """A job says its nodes, one machine needs none."""
    if header.nodes + header.servers == 1:
        assert header.command.startswith("python recipes/train.py ")
        return
    assert f"--nodes={header.nodes + header.servers} --gpus-per-node={header.devices} " in header.command
    assert ("train_with_vllm.sbatch" in header.command) is (header.servers > 0)
    assert (f"VLLM_NODES={header.servers} " in header.command) is (header.servers > 0)
    assert Path(CONF.parent, header.command.split(" experiment=")[0].split()[-1]).is_file()


@pytest.mark.parametrize("name", PAPER)
def test_a_student_has_the_papers_settings(name: str) -> None:
    config = compose_config("train", [f"experiment={name}"])
    assert (config["model"]["path"], config["optim"]["lr"]) == PAPER[name]
    assert config["data"]["epochs"] in (2, 3)
    assert (config["data"]["batch_size"], config["data"]["max_tokens"]) == (64, 32768)
    assert (config["schedule"]["shape"], config["schedule"]["final_fraction"]) == ("cosine", 0.1)


@pytest.mark.parametrize("size", ["1_5b", "7b", "32b"])
def test_the_phases_follow_one_another_from_the_same_base(size: str) -> None:
    def phase(name: str, *said: str) -> dict[str, Any]:
        served = ["rollout.base_urls=[http://server:8000]"] if size == "32b" and name.endswith(("zero", "rl")) else []
        return compose_config("train", [f"experiment=r1_{size}/{name}", *served, *said])

    base = f"Qwen/Qwen2.5-{size.replace('_', '.').upper()}"
    rejection = phase("rejection_sft", "data.sources.general.path=general.jsonl")
    for starts in (phase("r1_zero"), phase("cold_start"), rejection):
        assert starts["model"]["path"] == base
    reasoning, last = phase("reasoning_rl"), phase("all_scenarios_rl")
    assert reasoning["model"]["path"] == f"{phase('cold_start')['paths']['run_dir']}/model"
    assert last["model"]["path"] == f"{rejection['paths']['run_dir']}/model"
    assert "language" in reasoning["reward"]["rewards"]
    assert (last["trainer"]["max_steps"], last["data"]["general_last_steps"]) == (1700, 400)
    for rl in (phase("r1_zero"), reasoning, last):
        algo = rl["algo"]
        assert (algo["prompts_per_rollout"], algo["minibatches_per_rollout"], algo["sampling"]["group_size"]) == (
            512,
            16,
            16,
        )
        assert (algo["kl_coef"], algo["reference_refresh_steps"]) == (0.001, 400)


def test_what_is_not_there_says_how_it_is_made() -> None:
    with pytest.raises(
        ConfigError, match=r"make it first with: \S*python recipes/train.py experiment=r1_7b/cold_start"
    ):
        check(compose_config("train", ["experiment=r1_7b/reasoning_rl"]))
    with pytest.raises(ConfigError, match=r"benchmark\.experiments: 'r2' is none; choose from code_rl, "):
        chosen(["r2"])


def test_an_estimate_is_the_doctors(folder: Path, tmp_path: Path) -> None:
    """From two layers what the doctor finds out from all of them."""
    header = read_header("reasoning_rl_math")
    small = ["model.name=middle", "algo.sampling.max_new_tokens=8000", "data.max_prompt_tokens=300"]
    small.append("template.stop=[]")  # a random model's tokenizer has bytes alone
    with patient_of(header, folder, *small) as patient:
        model = random_model("middle", tmp_path / "model")
        asked = Patient({**patient.config, "model": {**patient.config["model"], "path": str(model)}})
        asked.made |= {"data": patient.data, "rewards": patient.rewards, "evaluation sets": patient.sets}
        settings = settings_of(asked)
        assert case_of(patient).footprint(settings) == case_of(asked).footprint(settings)
