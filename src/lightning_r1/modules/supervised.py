r"""Supervised phases: the next token of given text, raw (:class:`Pretrain`) or after a prompt (:class:`SFT`).

The loss is the mean cross-entropy over the counted tokens of the whole minibatch,

.. math:: L = -\frac{1}{\sum_i |o_i|} \sum_i \sum_{t=1}^{|o_i|} \log \pi_\theta(o_{i,t} \mid q_i, o_{i,<t}),

with a global denominator, as in the RL phases: it does not depend on how the minibatch is split into
micro-batches, nor over how many ranks. Every token weighs the same, those of long completions too.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from lightning_r1.data.datamodule import TextDataModule
from lightning_r1.data.traces import TraceDataModule
from lightning_r1.experience.batching import MicroBatch, Sequences, micro_batches
from lightning_r1.models.policy import Policy
from lightning_r1.modules.phase import Phase
from lightning_r1.parallel.collectives import all_sum, rank, world_size


class Supervised(Phase[Policy]):
    """Learns the completions of given sequences, one minibatch a step."""

    def sequences(self, step: int) -> Sequences:
        """This rank's rows of a step; what a rank learns is a function of the step alone."""
        raise NotImplementedError

    def training_step(self, tick: int, index: int) -> None:
        """One minibatch."""
        started = time.perf_counter()
        sequences = self.sequences(self.global_step)
        counted = all_sum(sum(len(ids) for ids in sequences.completion_ids))
        sums = self.update(
            micro_batches(sequences, self.micro_batch_tokens, self.codec.pad_id, self.layouts),
            lambda batch: self.loss(batch, counted),
        )
        metrics = self.progress() | {
            "train/loss": float(sums["loss"]),
            "train/accuracy": float(sums["hits"]) / counted,
            "train/tokens": counted,
            "optim/grad_norm": float(sums["grad_norm_max"]),
            "optim/skipped": float(sums["skipped_max"]),
            "time/update_s": time.perf_counter() - started,
        }
        self.log_step(metrics, tokens=all_sum(sum(sequences.lengths())))

    def progress(self) -> dict[str, float]:
        """Where the data stand after the step; called when ``global_step`` has moved."""
        return {}

    def loss(self, batch: MicroBatch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's share of the cross-entropy, and its sums."""
        scores = self.policy(
            batch.input_ids, batch.prompt_lengths, batch.completion_mask, with_hits=True, layout=batch.layout
        )
        return -scores.logprobs.sum() / denominator, {"hits": scores.hits.sum()}


class Pretrain(Supervised):
    """Language modelling on raw text (``phase=pretrain``).

    Args:
        data: gives the documents of a step.
        **phase: what every phase takes, see :class:`.Phase`.
    """

    def __init__(self, *, data: TextDataModule, **phase: Any) -> None:
        super().__init__(**phase)
        self.data = data

    def plan(self) -> str:
        """The batch plan in words."""
        return f"{self.data.batch_size} documents a step"

    def sequences(self, step: int) -> Sequences:
        """Documents, each ended by EOS; nothing predicts their first token."""
        documents = self.data.documents(step)[rank() :: world_size()]
        end = self.codec.tokenizer.eos_token_id
        rows = [torch.tensor([*self.codec.encode(text), end]) for text in documents]
        return Sequences([row[:1] for row in rows], [row[1:] for row in rows], torch.zeros(len(rows)))


class SFT(Supervised):
    """Supervised fine-tuning on traces (``phase=cold_start_sft``, ``rejection_sft``, ``distill_sft``).

    The loss is over completions alone: from the first token of ``<think>``, which the template's prefill would
    give away and which is learned here, to EOS.

    Args:
        data: gives the traces of a step.
        **phase: what every phase takes, see :class:`.Phase`.
    """

    def __init__(self, *, data: TraceDataModule, **phase: Any) -> None:
        super().__init__(**phase)
        self.data = data

    def plan(self) -> str:
        """The batch plan in words."""
        return self.data.describe()

    def sequences(self, step: int) -> Sequences:
        """This rank's share of the step's traces."""
        rows = self.data.rows(step)[rank() :: world_size()]
        return Sequences(
            prompt_ids=[torch.tensor(row.prompt_ids) for row in rows],
            completion_ids=[torch.tensor(row.completion_ids) for row in rows],
            advantages=torch.zeros(len(rows)),
        )

    def progress(self) -> dict[str, float]:
        """Passes over the traces so far."""
        return {"progress/epoch": self.data.epochs_before(self.global_step)}
