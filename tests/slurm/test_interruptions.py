"""Whatever interrupts a run of two nodes: it goes on, in the same folder, to the same bits."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from helpers.runs import largest_difference, weights
from slurm.jobs import Jobs, processes_of
from slurm.local_cluster import Cluster

pytestmark = pytest.mark.slurm

LONG = ["trainer.max_steps=40", "callbacks.checkpoint.every_n_steps=5"]


@pytest.fixture(scope="module")
def undisturbed(slurm: Cluster, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that nothing interrupts."""
    jobs = Jobs(slurm, base, tmp_path_factory.mktemp("undisturbed"))
    jobs.done(jobs.train("run", *LONG))
    return jobs.run_dir("run")


def same_bits(run_dir: Path, undisturbed: Path) -> bool:
    return largest_difference(weights(run_dir), weights(undisturbed)) == 0


def logged_steps(run_dir: Path) -> list[int]:
    return [int(row.split(",")[0]) for row in (run_dir / "metrics.csv").read_text().splitlines()[1:]]


def test_signalled_then_preempted_a_job_is_requeued_and_ends_in_the_same_bits(jobs: Jobs, undisturbed: Path) -> None:
    job = jobs.train("run", *LONG)
    jobs.wait_for_step("run", 3)
    jobs.slurm.call("scancel", "--signal=USR1", job)  # as Slurm does before the time limit
    jobs.wait_for_restart(job, 1)
    log = jobs.run_dir("run") / "slurm" / f"{job}.log"
    assert f"job {job} is requeued, restart 1" in log.read_text()
    first = jobs.steps("run")

    jobs.wait_for_step("run", first + 3)
    urgent = jobs.urgent()
    jobs.done(urgent)
    jobs.wait_for_restart(job, 2)
    jobs.done(job)
    assert jobs.slurm.job(job).restarts == 2
    assert log.read_text().count("going on at") == 2
    assert same_bits(jobs.run_dir("run"), undisturbed)
    assert logged_steps(jobs.run_dir("run")) == logged_steps(undisturbed)
    assert [path.name for path in jobs.folder.iterdir() if path.is_dir()] == ["run"]


def test_cancelled_then_killed_a_run_goes_on_when_it_is_submitted_again(jobs: Jobs, undisturbed: Path) -> None:
    cancelled = jobs.train("run", *LONG)
    jobs.wait_for_step("run", 3)
    jobs.slurm.call("scancel", cancelled)
    job = jobs.done(cancelled, state="CANCELLED")
    jobs.slurm.wait_until_gone(cancelled)
    assert job.restarts == 0
    log = (jobs.run_dir("run") / "slurm" / f"{cancelled}.log").read_text()
    assert f"job {cancelled} is not requeued: it is COMPLETING" in log or "is not requeued: it is CANCELLED" in log
    saved = jobs.steps("run")
    assert saved < 40

    killed = jobs.train("run", *LONG)
    jobs.wait_for_step("run", saved + 6)
    ranks = processes_of(jobs.run_dir("run"))
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    # the other rank meets the gap, and the job fails; or Slurm asks it to end before, and it has the job requeued
    ended = jobs.wait_for_end_or_restart(killed, seconds=90)
    log = (jobs.run_dir("run") / "slurm" / f"{killed}.log").read_text()
    assert f"going on at {saved}" in log
    if ended.restarts == 0:
        assert ended.state == "FAILED"
        assert ended.exit_code != "0:0"
        jobs.slurm.wait_until_gone(killed)
        assert processes_of(jobs.run_dir("run")) == []
        jobs.done(jobs.train("run", *LONG))
    else:
        jobs.done(killed)
    assert same_bits(jobs.run_dir("run"), undisturbed)
    assert logged_steps(jobs.run_dir("run")) == logged_steps(undisturbed)
