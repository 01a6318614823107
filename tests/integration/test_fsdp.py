"""Ranks that hold slices train as one process does: every phase, over gloo, on this machine alone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from safetensors.torch import load_file

from helpers.runs import largest_difference
from helpers.sharded import Material, by_ranks
from lightning_r1.config.compose import compose_config
from lightning_r1.train import train

PHASES = ("grpo", "sft", "kd", "on_policy", "reward")
CLOCKS = ("time/", "perf/", "memory/")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def alone(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of one process."""
    output = tmp_path_factory.mktemp("alone")
    for overrides in material.runs(output).values():
        train(compose_config("train", overrides))
    return output


@pytest.fixture(scope="module")
def both(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of two ranks, each with half of the weights."""
    output = tmp_path_factory.mktemp("both")
    sharded = ["parallel=fsdp", "trainer.devices=2"]
    by_ranks(output, {name: [*run, *sharded] for name, run in material.runs(output).items()}, ranks=2)
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
