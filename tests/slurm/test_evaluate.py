"""An evaluation on several sets as an array of jobs, and its results in one table."""

from __future__ import annotations

import json

import pytest

from slurm.jobs import Jobs

pytestmark = pytest.mark.slurm

SMALL = [
    "model=mini", "template=mini", "threads=1", "samples=1", "limit=4", "trainer.accelerator=cpu",
    "eval.sampling.max_new_tokens=12",
]  # fmt: skip


def test_each_set_is_a_task_of_the_array(jobs: Jobs) -> None:
    said = [*SMALL, f"model.path={jobs.base}", f"paths.output_dir={jobs.folder}"]
    array = jobs.submit("sbatch/evaluate.sbatch", *said, options=("--array=0-2",), SETS="operators mini", NAME="scores")
    tasks = [jobs.slurm.wait(f"{array}_{task}") for task in range(3)]
    assert [task.state for task in tasks] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert "error: --array=0-1 is for these 2 sets (operators mini)" in jobs.said()
    for name, sets in (("operators", ["operators"]), ("mini", ["operators", "greetings", "mockery"])):
        summary = json.loads((jobs.folder / "scores" / name / "summary.json").read_text())
        assert list(summary["sets"]) == sets

    table = jobs.recipe("report", f"run={jobs.folder}/scores")
    assert table.returncode == 0, table.stderr
    assert f"({jobs.base})" in table.stdout.replace("\n", "")
    for name in ("operators", "greetings", "mockery", "pass@1"):
        assert name in table.stdout
