"""The Slurm job that this process runs in: when it ends, and how it runs again."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

_PATIENCE_S = 20.0
RESTARTS = 1000
"""How often a job runs again, where nothing is said: enough to be no limit, and an end for what never gets anywhere."""


@dataclass(frozen=True, slots=True)
class Job:
    """What Slurm says of a job."""

    state: str
    end_time: float | None
    """Seconds since the epoch; None where there is no limit."""
    requeueable: bool
    restarts: int


def job_name(environment: Mapping[str, str] = os.environ) -> str | None:
    """How Slurm calls this job, None outside of one.

    The number alone of an array's first task is that of the whole array.

    >>> job_name({"SLURM_JOB_ID": "7"})
    '7'
    >>> job_name({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"})
    '7_3'
    """
    if "SLURM_JOB_ID" not in environment:
        return None
    if "SLURM_ARRAY_TASK_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def ask(name: str) -> Job | None:
    """What Slurm says of a job; None if it does not say (``scontrol`` is not there, its server is busy)."""
    said = _scontrol("show", "job", "--oneliner", name)
    if said is None or said.returncode:
        return None
    line = said.stdout.splitlines()[0] if said.stdout else ""
    facts = dict(reversed(re.findall(r"(?<!\S)(\w+)=(\S*)", line)))  # the command's own words come behind
    if "JobState" not in facts:
        return None
    return Job(
        state=facts["JobState"],
        end_time=_seconds(facts.get("EndTime", "")),
        # what was not started by a batch script has nothing that could be started again
        requeueable=facts.get("Requeue") == "1" and facts.get("BatchFlag") == "1",
        restarts=int(facts.get("Restarts", "0")),
    )


def end_of_job() -> float | None:
    """When Slurm ends this job, in seconds since the epoch; None outside of a job, and where there is no limit.

    A limit may change while the job runs; what was put into the environment at its start is asked only where Slurm
    does not answer.
    """
    name = job_name()
    if name is None:
        return None
    job = ask(name)
    if job is not None:
        return job.end_time
    return float(os.environ["SLURM_JOB_END_TIME"]) if "SLURM_JOB_END_TIME" in os.environ else None


def requeue(name: str, *, most: int = RESTARTS) -> str:
    """Let a job run again, if that is wanted of it.

    Only a job that Slurm takes for running: ``scancel`` and the time limit send SIGTERM as well, and the first is
    not to be undone. A job that is preempted is running until its grace is over, and waits already when Slurm itself
    would requeue it.

    Args:
        name: see :func:`job_name`.
        most: restarts after which it does not run again.

    Returns:
        What became of it, in words.
    """
    job = ask(name)
    if job is None:
        return f"job {name} is not requeued: Slurm does not answer"
    if job.state != "RUNNING":
        return f"job {name} is not requeued: it is {job.state}"
    if not job.requeueable:
        return f"job {name} is not requeued: it was not submitted with sbatch --requeue"
    if job.restarts >= most:
        return f"job {name} is not requeued: it has been {job.restarts} times"
    done = _scontrol("requeue", name)
    if done is None or done.returncode:
        words = " ".join(done.stderr.split()) if done else "no answer"
        return f"job {name} is not requeued: scontrol requeue failed ({words})"
    return f"job {name} is requeued, restart {job.restarts + 1}"


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            ["scontrol", *arguments],
            env={**os.environ, "SLURM_TIME_FORMAT": "standard"},
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _seconds(said: str) -> float | None:
    """Of a local time as Slurm writes it: ``2025-01-31T23:59:59``; others are no time."""
    try:
        return time.mktime(time.strptime(said, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
