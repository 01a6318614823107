"""What this machine does not have is told before anything is loaded."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from helpers.quick import quick_rl, random_base
from lightning_r1.config import folder_lock, machine
from lightning_r1.config.build import build
from lightning_r1.config.checks import check_rules
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.machine import check_machine, check_space, checkpoint_bytes
from lightning_r1.models.footprint import model_size
from lightning_r1.train import train


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("gpus", "trainer", "message"),
    [
        (0, {"accelerator": "gpu"}, "trainer.accelerator=gpu: torch finds no GPU here"),
        (0, {"accelerator": "auto", "devices": 8}, "trainer.devices=8: torch finds no GPU here; leave it out, or set "),
        (0, {"accelerator": "auto", "devices": 1}, None),
        (0, {"accelerator": "cpu", "devices": 8}, None),
        (2, {"accelerator": "auto", "devices": 8}, "trainer.devices=8: there are 2 GPUs here; set trainer.devices=2"),
        (2, {"accelerator": "cuda", "devices": 3}, "trainer.devices=3: there are 2 GPUs here"),
        (2, {"accelerator": "gpu", "devices": 2}, None),
    ],
)
def test_devices_are_counted(
    gpus: int, trainer: dict[str, Any], message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_gpus", lambda: gpus)
    config = {"trainer": {"devices": 1, **trainer}}
    if message is None:
        check_machine(config)
        return
    with pytest.raises(ConfigError) as caught:
        check_machine(config)
    assert str(caught.value).startswith(message)


def test_who_was_started_among_others_is_not_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    check_machine({"trainer": {"accelerator": "auto", "devices": 8}})


def test_flash_is_refused_where_it_cannot_run() -> None:
    config = compose_config("train", ["experiment=r1_zero_countdown", "model.attention=flash"])
    with pytest.raises(ValueError, match=r"model\.attention=flash: it needs a CUDA GPU"):
        check_machine(config)


@pytest.mark.parametrize("data", ["gsm8k", "mbpp", "all_scenarios"])
def test_a_package_that_reads_the_data_is_missed_in_time(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose_config("train", ["model.path=a/b", f"data={data}"])
    check_machine(config)
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'lightning-r1\[data\]'"):
        check_machine(config)
    check_machine(compose_config("train", ["model.path=a/b", "data.rows.path=problems.jsonl"]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=abc", "seed='abc': expected a whole number"),
        ("resume=true", "resume=True: expected one of auto, never"),
        ("threads=0", "threads=0: expected at least 1, or null"),
        ("callbacks.checkpoint.keep=ten", "callbacks.checkpoint.keep='ten': expected a whole number"),
        ("callbacks.requeue.max_hours=long", "callbacks.requeue.max_hours='long': expected a number or null"),
    ],
)
def test_plain_values_are_of_their_kind(override: str, message: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_rules(quick_rl(tmp_path, base, override))
    assert str(caught.value).startswith(message)


def test_every_plain_key_is_one(base: Path, tmp_path: Path) -> None:
    from lightning_r1.config.plain_rules import KINDS
    from lightning_r1.config.reading import get

    configs = [
        quick_rl(tmp_path, base),
        compose_config("evaluate", ["model.path=a/b", "eval=gsm8k"]),
        compose_config("pipeline"),
        compose_config("sample", ["model.path=a/b", "data.rows.path=x"]),
        compose_config("teach", ["teacher.path=a/b", "traces.path=x"]),
    ]
    for key in KINDS:
        parent, _, last = key.rpartition(".")
        nodes = [get(config, parent) if parent else config for config in configs]
        assert any(isinstance(node, dict) and last in node for node in nodes), f"{key} is no key any more"


def test_the_folder_of_a_run_is_no_model(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for path in (run, run / "model"):
        with pytest.raises(ConfigError, match=rf"the run in {run} is not finished; .*recipes/export.py run={run}"):
            check_rules(quick_rl(tmp_path, path))
    shutil.copytree(base, run / "model")
    with pytest.raises(ConfigError, match=f"it is the folder of a run, whose model is in {run / 'model'}"):
        check_rules(quick_rl(tmp_path, run))


def test_a_disk_too_small_is_told_before_the_first_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build(quick_rl(tmp_path, base, "algo.kl_coef=0.1"))
    run.close()
    policy = sum(parameter.numel() * 4 for parameter in run.module.policy.parameters())
    one = checkpoint_bytes(run.config, model_size(run.module.policy.model), getattr(run.module, "reference", None))
    assert one == 4 * policy  # weights, two averages, the reference
    usage = namedtuple("usage", "total used free")
    keep = run.config["callbacks"]["checkpoint"]["keep"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, (keep + 2) * one))
    check_space(run)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, (keep + 2) * one - 1))
    with pytest.raises(ConfigError, match=rf"callbacks\.checkpoint\.keep={keep}: .* are free at {tmp_path}"):
        check_space(run)
    # what is there already is not needed again
    folder = run.run_dir / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step-0000001.ckpt").write_bytes(b"0")
    check_space(run)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOENT])
def test_a_folder_that_cannot_be_written_is_told(
    number: int, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folder_lock.os, "link", refuse)
    with pytest.raises(ConfigError, match=rf"paths\.output_dir: {tmp_path}.* cannot be written"):
        train(quick_rl(tmp_path, base))
