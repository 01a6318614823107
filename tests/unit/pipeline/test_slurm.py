"""Slurm's commands as they are called and read; programs of our own stand in for them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_r1.config.errors import ConfigError
from lightning_r1.pipeline.runners import ROOT, Command
from lightning_r1.pipeline.slurm import Job, Slurm

TELL = """#!{python}
import json, os, sys
calls = {file!r}
with open(calls, "a") as file:
    file.write(json.dumps([sys.argv, dict(os.environ)]) + "\\n")
print({answer!r}, end="")
print({complaint!r}, end="", file=sys.stderr)
raise SystemExit({status})
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``program(name, answer)`` is a command that prints the answer; ``program.calls()`` is how it was called."""
    monkeypatch.setenv("PATH", str(tmp_path))
    calls = tmp_path / "calls"

    def make(name: str, answer: str = "", *, complaint: str = "", status: int = 0) -> None:
        file = tmp_path / name
        file.write_text(
            TELL.format(python=sys.executable, file=str(calls), answer=answer, complaint=complaint, status=status)
        )
        file.chmod(0o755)

    for name in ("sbatch", "squeue", "scancel"):
        make(name)
    make.calls = lambda: [json.loads(line) for line in calls.read_text().splitlines()]  # type: ignore[attr-defined]
    return make


def test_without_slurm_a_person_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="cluster=slurm: there is no sbatch here; start the pipeline on a login node"):
        Slurm()


def test_a_job_is_the_script_with_the_nodes_overrides(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("sbatch", "17;here\n")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_CONF", "/etc/our.conf")
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    command = Command("sample", ("a=b c", "+new={_target_: x.y}"))
    number = Slurm().submit(command, name="p.n.k", options=["--nodes=2"], log=tmp_path / "%j", after=["15", "16"])
    assert number == "17"
    ((arguments, environment),) = program.calls()
    assert arguments[1:] == [
        "--parsable", "--job-name=p.n.k", f"--output={tmp_path}/%j", "--dependency=afterok:15:16",
        "--kill-on-invalid-dep=yes", "--nodes=2", str(ROOT / "sbatch/train.sbatch"), "a=b c", "+new={_target_: x.y}",
    ]  # fmt: skip
    assert (environment["VERB"], environment["LIGHTNING_R1_ROOT"]) == ("sample", str(ROOT))
    assert environment["SLURM_CONF"] == "/etc/our.conf"
    assert environment["SBATCH_PARTITION"] == "gpu"
    assert "SLURM_NTASKS" not in environment


def test_what_sbatch_refuses_is_told(program: Any, tmp_path: Path) -> None:
    program("sbatch", complaint="sbatch: error: invalid partition specified: gpu\n", status=1)
    with pytest.raises(ConfigError, match=r"sbatch --partition=gpu, p\.n\.k: sbatch: error: invalid partition"):
        Slurm().submit(Command("train", ()), name="p.n.k", options=["--partition=gpu"], log=tmp_path, after=[])


def test_the_queue_is_read(program: Any) -> None:
    lines = ["7|RUNNING|1-01:01:01|n[1-2]|a.b.c", "8|PENDING|0:00|(Dependency)|odd|name", "9|COMPLETED|0:41||x"]
    program("squeue", "\n".join(lines) + "\n")
    assert Slurm().jobs() == {
        "7": Job("7", "a.b.c", "RUNNING", "n[1-2]", 90061),
        "8": Job("8", "odd|name", "PENDING", "(Dependency)", 0),
        "9": Job("9", "x", "COMPLETED", "", 41),
    }
    program("squeue", complaint="slurm_load_jobs error: Unable to contact slurm controller", status=1)
    with pytest.raises(RuntimeError, match="squeue: slurm_load_jobs error: Unable to contact"):
        Slurm().jobs()


@pytest.mark.parametrize(
    ("state", "reason", "live"),
    [
        ("PENDING", "(Priority)", True),
        ("PENDING", "(DependencyNeverSatisfied)", False),
        ("RUNNING", "n1", True),
        ("COMPLETING", "", True),
        ("REQUEUED", "", True),
        ("SUSPENDED", "", True),
        ("COMPLETED", "", False),
        ("CANCELLED", "", False),
        ("TIMEOUT", "", False),
        ("NODE_FAIL", "", False),
    ],
)
def test_what_runs_or_may_run_is_live(state: str, reason: str, live: bool) -> None:
    assert Job("1", "x", state, reason).live is live


def test_cancel(program: Any) -> None:
    Slurm().cancel(["7", "8"])
    Slurm().cancel([])
    assert [arguments[1:] for arguments, _ in program.calls()] == [["7", "8"]]
