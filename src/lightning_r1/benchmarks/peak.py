"""Memory in use and its peak: of the process on a CPU, where Linux can forget it, or of torch's allocator on a GPU."""

from __future__ import annotations

from pathlib import Path

import torch


def used_gib(device: str) -> float:
    """What is held now."""
    return torch.cuda.memory_allocated() / 2**30 if device == "cuda" else _status_gib("VmRSS")


def peak_gib(device: str) -> float:
    """The most since :func:`forget_peak`."""
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else _status_gib("VmHWM")


def forget_peak(device: str) -> None:
    """The peak is what is held now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _status_gib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 2**20
