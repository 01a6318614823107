"""The last words of work that was interrupted: a Slurm job runs again, a person is told the command that goes on."""

from __future__ import annotations

import shlex
import sys

from lightning_r1.parallel.interruption import Interrupted
from lightning_r1.parallel.slurm_job import RESTARTS, job_name, requeue


def leave(left: Interrupted, *, most: int = RESTARTS) -> None:
    """Requeue this process's Slurm job, if there is one, and say what happens next. One rank does.

    Args:
        left: why the work was left.
        most: restarts of a job after which it does not run again.
    """
    name = job_name() if left.requeue else None
    how = f"{requeue(name, most=most)}. " if name else ""
    command = shlex.join(["python", *sys.argv])
    sys.stderr.write(f"unfinished: {left}. {how}The same command goes on from what is saved: {command}\n")
    sys.stderr.flush()
