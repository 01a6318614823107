"""Distillation on probabilities: the student learns a teacher's distribution at every token, not one token of it.

* offline (``phase=distill_kd``): on traces, from a teacher's stored top-k log-probabilities
  (:mod:`lightning_r1.data.lessons`), mixed with cross-entropy on the traces themselves if wanted;
* on-policy (``phase=distill_on_policy``): on what the student itself writes, from the whole distributions of a
  teacher that is there. The student meets its own mistakes, and is told at each token how the teacher would
  have gone on (arXiv 2306.13649, algorithm 1 with :math:`\\lambda = 1`; no gradient through the sampling).

The divergences are in :mod:`lightning_r1.functional.divergence`. As in the other phases the loss's denominator is
global, so that it does not depend on how a minibatch is split.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_r1.data.lessons import LessonDataModule
from lightning_r1.experience.batching import MicroBatch, Sequences
from lightning_r1.experience.collect import Credit
from lightning_r1.experience.lesson_batching import LessonBatch, lesson_batches
from lightning_r1.functional import full_divergence, reduce_tokens, selected_logprobs, top_k_divergence
from lightning_r1.functional.diagnostics import per_token
from lightning_r1.functional.distillation import TokenDivergences
from lightning_r1.functional.divergence import DivergenceKind, check_divergence
from lightning_r1.functional.reduction import Reduction
from lightning_r1.models.identity import vocabulary_size
from lightning_r1.models.layout import Layout
from lightning_r1.models.packed import why_not_packed
from lightning_r1.models.policy import Policy, spread
from lightning_r1.modules.phase import Phase
from lightning_r1.modules.rollout_phase import RolloutPhase
from lightning_r1.parallel.collectives import all_sum, rank, world_size
from lightning_r1.parallel.sharding import is_sharded, reshard
from lightning_r1.types import Sampling


class DistillKD(Phase):
    """Learns from lessons: ``divergence + ce_coef * cross-entropy``, means over the minibatch's tokens.

    Args:
        data: gives the lessons of a step.
        divergence: from the teacher; over its top and the tail.
        beta: of ``jsd``, the teacher's weight in the mixture.
        ce_coef: weight of the cross-entropy on the traces' own tokens, at temperature 1.
        **phase: what every phase takes, see :class:`.Phase`.

    Raises:
        ValueError: for a divergence that is none, and a student with fewer ids than the teacher's distributions.
    """

    def __init__(
        self,
        *,
        data: LessonDataModule,
        divergence: DivergenceKind = "forward_kl",
        beta: float = 0.5,
        ce_coef: float = 0.0,
        **phase: Any,
    ) -> None:
        super().__init__(**phase)
        check_divergence(divergence, beta)
        self.data, self.divergence, self.beta, self.ce_coef = data, divergence, beta, ce_coef
        self.made_from = data.lessons.made_from
        rows = len(self.policy.model.get_output_embeddings().weight)
        if rows < self.made_from.ids:
            raise ValueError(
                f"model.path: the student's head has {rows} ids, the teacher's distributions {self.made_from.ids}; "
                "give the student an embedding for every id of its tokenizer"
            )

    def plan(self) -> str:
        """The batch plan in words."""
        made = self.made_from
        return f"{self.data.describe()}; the top {made.top_k} of {made.teacher} at temperature {made.temperature}"

    def training_step(self, tick: int, index: int) -> None:
        """One minibatch of lessons."""
        started = time.perf_counter()
        lessons = self.data.share(self.global_step, rank(), world_size())
        counted = all_sum(sum(len(lesson.completion_ids) for lesson in lessons))
        sums = self.update(
            lesson_batches(lessons, self.micro_batch_tokens, self.codec.pad_id, self.made_from.top_k, self.layouts),
            lambda batch: self.loss(batch, counted),
        )
        metrics = distill_metrics(sums) | {
            "train/tokens": counted,
            "progress/epoch": self.data.epochs_before(self.global_step),
            "time/update_s": time.perf_counter() - started,
        }
        self.log_step(metrics, tokens=all_sum(sum(map(len, lessons))))

    def loss(self, batch: MicroBatch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's share of the loss, and its sums."""
        assert isinstance(batch, LessonBatch)
        mask = batch.completion_mask
        predictions, targets = self.policy.predict(batch.input_ids, batch.prompt_lengths, mask, batch.layout)
        teacher_logprobs = batch.top_logprobs[mask]
        out = top_k_divergence(
            predictions.within(self.made_from.ids),
            batch.top_ids[mask],
            teacher_logprobs,
            kind=self.divergence,
            beta=self.beta,
            temperature=self.made_from.temperature,
        )
        loss = out.divergence.sum() / denominator
        sums = _sums(out) | {"tail": teacher_logprobs[:, -1].double().exp().sum()}
        if self.ce_coef:
            logprobs, _ = selected_logprobs(predictions.hidden, predictions.weight, targets, **predictions.options)
            loss = loss - self.ce_coef * logprobs.sum() / denominator
            sums["cross_entropy"] = -logprobs.detach().sum()
        return loss, sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """Every choice of an on-policy distillation."""

    prompts_per_rollout: int = 64
    """B, over all ranks."""
    minibatches_per_rollout: int = 1
    """Optimizer steps in one pass over a rollout."""
    num_iterations: int = 1
    """Passes over a rollout."""
    sampling: Sampling = field(default_factory=lambda: Sampling(group_size=1))

    divergence: DivergenceKind = "reverse_kl"
    beta: float = 0.5
    """Of ``jsd``, the teacher's weight in the mixture."""
    temperature: float = 1.0
    """Of both distributions, whatever completions are sampled at."""
    reduction: Reduction = "token_mean"

    def __post_init__(self) -> None:
        """Refuse counts below one and a divergence that is none."""
        for name in ("prompts_per_rollout", "minibatches_per_rollout", "num_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"algo.{name}={getattr(self, name)}: expected >= 1")
        check_divergence(self.divergence, self.beta)

    @property
    def whole_groups(self) -> bool:
        """The completions of a prompt are dealt out one by one."""
        return False

    @property
    def overlap_rollouts(self) -> bool:
        """The divergence has no correction for completions of older weights."""
        return False

    @property
    def queue_age(self) -> int:
        """Every completion is used at once."""
        return 0

    @property
    def steps_behind(self) -> int:
        """As :attr:`overlap_rollouts`."""
        return 0

    @property
    def credit(self) -> Credit:
        """Rewards are measured, not learned from: every completion stays, whatever it earned."""
        return Credit(std="none")


class DistillOnPolicy(RolloutPhase):
    """Learns from its own completions what a teacher would have written at each of their tokens.

    Args:
        algorithm: sampling and divergence.
        teacher: is frozen, and part of no checkpoint.
        **phase: what every phase with rollouts takes, see :class:`.RolloutPhase`; its rewards are only logged.
    """

    def __init__(self, *, algorithm: Distillation, teacher: Policy, **phase: Any) -> None:
        super().__init__(algorithm=algorithm, **phase)
        self.algorithm = algorithm
        # in a tuple: a module of its own would be in every checkpoint
        self._teacher = (teacher.eval().requires_grad_(False),)
        heads = (len(policy.model.get_output_embeddings().weight) for policy in (self.policy, teacher))
        self.ids = min(vocabulary_size(self.codec.tokenizer), *heads)

    @property
    def teacher(self) -> Policy:
        """The model to learn from."""
        return self._teacher[0]

    def on_fit_start(self) -> None:
        """Lightning moves only what it knows."""
        if not is_sharded(self.teacher):
            self.teacher.to(self.device)

    def models(self) -> list[nn.Module]:
        """With the teacher."""
        return [*super().models(), self.teacher]

    def training_step(self, tick: int, index: int) -> None:
        """One minibatch; between two of them nobody needs the teacher whole."""
        super().training_step(tick, index)
        reshard(self.teacher)

    def completed(self, sequences: Sequences) -> Sequences:
        """Cut before the first id that only a padded head has: the teacher has no embedding for it."""
        kept = []
        for ids in sequences.completion_ids:
            foreign = (ids >= self.ids).nonzero()
            kept.append(ids[: int(foreign[0])] if len(foreign) else ids)
        sampled = sequences.sampled
        if sampled is not None:
            sampled = [mask[: len(ids)] for mask, ids in zip(sampled, kept, strict=True)]
        return Sequences(sequences.prompt_ids, kept, sequences.advantages, sampled=sampled)

    def loss(self, batch: MicroBatch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's share of the loss, and its sums."""
        algo, mask = self.algorithm, batch.completion_mask
        student, _ = self.policy.predict(batch.input_ids, batch.prompt_lengths, mask, batch.layout)
        with torch.no_grad():
            teacher, _ = self.teacher.predict(batch.input_ids, batch.prompt_lengths, mask, self._for_teacher(batch))
        out = full_divergence(
            student.within(self.ids),
            teacher.within(self.ids),
            kind=algo.divergence,
            beta=algo.beta,
            temperature=algo.temperature,
        )
        per_place = spread(out.divergence, mask)
        return reduce_tokens(per_place, mask, reduction=algo.reduction, denominator=denominator), _sums(out)

    def _for_teacher(self, batch: MicroBatch) -> Layout | None:
        """A teacher may be of another architecture, which may know no packed rows."""
        return None if why_not_packed(self.teacher.model) else batch.layout

    def update_metrics(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """See :func:`distill_metrics`."""
        return distill_metrics(sums)


def distill_metrics(sums: dict[str, Tensor]) -> dict[str, float]:
    """``distill/...`` means over tokens, ``train/...`` and ``optim/...``, from the sums of an update."""
    numbers = per_token(sums)
    metrics = {
        "train/loss": float(sums["loss"]),  # a sum over a denominator already
        "optim/grad_norm": numbers.pop("grad_norm_max"),
        "optim/skipped": numbers.pop("skipped_max"),
    }
    del numbers["loss"]
    if "cross_entropy" in numbers:
        metrics["train/cross_entropy"] = numbers.pop("cross_entropy")
    return metrics | {f"distill/{name}": value for name, value in numbers.items()}


def _sums(out: TokenDivergences) -> dict[str, Tensor]:
    return {
        "tokens": out.divergence.new_tensor(len(out.divergence)),
        "divergence": out.divergence.detach().sum(),
        "teacher_entropy": out.teacher_entropy.sum(),
        "student_entropy": out.student_entropy.sum(),
    }
