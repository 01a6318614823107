"""Jobs as a person submits them: the scripts as they are, the miniature's overrides behind them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from helpers.quick import overrides_of, quick_rl
from slurm.local_cluster import FINISHED, Cluster, Job, until

ROOT = Path(__file__).parents[2]
TRAIN = "sbatch/train.sbatch"
# GRPO on two nodes, a slice of everything on each
TWO_NODES = ["parallel=fsdp", "optim=adamw8bit", "optim.min_8bit_size=256", "trainer.accelerator=cpu"]


@dataclass
class Jobs:
    """Submits from the repository into a folder of the test's own."""

    slurm: Cluster
    base: Path
    folder: Path

    def overrides(self, name: str, *more: str) -> list[str]:
        """Of a run of three steps with a folder of that name."""
        return [*overrides_of(quick_rl, self.folder, self.base), f"name={name}", *more]

    def run_dir(self, name: str) -> Path:
        """Of a run."""
        return self.folder / name

    def submit(self, script: str, *overrides: str, options: tuple[str, ...] = (), **environment: str) -> str:
        """``sbatch OPTIONS SCRIPT OVERRIDES``; returns the job's number."""
        output = f"--output={self.folder}/job-%A_%a.out" if "--array" in " ".join(options) else self._output
        said = self.slurm.call("sbatch", "--parsable", output, *options, script, *overrides, cwd=ROOT, **environment)
        return said.split(";")[0]

    @property
    def _output(self) -> str:
        return f"--output={self.folder}/job-%j.out"

    def train(self, name: str, *more: str, options: tuple[str, ...] = ("--nodes=2",)) -> str:
        """GRPO of two ranks on two nodes."""
        return self.submit(TRAIN, *self.overrides(name, *TWO_NODES, *more), options=options)

    def done(self, number: str, *, state: str = "COMPLETED", seconds: float = 240) -> Job:
        """Wait for the job's end, which has to be that one."""
        job = self.slurm.wait(number, seconds=seconds)
        assert job.state == state, job
        return job

    def steps(self, name: str) -> int:
        """Steps that a run has made so far."""
        file = self.run_dir(name) / "metrics.csv"
        rows = file.read_text().splitlines()[1:] if file.is_file() else []
        return max((int(row.split(",")[0]) for row in rows if row), default=0)

    def wait_for_step(self, name: str, step: int, *, seconds: float = 180) -> None:
        """Until a run has made that step."""
        until(lambda: self.steps(name) >= step, seconds=seconds, what=lambda: f"{name} is at step {self.steps(name)}")

    def wait_for_restart(self, number: str, restarts: int, *, seconds: float = 120) -> None:
        """Until a job has been requeued so often and runs."""
        until(
            lambda: (job := self.slurm.job(number)).restarts >= restarts and job.state == "RUNNING",
            seconds=seconds,
            what=lambda: f"it does not start again: {self.slurm.job(number)}",
        )

    def wait_for_end_or_restart(self, number: str, *, seconds: float) -> Job:
        """Until a job is over, or has begun again."""
        until(
            lambda: (job := self.slurm.job(number)).state in FINISHED or job.restarts,
            seconds=seconds,
            what=lambda: f"it goes on without one: {self.slurm.job(number)}",
        )
        return self.slurm.job(number)

    def urgent(self) -> str:
        """A job that needs all nodes, of a partition before which the others give way."""
        options = ("--partition=urgent", "--nodes=2", "--exclusive", "--gpus-per-node=2")
        said = self.slurm.call("sbatch", "--parsable", self._output, *options, "--wrap=true", cwd=ROOT)
        return said.split(";")[0]

    def said(self) -> str:
        """By all jobs of the test."""
        files = [*sorted(self.folder.glob("job-*.out")), *sorted(self.folder.rglob("slurm/*.log"))]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-6000:]}" for file in files)

    def recipe(self, verb: str, *overrides: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
        """``python recipes/VERB.py OVERRIDES`` on the machine from which jobs are submitted."""
        return self.slurm.run(
            sys.executable, str(ROOT / f"recipes/{verb}.py"), *overrides, cwd=self.folder, seconds=seconds
        )


def processes_of(run_dir: Path) -> list[int]:
    """Of the ranks of a run, by what is on their command line; what a rank is just starting shows the same."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if f"name={run_dir.name}".encode() in words and b"python" in Path(words[0].decode()).name.encode():
                found[int(entry.name)] = parent
    return sorted(pid for pid, parent in found.items() if parent not in found)
