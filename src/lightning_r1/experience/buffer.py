"""The experience buffer: one rollout, handed out as the minibatches of several optimizer steps.

A rollout is used for ``num_iterations`` passes of ``minibatches_per_rollout`` minibatches (the R1
paper: 8,192 completions, 16 minibatches, one pass). Each pass has an order of its own, drawn from a
seed; the buffer with its position is part of every checkpoint.
"""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any

import torch

from lightning_r1.experience.batching import Sequences


class ExperienceBuffer:
    """Minibatches of one rollout, in order.

    Args:
        sequences: the rows that count, with advantages and whatever log-probabilities are needed.
        minibatches: of one pass.
        iterations: passes.
        seed: of the orders.
        whole_groups: rows with the same prompt go into the same minibatch, where it can be computed once for all of
            them; else rows are dealt out one by one, as in the R1 paper.
    """

    def __init__(
        self, sequences: Sequences, *, minibatches: int, iterations: int, seed: int, whole_groups: bool = False
    ) -> None:
        self.sequences = sequences
        self.minibatches, self.iterations, self.seed = minibatches, iterations, seed
        self.whole_groups = whole_groups
        self.position = 0

    @classmethod
    def empty(cls) -> ExperienceBuffer:
        """Before the first rollout: exhausted."""
        return cls(Sequences([], [], torch.zeros(0)), minibatches=0, iterations=0, seed=0)

    @property
    def exhausted(self) -> bool:
        """Whether every minibatch was handed out, so that the next step begins with a rollout."""
        return self.position >= self.minibatches * self.iterations

    def next_minibatch(self) -> Sequences:
        """The next minibatch; rows are dealt out evenly, so that sizes differ by one (or one group) at most.

        Raises:
            IndexError: if the buffer is exhausted.
        """
        if self.exhausted:
            raise IndexError("the experience buffer is exhausted; roll out first")
        iteration, place = divmod(self.position, self.minibatches)
        self.position += 1
        dealt = self._order(iteration)[place :: self.minibatches]
        return self.sequences.select([row for rows in dealt for row in rows])

    def _order(self, iteration: int) -> list[list[int]]:
        """Rows that stay together, shuffled."""
        order = self._groups() if self.whole_groups else [[row] for row in range(len(self.sequences))]
        random.Random(f"{self.seed}/iteration/{iteration}").shuffle(order)
        return order

    def _groups(self) -> list[list[int]]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(self.sequences.prompt_ids):
            groups.setdefault(tuple(prompt.tolist()), []).append(row)
        return list(groups.values())

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on. A rollout that is used up is not kept."""
        if self.exhausted:
            return {}
        return {
            "sequences": {field.name: getattr(self.sequences, field.name) for field in fields(Sequences)},
            "minibatches": self.minibatches,
            "iterations": self.iterations,
            "seed": self.seed,
            "whole_groups": self.whole_groups,
            "position": self.position,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> ExperienceBuffer:
        """The buffer that :meth:`state_dict` described."""
        if not state:
            return cls.empty()
        buffer = cls(
            Sequences(**state["sequences"]),
            minibatches=state["minibatches"],
            iterations=state["iterations"],
            seed=state["seed"],
            whole_groups=state["whole_groups"],
        )
        buffer.position = state["position"]
        return buffer
