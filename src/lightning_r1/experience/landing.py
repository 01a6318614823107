"""Waiting for a rollout in flight, on all ranks at once, without being late for one's own end."""

from __future__ import annotations

import math
import time

from lightning_r1.experience.draft import Flight
from lightning_r1.parallel.collectives import all_max, rank
from lightning_r1.parallel.interruption import interruption
from lightning_r1.parallel.slurm_job import end_of_job

_LOOK_S = 0.5


def settled(flight: Flight) -> None:
    """Wait until it has landed on every rank, well or not; all ranks call it.

    Raises:
        Interrupted: on every rank, if one is to leave: what needs the engine is not begun any more.
    """
    while all_max(float(flight.flying(_LOOK_S))):
        if all_max(float(bool(interruption.wanted))):
            raise interruption.interrupted(interruption.wanted or "another rank was asked to leave")


def lands(flight: Flight) -> bool:
    """Whether it lands on every rank; all ranks call it.

    Once one of them is asked to leave, it is waited for as long as leaves time to save before Slurm ends the job: that
    is the time limit, or the end of a preemption's grace. Then it is given up, for the step would be lost with it.
    """
    until = math.inf
    asked = False
    while all_max(float(flight.flying(_LOOK_S))):
        if not asked and all_max(float(bool(interruption.wanted))):
            asked = True
            end = end_of_job() if rank() == 0 else None
            until = math.inf if end is None else end - interruption.saving_s
        if all_max(float(time.time() > until)):
            flight.abandon()
            return False
    return True
