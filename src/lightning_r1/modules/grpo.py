"""GRPO: the policy answers each prompt G times, and learns from what its better answers did.

One step, in the words of the paper (arXiv 2402.03300 algorithm 1; arXiv 2501.12948 section 2.2):

* *rollout*: sample G completions of each prompt from the policy;
* *reward*: score them by rules;
* *advantage*: compare each with its group;
* *loss*: clipped ratio to the policy that sampled, KL to the reference;
* *optimizer*: one step a minibatch.

A rollout fills the experience buffer with ``minibatches_per_rollout * num_iterations`` minibatches.
When the buffer is empty, the next step begins with a rollout.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_r1.experience.batching import MicroBatch, Sequences, blank, placed_micro_batches
from lightning_r1.functional import off_policy_sequence_mask, policy_loss, sampler_weights
from lightning_r1.functional.diagnostics import logprob_gap, per_token
from lightning_r1.models.adapter_reference import as_reference, hold_reference, refresh_reference
from lightning_r1.models.policy import Policy, evaluating
from lightning_r1.modules.algorithm import Algorithm
from lightning_r1.modules.rollout_phase import RolloutPhase
from lightning_r1.parallel.collectives import all_max
from lightning_r1.parallel.sharding import reshard


class GRPO(RolloutPhase):
    """Group relative policy optimization, and its descendants, by :class:`.Algorithm`.

    Args:
        algorithm: sampling, credit, objective, reference.
        **phase: what every phase with rollouts takes, see :class:`.RolloutPhase`.
    """

    def __init__(self, *, algorithm: Algorithm, **phase: Any) -> None:
        super().__init__(algorithm=algorithm, **phase)
        self.algorithm = algorithm
        self.reference: Policy | None = None  # a second model; none beside an adapter
        if algorithm.kl_coef and self.policy.adapted:
            # the policy's own base, with a second small adapter where the reference will move
            if algorithm.reference_refresh_steps:
                hold_reference(self.policy)
        elif algorithm.kl_coef:
            self.reference = copy.deepcopy(self.policy).eval().requires_grad_(False)
        self.reference_step = 0  # the step whose policy the reference is

    def models(self) -> list[nn.Module]:
        """With the reference."""
        return [*super().models(), *([self.reference] if self.reference is not None else [])]

    def rollout(self) -> dict[str, float]:
        """See :meth:`.RolloutPhase.rollout`; the reference is refreshed before it, if it is due."""
        self._refresh_reference()
        return super().rollout()

    def completed(self, sequences: Sequences) -> Sequences:
        """With the log-probabilities that the loss compares with."""
        if self.algorithm.needs_old_logprobs:
            sequences = replace(sequences, old_logprobs=self._score(self.policy, sequences))
        if self.algorithm.kl_coef:
            sequences = replace(sequences, ref_logprobs=self._reference_logprobs(sequences))
        return sequences

    def loss(self, batch: MicroBatch, denominator: float) -> tuple[Tensor, dict[str, Tensor]]:
        """This micro-batch's share of the loss, and its sums."""
        algo = self.algorithm
        scores = self.policy(
            batch.input_ids,
            batch.prompt_lengths,
            batch.completion_mask,
            temperature=algo.sampling.temperature,
            layout=batch.layout,
        )
        mask, logprobs = batch.completion_mask, scores.logprobs
        assert batch.rollout_logprobs is not None  # collect() filled it
        old_logprobs = batch.old_logprobs if batch.old_logprobs is not None else logprobs.detach()
        weights = keep = None
        if algo.sampler_correction != "none":
            weights = sampler_weights(
                old_logprobs,
                batch.rollout_logprobs,
                mask,
                mode=algo.sampler_correction,
                level=algo.correction_level,
                low=algo.correction_low,
                high=algo.correction_high,
            )
        if algo.off_policy_threshold is not None:
            keep = off_policy_sequence_mask(
                logprobs, batch.rollout_logprobs, batch.advantages, mask, threshold=algo.off_policy_threshold
            )
        out = policy_loss(
            logprobs,
            old_logprobs,
            batch.advantages,
            mask,
            denominator=denominator,
            objective=algo.objective,
            ratio_level=algo.ratio_level,
            clip_low=algo.clip_low,
            clip_high=algo.clip_high,
            dual_clip=algo.dual_clip,
            reduction=algo.reduction,
            ref_logprobs=batch.ref_logprobs,
            kl_coef=algo.kl_coef,
            kl_estimator=algo.kl_estimator,
            token_weights=weights,
            sequence_mask=keep,
            entropy=scores.entropy,
            entropy_coef=algo.entropy_coef,
        )
        return out.loss, out.diagnostics | logprob_gap(old_logprobs, batch.rollout_logprobs, mask)

    def update_metrics(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """Means over tokens, and maxima; of a minibatch without a token there are none."""
        numbers = per_token(sums)
        loss = numbers.pop("loss") * max(float(sums["tokens"]), 1.0)  # a sum already, not per token
        grad_norm, skipped = numbers.pop("grad_norm_max"), numbers.pop("skipped_max")
        if not sums["tokens"]:  # all groups were dead: an entropy of 0 would look like a collapse
            numbers = {}
        return {f"policy/{name}": value for name, value in numbers.items()} | {
            "policy/loss": loss,
            "optim/grad_norm": grad_norm,
            "optim/skipped": skipped,
        }

    def _refresh_reference(self) -> None:
        """Every ``reference_refresh_steps`` the reference becomes the policy (R1: every 400).

        Only between rollouts: the buffer's reference log-probabilities are all of one reference.
        """
        every = self.algorithm.reference_refresh_steps
        if self.algorithm.kl_coef and every and self.global_step - self.reference_step >= every:
            if self.reference is None:
                refresh_reference(self.policy.model)
            else:
                self.reference.load_state_dict(self.policy.state_dict())  # slice by slice, where they are sharded
            self.reference_step = self.global_step

    def _reference_logprobs(self, sequences: Sequences) -> list[Tensor]:
        if self.reference is not None:
            return self._score(self.reference, sequences)
        with as_reference(self.policy.model):
            return self._score(self.policy, sequences)

    def _score(self, policy: Policy, sequences: Sequences) -> list[Tensor]:
        """Log-probabilities of all completions under a policy, ragged, on the CPU."""
        scored: list[Tensor] = [torch.zeros(0)] * len(sequences)
        parts = placed_micro_batches(sequences, self.micro_batch_tokens, self.codec.pad_id, self.layouts)
        # as many forwards on every rank: a sharded one waits for all
        missing = int(all_max(len(parts))) - len(parts)
        idle: list[tuple[list[int], MicroBatch]] = [([], blank(self.codec.pad_id))] * missing
        with evaluating(policy):
            for done, (rows, padded) in enumerate([*parts, *idle], start=1):
                batch = padded.to(self.device)
                logprobs = policy(
                    batch.input_ids,
                    batch.prompt_lengths,
                    batch.completion_mask,
                    temperature=self.algorithm.sampling.temperature,
                    layout=batch.layout,
                ).logprobs.cpu()
                for place, row in enumerate(rows):
                    scored[row] = logprobs[place, : len(sequences.completion_ids[row])].clone()
                self.report("score", done, len(parts) + len(idle))
        reshard(policy)
        return scored

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the reference's age; its weights are parameters."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["lightning_r1"]["reference_step"] = self.reference_step

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See :meth:`on_save_checkpoint`."""
        super().on_load_checkpoint(checkpoint)
        self.reference_step = checkpoint["lightning_r1"]["reference_step"]
