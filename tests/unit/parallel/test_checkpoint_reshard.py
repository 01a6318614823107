"""What any number of ranks wrote, any other reads, to the last bit; and each file has one writer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import shards
from lightning_r1.parallel.checkpoint_files import newest_checkpoint
from lightning_r1.parallel.checkpoint_folder import CheckpointError
from lightning_r1.parallel.checkpoint_state import WholeTensors, once, read_model

KINDS = ("masters", "codes", "adamw8bit")


def write_all(folder: Path) -> dict[str, Any]:
    return {kind: shards.write(folder / kind / "step-0000002", kind) for kind in KINDS}


def read_all(folders: list[Path]) -> list[dict[str, Any]]:
    return [{kind: shards.read(folder / kind / "step-0000002", kind) for kind in KINDS} for folder in folders]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, dict[str, Any]]]:
    """By number of ranks, a folder and what each of them said it holds."""
    folders = {}
    for ranks in (1, 2, 4):
        folder = tmp_path_factory.mktemp(f"by{ranks}")
        if ranks == 1:
            made = {kind: shards.write(folder / kind / "step-0000002", kind, sharded=False) for kind in KINDS}
        else:
            made, *others = shards.on_processes(ranks, partial(write_all, folder), folder / "ranks")
            for other in others:
                for kind in KINDS:
                    assert_same(other[kind], made[kind])
        folders[ranks] = folder, made
    return folders


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


def check(found: dict[str, Any], made: dict[str, Any], owners: list[int]) -> None:
    for kind in KINDS:
        tensors, own, said = found[kind]
        assert_same(tensors, made[kind])
        assert own == owners
        assert {name for group in said["param_groups"] for name in group["params"]} >= {"up.weight", "down.bias"}
    assert set(found["codes"][2]["others"]["up.weight"]) == {"count"}
    assert found["codes"][2]["others"]["up.weight"]["count"] == 2


def test_the_states_are_all_there(written: dict[int, tuple[Path, dict[str, Any]]]) -> None:
    made = written[2][1]
    names = {name.rsplit(".", 1)[-1] for name in made["masters"] if name.startswith("optimizer0.up.weight.")}
    assert names == {"exp_avg", "exp_avg_sq", "step", "master"}
    assert made["masters"]["model.up.weight"].dtype == torch.bfloat16
    assert made["masters"]["optimizer0.up.weight.master"].dtype == torch.float32
    assert made["codes"]["optimizer0.up.weight.codes"].dtype == torch.uint8
    assert made["codes"]["optimizer0.up.weight.maxima"].shape == (7, 1)
    assert {tensor.dtype for tensor in made["adamw8bit"].values()} > {torch.uint8, torch.float32}
    tied = [name for name in made["masters"] if name.startswith("model.") and ("embed" in name or "head" in name)]
    assert tied == ["model.embed.weight"]


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_read_what_others_wrote(
    ranks: int, written: dict[int, tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    """1 -> 2, 4 -> 2, 1 -> 4, 2 -> 4, and as many as before."""
    folders = [folder for folder, _ in written.values()]
    everybody = shards.on_processes(ranks, partial(read_all, folders), tmp_path / "ranks")
    for rank, found in enumerate(everybody):
        for (writers, (_, made)), one in zip(written.items(), found, strict=True):
            check(one, made, [rank] if writers == ranks else list(range(writers)))


def test_one_process_reads_what_ranks_wrote(written: dict[int, tuple[Path, dict[str, Any]]]) -> None:
    for writers, (folder, made) in written.items():
        found = {kind: shards.read(folder / kind / "step-0000002", kind, sharded=False) for kind in KINDS}
        check(found, made, list(range(writers)))


def test_every_file_has_one_writer(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    opened = shards.on_processes(2, partial(shards.write_and_listen, folder), tmp_path / "ranks")
    names = [{Path(name).name.removesuffix(".partial").removesuffix(".tmp") for name in files} for files in opened]
    stored = {file.name for file in (folder / "step-0000002").iterdir()}
    assert names[0] == {"__0_0.distcp", ".metadata", "rank-00000.pt", "common.pt", ".complete"}
    assert names[1] == {"__1_0.distcp", "rank-00001.pt"}
    assert stored == names[0] | names[1]
    saved = newest_checkpoint(folder, tell=pytest.fail)
    assert saved is not None
    assert saved.step == 2


def test_another_model_is_refused_by_name() -> None:
    net = shards.Net()
    state = {f"model.{name}": tensor for name, tensor in once(net.state_dict()).items()}
    down = state.pop("model.down.bias")
    with pytest.raises(RuntimeError, match=r"^model: .* lacks \['model\.down\.bias'\] and has \['model\.x'\]"):
        read_model(net, WholeTensors({**state, "model.x": down}), strict=True)
    read_model(net, WholeTensors({**state, "model.x": down}), strict=False)


def test_an_optimizer_over_other_parameters_is_refused(tmp_path: Path) -> None:
    shards.write(tmp_path / "step-0000002", "codes", sharded=False)
    net, _ = shards.made("codes", sharded=False)
    reader = shards.FolderReader(tmp_path / "step-0000002", None)
    said = reader.common()["optimizer_states"][0]
    with pytest.raises(ValueError, match=r"^optim: the checkpoint's optimizer has other parameters"):
        shards.read_optimizer(shards.RowCodes([net.up.weight]), net, 0, said, reader)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    shards.write(tmp_path / "step-0000002", "codes", sharded=False)
    reader = shards.FolderReader(tmp_path / "step-0000002", None)
    with pytest.raises(CheckpointError, match=r"could not be read \(rank 0\): ValueError: .*model\.up\.weight"):
        reader.read({"model.up.weight": torch.empty(3, 3)})
