"""Slurm's commands, as far as a pipeline needs them: submit, look, cancel.

Accounting is not asked for, since a cluster may have none: what the controller forgets after a job's end
(``MinJobAge``, five minutes if not set) is told by the files that the job left.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_r1.config.errors import ConfigError
from lightning_r1.pipeline.runners import ROOT, Command

SCRIPT = ROOT / "sbatch" / "train.sbatch"
_ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Job:
    """A job as the queue shows it."""

    id: str
    name: str
    state: str
    reason: str = ""
    """Why it waits, or where it runs."""
    seconds: int = 0
    """Of running, since its last start."""

    @property
    def live(self) -> bool:
        """Whether it runs or may run yet: one that waits for what will not come is dead."""
        return self.state not in _ENDED and "DependencyNeverSatisfied" not in self.reason


class Slurm:
    """The cluster that this host submits to.

    Raises:
        ConfigError: if it submits to none.
    """

    def __init__(self) -> None:
        if absent := [program for program in ("sbatch", "squeue", "scancel") if shutil.which(program) is None]:
            raise ConfigError(f"cluster=slurm: there is no {absent[0]} here; start the pipeline on a login node")

    def submit(self, command: Command, *, name: str, options: Sequence[str], log: Path, after: Iterable[str]) -> str:
        """Submit a command as a job.

        Args:
            command: what it runs.
            name: of the job.
            options: for sbatch.
            log: of the job script; ``%j`` is the job's number.
            after: jobs that have to end well before it starts; when one does not, it is cancelled.

        Returns:
            The job's number.

        Raises:
            ConfigError: with what sbatch says, if it refuses.
        """
        waits = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
        # what is said on the command line outweighs the environment and the script's own lines
        named = ["--parsable", f"--job-name={name}", f"--output={log}", *waits, *options]
        done = _run(["sbatch", *named, str(SCRIPT), *command.overrides], VERB=command.verb, LIGHTNING_R1_ROOT=str(ROOT))
        if done.returncode:
            said = " ".join(done.stderr.split())
            raise ConfigError(f"cluster=slurm: sbatch {' '.join(options)}, {name}: {said}; see conf/cluster/slurm.yaml")
        return done.stdout.strip().split(";")[0]  # behind it a federation names the cluster

    def jobs(self) -> dict[str, Job]:
        """Of this user, by number: those that wait and run, and those that ended a while ago.

        Raises:
            RuntimeError: if the controller does not answer.
        """
        columns = "--format=%i|%T|%M|%R|%j"
        try:
            done = _run(["squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", columns])
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"squeue: no answer within {error.timeout:.0f} s") from error
        if done.returncode:
            raise RuntimeError(f"squeue: {' '.join(done.stderr.split())}")
        jobs = {}
        for line in done.stdout.splitlines():
            number, state, used, reason, name = line.split("|", 4)
            jobs[number] = Job(number, name, state, reason, seconds_of(used))
        return jobs

    def cancel(self, numbers: Sequence[str]) -> None:
        """End jobs; one that has ended already is no error."""
        if numbers:
            _run(["scancel", *numbers])


def seconds_of(used: str) -> int:
    """Of a time as Slurm writes it.

    >>> seconds_of("1-02:03:04"), seconds_of("5:06"), seconds_of("INVALID")
    (93784, 306, 0)
    """
    days, _, clock = used.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or not (days or "0").isdigit():
        return 0
    total = 0
    for part in parts:
        total = 60 * total + int(part)
    return 86_400 * int(days or 0) + total


def _run(command: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """In a clean environment: within a job, sbatch would take that job's size for its own."""
    kept: Mapping[str, str] = {
        name: value for name, value in os.environ.items() if name == "SLURM_CONF" or not name.startswith("SLURM_")
    }
    return subprocess.run(
        command,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=_PATIENCE_S,
    )
