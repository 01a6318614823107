"""Checkpoints that are whole or do not exist.

A checkpoint is written beside its place, synced to disk, renamed, and only then marked complete by
a small file that holds its size. A kill at any moment leaves either the old state or the new one; a
file that was cut short later (a full disk, a broken copy) is seen by its size and passed over.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

MARKER = ".complete"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file checkpoints, made atomic."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write, sync, rename, mark."""
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(final.name + ".partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            _sync(file)
        marker = _marker(final)
        marker.unlink(missing_ok=True)  # a name used again: the old marker must not speak for the new file
        partial.rename(final)
        facts = {"bytes": final.stat().st_size, "step": checkpoint["global_step"]}
        marker_partial = marker.with_name(marker.name + ".partial")
        with marker_partial.open("w") as marker_file:
            marker_file.write(json.dumps(facts))
            _sync(marker_file)
        marker_partial.rename(marker)
        _sync_folder(final.parent)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the marker first: a checkpoint without one does not exist."""
        _marker(Path(path)).unlink(missing_ok=True)
        super().remove_checkpoint(path)


class StepCheckpoints(ModelCheckpoint):
    """Lightning's callback, without a leftover from each interruption."""

    def _should_remove_checkpoint(self, trainer: L.Trainer, previous: str, current: str) -> bool:
        """Lightning spares the checkpoint that it resumed from, for ever; here it grows old as the others do."""
        assert self.dirpath is not None
        return previous != current and Path(previous).absolute().parent == Path(self.dirpath).absolute()

    def save_now(self, trainer: L.Trainer) -> None:
        """Save at this step, unless that is done: for what ends a run between two checkpoints. All ranks call it."""
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


def step_checkpoints(folder: Path, *, every_n_steps: int, keep: int) -> ModelCheckpoint:
    """Keep the last ``keep`` checkpoints of every so many optimizer steps."""
    return StepCheckpoints(
        dirpath=folder,
        filename="step-{step:07.0f}",
        auto_insert_metric_name=False,
        monitor="step",
        mode="max",
        save_top_k=keep,
        every_n_train_steps=every_n_steps,
        enable_version_counter=False,  # a step that is made again replaces its checkpoint
    )


@dataclass(frozen=True, order=True)
class Saved:
    """A complete checkpoint."""

    step: int
    path: Path


def newest_checkpoint(folder: Path, *, tell: Callable[[str], None]) -> Saved | None:
    """The complete checkpoint of the latest step.

    Args:
        folder: of the run's checkpoints.
        tell: told of each file that had to be passed over, and why.
    """
    complete = []
    for file in sorted(folder.glob("*.ckpt")):
        facts = _facts(_marker(file))
        if facts is None:
            tell(f"checkpoint {file} is passed over: it was never finished")
        elif file.stat().st_size != facts["bytes"]:
            tell(f"checkpoint {file} is passed over: it has {file.stat().st_size} bytes of {facts['bytes']}")
        else:
            complete.append(Saved(facts["step"], file))
    return max(complete, default=None)


def _marker(file: Path) -> Path:
    return file.with_name(file.name + MARKER)


def _facts(marker: Path) -> dict[str, int] | None:
    """What a marker says; a power cut may have left it without contents."""
    try:
        return json.loads(marker.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
