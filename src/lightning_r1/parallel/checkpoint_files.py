"""Checkpoints that are whole or do not exist, as files and as folders.

What is written lies beside its place until it is synced to disk; then it is renamed, and only then marked complete, by
a small file that holds the size of everything in it. A kill at any moment leaves either the old state or the new one;
what was cut short later (a full disk, a broken copy) is seen by its size and passed over.

A checkpoint of one process is one file, ``step-0000050.ckpt``, with its marker beside it; one of many ranks is a
folder, ``step-0000050``, with its marker in it (see :mod:`.checkpoint_folder`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

MARKER = ".complete"
PARTIAL = ".partial"
FILE_SUFFIX = ".ckpt"
"""Of a checkpoint that is one file; a folder has none."""
RANKS = "ranks"
"""Key of a checkpoint under which each rank puts, by its number, what no other rank has."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file checkpoints, made atomic."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write, sync, rename, mark."""
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = beside(final)
        write_synced(partial, "wb", lambda file: torch.save(checkpoint, file))
        marker = marker_of(final)
        marker.unlink(missing_ok=True)  # a name used again: the old marker must not speak for the new file
        partial.rename(final)
        mark(marker, {"bytes": final.stat().st_size, "step": checkpoint["global_step"]})

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove the marker first: a checkpoint without one does not exist."""
        remove(Path(path))


@dataclass(frozen=True, order=True)
class Saved:
    """A complete checkpoint."""

    step: int
    path: Path


def newest_checkpoint(folder: Path, *, tell: Callable[[str], None]) -> Saved | None:
    """The complete checkpoint of the latest step.

    Args:
        folder: of the run's checkpoints.
        tell: told of each one that had to be passed over, and why.
    """
    return max(complete_checkpoints(folder, tell=tell), default=None)


def complete_checkpoints(folder: Path, *, tell: Callable[[str], None] = lambda why: None) -> list[Saved]:
    """All that are whole; ``tell`` is told of the others."""
    complete = []
    for path in _checkpoints(folder):
        facts = _facts(marker_of(path))
        broken = None if facts is None else _broken(path, facts)
        if facts is None:
            tell(f"checkpoint {path} is passed over: it was never finished")
        elif broken is not None:
            tell(f"checkpoint {path} is passed over: {broken}")
        else:
            complete.append(Saved(facts["step"], path))
    return complete


def keep_newest(folder: Path, keep: int) -> None:
    """Remove the complete checkpoints behind the newest ``keep``, and the broken ones that are older than those."""
    kept = sorted(complete_checkpoints(folder))[-keep:]
    if len(kept) < keep:
        return
    for path in _checkpoints(folder):
        if path not in [saved.path for saved in kept] and _step_in_name(path) < kept[0].step:
            remove(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what a kill left: what was not written to its end, or not removed to its end."""
    for path in [
        *folder.glob(f"*{PARTIAL}"),
        *(path for path in _checkpoints(folder) if _facts(marker_of(path)) is None),
    ]:
        remove(path)
    for marker in folder.glob(f"*{FILE_SUFFIX}{MARKER}"):
        if not marker.with_name(marker.name.removesuffix(MARKER)).exists():
            marker.unlink()


def remove(path: Path) -> None:
    """Remove a checkpoint: its marker first, for one without a marker does not exist."""
    marker_of(path).unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def publish_folder(folder: Path, step: int, files: Mapping[str, int]) -> None:
    """Give a folder that was written beside its place its name, then mark it complete.

    Args:
        folder: its final name.
        step: the optimizer step that it was written after.
        files: every file's size in bytes, as its writer knows it.
    """
    sync_folder(beside(folder))
    remove(folder)  # a step that is made again replaces its checkpoint
    beside(folder).rename(folder)
    mark(marker_of(folder), {"step": step, "files": dict(files)})
    sync_folder(folder.parent)


def mark(marker: Path, facts: Mapping[str, Any]) -> None:
    """Write a marker, whole or not at all."""
    partial = beside(marker)
    write_synced(partial, "w", lambda file: file.write(json.dumps(facts)))
    partial.rename(marker)
    sync_folder(marker.parent)


def beside(path: Path) -> Path:
    """Where something is written before it has its name."""
    return path.with_name(path.name + PARTIAL)


def marker_of(path: Path) -> Path:
    """Beside a file, in a folder."""
    return path / MARKER if path.is_dir() else path.with_name(path.name + MARKER)


def write_synced(path: Path, mode: str, write: Callable[[IO[Any]], Any]) -> int:
    """Write a file to the disk itself; returns its size in bytes."""
    with path.open(mode) as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def sync_folder(folder: Path) -> None:
    """The names in it reach the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _checkpoints(folder: Path) -> Iterator[Path]:
    """Files and folders that have a checkpoint's name, whole or not, by name."""
    for path in sorted(folder.glob("*")):
        if path.suffix == FILE_SUFFIX or (path.is_dir() and path.name.startswith("step-") and path.suffix != PARTIAL):
            yield path


def _step_in_name(path: Path) -> float:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdigit() else float("inf")


def _facts(marker: Path) -> dict[str, Any] | None:
    """What a marker says; a power cut may have left it without contents."""
    try:
        return json.loads(marker.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _broken(path: Path, facts: Mapping[str, Any]) -> str | None:
    """What is missing of what a marker promises."""
    if "bytes" in facts:
        size = path.stat().st_size
        return None if size == facts["bytes"] else f"it has {size} bytes of {facts['bytes']}"
    for name, expected in facts["files"].items():
        file = path / name
        size = file.stat().st_size if file.exists() else 0
        if size != expected:
            return f"{name} has {size} bytes of {expected}"
    return None
