"""A run goes on where it was stopped, whoever goes on: two ranks with slices, two with copies, one process."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.checkpoints import restart, whole
from helpers.runs import largest_difference, weights
from helpers.sharded import Material, by_ranks
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.export import export
from lightning_r1.models.export import read_card
from lightning_r1.train import train

CLOCKS = ("time", "perf", "memory")
STEPS, MIDDLE = 4, 3  # a rollout is two steps
KEPT = ["callbacks.checkpoint.every_n_steps=1", f"callbacks.checkpoint.keep={STEPS}"]
SHARDED = ["parallel=fsdp", "trainer.devices=2"]
CODED = ["optim=adamw8bit", "optim.min_8bit_size=256"]
ADAPTED = ["model.adapter=lora", "adapter.rank=8", *CODED]
LATER = {
    "again": [*SHARDED, "callbacks.checkpoint.asynchronous=true"],
    "file_to_fsdp": SHARDED,
    "fsdp_to_ddp": ["parallel=ddp", "trainer.devices=2"],
    "fsdp_to_one": [],
    "codes_again": [*SHARDED, *CODED],
    "codes_to_one": CODED,
    "adapted_again": [*SHARDED, *ADAPTED, "callbacks.checkpoint.asynchronous=true"],
    "adapted_to_one": ADAPTED,
}
# the others go on from whole
FROM = {"file_to_fsdp": "alone", **{f"{of}_{to}": of for of in ("codes", "adapted") for to in ("again", "to_one")}}


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
    sharded = {"whole": SHARDED, "codes": [*SHARDED, *CODED], "adapted": [*SHARDED, *ADAPTED]}
    by_ranks(folder, {name: run(material, folder, name, *said) for name, said in sharded.items()}, ranks=2)
    for name in LATER:
        restart(folder / FROM.get(name, "whole"), folder / name, MIDDLE)
    runs = {name: run(material, folder, name, *said) for name, said in LATER.items()}
    for name in ("fsdp_to_one", "codes_to_one", "adapted_to_one"):
        train(compose_config("train", runs.pop(name)))
    (folder / "said.txt").write_text(by_ranks(folder, runs, ranks=2))
    return folder


@pytest.mark.parametrize(("again", "before"), [("again", "whole"), ("codes_again", "codes")])
def test_as_many_ranks_with_slices_go_on_in_the_same_bits(folder: Path, again: str, before: str) -> None:
    assert largest_difference(weights(folder / again), weights(folder / before)) == 0
    assert metrics(folder / again) == metrics(folder / before)
    ours, theirs = (whole(folder / name, STEPS) for name in (again, before))
    for part in ("state_dict", "optimizer"):
        assert ours[part].keys() == theirs[part].keys()
        for name, tensor in theirs[part].items():
            assert torch.equal(ours[part][name], tensor), name
    assert any(name.startswith("reference.") for name in theirs["state_dict"])
    averages = ".exp_avg_codes" if before == "codes" else ".exp_avg"
    assert sum(name.endswith(averages) for name in theirs["optimizer"]) > 10


def test_an_adapter_in_slices_on_codes_goes_on_and_its_base_is_not_stored(folder: Path) -> None:
    assert largest_difference(weights(folder / "adapted_again"), weights(folder / "adapted")) == 0
    assert largest_difference(weights(folder / "adapted_to_one"), weights(folder / "adapted")) < 1e-5
    kept = whole(folder / "adapted_again", STEPS)
    assert all(".lora_" in name for part in ("state_dict", "optimizer") for name in kept[part])
    assert any(name.endswith(".exp_avg_codes") for name in kept["optimizer"])


@pytest.mark.parametrize("name", ["file_to_fsdp", "fsdp_to_ddp", "fsdp_to_one", "codes_to_one"])
def test_others_go_on_as_one_process_would(name: str, folder: Path) -> None:
    other = "codes" if name == "codes_to_one" else "alone"
    assert largest_difference(weights(folder / name), weights(folder / other)) < 1e-5
    ours, theirs = (metrics(folder / run_name) for run_name in (name, other))
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


@pytest.mark.parametrize("name", ["whole", "alone"])
def test_a_model_is_exported_without_the_ranks(name: str, folder: Path) -> None:
    exported = export(compose_config("export", [f"run={folder / name}"]))
    assert exported == folder / name / f"step-{STEPS:07d}" / "model"
    assert largest_difference(load_file(exported / "model.safetensors"), weights(folder / name)) == 0
    middle = export(compose_config("export", [f"run={folder / name}", f"step={MIDDLE}"]))
    assert largest_difference(load_file(middle / "model.safetensors"), weights(folder / name)) > 0
    assert read_card(middle)["steps"] == MIDDLE


def test_what_cannot_be_exported_is_named(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^step=9: there is no complete checkpoint of it in .*; there are: 1, 2, 3, 4$"
    ):
        export(compose_config("export", [f"run={folder / 'whole'}", "step=9"]))
    with pytest.raises(ConfigError, match=r"^run=.*material: there is no run in it"):
        export(compose_config("export", [f"run={folder / 'material'}"]))
