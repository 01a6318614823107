"""The experience buffer: one rollout, handed out as the minibatches of several optimizer steps.

A rollout is used for ``num_iterations`` passes of ``minibatches_per_rollout`` minibatches (the R1
paper: 8,192 completions, 16 minibatches, one pass). Each pass has an order of its own, drawn from a
seed; the buffer with its position is part of every checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
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
        self.sequences, self.position = sequences, 0
        units = self._groups() if whole_groups else [[row] for row in range(len(sequences))]
        orders = [_shuffled(units, f"{seed}/iteration/{iteration}") for iteration in range(iterations)]
        # dealt out one by one, so that sizes differ by one row (or one group) at most
        self._schedule = [order[place::minibatches] for order in orders for place in range(minibatches)]

    @classmethod
    def scheduled(cls, sequences: Sequences, schedule: list[list[list[int]]]) -> ExperienceBuffer:
        """Of minibatches that are decided already: of each its units, the rows that stay together."""
        buffer = cls(sequences, minibatches=0, iterations=0, seed=0)
        buffer._schedule = schedule
        return buffer

    @classmethod
    def empty(cls) -> ExperienceBuffer:
        """Before the first rollout: exhausted."""
        return cls.scheduled(Sequences([], [], torch.zeros(0)), [])

    @property
    def left(self) -> int:
        """Minibatches that were not handed out yet."""
        return len(self._schedule) - self.position

    @property
    def exhausted(self) -> bool:
        """Whether every minibatch was handed out, so that the next step begins with a rollout."""
        return self.left <= 0

    def units(self, position: int) -> list[list[int]]:
        """Rows of the minibatch at a position, those together that stay together."""
        return self._schedule[position]

    def next_minibatch(self) -> Sequences:
        """The next minibatch.

        Raises:
            IndexError: if the buffer is exhausted.
        """
        if self.exhausted:
            raise IndexError("the experience buffer is exhausted; roll out first")
        dealt = self.units(self.position)
        self.position += 1
        return self.sequences.select([row for rows in dealt for row in rows])

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
            "schedule": self._schedule,
            "position": self.position,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> ExperienceBuffer:
        """The buffer that :meth:`state_dict` described."""
        if not state:
            return cls.empty()
        sequences = Sequences(**state["sequences"])
        if "schedule" in state:
            buffer = cls.scheduled(sequences, state["schedule"])
        else:  # of a checkpoint that names the orders' seed
            orders = ("minibatches", "iterations", "seed", "whole_groups")
            buffer = cls(sequences, **{name: state[name] for name in orders})
        buffer.position = state["position"]
        return buffer


def _shuffled(units: list[list[int]], seed: str) -> list[list[int]]:
    order = list(units)
    random.Random(seed).shuffle(order)
    return order
