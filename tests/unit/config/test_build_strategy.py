"""How many ranks there are is said once: by whoever started them, or by the user."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch

from lightning_r1.config.build_strategy import build_strategy, launched
from lightning_r1.config.checks import check_rules
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.parallel.checkpoint_strategy import DataParallelStrategy, OneDeviceStrategy
from lightning_r1.parallel.strategy import ShardedStrategy

MODEL = ["model.path=org/model", "data=countdown", "trainer.max_steps=10"]


def config(*overrides: str) -> dict[str, Any]:
    return compose_config("train", [*MODEL, *overrides])


def ranks(*overrides: str) -> tuple[int, int]:
    trainer = config(*overrides)["trainer"]
    return trainer["num_nodes"], trainer["devices"]


@pytest.fixture(autouse=True)
def nothing_started_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_NAME", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_alone_it_is_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert launched() is None
    assert ranks() == (1, 1)
    assert ranks("parallel=ddp") == ranks("parallel=fsdp") == (1, 8)
    assert ranks("parallel=fsdp", "trainer.devices=2") == (1, 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert ranks("parallel=fsdp") == (1, 1)


def test_slurm_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "32")
    monkeypatch.setenv("SLURM_NNODES", "4")
    assert ranks("parallel=fsdp") == (4, 8)
    check_rules(config("parallel=hsdp"))
    # a step of the job may be smaller than the job
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
    assert ranks("parallel=ddp") == (2, 2)
    with pytest.raises(ConfigError, match=r"trainer\.num_nodes=4: Slurm started 2 nodes; .* have Slurm start 4"):
        check_rules(config("trainer.num_nodes=4", "trainer.devices=2"))
    check_rules(config("trainer.num_nodes=2", "trainer.devices=2"))


def test_a_shell_within_an_allocation_is_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert launched() is None


def test_torchrun_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert ranks("parallel=fsdp") == (2, 4)


def test_every_choice_gives_a_strategy() -> None:
    assert type(build_strategy(config())) is OneDeviceStrategy
    for said in (["parallel=ddp"], ["parallel=ddp", "trainer.devices=1"], ["trainer.devices=2"]):
        assert type(build_strategy(config(*said))) is DataParallelStrategy
    assert build_strategy(config("parallel.strategy=ddp_find_unused_parameters_true")).startswith("ddp_find")
    strategy = build_strategy(config("parallel=hsdp", "parallel.mixed_precision=bf16", "trainer.num_nodes=2"))
    assert isinstance(strategy, ShardedStrategy)
    assert (strategy.replicas, strategy.mixed_precision) == ("nodes", "bf16")
    assert build_strategy(config("parallel=fsdp")).replicas == 1


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", "hsdp"])
def test_it_is_said_how_long_ranks_wait_for_each_other(parallel: str) -> None:
    assert build_strategy(config(f"parallel={parallel}"))._timeout == timedelta(minutes=30)
    assert build_strategy(config(f"parallel={parallel}", "parallel.timeout_minutes=90"))._timeout == timedelta(
        hours=1.5
    )
    with pytest.raises(ConfigError, match=r"parallel\.timeout_minutes=0: expected more than 0"):
        check_rules(config(f"parallel={parallel}", "parallel.timeout_minutes=0"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["parallel.cpu_offload=true", "trainer.accelerator=cpu"], "parallel.cpu_offload=true"),
        (["parallel.mixed_precision=fp8"], "parallel.mixed_precision=fp8: expected bf16 or null"),
        (["trainer.precision=64-true"], "trainer.precision=64-true: sharded training knows 32-true"),
        (["parallel.replicas=nods"], "parallel.replicas=nods: expected a divisor"),
    ],
)
def test_what_cannot_be_sharded_so_is_refused(said: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_rules(config("parallel=fsdp", *said))
