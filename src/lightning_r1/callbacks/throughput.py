"""How fast and in how much memory a phase runs."""

from __future__ import annotations

import resource
import time
from typing import Any

import lightning as L
import torch

from lightning_r1.modules.phase import Phase


class Throughput(L.Callback):
    """Logs ``perf/tokens_per_s`` and ``memory/peak_gib`` each step, and sums the run up.

    Tokens are the prompt and completion tokens of the minibatch that the step trained on, over all
    ranks; the time includes the rollout where a step begins with one. Memory is the GPU's peak, or
    the process's peak resident size without one.
    """

    def __init__(self) -> None:
        self.tokens, self.seconds = 0.0, 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop it."""
        if not isinstance(pl_module, Phase):
            return
        seconds = time.perf_counter() - self.started
        self.tokens += pl_module.step_tokens
        self.seconds += seconds
        pl_module.log_dict({"perf/tokens_per_s": pl_module.step_tokens / seconds, "memory/peak_gib": peak_gib()})

    def state_dict(self) -> dict[str, Any]:
        """The run's sums, so that they span interruptions."""
        return {"tokens": self.tokens, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        self.tokens, self.seconds = state_dict["tokens"], state_dict["seconds"]


def peak_gib() -> float:
    """Peak memory of this process so far, in GiB: on the GPU if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
