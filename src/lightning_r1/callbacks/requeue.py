"""A run that has to end before its last step saves where it is, and goes on later, in the same folder to the same bits.

A signal only sets a flag (:mod:`lightning_r1.parallel.interruption`): here all ranks agree at a step boundary, save
together and leave. In the middle of a rollout or an evaluation there is no step to finish: it is left at once, the
state of the last step boundary is saved, and it is made again. Lightning's own handlers would save inside the signal
handler, each rank wherever it is, or end a run with status 0 and nothing saved; they are kept out.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import Any

import lightning as L
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lightning_r1.callbacks.checkpoint import StepCheckpoints
from lightning_r1.callbacks.console import console
from lightning_r1.modules.rollout_phase import RolloutPhase
from lightning_r1.parallel.collectives import all_gather, all_max, rank
from lightning_r1.parallel.interruption import Interrupted, first_of_job, interruption
from lightning_r1.parallel.slurm_job import end_of_job


class Requeue(L.Callback):
    """Leaves in time.

    Args:
        margin_s: seconds that are kept free before the end of the time limit, besides what a step and a checkpoint
            took so far: no step is begun that might not end, and be saved, before them.
        max_hours: leave so long after the start, Slurm or not; null is never.
        poll_s: seconds between two questions to Slurm when the job ends: the limit may be changed while it runs.
        max_restarts: times that a Slurm job is requeued.
    """

    def __init__(
        self,
        *,
        margin_s: float = 60.0,
        max_hours: float | None = None,
        poll_s: float = 300.0,
        max_restarts: int = 1000,
    ) -> None:
        if margin_s < 0 or poll_s <= 0 or max_restarts < 0 or (max_hours is not None and max_hours <= 0):
            raise ValueError(
                f"callbacks.requeue: margin_s={margin_s}, max_hours={max_hours}, poll_s={poll_s}, "
                f"max_restarts={max_restarts}: expected no negative ones, and poll_s and max_hours > 0"
            )
        self.margin_s, self.poll_s, self.max_restarts = margin_s, poll_s, max_restarts
        self.leave_at = math.inf if max_hours is None else time.time() + 3600 * max_hours
        self.deadline = math.inf  # that all ranks know
        self.polled = -math.inf
        self.of_slurm: float | None = None
        self.longest = {"rollout": 0.0, "update": 0.0, "between": 0.0}
        self.now, self.since = "between", math.inf
        self.first_step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Ranks that Lightning has started are asked by this process what it is asked."""
        interruption.children |= {process.pid for process in getattr(trainer.strategy.launcher, "procs", ())}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Learn when this has to end, before the first evaluation and the first rollout."""
        self.first_step = trainer.global_step
        self._agree()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock of a step."""
        self._clock(_kind(pl_module))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Leave at the end of a step, if any rank has to. The last step is always saved: what follows may fail.

        Raises:
            Interrupted: on all ranks; a checkpoint of this step has been written.
        """
        self._clock("between")
        if trainer.global_step >= int(trainer.max_steps):
            _save(trainer)
            return
        cause = self._agree(pl_module)
        if cause:
            _save(trainer)
            raise interruption.interrupted(cause)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """What was left in the middle is made again: save the state before it. All ranks have left together."""
        if isinstance(exception, Interrupted):
            _save(trainer)
            if trainer.global_step == self.first_step and not interruption.cause:
                exception.requeue = False
                exception.args = (f"{exception}, in which no step fits: give it more time",)
            for logger in trainer.loggers:
                if preempted := getattr(logger, "preempted", None):
                    preempted()

    def _clock(self, kind: str) -> None:
        """End one thing and begin another."""
        now = time.time()
        self.longest[self.now] = max(self.longest[self.now], now - self.since)
        self.now, self.since = kind, now

    def _agree(self, module: L.LightningModule | None = None) -> str:
        """Why all ranks leave now, or nothing. Rank 0 looks at the time, and tells the others when it has changed.

        Args:
            module: whose next step has to fit; None asks for no step.
        """
        news = self._poll() if rank() == 0 else False
        interruption.saving_s = self.margin_s + self.longest["between"]
        cause = interruption.wanted
        if not cause and module and rank() == 0:
            needed = self.longest[_kind(module)] + self.longest["between"] + _landing(module)
            if time.time() + needed + self.margin_s > self._end():
                cause = f"the time limit is near, and a step takes up to {needed:.0f} s"
        told = all_max(2 if cause else 1 if news else 0)
        if told == 1:
            self.deadline = all_max(self._end() if rank() == 0 else -math.inf)
            interruption.stop_at = self.deadline - interruption.saving_s
            if math.isfinite(self.deadline):
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.deadline))
                console.print(f"this run leaves in time for the limit of {when}", style="dim", soft_wrap=True)
        if told < 2:
            return ""
        return next(one for one in all_gather(cause) if one)

    def _poll(self) -> bool:
        """Ask Slurm, if it is time to; whether the end is another one than what the ranks know."""
        if time.time() - self.polled >= self.poll_s:
            self.polled = time.time()
            self.of_slurm = end_of_job()
        return self._end() != self.deadline

    def _end(self) -> float:
        """Of the time, as rank 0 knows it."""
        return min(self.leave_at, math.inf if self.of_slurm is None else self.of_slurm)


class KeepsHandlers(_SignalConnector):
    """In a trainer's place for signal handlers: whoever runs the trainer has some already."""

    def register_signal_handlers(self) -> None:
        """None of Lightning's."""


def leave_together(left: Interrupted, say: Any) -> None:
    """Tell how an interrupted run goes on, before any rank ends: the first one that ends may end the others.

    Args:
        left: what was raised on all ranks.
        say: called on rank 0 with ``left``.
    """
    try:
        all_gather(None)
    except RuntimeError:
        # a rank has crashed, and Slurm asks the others to end: that is no preemption, and would happen again
        left.requeue = False
    if rank() == 0 and first_of_job():  # ranks that have not met yet all take themselves for the first
        say(left)
    left.told = True
    with suppress(RuntimeError):  # of those that are gone nothing is waited for
        all_gather(None)


def let_ranks_end(trainer: L.Trainer, patience_s: float = 60.0) -> None:
    """Ranks that Lightning has started end as this one does; its observer would take that for a crash and kill all."""
    launched = getattr(trainer.strategy.launcher, "procs", [])
    processes = list(launched)
    launched.clear()
    until = time.monotonic() + patience_s
    for process in processes:
        with suppress(Exception):
            process.wait(max(0.0, until - time.monotonic()))


def _save(trainer: L.Trainer) -> None:
    if not trainer.global_step:
        return  # the beginning is where a run without a checkpoint begins
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, StepCheckpoints):
            callback.save_now(trainer)


def _kind(module: L.LightningModule) -> str:
    """Of the next step: whether it begins with a rollout."""
    return "rollout" if isinstance(module, RolloutPhase) and module.buffer.exhausted else "update"


def _landing(module: L.LightningModule) -> float:
    """Seconds that a rollout in flight may still take: a checkpoint waits for it, and then holds it."""
    if not isinstance(module, RolloutPhase) or module.flight is None or module.last_rollout is None:
        return 0.0
    return module.last_rollout.generation_seconds + module.last_rollout.reward_seconds
