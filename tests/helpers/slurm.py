"""A ``scontrol`` that says what a test wants, and writes down what it was asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# as scontrol show job --oneliner writes it, Slurm 23.11
LINE = (
    "JobId={id} JobName=train.sbatch UserId=user(1000) GroupId=user(1000) MCS_label=N/A Priority=1 Nice=0 "
    "Account=(null) QOS=(null) JobState={state} Reason=None Dependency=(null) "
    "Requeue={requeue} Restarts={restarts} BatchFlag={batch} "
    "Reboot=0 ExitCode=0:0 RunTime=00:00:05 TimeLimit=00:10:00 TimeMin=N/A SubmitTime=2026-01-31T11:50:00 "
    "EligibleTime=2026-01-31T11:50:00 StartTime=2026-01-31T11:50:00 EndTime={end} Deadline=N/A SuspendTime=None "
    "Command=/home/user/sbatch/train.sbatch trainer.max_steps=9 JobState=no StdOut=/home/user/train-{id}.out"
)


class FakeSlurm:
    """Stands in ``PATH`` for Slurm.

    Args:
        folder: for the program and its log.
        patch: undoes what is set.
        job: its environment variables.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, **job: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "scontrol"
        program.write_text(
            f'#!/bin/sh\necho "$*" >> {folder}/asked\n'
            f'if [ "$1" = show ]; then cat {folder}/job; else cat {folder}/refuses >&2; [ ! -s {folder}/refuses ]; fi\n'
        )
        program.chmod(0o755)
        for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID", "SLURM_JOB_END_TIME", "SLURM_ARRAY_TASK_ID"):
            patch.delenv(name, raising=False)
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        for name, value in {"SLURM_JOB_ID": "7", **job}.items():
            patch.setenv(name, value)
        self.says()
        self.refuses("")

    def says(
        self, state: str = "RUNNING", *, requeue: int = 1, restarts: int = 0, batch: int = 1, end: str = "Unknown"
    ) -> None:
        """What there is to know of the job."""
        line = LINE.format(id=7, state=state, requeue=requeue, restarts=restarts, batch=batch, end=end)
        (self.folder / "job").write_text(line + "\n")

    def refuses(self, why: str) -> None:
        """Whether a requeue fails."""
        (self.folder / "refuses").write_text(why)

    @property
    def asked(self) -> list[str]:
        """The arguments of every call so far."""
        file = self.folder / "asked"
        return file.read_text().splitlines() if file.is_file() else []
