"""A pipeline whose nodes are jobs: what fails cancels what needs it, and the same command goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from slurm.jobs import ROOT, Jobs

pytestmark = pytest.mark.slurm

SCORES = [
    "eval=operators", "model=mini", "template=mini", "threads=1", "samples=1", "limit=4", "trainer.accelerator=cpu",
    "eval.sets.operators._target_=helpers.coin.coin_rows", "eval.sampling.max_new_tokens=12",
]  # fmt: skip
NOTHING_TO_SHOW = {"show": [], "tables": {"columns": {}, "compare": "", "rows": {}, "note": "the end"}}


def write_chain(jobs: Jobs, conf: Path, *, more_for_rl: list[str]) -> None:
    """The pipeline's YAML: base; rl behind it, scores behind rl; another rl that needs only the base."""
    said = jobs.overrides("unused", "trainer.accelerator=cpu", "trainer.max_steps=2")
    rl = [override for override in said if not override.startswith(("model.path=", "paths.", "name="))]
    begins_with_base = {"model.path": "base/model"}
    nodes: dict[str, Any] = {
        "base": {"overrides": [*rl, f"model.path={jobs.base}"]},
        "rl": {"overrides": [*rl, *more_for_rl], "inputs": begins_with_base},
        "scores": {"verb": "evaluate", "overrides": SCORES, "inputs": {"model.path": "rl/model"}},
        "other": {
            "overrides": [*rl, "seed=3"],
            "inputs": begins_with_base,
            "resources": {"options": ["--comment=mine"]},
        },
    }
    (conf / "pipeline").mkdir(parents=True, exist_ok=True)
    spec = {"name": "chain", "nodes": nodes, **NOTHING_TO_SHOW}
    (conf / "pipeline" / "chain.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))


def test_a_failing_node_cancels_what_needs_it_and_the_same_command_goes_on(jobs: Jobs, tmp_path: Path) -> None:
    conf, folder = tmp_path / "conf", tmp_path / "chain"
    command = ["bash", str(ROOT / "sbatch/pipeline.sh"), "pipeline=chain", f"hydra.searchpath=[file://{conf}]",
               f"paths.output_dir={tmp_path}", "cluster.poll_s=0.5"]  # fmt: skip

    def manifest(node: str) -> dict[str, Any]:
        return json.loads((folder / node / "manifest.json").read_text())

    # more devices than the job has tasks
    write_chain(jobs, conf, more_for_rl=["trainer.devices=3"])
    left = jobs.slurm.run(*command, "cluster.follow=false", cwd=tmp_path, seconds=120)
    assert left.returncode == 0, left.stdout + left.stderr
    assert "4 jobs are on their way" in left.stdout
    submitted = {node: manifest(node)["job"] for node in ("base", "rl", "scores", "other")}
    assert jobs.slurm.job(submitted["scores"]).state == "PENDING"

    broken = jobs.slurm.run(*command, cwd=tmp_path, seconds=400)
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert {node: manifest(node)["job"] for node in submitted} == submitted  # followed, not submitted again
    log = folder / "rl" / "slurm" / f"job-{submitted['rl']}.out"
    assert f"failed: job {submitted['rl']} is FAILED; see {log}" in broken.stdout
    assert f"cancelled: job {submitted['scores']} needs rl, which failed" in broken.stdout
    assert "ended with status" in log.read_text()
    assert "the same command goes on from here" in broken.stderr
    assert jobs.slurm.wait(submitted["scores"]).state == "CANCELLED"
    assert [manifest(node)["status"] for node in submitted] == ["done", "failed", "cancelled", "done"]
    assert "Comment=mine" in jobs.slurm.call("scontrol", "show", "job", submitted["other"])

    write_chain(jobs, conf, more_for_rl=[])
    whole = jobs.slurm.run(*command, cwd=tmp_path, seconds=400)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    summary = json.loads((folder / "summary.json").read_text())
    statuses = {name: node["status"] for name, node in summary["nodes"].items()}
    assert statuses == {"base": "cached", "rl": "done", "scores": "done", "other": "cached"}
    assert all(manifest(node)["seconds"] >= 0 for node in submitted)
    assert manifest("base")["job"] == submitted["base"]
