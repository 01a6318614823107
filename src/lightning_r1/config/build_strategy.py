"""From a resolved config to the Trainer's strategy, and the ranks it is for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_r1.config.reading import get

SHARDED = "fsdp"


@dataclass(frozen=True, slots=True)
class Launched:
    """What started these processes says of how many there are."""

    by: str
    nodes: int
    a_node: int


def build_strategy(config: Mapping[str, Any]) -> Any:
    """What ``parallel=`` chose: a strategy with checkpoints that the others can read, or a name of Lightning's."""
    from lightning_r1.parallel.checkpoint_strategy import strategy_named
    from lightning_r1.parallel.strategy import ShardedStrategy

    options = dict(config["parallel"])
    name, trainer = options.pop("strategy"), config["trainer"]
    if name == SHARDED:
        return ShardedStrategy(**options)
    alone = trainer["devices"] == 1 and trainer["num_nodes"] == 1
    return strategy_named(name, alone=alone, timeout_minutes=options.get("timeout_minutes"))


def is_sharded(config: Mapping[str, Any]) -> bool:
    """Whether each rank holds but a slice of the model."""
    return get(config, "parallel.strategy") == SHARDED


def launched() -> Launched | None:
    """By Slurm or torchrun, if one of them started this process among others."""
    said = os.environ
    if "TORCHELASTIC_RUN_ID" in said:
        a_node = int(said["LOCAL_WORLD_SIZE"])
        return Launched("torchrun", int(said["WORLD_SIZE"]) // a_node, a_node)
    # an interactive shell within an allocation has the variables of its job, and is no task of it
    if "SLURM_NTASKS" not in said or said.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    nodes = int(said.get("SLURM_STEP_NUM_NODES") or said.get("SLURM_NNODES") or 1)
    tasks = int(said.get("SLURM_STEP_NUM_TASKS") or said["SLURM_NTASKS"])
    return Launched("Slurm", nodes, tasks // nodes)


def with_ranks(config: dict[str, Any]) -> dict[str, Any]:
    """A config in which ``trainer.devices`` and ``trainer.num_nodes`` are numbers.

    ``auto`` is what started the processes says; where nothing did, one node, with one device for ``parallel=single``
    and every GPU for the others.
    """
    trainer = get(config, "trainer")
    if not isinstance(trainer, Mapping) or "auto" not in (trainer.get("devices"), trainer.get("num_nodes")):
        return config
    told = launched() or Launched("", 1, _gpus() if get(config, "parallel.strategy") not in (None, "auto") else 1)
    known = {"devices": told.a_node, "num_nodes": told.nodes}
    counted = {key: number for key, number in known.items() if trainer.get(key) == "auto"}
    return config | {"trainer": {**trainer, **counted}}


def _gpus() -> int:
    import torch

    return max(1, torch.cuda.device_count())
