"""What the doctor says would fit is a run that can be started, and the same but for what was changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.preferences import write_pairs
from helpers.quick import overrides_of, quick_rl, random_base
from helpers.runs import QUIET, coin_sft
from lightning_r1.config.build import check
from lightning_r1.config.compose import compose_config
from lightning_r1.data.traces import write_traces
from lightning_r1.doctor import memory, search
from lightning_r1.doctor.memory import case_of, checkpoint_bytes, settings_of
from lightning_r1.doctor.patient import Patient
from lightning_r1.types import Trace

LARGE = ["gpu=h100", "doctor.engine=false", "trainer.devices=4", "trainer.accelerator=auto", "model.dtype=bfloat16"]
BESIDE = ["algo.overlap_rollouts=true", "algo.sampler_correction=mask"]
COARSE = ["parallel=ddp", "trainer.precision=bf16-true"]


@contextmanager
def patient_of(overrides: list[str]) -> Iterator[Patient]:
    patient = Patient(compose_config("doctor", overrides))
    try:
        yield patient
    finally:
        patient.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_base(tmp_path_factory.mktemp("base"))


def phase_of(name: str, base: Path, folder: Path) -> list[str]:
    """Overrides of a small run."""
    if name == "rl":
        return overrides_of(quick_rl, folder, base, "algo.prompts_per_rollout=8", "model.compile=true")
    if name == "sft":
        write_traces(folder / "traces.jsonl", [Trace(f"t/{n}", f"1{n}?2=", f"<think>1{n}</think>3") for n in range(9)])
        said = overrides_of(coin_sft, folder, base, folder / "traces.jsonl", "phase=distill_sft")
        return [one for one in said if not one.startswith(("phase=cold", "optim.lr"))]
    pairs = write_pairs(folder / "pairs.jsonl", 40)
    return [
        *QUIET, "phase=reward_model", "model=mini", "template=mini", f"model.path={base}", "data.batch_size=8",
        "phase.max_tokens=64", "data=preferences", f"data.rows.path={pairs}", f"paths.output_dir={folder}",
    ]  # fmt: skip


@pytest.mark.parametrize("phase", ["rl", "sft", "reward_model"])
def test_every_change_is_a_command_that_is_accepted(
    phase: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [*phase_of(phase, base, tmp_path), *LARGE, *COARSE]
    asked: dict[str, Any] = {}
    monkeypatch.setattr(memory, "fitting", lambda *question, **how: asked.update(how) or [])
    with patient_of(said) as patient:
        list(memory.memory_is_enough(patient))
        case, now = case_of(patient), settings_of(patient)
        found = list(search._combinations(case, now, 80 * 2**30, asked["adapters"], 8))
    changed = {changes for levels, changes, _ in found if sum(level > 0 for level in levels) == 1}
    words = {change for changes in changed for change in changes}
    assert {"optim=adamw8bit", "parallel=fsdp", "model.activation_checkpointing=offload"} <= words
    assert ("model.adapter=lora" in words) == (phase != "reward_model")
    assert ("rollout=vllm_server" in words) == (phase == "rl")
    shared = [one for one in said if one not in LARGE[:2]]
    before = compose_config("train", shared)
    for changes in sorted(changed):
        served = ["rollout.base_url=http://here:8000"] if "rollout=vllm_server" in changes else []
        after = compose_config("train", [*shared, *changes, *served])
        check(after)
        assert after["optim"]["lr"] == before["optim"]["lr"]
        assert after["trainer"]["devices"] == (2 if served else 4)


def test_models_are_shared_as_the_ranks_share_them(base: Path, tmp_path: Path) -> None:
    """Reference and policy over a node's ranks; what scores, and what samples beside, is whole on each."""
    rl = [*overrides_of(quick_rl, tmp_path, base, "algo.prompts_per_rollout=16", "algo.kl_coef=0.01"), *LARGE]
    rl.append("~eval.sets.operators")
    feet, sizes, needs = {}, {}, {}
    for name, more in {
        "alone": ["trainer.devices=1"],
        "hsdp": ["parallel=hsdp", "trainer.num_nodes=2"],
        "hosted": ["parallel=fsdp", "parallel.cpu_offload=true", *BESIDE],
    }.items():
        with patient_of([*rl, "trainer.precision=bf16-true", *more]) as patient:
            case, now = replace(case_of(patient), peak=lambda *work, **how: 0), settings_of(patient)
            feet[name], sizes[name] = case.footprint(now), case.size.weights
            needs[name] = checkpoint_bytes(patient)
            if name == "hsdp":
                assert ("parallel.replicas=1",) in [said for said, _ in search._sharings(case, now)]
    alone, weights = feet["alone"], sizes["alone"]
    for part in ("weights", "gradients", "optimizer", "frozen"):
        assert getattr(feet["hsdp"], part) == -(-getattr(alone, part) // 4), part
    assert feet["hsdp"].whole == 0
    assert feet["hosted"].standing == feet["hosted"].whole == weights
    assert needs["hosted"] == needs["alone"]


def test_a_server_that_is_there_has_devices_beside_those_that_train(base: Path, tmp_path: Path) -> None:
    served = ["rollout=vllm_server", "rollout.base_url=http://here:8000", "algo.sampler_correction=truncate"]
    said = [*overrides_of(quick_rl, tmp_path, base, "algo.prompts_per_rollout=8"), *LARGE, *COARSE, *served]
    with patient_of([*said, "~eval.sets.operators"]) as patient:
        case, now = case_of(patient), settings_of(patient)
        assert (case.ranks(now), case.gpus) == (4, 8)


def test_a_teacher_is_on_the_device_and_in_no_checkpoint(base: Path, tmp_path: Path) -> None:
    sizes = {}
    for phase in ("distill_on_policy", "reasoning_rl"):
        teacher = ["model@teacher=mini", f"teacher.path={base}"] if phase == "distill_on_policy" else ["algo.kl_coef=0"]
        said = [
            *QUIET, f"phase={phase}", "model=mini", "template=mini", f"model.path={base}", "data=operators", *teacher,
            "trainer.max_steps=3", "eval=default", f"paths.output_dir={tmp_path}", "trainer.accelerator=cpu",
            "algo.sampling.max_new_tokens=16", "algo.prompts_per_rollout=4",
        ]  # fmt: skip
        with patient_of(said) as patient:
            sizes[phase] = case_of(patient).frozen, checkpoint_bytes(patient), patient.size.weights
    assert sizes["distill_on_policy"][0] == sizes["distill_on_policy"][2]
    assert sizes["reasoning_rl"][0] == 0
    assert sizes["distill_on_policy"][1] == sizes["reasoning_rl"][1]
