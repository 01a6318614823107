"""Training jobs on two nodes: the script as it is, under a real Slurm."""

from __future__ import annotations

import json

import pytest

from slurm.jobs import Jobs

pytestmark = pytest.mark.slurm


def test_two_nodes_train_one_model(jobs: Jobs) -> None:
    job = jobs.train("two")
    jobs.done(job)
    run_dir = jobs.run_dir("two")
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == 3
    assert (run_dir / "model" / "model.safetensors").is_file()
    config = (run_dir / "config.yaml").read_text()
    assert "num_nodes: 2" in config
    assert "strategy: fsdp" in config
    assert "adamw8bit" in config
    slices = sorted(file.name for file in (run_dir / "checkpoints" / "step-0000003").glob("*.distcp"))
    assert slices == ["__0_0.distcp", "__1_0.distcp"]  # each node has written its own
    log = (run_dir / "slurm" / f"{job}.log").read_text()
    assert log.count(" is finished: ") == 1  # one rank speaks
    said = (jobs.folder / f"job-{job}.out").read_text()
    assert f"n[1-2]: {run_dir}/slurm/{job}.log" in said
    assert f"finished: {run_dir}" in said
