"""Nodes that train and nodes that sample: the script as it is, with a server that answers as vLLM does."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from helpers.fake_vllm import GENERATE
from slurm.jobs import Jobs, processes_of
from slurm.local_cluster import until

pytestmark = pytest.mark.slurm

SCRIPT = "sbatch/train_with_vllm.sbatch"


@pytest.fixture
def vllm(tmp_path: Path) -> dict[str, str]:
    """Environment in which the interpreter that has vLLM is one that has the fake."""
    python = tmp_path / "python_with_vllm"
    python.write_text(f"#!{sys.executable}\nfrom helpers.fake_vllm import main\n\nmain()\n")
    python.chmod(0o755)
    return {"VLLM_PYTHON": str(python), "VLLM_ADDR": "127.0.0.1", "VLLM_FLAGS": "--seed 5", "VLLM_START_S": "120"}


def overrides(jobs: Jobs, *more: str) -> list[str]:
    return jobs.overrides("served", "trainer.accelerator=cpu", "algo.sampler_correction=truncate", *more)


def test_the_servers_end_with_the_trainer(jobs: Jobs, vllm: dict[str, str]) -> None:
    job = jobs.submit(SCRIPT, *overrides(jobs), options=("--nodes=2",), **vllm)
    jobs.done(job)
    assert json.loads((jobs.run_dir("served") / "summary.json").read_text())["steps"] == 3
    said = (jobs.run_dir("served") / "slurm" / f"{job}-vllm-0.log").read_text()
    assert f"-m lightning_r1.rollout.serve_vllm {jobs.base} --host 0.0.0.0 --port" in said
    assert "--seed 5" in said
    assert said.count(f"asked {GENERATE}") > 3
    assert said.count("asked r1_start") == said.count("asked r1_finish") > 2
    assert servers(jobs) == []
    assert "vLLM serves" in (jobs.folder / f"job-{job}.out").read_text()


def test_the_trainer_ends_with_a_server(jobs: Jobs, vllm: dict[str, str]) -> None:
    job = jobs.submit(SCRIPT, *overrides(jobs, "trainer.max_steps=5000"), options=("--nodes=2",), **vllm)
    jobs.wait_for_step("served", 1)
    (server,) = until(lambda: servers(jobs), seconds=5, what=lambda: "no server")  # type: ignore[misc]
    os.kill(server, signal.SIGKILL)
    ended = jobs.done(job, state="FAILED", seconds=90)
    assert ended.exit_code != "0:0"
    assert "ended" in (jobs.folder / f"job-{job}.out").read_text()
    until(lambda: not processes_of(jobs.run_dir("served")), seconds=30, what=lambda: "the trainer lives on")


def test_a_node_has_to_be_left_to_train(jobs: Jobs, vllm: dict[str, str]) -> None:
    job = jobs.submit(SCRIPT, *overrides(jobs), options=("--nodes=1",), **vllm)
    assert jobs.done(job, state="FAILED").exit_code == "2:0"
    assert "error: VLLM_NODES=1 of 1 nodes" in (jobs.folder / f"job-{job}.out").read_text()


def servers(jobs: Jobs) -> list[int]:
    """Processes of the fake server of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(jobs.folder / "python_with_vllm").encode() in words and b"srun" not in words[0]:
                found.append(int(entry.name))
    return found
