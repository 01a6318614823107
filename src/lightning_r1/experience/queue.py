"""Informative groups that one rollout had too many of, kept for the next ones.

They are one rollout old or more: what they teach has to be corrected for the policy that has moved on
(``algo.sampler_correction``), and they are dropped when they are too old. Each rank has a queue of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_r1.experience.stored import from_plain, to_plain
from lightning_r1.types import ScoredGroup


@dataclass(frozen=True, slots=True)
class Waiting:
    """A group, and the number of the rollout that sampled it."""

    rollout: int
    group: ScoredGroup


class GroupQueue:
    """First in, first out.

    Args:
        max_age: rollouts after which a group is dropped; at 0 nothing is kept.
    """

    def __init__(self, max_age: int = 0) -> None:
        self.max_age = max_age
        self.waiting: list[Waiting] = []

    def usable(self, rollout: int) -> list[Waiting]:
        """Those that this rollout may still use, oldest first."""
        return [one for one in self.waiting if rollout - one.rollout <= self.max_age]

    def keep(self, surplus: Sequence[Waiting], *, rollout: int) -> None:
        """What this rollout did not use; nothing that the next one could not use either."""
        self.waiting = [one for one in surplus if rollout + 1 - one.rollout <= self.max_age]

    def __len__(self) -> int:
        """Groups that wait."""
        return len(self.waiting)

    def state_dict(self) -> list[dict[str, Any]]:
        """Plain data."""
        return [{"rollout": one.rollout, "group": to_plain(one.group)} for one in self.waiting]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """See :meth:`state_dict`."""
        self.waiting = [Waiting(one["rollout"], from_plain(one["group"])) for one in state]
