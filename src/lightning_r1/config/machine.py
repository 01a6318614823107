"""What this machine has to have for a run: devices, attention kernels, packages, space on the disk.

Apart from the rules of :mod:`.checks`, for a config may be composed and checked on a machine on which it will not run.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from lightning_r1.config.build import Run
from lightning_r1.config.build_policy import computes_in
from lightning_r1.config.build_strategy import launched
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get
from lightning_r1.models.flash import implementation
from lightning_r1.models.footprint import ModelSize, model_size


def check_machine(config: Config) -> None:
    """See that this machine can do what the config asks for, before anything is loaded.

    Raises:
        ConfigError: names the key, the value and the fix.
        ValueError: for flash attention that cannot run here.
    """
    _devices_are_here(config)
    for name in ("model", "teacher"):
        if get(config, f"{name}.attention") == "flash":
            implementation("flash", computes_in({**config, "model": config[name]}))
    _data_can_be_read(config)


def check_space(run: Run) -> None:
    """See that the disk can hold the run's checkpoints and its model, less those that are there already.

    Raises:
        ConfigError: names what is needed and what is free.
    """
    config, keep = run.config, run.config["callbacks"]["checkpoint"]["keep"]
    one = checkpoint_bytes(config, model_size(run.module.policy.model), getattr(run.module, "reference", None))
    # the next one is written before the oldest is removed; the exported model is smaller than one
    there = sum(file.stat().st_size for file in (run.run_dir / "checkpoints").rglob("*") if file.is_file())
    needed = (keep + 2) * one - there
    disk = next(parent for parent in (run.run_dir.absolute(), *run.run_dir.absolute().parents) if parent.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        fix = "" if keep == 1 else "set callbacks.checkpoint.keep=1, "
        raise ConfigError(
            f"callbacks.checkpoint.keep={keep}: checkpoints of {_gib(one)}, one more while it is written, and the "
            f"model need {_gib(needed)}, and {_gib(free)} are free at {disk}; {fix}free some, or set paths.output_dir "
            f"to a folder on another disk (now {config['paths']['output_dir']})"
        )


def checkpoint_bytes(config: Config, size: ModelSize, reference: nn.Module | None) -> int:
    """Of one checkpoint: the weights of all models that the module holds, of an adapted one the adapter's, and the
    optimizer's states.

    Args:
        config: resolved.
        size: of the policy.
        reference: a model of its own, if there is one; a teacher is in no checkpoint.
    """
    bits = 8 if "8bit" in str(config["optim"]["_target_"]) else 32
    weights = size.gradients if config["model"].get("adapter") else size.weights
    kept = sum(one.numel() * one.element_size() for one in reference.parameters()) if reference is not None else 0
    return weights + size.optimizer(bits, masters=config["optim"].get("master_weights") == "auto") + kept


def _devices_are_here(config: Config) -> None:
    """Who started this process among others has counted devices already."""
    asked, accelerator, gpus = get(config, "trainer.devices"), get(config, "trainer.accelerator"), _gpus()
    on_gpus = accelerator in ("gpu", "cuda")
    if on_gpus and not gpus:
        built = "" if torch.version.cuda else ", for this torch is built without CUDA"
        raise ConfigError(
            f"trainer.accelerator={accelerator}: torch finds no GPU here{built}; set trainer.accelerator=cpu, or start "
            "it where there is one"
        )
    if not isinstance(asked, int) or asked <= max(1, gpus) or not (on_gpus or accelerator == "auto") or launched():
        return
    if not gpus and not torch.backends.mps.is_available():
        raise ConfigError(
            f"trainer.devices={asked}: torch finds no GPU here; leave it out, or set trainer.accelerator=cpu for "
            f"{asked} processes on the CPU"
        )
    if gpus:
        raise ConfigError(f"trainer.devices={asked}: there are {gpus} GPUs here; set trainer.devices={gpus}")


def _data_can_be_read(config: Config) -> None:
    """Everything but JSON lines is read by a package that may not be there."""
    if importlib.util.find_spec("datasets") is not None:
        return
    for key in ("data", "eval.sets", "traces"):
        for path in _paths(get(config, key)):
            if not path.endswith(".jsonl"):
                raise ConfigError(
                    f"{key}: {path} is read by the package datasets, which is not installed; install it with pip "
                    "install 'lightning-r1[data]', or set the path to a .jsonl file"
                )


def _paths(node: Any) -> Iterator[str]:
    """Of the sources in a node that may lie on the hub."""
    if not isinstance(node, Mapping):
        return
    if str(node.get("_target_")).startswith("lightning_r1.data.sources.") and isinstance(node.get("path"), str):
        yield node["path"]
    for value in node.values():
        yield from _paths(value)


def _gpus() -> int:
    return torch.cuda.device_count()


def _gib(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**29 else f"{count / 2**20:,.1f} MiB"
