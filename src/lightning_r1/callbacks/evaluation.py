"""Held-out evaluation before, during and after a phase, under ``eval/<set>/...``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L

from lightning_r1.callbacks.console import console
from lightning_r1.callbacks.tables import grow_table, sample_table
from lightning_r1.evaluation.evaluator import evaluate
from lightning_r1.evaluation.results import KS
from lightning_r1.modules.phase import Phase
from lightning_r1.parallel.interruption import Interrupted, interruption
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import RolloutEngine, from_whole_weights
from lightning_r1.text.records import write_jsonl
from lightning_r1.types import Prompt, Sampling

_TOLD = {
    "pair_accuracy": ".3f",
    "label_accuracy": ".3f",
    "longer_accuracy": ".3f",
    "pass@1": ".3f",
    "pass@4": ".3f",
    "cons@4": ".3f",
    "format_fraction": ".2f",
    "think_length_mean": ".1f",
    "reflection_rate": ".2f",
}


class Evaluation(L.Callback):
    """Measures the model before, during and after a phase.

    Args:
        sets: what it is measured on, by name.
        every_n_steps: also during the phase, more quickly; 0 is never.
    """

    def __init__(self, sets: Mapping[str, Sequence[Any]], *, every_n_steps: int = 0) -> None:
        self.sets, self.every_n_steps = sets, every_n_steps
        self.before: dict[str, float] = {}
        self.after: dict[str, float] = {}
        self.owed = 0  # the step whose evaluation was interrupted

    def measure(self, trainer: L.Trainer, module: L.LightningModule, *, quick: bool) -> dict[str, float]:
        """``eval/<set>/<metric>`` of every set; ``quick`` may do with less."""
        raise NotImplementedError

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before the first step; a resumed run has that number from its checkpoint, and makes up for what it owes."""
        if trainer.global_step == 0:
            self.before = self.measure(trainer, pl_module, quick=False)
            self._log(trainer, self.before, 0)
        elif self.owed == trainer.global_step:
            self._log(trainer, self.measure(trainer, pl_module, quick=True), self.owed)
            self.owed = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """During the phase. An interruption ends the evaluation, and the step is then finished by the others."""
        step = trainer.global_step
        if self.every_n_steps and step % self.every_n_steps == 0 and step < int(trainer.max_steps):
            try:
                self._log(trainer, self.measure(trainer, pl_module, quick=True), step)
            except Interrupted:
                self.owed = step

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After the last step, also of a run that was interrupted behind it and has no step left to make."""
        self.after = self.measure(trainer, pl_module, quick=False)
        self._log(trainer, self.after, trainer.global_step)

    def _log(self, trainer: L.Trainer, numbers: dict[str, float], step: int) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=step)
        for name in self.sets:
            of_set = {key.split("/")[-1]: value for key, value in numbers.items() if key.startswith(f"eval/{name}/")}
            told = "  ".join(f"{key} {of_set[key]:{form}}" for key, form in _TOLD.items() if key in of_set)
            console.print(f"[bold]held-out {name}[/] at step {step}: {told}", soft_wrap=True)

    def state_dict(self) -> dict[str, Any]:
        """The numbers from before the first step, and what the run owes."""
        return {"before": self.before, "owed": self.owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        self.before, self.owed = state_dict["before"], state_dict.get("owed", 0)


class HeldOutEvaluation(Evaluation):
    """Evaluates the policy on held-out prompts.

    Args:
        engine: samples.
        grader: decides what is right.
        sets: prompts by the set's name.
        sampling: before and after; ``group_size`` samples a prompt.
        folder: gets ``<set>-00000.jsonl`` for step 0: one line a completion.
        every_n_steps: also during the phase, with one sample a prompt; 0 is never.
        seed: of the sampling; always the same, so that steps can be compared prompt by prompt.
        ks: of pass@k and cons@k, besides 1 and the number of samples.
        table_rows: samples of a set and an evaluation in the logger's table, where the logger has tables.
    """

    def __init__(
        self,
        engine: RolloutEngine,
        grader: RewardSuite,
        sets: Mapping[str, Sequence[Prompt]],
        *,
        sampling: Sampling,
        folder: Path,
        every_n_steps: int = 0,
        seed: int = 0,
        ks: Sequence[int] = KS,
        table_rows: int = 8,
    ) -> None:
        super().__init__(sets, every_n_steps=every_n_steps)
        self.engine, self.grader = engine, grader
        self.sampling, self.folder = sampling, Path(folder)
        self.seed, self.ks, self.table_rows = seed, ks, table_rows

    def measure(self, trainer: L.Trainer, module: L.LightningModule, *, quick: bool) -> dict[str, float]:
        """Samples and grades; quickly is with one sample a prompt."""
        assert isinstance(module, Phase)
        sampling = replace(self.sampling, group_size=1) if quick else self.sampling
        numbers: dict[str, float] = {}
        module.settle()  # a rollout in flight is of the weights it began with, and the engine has one set of them
        self.engine.wake()
        self.engine.sync_weights(trainer.global_step)
        for name, prompts in self.sets.items():
            with from_whole_weights(self.engine, module.policy):
                result = evaluate(
                    self.engine,
                    self.grader,
                    prompts,
                    module.codec,
                    sampling=sampling,
                    seed=self.seed,
                    ks=self.ks,
                    progress=partial(module.report, "evaluate"),
                    still_wanted=interruption.look,
                )
            numbers |= {f"eval/{name}/{metric}": value for metric, value in result.numbers.items()}
            if trainer.is_global_zero:
                write_jsonl(self.folder / f"{name}-{trainer.global_step:05d}.jsonl", map(asdict, result.samples))
                columns, rows = sample_table(result.samples, self.table_rows, step=trainer.global_step)
                grow_table(trainer, f"eval/{name}/samples", columns, rows, step=trainer.global_step)
        self.engine.sleep()
        return numbers
