"""Rollouts on record: a file for each, a table in W&B, a few on the console."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L

from lightning_r1.callbacks.console import show_completions
from lightning_r1.callbacks.tables import completion_table, grow_table
from lightning_r1.callbacks.wandb_tables import MOST_INCREMENTS
from lightning_r1.experience.collect import Rollout
from lightning_r1.modules.rollout_phase import RolloutPhase
from lightning_r1.parallel.collectives import all_gather
from lightning_r1.text.records import write_jsonl


class RolloutRecorder(L.Callback):
    """Saves every rollout's completions, and shows some.

    Args:
        folder: gets ``00012.jsonl`` for the 12th rollout: one line a completion with ``prompt``,
            ``domain``, ``completion``, ``rewards`` by name (those that are for its domain),
            ``outcomes``, ``reward``, ``advantage``, ``finish_reason``, ``tokens``, ``step``. A rollout
            that is made again after an interruption replaces its file.
        every: record every so many rollouts; 0 records none.
        show_at_steps: steps at which a few completions are printed.
        table_rows: completions of a rollout in the logger's table, where the logger has tables; 0 is no table. Of a
            run of more than 100 rollouts every second or third or so is in it: W&B shows no more additions.
    """

    def __init__(
        self, folder: Path, *, every: int = 1, show_at_steps: Sequence[int] = (1,), table_rows: int = 8
    ) -> None:
        self.folder, self.every = Path(folder), every
        self.show_at_steps, self.table_rows = set(show_at_steps), table_rows
        self.recorded = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take up where the checkpoint stands."""
        self.recorded = pl_module.rollouts if isinstance(pl_module, RolloutPhase) else 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the rollout that this step began with, if it did; show the latest one, if it is time to."""
        if not isinstance(pl_module, RolloutPhase) or pl_module.last_rollout is None:
            return
        rollout, step = pl_module.last_rollout, trainer.global_step
        fresh, self.recorded = pl_module.rollouts != self.recorded, pl_module.rollouts
        if fresh and self.every and (self.recorded - 1) % self.every == 0:
            parts = all_gather(_records(rollout, step))
            if trainer.is_global_zero:
                records = [record for part in parts for record in part]
                write_jsonl(self.folder / f"{self.recorded:05d}.jsonl", records)
                if (self.recorded - 1) % math.ceil(_rollouts(trainer, pl_module) / MOST_INCREMENTS) == 0:
                    columns, rows = completion_table(records, list(pl_module.rewards.rewards), self.table_rows)
                    grow_table(trainer, "completions", columns, rows, step=step)
        if step in self.show_at_steps and trainer.is_global_zero:
            show_completions(rollout.scored, step=step)


def _rollouts(trainer: L.Trainer, module: RolloutPhase) -> float:
    """That the whole run makes."""
    plan = module.rollout_plan
    return max(1, int(trainer.max_steps)) / (plan.minibatches_per_rollout * plan.num_iterations)


def _records(rollout: Rollout, step: int) -> list[dict[str, Any]]:
    records = []
    for scored, advantages in zip(rollout.scored, rollout.advantages.tolist(), strict=True):
        for place, completion in enumerate(scored.group.completions):
            of_completion = {name: scores[place] for name, scores in scored.breakdown.items()}
            records.append(
                {
                    "step": step,
                    "prompt_id": scored.group.prompt.id,
                    "prompt": scored.group.prompt.text,
                    "domain": scored.group.prompt.domain,
                    "completion": completion.text,
                    "rewards": {name: _number(score.value) for name, score in of_completion.items()},
                    "outcomes": {name: score.outcome.value for name, score in of_completion.items()},
                    "reward": _number(scored.rewards[place]),
                    "advantage": advantages[place],
                    "finish_reason": completion.finish_reason,
                    "tokens": len(completion.token_ids),
                    "policy_version": completion.policy_version,
                }
            )
    return records


def _number(value: float) -> float | None:
    """JSON has no NaN: what could not be scored is null."""
    return None if math.isnan(value) else value
