"""Lightning's strategies with our checkpoints: whichever wrote one, each of them reads it.

The name decides: ``step-0000050.ckpt`` is one file, written by one process; any other name is a folder that all ranks
write, see :mod:`.checkpoint_folder`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lightning_r1.parallel.checkpoint_background import Background
from lightning_r1.parallel.checkpoint_files import FILE_SUFFIX, RANKS
from lightning_r1.parallel.checkpoint_folder import Contents, FolderReader, as_bytes, write_folder
from lightning_r1.parallel.checkpoint_state import (
    HostCopies,
    Source,
    WholeTensors,
    name_state,
    named_optimizer,
    once,
    parameter_names,
    read_model,
    read_optimizer,
)
from lightning_r1.parallel.collectives import rank, world_size

_PATIENCE = timedelta(hours=2)  # of ranks that wait for the slowest disk


@dataclass(frozen=True)
class Saving:
    """How a folder is written: the ``storage_options`` of ``trainer.save_checkpoint``."""

    asynchronous: bool = False
    """Copy to the host's memory, and write while training goes on."""
    published: Callable[[], None] = lambda: None
    """Called on rank 0 when the checkpoint is complete."""


class FolderCheckpoints(Strategy):
    """Adds folders to a strategy; stands before it among the bases."""

    _group: dist.ProcessGroup | None = None
    _source: Source | None = None

    @property
    def needs_folder(self) -> bool:
        """Whether one file would not do: there may be other ranks, and shards."""
        return dist.is_initialized()

    @property
    def background(self) -> Background:
        """Writes what is written beside training."""
        if not hasattr(self, "_background"):
            self._background = Background()
        return self._background

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | os.PathLike[str], storage_options: Saving | None = None
    ) -> None:
        """Write a file or a folder, by its name; all ranks call it.

        Raises:
            CheckpointError: on every rank, if one cannot write.
            ValueError: if many ranks are to write one file.
        """
        path, saving = Path(self.broadcast(filepath)), storage_options or Saving()
        if path.suffix == FILE_SUFFIX:
            if world_size() > 1:
                raise ValueError(f"{path}: {world_size()} ranks write a folder; leave out {FILE_SUFFIX}")
            self.checkpoint_io.save_checkpoint(checkpoint, path)
            return
        self.background.wait()
        contents = self._contents(checkpoint)
        if saving.asynchronous:
            contents = self._on_host(contents)
        write = partial(_write_and_tell, contents, path, self._writers(), saving.published)
        if saving.asynchronous:
            self.background.start(write)
        else:
            write()

    def _contents(self, checkpoint: dict[str, Any]) -> Contents:
        common = dict(checkpoint)
        state = common.pop("state_dict")
        tensors = {f"model.{name}": tensor.detach() for name, tensor in once(state).items()}
        said = []
        for place, optimizer in enumerate(self.optimizers):
            named, others = named_optimizer(optimizer, self._module, place)
            tensors |= named
            said.append(others)
        own = common.pop(RANKS, {}).get(rank())
        return Contents(
            checkpoint["global_step"], tensors, common=as_bytes(common | {"optimizer_states": said}), own=own
        )

    def _on_host(self, contents: Contents) -> Contents:
        if not hasattr(self, "_host"):
            self._host = HostCopies()
        return Contents(contents.step, self._host.of(contents.tensors), contents.common, contents.own)

    def load_checkpoint(
        self, checkpoint_path: str | os.PathLike[str], weights_only: bool | None = None
    ) -> dict[str, Any]:
        """All of it but tensors that are loaded where they belong; all ranks call it."""
        path = Path(self.broadcast(checkpoint_path))
        if not path.is_dir():
            self._source = None
            return self.checkpoint_io.load_checkpoint(path, weights_only=weights_only)
        self._source = reader = FolderReader(path, self._writers())
        checkpoint = reader.common()
        return checkpoint | {RANKS: reader.own(checkpoint["lightning_r1"]["world_size"])}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """The model's tensors, from a folder or a file."""
        source = self._source
        if source is None:
            if not self._sharded:
                super().load_model_state_dict(checkpoint, strict=strict)
                return
            source = _of_file(checkpoint)
        read_model(self._module, source, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """The optimizers' states, from a folder or a file."""
        if self._source is None and not self._sharded:
            super().load_optimizer_state_dict(checkpoint)
            return
        for place, (optimizer, state) in enumerate(zip(self.optimizers, checkpoint["optimizer_states"], strict=True)):
            source, said = self._source, state
            if source is None:
                tensors, said = name_state(state, parameter_names(optimizer, self._module), place)
                source = WholeTensors(tensors)
            read_optimizer(optimizer, self._module, place, said, source)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The module's tensors as they lie, sharded ones in their shards."""
        return self._module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state as it is."""
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return inner.state_dict()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning asks for the optimizers' states."""
        return True

    def teardown(self) -> None:
        """A checkpoint that is being written is finished first.

        The model and the optimizers stay where they are: Lightning would move them to the host's memory, before the
        callbacks' ``on_fit_end``, in which the model is still evaluated, and before it is exported.
        """
        self.background.settle()
        optimizers, self._optimizers = self._optimizers, []
        module: Any = self.lightning_module
        if module is not None:
            module.cpu = lambda: module
        try:
            super().teardown()
        finally:
            self._optimizers = optimizers
            if module is not None:
                del module.cpu

    @property
    def _module(self) -> torch.nn.Module:
        assert self.lightning_module is not None
        return self.lightning_module

    @property
    def _sharded(self) -> bool:
        return any(isinstance(parameter, DTensor) for parameter in self._module.parameters())

    def _writers(self) -> dist.ProcessGroup | None:
        """All ranks, in a group of their own: training goes on in the other, and NCCL cannot do this."""
        if self._group is None and dist.is_initialized():
            self._group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        return self._group


def source_of(path: Path) -> Source:
    """The models' tensors in a checkpoint, for one process and without a Trainer."""
    return FolderReader(path, None) if path.is_dir() else _of_file(torch.load(path, mmap=True, weights_only=True))


def facts_of(path: Path) -> dict[str, Any]:
    """What phases say of themselves in a checkpoint, for one process and without a Trainer."""
    if path.is_dir():
        return FolderReader(path, None).common()["lightning_r1"]
    return torch.load(path, mmap=True, weights_only=True)["lightning_r1"]


def _of_file(checkpoint: Mapping[str, Any]) -> Source:
    return WholeTensors({f"model.{name}": tensor for name, tensor in checkpoint["state_dict"].items()})


def _write_and_tell(
    contents: Contents, path: Path, group: dist.ProcessGroup | None, published: Callable[[], None]
) -> None:
    write_folder(contents, path, group)
    if rank() == 0:
        published()


class OneDeviceStrategy(FolderCheckpoints, SingleDeviceStrategy):
    """Lightning's strategy for one process, on the device that the Trainer chooses."""

    @property
    def parallel_devices(self) -> list[torch.device]:
        """None yet; the Trainer gives them."""
        return []

    @parallel_devices.setter
    def parallel_devices(self, devices: list[torch.device]) -> None:
        self._root_device = devices[0]


class DataParallelStrategy(FolderCheckpoints, DDPStrategy):
    """Lightning's DDP."""


def strategy_named(name: str, *, alone: bool, timeout_minutes: float | None) -> Strategy | str:
    """Ours for what Lightning calls ``auto`` and ``ddp``; other names are Lightning's.

    Args:
        name: of the strategy.
        alone: whether there is one process.
        timeout_minutes: that ranks wait for each other; null is 30, as Lightning's.
    """
    if name == "auto" and alone:
        return OneDeviceStrategy()
    if name not in ("auto", "ddp"):
        return name
    return DataParallelStrategy(timeout=timedelta(minutes=30 if timeout_minutes is None else timeout_minutes))
