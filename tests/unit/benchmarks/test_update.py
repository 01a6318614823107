"""Every system of the update's benchmarks does the same work, and says what it took."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_r1.benchmarks import memory, update
from lightning_r1.benchmarks.update_turn import SYSTEMS, TRL, Turn, Work, optimizer_of, turn
from lightning_r1.config.compose import compose_config

SAID = {"shape": "tiny", "prompts": 2, "group_size": 3, "prompt_tokens": 12, "rounds": 1, "rows_per_forward": 4}


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Turn]:
    folder = tmp_path_factory.mktemp("shape")
    work = Work(
        str(folder), shape="tiny", prompts=2, group_size=3, prompt_tokens=12, completion_tokens=9, lengths="natural",
        micro_batch_tokens=40, rows_per_forward=4, steps=1, attention="sdpa",
    )  # fmt: skip
    threads = torch.get_num_threads()
    try:
        return {system: turn(work, system) for system in (*SYSTEMS, TRL) if system != "compile"}
    finally:
        torch.set_num_threads(threads)


def test_every_system_has_the_same_loss_and_gradient(turns: dict[str, Turn]) -> None:
    for system, one in turns.items():
        loose = system.startswith("bf16")
        assert one.loss == pytest.approx(turns["padded"].loss, abs=2e-3 if loose else 1e-6), system
        assert one.grad_norm == pytest.approx(turns["padded"].grad_norm, rel=5e-2 if loose else 1e-4), system
    assert turns["padded"].grad_norm > 1e-3


def test_what_is_computed_is_counted(turns: dict[str, Turn]) -> None:
    rows = Work("", shape="tiny", prompts=2, group_size=3, prompt_tokens=12, completion_tokens=9, lengths="natural")
    total = sum(rows.sequences().lengths())
    assert turns["packed"].computed_tokens == total < turns["padded"].computed_tokens
    assert turns["shared prefix"].computed_tokens == total - 4 * 12
    assert turns["shared prefix"].flops < turns["padded"].flops == turns["packed"].flops == turns[TRL].flops
    assert all(one.peak_gib > one.above_start_gib for one in turns.values())
    assert all(len(one.seconds) == 1 for one in turns.values())


def config(name: str, folder: Path, **said: Any) -> dict[str, Any]:
    keys = [f"benchmark.{key}={value}" for key, value in {**SAID, **said}.items()]
    composed = compose_config("benchmark", [f"benchmark={name}", *keys, f"paths.output_dir={folder}"])
    return composed["benchmark"]


def test_updates_are_told_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = config("update", tmp_path, completion_tokens="[4]", systems="[shared prefix,TRL]")
    result = update.benchmark(said)
    assert set(result["medians"]) == {"4"}
    for length, systems in result["medians"].items():
        for one in systems.values():
            assert one["mfu"] > 0
            assert one["tokens_per_s"] == pytest.approx(6 * (12 + int(length)) / one["seconds"])
        assert set(result["ratios"][length]) == {"shared prefix"}
    assert Path(said["plot"]).stat().st_size > 1000
    json.dumps(result)
    assert "one update of tiny: 2 prompt(s) x 3, prompts of 12 tokens" in capsys.readouterr().out


def test_the_work_of_seven_billion_parameters_runs_small_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "run", turn)  # no need to import all again
    said = config(
        "update_7b_h200", tmp_path, completion_tokens="[5]", device="cpu", attention="sdpa", dtype="float32", steps=1,
        threads=1,
    )  # fmt: skip
    systems = said["systems"]
    monkeypatch.setitem(SYSTEMS, "8-bit, sdpa", replace(SYSTEMS["8-bit, sdpa"], attention="flash"))
    result = update.benchmark(said)
    ran = result["medians"]["5"]
    assert list(ran) == [system for system in systems if system != "8-bit, sdpa"]
    assert all(one["mfu"] > 0 and one["loss"] == pytest.approx(ran["32-bit"]["loss"], abs=1e-6) for one in ran.values())
    # what cannot run is told, and the others are measured
    ((name, why),) = result["not_run"].items()
    assert name == "8-bit, sdpa, 5 tokens"
    assert "model.attention=flash: it needs a CUDA GPU" in why
    assert "8-bit, sdpa, 5 tokens: not run: model.attention=flash" in " ".join(capsys.readouterr().out.split())
    assert Path(said["plot"]).is_file()


def test_work_for_a_gpu_is_not_run_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = update.benchmark(compose_config("benchmark", ["benchmark=update_7b_h200"])["benchmark"])
    assert result["not_run"] == {"everything": "benchmark.device=cuda, and there is no GPU here"}


def test_averages_of_8_bits_are_another_optimizer(tmp_path: Path) -> None:
    from lightning_r1.optim.adamw8bit import AdamW8bit

    named = [("weight", torch.nn.Parameter(torch.zeros(64, 64)))]
    assert isinstance(optimizer_of(SYSTEMS["8-bit"])(named, lr=1.0), AdamW8bit)
    assert not isinstance(optimizer_of(SYSTEMS["32-bit"])(named, lr=1.0), AdamW8bit)


def test_memory_is_told_and_drawn(tmp_path: Path) -> None:
    said = config("memory", tmp_path, completion_tokens=4, systems="[padded,bf16 + masters]")
    result = memory.benchmark(said)
    assert set(result["medians"]) == {"padded", "bf16 + masters"}
    assert result["ratios"] == {}
    assert Path(said["plot"]).is_file()


def test_an_unknown_system_is_refused() -> None:
    with pytest.raises(ValueError, match=r"benchmark\.systems='fast': expected of padded, packed"):
        update.check_systems(["padded", "fast"])
