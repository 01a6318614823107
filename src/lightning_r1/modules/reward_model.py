"""Training a reward model: pairwise on preferences, point-wise on safety labels (``phase=reward_model``).

Which of the two the data says. The loss is :mod:`lightning_r1.functional.preference_loss`; its denominator
is the number of examples in the whole minibatch, so that it does not depend on how the minibatch is split.
The two responses of a pair are always scored in one forward, for their scores meet in the loss.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_r1.data.preferences import Example, PreferenceDataModule, responses_of
from lightning_r1.functional.preference_loss import preference_loss
from lightning_r1.models.reward_model import RewardModel, export_reward_model, pad_rows
from lightning_r1.models.token_budget import split_by_tokens
from lightning_r1.modules.phase import Phase
from lightning_r1.parallel.collectives import all_sum, rank, world_size


@dataclass(frozen=True, slots=True)
class ExampleBatch:
    """Some examples, their rows one behind the other and padded."""

    input_ids: Tensor
    """``[R, L]``."""
    attention_mask: Tensor
    """``[R, L]`` bool."""
    signs: Tensor
    """``[R]``, +1 for a row that should score high, -1 for one that should score low."""
    counts: Tensor
    """``[N]`` bool, which examples count."""

    def to(self, device: torch.device) -> ExampleBatch:
        """On another device."""
        return ExampleBatch(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))

    def nothing(self) -> ExampleBatch:
        """The same rows, of which none counts."""
        return replace(self, counts=torch.zeros_like(self.counts))


class RewardModelling(Phase[RewardModel]):
    """Trains a reward model.

    Args:
        data: gives the examples of a step.
        **phase: what every phase takes, see :class:`.Phase`; its policy is the reward model.
    """

    def __init__(self, *, data: PreferenceDataModule, **phase: Any) -> None:
        super().__init__(**phase)
        self.data = data
        self.measured: dict[str, float] = {}
        """Facts about the trained model that its users need: mean and deviation of held-out scores."""

    def plan(self) -> str:
        """The batch plan in words."""
        return self.data.describe()

    def training_step(self, tick: int, index: int) -> None:
        """One minibatch of examples."""
        started = time.perf_counter()
        examples = self.data.examples(self.global_step)[rank() :: world_size()]
        denominator, batches = all_sum(len(examples)), self.micro_batches(examples)
        sums = self.update(batches, lambda batch: self.loss(batch, denominator))
        numbers = {name: float(value) for name, value in sums.items()}
        mean = numbers["score"] / max(numbers["rows"], 1.0)
        variance = max(0.0, numbers["score_squared"] / max(numbers["rows"], 1.0) - mean**2)
        accuracy = "pair_accuracy" if self.data.pairwise else "label_accuracy"
        metrics = {
            "train/loss": numbers["loss"],
            f"train/{accuracy}": numbers["accuracy"] / max(numbers["examples"], 1.0),
            "train/margin": numbers["margin"] / max(numbers["examples"], 1.0),
            "train/score_mean": mean,
            "train/score_std": math.sqrt(variance),
            "optim/grad_norm": numbers["grad_norm_max"],
            "optim/skipped": numbers["skipped_max"],
            "time/update_s": time.perf_counter() - started,
        }
        self.log_step(metrics, tokens=numbers["tokens"])

    def loss(self, batch: ExampleBatch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        """These examples' share of the loss, and their sums."""
        scores = self.policy(batch.input_ids, batch.attention_mask)
        out = preference_loss(scores, batch.signs, batch.counts, denominator=denominator)
        rows = batch.counts.repeat_interleave(len(batch.signs) // len(batch.counts))
        return out.loss, out.diagnostics | {"tokens": batch.attention_mask[rows].sum()}

    def micro_batches(self, examples: Sequence[Example]) -> list[ExampleBatch]:
        """The examples within the token budget; never empty, see :meth:`.Phase.update`."""
        turns = self.policy.turns
        if not examples:
            ids, ones = torch.full((1, 1), turns.pad_id), torch.ones(1)
            return [ExampleBatch(ids, ids >= 0, ones, ones.bool()).nothing()]
        responses = [responses_of(example) for example in examples]
        rows = [
            [turns.row(example.question, text) for text, _ in of_example]
            for example, of_example in zip(examples, responses, strict=True)
        ]
        # an example takes as much room as its rows do, padded to the longest
        room = [len(of_example) * max(map(len, of_example)) for of_example in rows]
        return [
            ExampleBatch(
                *pad_rows([row for place in part for row in rows[place]], turns.pad_id),
                signs=torch.tensor([float(sign) for place in part for _, sign in responses[place]]),
                counts=torch.ones(len(part), dtype=torch.bool),
            )
            for part in split_by_tokens(room, self.micro_batch_tokens)
        ]

    def write(self, folder: Path, card: Mapping[str, Any], weights: dict[str, Tensor] | None) -> None:
        """Write a plain transformers folder that ``AutoModelForSequenceClassification`` loads."""
        trained = {"objective": "pairwise" if self.data.pairwise else "pointwise", **self.measured}
        export_reward_model(self.policy, self.codec, folder, card={**card, **trained}, weights=weights)
