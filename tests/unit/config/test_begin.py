"""What a job script learns before its nodes start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_r1.config.begin import begin, main
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.run_folder import take_folder

SAID = ["experiment=mini_r1_zero", "model.path=org/model", "name=a/b"]


def test_the_folder_is_there_for_the_jobs_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["train", "--value", "model.path", "--value", "trainer.max_steps", *SAID, f"paths.output_dir={tmp_path}"])
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path}/a/b", "org/model", "200"]
    assert (tmp_path / "a" / "b" / "slurm").is_dir()


def test_a_mistake_is_one_line_and_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", *SAID, "optim.lrr=1", f"paths.output_dir={tmp_path}"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: optim.lrr: there is no such key; did you mean optim.lr?")
    assert list(tmp_path.iterdir()) == []


def test_other_verbs_are_no_jobs() -> None:
    with pytest.raises(ConfigError, match="VERB=report: choose one of train, sample, teach, evaluate"):
        begin("report", [])


def test_what_begins_anew_moves_the_old_folder_aside_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*SAID, f"paths.output_dir={tmp_path}"]
    (run_dir,) = begin("train", overrides)
    Path(run_dir, "config.yaml").write_text("old: true\n")
    main(["train", *overrides, "resume=never"])
    told = capsys.readouterr()
    assert told.out == f"{run_dir}\n"  # a script reads it
    assert "b.old1" in told.err
    assert Path(run_dir + ".old1", "config.yaml").is_file()
    assert [path.name for path in Path(run_dir).iterdir()] == ["slurm"]


def test_a_job_that_failed_at_once_leaves_the_folder_to_anybody(tmp_path: Path) -> None:
    (run_dir,) = begin("train", [*SAID, f"paths.output_dir={tmp_path}"])
    Path(run_dir, "slurm", "7.log").write_text("it went wrong\n")
    Path(run_dir, "config.yaml").write_text("seed: 1\n")
    config = {"seed": 0, "name": "a/b", "resume": "auto", "paths": {"run_dir": run_dir}}
    assert take_folder(config) is None
    Path(run_dir, "metrics.csv").touch()
    with pytest.raises(ConfigError, match="holds a run with another"):
        take_folder(config)


def test_it_does_not_wait_for_torch() -> None:
    source = "import sys, lightning_r1.config.begin; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source]).returncode == 0
