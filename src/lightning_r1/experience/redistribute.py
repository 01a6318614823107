"""What ranks have sampled and not used yet, dealt to another number of ranks.

The rule:

* **Between two rollouts** nothing is left over. The prompt stream has one position over all ranks, so that any number
  of ranks goes on as if it had always been that many.
* **Minibatches that are left of a rollout** keep their order and their completions: minibatch m of all ranks together
  is cut into as many even pieces as there are ranks now, one behind the other, and completions of one prompt stay
  together where ``algo.whole_groups`` says so. The denominator of a loss is counted over ranks, so that each optimizer
  step that is left has the same loss and gradient, to rounding (dropout excepted, whose seeds are the ranks').
* **Groups that wait for a later rollout** (``algo.keep_surplus``) are dealt out in turn, the oldest first.
* **A rollout in flight** (``algo.overlap_rollouts``) lies in the order of the stream and is dealt out in that order, if
  every rank gets as many groups. If they do not, it is sampled again, with the weights of then: its prompts count as
  drawn only when it is used.

Nothing is lost, so that nothing is refused here; that ``algo.prompts_per_rollout`` has to be a multiple of the ranks is
a rule of the config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from lightning_r1.experience.batching import Sequences
from lightning_r1.experience.buffer import ExperienceBuffer
from lightning_r1.parallel.checkpoint_files import RANKS


@dataclass(frozen=True, slots=True)
class OwnState:
    """What a rank has that no other has, as plain data."""

    buffer: dict[str, Any]
    """Of :meth:`.ExperienceBuffer.state_dict`."""
    queue: list[dict[str, Any]]
    """Of :meth:`.GroupQueue.state_dict`."""
    flight: dict[str, Any] | None
    """Of :meth:`.Flight.state_dict`."""

    def plain(self) -> dict[str, Any]:
        """By field."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def own_state(checkpoint: Mapping[str, Any], rank: int, ranks: int, *, tell: Callable[[str], None]) -> OwnState:
    """What a rank finds in a checkpoint: what it wrote, or its share of what another number of ranks wrote.

    Args:
        checkpoint: as it was read; of all ranks if they were of another number.
        rank: from 0.
        ranks: of now.
        tell: told how it was dealt anew.
    """
    before, owned = checkpoint["lightning_r1"]["world_size"], _owned(checkpoint)
    if before == ranks:
        return owned[rank]
    everybody = [owned[number] for number in range(before)]
    tell(f"the checkpoint was written by {before} rank(s) and is read by {ranks}: {describe(everybody, ranks)}")
    return redistribute(everybody, rank, ranks)


def _owned(checkpoint: Mapping[str, Any]) -> dict[int, OwnState]:
    """By rank, as far as they were read."""
    if RANKS in checkpoint:
        return {number: OwnState(**plain) for number, plain in checkpoint[RANKS].items()}
    state = checkpoint["lightning_r1"]  # of a file that holds it for all ranks together
    flights = state["flights"] or [None] * state["world_size"]
    parts = zip(state["buffers"], state["queues"], flights, strict=True)
    return {number: OwnState(*part) for number, part in enumerate(parts)}


def redistribute(states: Sequence[OwnState], rank: int, ranks: int) -> OwnState:
    """What one of ``ranks`` ranks gets of what others had.

    Args:
        states: of all ranks of then, by rank.
        rank: from 0.
        ranks: of now.
    """
    return OwnState(
        buffer=_cut([state.buffer for state in states], rank, ranks),
        queue=_oldest_first([state.queue for state in states])[rank::ranks],
        flight=_deal_flight([state.flight for state in states], rank, ranks),
    )


def describe(states: Sequence[OwnState], ranks: int) -> str:
    """In words, for people: what of which is dealt to so many ranks."""
    buffers = [ExperienceBuffer.from_state_dict(state.buffer) for state in states]
    left = max(buffer.left for buffer in buffers)
    waiting, flying = sum(len(state.queue) for state in states), _flying(states)
    return ", ".join(
        [
            f"the {left} minibatch(es) left of the rollout are cut anew" if left else "nothing is left of the rollout",
            *([f"{waiting} waiting group(s) are dealt out anew"] if waiting else []),
            *([f"the {flying} group(s) in flight are dealt out anew"] if flying and flying % ranks == 0 else []),
            *([f"the {flying} group(s) in flight are sampled again"] if flying % ranks else []),
        ]
    )


def _cut(states: Sequence[Mapping[str, Any]], rank: int, ranks: int) -> dict[str, Any]:
    buffers = [ExperienceBuffer.from_state_dict(state) for state in states]
    if all(buffer.exhausted for buffer in buffers):
        return {}
    whole = _joined([buffer.sequences for buffer in buffers])
    starts = [sum(len(buffer.sequences) for buffer in buffers[:number]) for number in range(len(buffers))]
    mine = []
    for place in range(buffers[0].left):
        units = [
            [start + row for row in rows]
            for buffer, start in zip(buffers, starts, strict=True)
            for rows in buffer.units(buffer.position + place)
        ]
        first, end = (len(units) * number // ranks for number in (rank, rank + 1))
        mine.append(units[first:end])
    used = sorted({row for units in mine for rows in units for row in rows})
    places = {row: place for place, row in enumerate(used)}
    schedule = [[[places[row] for row in rows] for rows in units] for units in mine]
    return ExperienceBuffer.scheduled(whole.select(used), schedule).state_dict()


def _joined(parts: Sequence[Sequences]) -> Sequences:
    """Rows of several, one behind the other."""
    joined: dict[str, Any] = {}
    for field in fields(Sequences):
        values = [getattr(part, field.name) for part in parts]
        if field.name == "sampled" and any(value is not None for value in values):
            values = [part.masks() for part in parts]  # a rank may have no call in its part of the rollout
        if isinstance(values[0], torch.Tensor):
            joined[field.name] = torch.cat(values)
        else:
            joined[field.name] = None if values[0] is None else [row for rows in values for row in rows]
    return Sequences(**joined)


def _oldest_first(queues: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    return sorted((one for queue in queues for one in queue), key=lambda one: one["rollout"])


def _flying(states: Sequence[OwnState]) -> int:
    return sum(len(state.flight["groups"]) for state in states if state.flight)


def _deal_flight(flights: Sequence[dict[str, Any] | None], rank: int, ranks: int) -> dict[str, Any] | None:
    there = [flight for flight in flights if flight is not None]
    if len(there) < len(flights):
        return None
    # position p of the stream went to rank p % ranks
    groups = [group for turn in zip(*(flight["groups"] for flight in there), strict=True) for group in turn]
    if len(groups) % ranks:
        return None
    seconds = {name: max(flight[name] for flight in there) for name in ("generation_seconds", "reward_seconds")}
    return {"groups": groups[rank::ranks], **seconds}
