"""A sweep: each point is a job of an array, with a run folder of its own."""

from __future__ import annotations

import json

import pytest

from helpers.runs import largest_difference, weights
from slurm.jobs import Jobs

pytestmark = pytest.mark.slurm


def test_each_point_is_a_job(jobs: Jobs) -> None:
    points = ["seed=0,1", "name=sweep/seed_${seed}", "hydra.launcher.timeout_min=10"]
    said = jobs.overrides("unused", "trainer.accelerator=cpu", "trainer.max_steps=2")
    said = [override for override in said if not override.startswith("name=")]
    swept = jobs.recipe("train", "--multirun", "hydra/launcher=slurm", *said, *points)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    runs = [jobs.folder / "sweep" / f"seed_{seed}" for seed in (0, 1)]
    assert [json.loads((run / "summary.json").read_text())["steps"] for run in runs] == [2, 2]
    assert largest_difference(*map(weights, runs)) > 0
