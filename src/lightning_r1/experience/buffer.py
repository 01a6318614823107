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
    """

    def __init__(self, sequences: Sequences, *, minibatches: int, iterations: int, seed: int) -> None:
        self.sequences = sequences
        self.minibatches, self.iterations, self.seed = minibatches, iterations, seed
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
        """The next minibatch; rows are dealt out evenly, so that sizes differ by one at most.

        Raises:
            IndexError: if the buffer is exhausted.
        """
        if self.exhausted:
            raise IndexError("the experience buffer is exhausted; roll out first")
        iteration, place = divmod(self.position, self.minibatches)
        self.position += 1
        return self.sequences.select(self._order(iteration)[place :: self.minibatches])

    def _order(self, iteration: int) -> list[int]:
        order = list(range(len(self.sequences)))
        random.Random(f"{self.seed}/iteration/{iteration}").shuffle(order)
        return order

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on. A rollout that is used up is not kept."""
        if self.exhausted:
            return {}
        return {
            "sequences": {field.name: getattr(self.sequences, field.name) for field in fields(Sequences)},
            "minibatches": self.minibatches,
            "iterations": self.iterations,
            "seed": self.seed,
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
        )
        buffer.position = state["position"]
        return buffer
