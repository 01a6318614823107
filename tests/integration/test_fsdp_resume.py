"""A run goes on where it was stopped, whoever goes on: two ranks with slices, two with copies, one process."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from helpers.checkpoints import restart, whole
from helpers.runs import largest_difference, weights
from helpers.sharded import Material, by_ranks
from lightning_r1.config.compose import compose_config
from lightning_r1.train import train

CLOCKS = ("time", "perf", "memory")
STEPS, MIDDLE = 4, 3  # a rollout is two steps
KEPT = ["callbacks.checkpoint.every_n_steps=1", f"callbacks.checkpoint.keep={STEPS}"]
SHARDED = ["parallel=fsdp", "trainer.devices=2"]
LATER = {
    "again": [*SHARDED, "callbacks.checkpoint.asynchronous=true"],
    "file_to_fsdp": SHARDED,
    "fsdp_to_ddp": ["parallel=ddp", "trainer.devices=2"],
    "fsdp_to_one": [],
}


def metrics(run_dir: Path) -> list[dict[str, float]]:
    """Numbers of metrics.csv, but for clocks and memory."""
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [
        {name: float(value) for name, value in row.items() if value and name.split("/")[0] not in CLOCKS}
        for row in rows
    ]


def run(material: Material, output: Path, name: str, *said: str) -> list[str]:
    return [*material.runs(output)["grpo"], *KEPT, f"name={name}", *said]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs, each in its folder: two that nothing disturbs, and those that go on from one of them."""
    folder = tmp_path_factory.mktemp("resume")
    material = Material(folder / "material")
    train(compose_config("train", run(material, folder, "alone")))
    by_ranks(folder, {"whole": run(material, folder, "whole", *SHARDED)}, ranks=2)
    for name in LATER:
        restart(folder / ("alone" if name == "file_to_fsdp" else "whole"), folder / name, MIDDLE)
    runs = {name: run(material, folder, name, *said) for name, said in LATER.items()}
    train(compose_config("train", runs.pop("fsdp_to_one")))
    (folder / "said.txt").write_text(by_ranks(folder, runs, ranks=2))
    return folder


def test_as_many_ranks_with_slices_go_on_in_the_same_bits(folder: Path) -> None:
    assert largest_difference(weights(folder / "again"), weights(folder / "whole")) == 0
    assert metrics(folder / "again") == metrics(folder / "whole")
    ours, theirs = (whole(folder / name, STEPS) for name in ("again", "whole"))
    for part in ("state_dict", "optimizer"):
        assert ours[part].keys() == theirs[part].keys()
        for name, tensor in theirs[part].items():
            assert torch.equal(ours[part][name], tensor), name
    assert any(name.startswith("reference.") for name in theirs["state_dict"])
    assert sum(name.endswith(".exp_avg") for name in theirs["optimizer"]) > 10


@pytest.mark.parametrize("name", ["file_to_fsdp", "fsdp_to_ddp", "fsdp_to_one"])
def test_others_go_on_as_one_process_would(name: str, folder: Path) -> None:
    assert largest_difference(weights(folder / name), weights(folder / "alone")) < 1e-5
    ours, theirs = (metrics(folder / run_name) for run_name in (name, "alone"))
    assert len(ours) == len(theirs)
    for row, expected in zip(ours, theirs, strict=True):
        assert row == pytest.approx(expected, abs=1e-5, rel=1e-5)


def test_shards_are_stored_by_those_who_hold_them(folder: Path) -> None:
    stored = {file.name: file.stat().st_size for file in (folder / "whole/checkpoints/step-0000004").iterdir()}
    shares = [stored[f"__{rank}_0.distcp"] for rank in range(2)]
    assert 0.8 < shares[0] / shares[1] < 1.25


def test_it_is_said_what_became_of_the_rollout(folder: Path) -> None:
    said = " ".join((folder / "said.txt").read_text().split())
    told = "the checkpoint was written by 1 rank(s) and is read by 2: the 1 minibatch(es) left of the rollout are cut"
    assert said.count(told) == 1
