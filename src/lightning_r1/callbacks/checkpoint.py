"""When checkpoints are written, and how many are kept; what they are stands in :mod:`lightning_r1.parallel`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

from lightning_r1.parallel.checkpoint_files import (
    FILE_SUFFIX,
    AtomicCheckpointIO,
    Saved,
    keep_newest,
    marker_of,
    newest_checkpoint,
    remove_leftovers,
)
from lightning_r1.parallel.checkpoint_folder import CheckpointError
from lightning_r1.parallel.checkpoint_strategy import FolderCheckpoints, Saving
from lightning_r1.parallel.collectives import together
from lightning_r1.parallel.shared_disk import appears

__all__ = ["AtomicCheckpointIO", "OneChoice", "Saved", "StepCheckpoints", "newest_checkpoint"]

_APPEARS_S = 120.0  # within which a checkpoint that rank 0 sees is seen by every other node


class StepCheckpoints(Checkpoint):
    """A checkpoint of every so many optimizer steps.

    One process writes files, which takes a fifth of the time for a small model; many ranks, or one that is not to wait
    for the disk, write folders. Either is read by any number of ranks.

    Args:
        folder: of the run's checkpoints.
        every_n_steps: optimizer steps from one to the next.
        keep: of the newest; an older one goes when a newer one is complete.
        asynchronous: go on training while a checkpoint is written from a copy in the host's memory. The next one waits
            for it, and so does the end of training; until it is complete, the former is the newest.

    Raises:
        ValueError: for a number below 1.
    """

    def __init__(self, folder: Path, *, every_n_steps: int, keep: int, asynchronous: bool = False) -> None:
        for key, value in (("every_n_steps", every_n_steps), ("keep", keep)):
            if value < 1:
                raise ValueError(f"callbacks.checkpoint.{key}={value}: expected >= 1")
        self.folder, self.every_n_steps, self.keep, self.asynchronous = folder, every_n_steps, keep, asynchronous
        self._saved_at: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """What a kill left half written is removed, by one rank."""
        if stage == "fit" and trainer.is_global_zero:
            remove_leftovers(self.folder)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *batch: Any) -> None:
        """Save if it is time.

        Raises:
            CheckpointError: on every rank, if one could not write this checkpoint or the one in the background.
        """
        if isinstance(trainer.strategy, FolderCheckpoints):
            trainer.strategy.background.look()
        if trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What is written in the background has to reach the disk."""
        self.wait(trainer)

    def save_now(self, trainer: L.Trainer) -> None:
        """Save at this step, unless that is done, and return when it is on the disk: for what ends a run between two
        checkpoints. All ranks call it.
        """
        self._save(trainer)
        self.wait(trainer)

    def wait(self, trainer: L.Trainer) -> None:
        """Until the last checkpoint is complete. All ranks call it.

        Raises:
            CheckpointError: on every rank, if one could not write.
        """
        if isinstance(trainer.strategy, FolderCheckpoints):
            trainer.strategy.background.wait()

    def _save(self, trainer: L.Trainer) -> None:
        step = trainer.global_step
        if step == self._saved_at:  # a step that was skipped leaves the count as it was
            return
        remove_older = partial(keep_newest, self.folder, self.keep)
        path = self.folder / f"step-{step:07d}"
        if self.asynchronous or getattr(trainer.strategy, "needs_folder", False):
            trainer.save_checkpoint(path, storage_options=Saving(self.asynchronous, remove_older))
        else:
            trainer.save_checkpoint(path.with_name(path.name + FILE_SUFFIX))
            remove_older()
        self._saved_at = step


class OneChoice(_CheckpointConnector):
    """In a trainer's place for checkpoints: all ranks go on from the one that rank 0 has found.

    Nodes may see a shared folder as it was some seconds ago. A rank that took an older checkpoint, or none, would train
    another model than the others, or wait for them where they never come.
    """

    def resume_start(self, checkpoint_path: str | os.PathLike[str] | None = None, weights_only: Any = None) -> None:
        """Rank 0's choice, when all see it; ranks know each other by now.

        Raises:
            CheckpointError: on every rank, if one does not see it.
        """
        chosen = self.trainer.strategy.broadcast(None if checkpoint_path is None else str(checkpoint_path))
        if chosen is not None:
            together(lambda: _see(Path(chosen)), CheckpointError)
        super().resume_start(chosen, weights_only)


def _see(path: Path) -> None:
    if not appears(lambda: path.exists() and marker_of(path).exists(), path.parent, seconds=_APPEARS_S):
        raise CheckpointError(
            f"checkpoint {path}: another rank reads it, and it is not to be seen from here; is the folder on a "
            "file system that all nodes share?"
        )
