"""What Slurm is asked, and what is made of its answers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from helpers.slurm import FakeSlurm
from lightning_r1.parallel.slurm_job import Job, ask, end_of_job, job_name, requeue


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path, monkeypatch)


def test_a_job_is_read_from_its_line(slurm: FakeSlurm) -> None:
    slurm.says(end="2026-01-31T12:00:00", restarts=2)
    noon = time.mktime((2026, 1, 31, 12, 0, 0, 0, 0, -1))
    assert ask("7") == Job("RUNNING", end_time=noon, requeueable=True, restarts=2)
    assert slurm.asked == ["show job --oneliner 7"]


@pytest.mark.parametrize("said", ["", "slurm_load_jobs error: Invalid job id specified", "{}"])
def test_what_is_no_job_is_none(said: str, slurm: FakeSlurm) -> None:
    (slurm.folder / "job").write_text(said)
    assert ask("7") is None


def test_the_time_limit_comes_from_slurm_and_else_from_the_environment(
    slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1700000000")
    assert end_of_job() is None  # it has none any more
    slurm.says(end="2026-01-31T12:00:00")
    assert end_of_job() == time.mktime((2026, 1, 31, 12, 0, 0, 0, 0, -1))
    (slurm.folder / "scontrol").unlink()
    monkeypatch.setenv("PATH", str(slurm.folder))
    assert end_of_job() == 1700000000
    monkeypatch.delenv("SLURM_JOB_ID")
    assert end_of_job() is None


def test_a_running_job_is_requeued(slurm: FakeSlurm) -> None:
    assert requeue("7") == "job 7 is requeued, restart 1"
    assert slurm.asked[-1] == "requeue 7"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"state": "CANCELLED"}, "it is CANCELLED"),  # scancel: a requeue would undo it
        ({"state": "COMPLETING"}, "it is COMPLETING"),
        ({"state": "PREEMPTED"}, "it is PREEMPTED"),  # Slurm does it
        ({"requeue": 0}, "it was not submitted with sbatch --requeue"),
        ({"batch": 0}, "it was not submitted with sbatch --requeue"),
        ({"restarts": 3}, "it has been 3 times"),
    ],
)
def test_another_one_is_not(facts: dict[str, Any], why: str, slurm: FakeSlurm) -> None:
    slurm.says(**facts)
    assert requeue("7", most=3) == f"job 7 is not requeued: {why}"
    assert not any(call.startswith("requeue") for call in slurm.asked)


def test_what_slurm_refuses_is_told(slurm: FakeSlurm) -> None:
    slurm.refuses("Access/permission denied\nfor job 7")
    assert requeue("7") == "job 7 is not requeued: scontrol requeue failed (Access/permission denied for job 7)"
    (slurm.folder / "job").write_text("")
    assert requeue("7") == "job 7 is not requeued: Slurm does not answer"


def test_the_task_of_an_array_is_not_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = FakeSlurm(tmp_path, monkeypatch, SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="3")
    name = job_name()
    assert name == "7_3"
    requeue(name)
    assert slurm.asked == ["show job --oneliner 7_3", "requeue 7_3"]
