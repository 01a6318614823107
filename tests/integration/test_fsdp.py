"""Ranks that hold slices train as one process does: every phase, over gloo, on this machine alone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.runs import largest_difference
from helpers.sharded import Material, by_ranks
from lightning_r1.config.compose import compose_config
from lightning_r1.train import train

PHASES = ("grpo", "sft", "kd", "on_policy", "reward")
ADAPTED = ["model.adapter=lora", "adapter.rank=4", "name=adapted"]
COARSE = ["model.dtype=bfloat16", "trainer.precision=bf16-true"]
CLOCKS = ("time/", "perf/", "memory/")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def alone(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of one process."""
    output = tmp_path_factory.mktemp("alone")
    runs = material.runs(output)
    others = ([*runs["sft"], *COARSE, "name=coarse"], [*runs["on_policy"], *ADAPTED])
    for overrides in (*runs.values(), *others):
        train(compose_config("train", overrides))
    return output


@pytest.fixture(scope="module")
def both(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of two ranks, each with half of the weights."""
    output = tmp_path_factory.mktemp("both")
    sharded = ["parallel=fsdp", "trainer.devices=2"]
    runs = {name: [*run, *sharded] for name, run in material.runs(output).items()}
    runs["adapted"] = [*runs["on_policy"], *ADAPTED]
    runs["on_policy"] += ["parallel.reshard_after_forward=false"]
    runs["mixed"] = [*runs["grpo"], "parallel.mixed_precision=bf16", "name=mixed"]
    runs["coarse"] = [*runs["sft"], *COARSE, "name=coarse"]
    runs["scored"] = [*runs["reward"], "parallel.mixed_precision=bf16", "name=scored"]
    by_ranks(output, runs, ranks=2)
    return output


@pytest.fixture(scope="module")
def four(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of four ranks: two pairs, each with the whole model."""
    output = tmp_path_factory.mktemp("four")
    hybrid = ["parallel=hsdp", "parallel.replicas=2", "trainer.devices=4"]
    by_ranks(output, {"grpo": [*material.runs(output)["grpo"], *hybrid]}, ranks=4)
    return output


def weights(run_dir: Path) -> dict:
    return load_file(run_dir / "model" / "model.safetensors")


def metrics(run_dir: Path) -> list[dict[str, str]]:
    """metrics.csv without clocks and memory."""
    with (run_dir / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith(CLOCKS)} for row in csv.DictReader(file)]


def assert_same(ours: Path, theirs: Path, *, start: Path | None = None) -> None:
    """Weights and everything that was logged, to 1e-5."""
    trained = weights(theirs)
    if start is not None:
        before = load_file(start / "model.safetensors")
        assert max(float((trained[name] - before[name]).abs().max()) for name in before) > 1e-3
    assert largest_difference(weights(ours), trained) < 1e-5
    ours_rows, their_rows = metrics(ours), metrics(theirs)
    assert len(ours_rows) == len(their_rows)
    for row, expected in zip(ours_rows, their_rows, strict=True):
        assert row.keys() == expected.keys()
        for name in row:
            if row[name] or expected[name]:
                assert float(row[name]) == pytest.approx(float(expected[name]), abs=1e-5, rel=1e-5), name


@pytest.mark.parametrize("phase", PHASES)
def test_two_ranks_with_slices_end_as_one_process(phase: str, both: Path, alone: Path, material: Material) -> None:
    starts = {"grpo": "qwen3", "sft": "gemma2", "kd": "gemma2", "on_policy": "llama"}
    start = material.models[starts[phase]] if phase in starts else None
    assert_same(both / phase, alone / phase, start=start)


def test_ranks_distil_into_an_adapter_as_one_process_does(both: Path, alone: Path, material: Material) -> None:
    assert_same(both / "adapted", alone / "adapted", start=material.models["llama"])
    start, trained = load_file(material.models["llama"] / "model.safetensors"), weights(alone / "adapted")
    changed = {name for name, tensor in start.items() if not torch.equal(tensor, trained[name])}
    assert changed
    assert all(name.endswith("_proj.weight") for name in changed)


def test_two_replicas_of_two_slices_end_as_one_process(four: Path, alone: Path) -> None:
    assert_same(four / "grpo", alone / "grpo")


def test_mixed_precision_goes_the_same_way_on_float32_weights(both: Path, alone: Path, material: Material) -> None:
    for ours, theirs, family in (("mixed", "grpo", "qwen3"), ("scored", "reward", "llama")):
        trained, exact = weights(both / ours), weights(alone / theirs)
        assert all(tensor.dtype == torch.float32 for tensor in trained.values())
        start = load_file(material.models[family] / "model.safetensors")
        assert 0.9 < agreement(trained, exact, start) < 0.99999999


def test_mixed_precision_samples_as_it_scores(both: Path) -> None:
    gaps = [float(row["policy/logprob_gap"]) for row in metrics(both / "mixed") if row["policy/logprob_gap"]]
    assert 1e-5 < max(gaps) < 3e-3  # of bfloat16 and no more


def test_coarse_weights_have_masters_in_slices(both: Path, alone: Path, material: Material) -> None:
    trained, exact = weights(both / "coarse"), weights(alone / "coarse")
    assert all(tensor.dtype == torch.bfloat16 for tensor in trained.values())
    start = load_file(material.models["gemma2"] / "model.safetensors")
    assert agreement(trained, exact, start) > 0.9


def agreement(ours: dict, theirs: dict, start: dict) -> float:
    """Cosine between what two runs have made of the same weights."""
    names = sorted(ours.keys() & start.keys())
    moved = [torch.cat([(run[n].double() - start[n].double()).flatten() for n in names]) for run in (ours, theirs)]
    return float(torch.nn.functional.cosine_similarity(*moved, dim=0))
