"""How much memory this process has needed."""

from __future__ import annotations

import resource

import torch


def peak_gib() -> float:
    """Peak so far, in GiB: of the GPU's memory if there is a GPU, else of resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
