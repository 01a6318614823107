"""A checkpoint of many ranks: a folder in which every file has one writer.

====================  ==============  ====================================================================
file                  writer          holds
====================  ==============  ====================================================================
``__R_0.distcp``      rank R          its share of the tensors of models and optimizers, by name
``.metadata``         rank 0          where each tensor's parts are (``torch.distributed.checkpoint``)
``rank-0000R.pt``     rank R          what only this rank has: experience that is sampled and not used yet
``common.pt``         rank 0          what all ranks have: counters, schedule, callbacks, the optimizers' options
``.complete``         rank 0, last    the step, and the size of every file
====================  ==============  ====================================================================

Nothing is gathered on one rank. A sharded tensor is stored by those who hold its parts, a replicated one by one of its
holders; whoever reads takes the parts that it needs, so that any number of ranks and any strategy reads it.
"""

from __future__ import annotations

import io
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from lightning_r1.parallel.checkpoint_files import beside, publish_folder, write_synced
from lightning_r1.parallel.collectives import rank, world_size

T = TypeVar("T")
Group = dist.ProcessGroup | None
"""The ranks that write together; None for one process alone."""

_COMMON = "common.pt"
# one process alone is no mistake; not around each call, for filters belong to all threads
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; names the rank and the file."""


@dataclass(frozen=True)
class Contents:
    """What one rank has to store."""

    step: int
    tensors: Mapping[str, Tensor]
    """Plain ones are the same on all ranks; DTensors say which part is whose."""
    common: bytes
    """What all ranks have, as :func:`torch.save` wrote it; rank 0's is stored."""
    own: Any
    """Plain data and tensors."""


def write_folder(contents: Contents, folder: Path, group: Group) -> None:
    """Write a checkpoint; all ranks of the group call it, and it is complete when it returns.

    Raises:
        CheckpointError: on every rank, if one could not write; there is no checkpoint of that name then.
    """
    partial = beside(folder)

    def clear() -> None:
        if rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)

    def publish() -> None:
        if rank() == 0:
            publish_folder(folder, contents.step, {name: size for part in files for name, size in part.items()})

    agreed(clear, folder, group)
    files = agreed(lambda: _write_mine(contents, partial, group), folder, group)
    agreed(publish, folder, group)


def _write_mine(contents: Contents, partial: Path, group: Group) -> dict[str, int]:
    """Returns the sizes of what this rank has written."""
    dcp.save(
        dict(contents.tensors),
        storage_writer=dcp.FileSystemWriter(partial),  # synced, one file a rank
        process_group=group,
        no_dist=group is None,
    )
    sizes = {file.name: file.stat().st_size for file in partial.glob(f"__{rank()}_*")}
    own = _own(rank())
    sizes[own] = write_synced(partial / own, "wb", lambda file: torch.save(contents.own, file))
    if rank() == 0:
        sizes[_COMMON] = write_synced(partial / _COMMON, "wb", lambda file: file.write(contents.common))
        sizes[".metadata"] = (partial / ".metadata").stat().st_size
    return sizes


def agreed(work: Callable[[], T], folder: Path, group: Group) -> list[T]:
    """``work()`` of every rank of the group, by rank.

    Raises:
        CheckpointError: on all of them, if it raised on one.
    """
    result, failure, cause = None, None, None
    try:
        result = work()
    except dcp.CheckpointException as error:  # raised on all ranks, with what each of them met
        cause = error.failures.get(rank(), (None,))[0]
    except Exception as error:
        cause = error
    if cause is not None:
        failure = f"{type(cause).__name__}: {cause}"
    outcomes: list[Any] = [(result, failure)]
    if group is not None:
        outcomes = [None] * dist.get_world_size(group)
        dist.all_gather_object(outcomes, (result, failure), group=group)
    for number, (_, failed) in enumerate(outcomes):
        if failed:
            raise CheckpointError(f"checkpoint {folder} could not be written (rank {number}): {failed}") from cause
    return [cast(T, one) for one, _ in outcomes]


class FolderReader:
    """Reads a complete checkpoint folder.

    Args:
        folder: of the checkpoint.
        group: of the ranks that read together.
    """

    def __init__(self, folder: Path, group: Group) -> None:
        self.folder, self.group = folder, group
        stored = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
        self.tensors = {
            name: (entry.size, entry.properties.dtype)
            for name, entry in stored.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        """Shape and dtype of every whole tensor, by name."""

    def common(self) -> dict[str, Any]:
        """What all ranks have."""
        return torch.load(self.folder / _COMMON, map_location="cpu", weights_only=True)

    def own(self, writers: int) -> dict[int, Any]:
        """By rank, what ranks had alone: of this rank, or of all if it was written by another number of them."""
        wanted = [rank()] if writers == world_size() else range(writers)
        load = torch.load
        return {number: load(self.folder / _own(number), map_location="cpu", weights_only=True) for number in wanted}

    def read(self, targets: dict[str, Tensor]) -> None:
        """Fill tensors with what was stored under their names; all ranks of the group call it with the same names.

        Raises:
            CheckpointError: on every rank, if one could not.
        """
        try:
            dcp.load(
                cast(dict[str, Any], targets),
                storage_reader=dcp.FileSystemReader(self.folder),
                process_group=self.group,
                no_dist=self.group is None,
            )
        except dcp.CheckpointException as error:
            number, (cause, _) = next(iter(error.failures.items()))
            told = f"{type(cause).__name__}: {cause}"
            raise CheckpointError(f"checkpoint {self.folder} could not be read (rank {number}): {told}") from error


def as_bytes(value: Any) -> bytes:
    """What :func:`torch.save` makes of it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _own(number: int) -> str:
    return f"rank-{number:05d}.pt"
