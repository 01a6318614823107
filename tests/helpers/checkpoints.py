"""Checkpoints as tests look at them: whole, whether they are a file or a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from lightning_r1.parallel.checkpoint_folder import FolderReader


def of_step(run_dir: Path, step: int) -> Path:
    """The file or folder of a step."""
    folder = run_dir / "checkpoints" / f"step-{step:07d}"
    return folder if folder.is_dir() else folder.with_name(f"{folder.name}.ckpt")


def whole(run_dir: Path, step: int) -> dict[str, Any]:
    """``state_dict``; ``optimizer``: tensors by name, of a folder only; ``ranks``; and what is common."""
    path = of_step(run_dir, step)
    if path.is_file():
        return torch.load(path, weights_only=True)
    reader = FolderReader(path, None)
    tensors = {name: torch.empty(tuple(shape), dtype=dtype) for name, (shape, dtype) in reader.tensors.items()}
    reader.read(tensors)
    common = reader.common()
    return common | {
        "state_dict": {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")},
        "optimizer": {name: tensor for name, tensor in tensors.items() if not name.startswith("model.")},
        "ranks": {
            rank: torch.load(path / f"rank-{rank:05d}.pt", weights_only=True)
            for rank in range(common["lightning_r1"]["world_size"])
        },
    }


def restart(whole_run: Path, run_dir: Path, step: int) -> None:
    """A folder as a run leaves it that ends behind this step."""
    (run_dir / "checkpoints").mkdir(parents=True)
    path = of_step(whole_run, step)
    if path.is_dir():
        shutil.copytree(path, run_dir / "checkpoints" / path.name)
    else:
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy(file, run_dir / "checkpoints")
    shutil.copy(whole_run / "metrics.csv", run_dir)
