"""How a recipe ends that was interrupted: its status, its words, and its Slurm job."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.slurm import FakeSlurm
from lightning_r1.config import compose, leaving
from lightning_r1.config.compose import recipe
from lightning_r1.parallel.interruption import Interrupted, interruption

COMMAND = ["recipes/train.py", "experiment=mini_r1_zero"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], Any]:
    """Runs a recipe whose work is this function; returns its exit status."""

    def run(work: Callable[[Any], Any]) -> Any:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [*COMMAND])
        with pytest.raises(SystemExit) as left:
            recipe("train")(work)()
        return left.value.code

    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return run


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_before_anything_is_saved_is_told_with_the_command(
    number: signal.Signals, run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda config: signal.raise_signal(number)) == 75
    words = "The same command goes on from what is saved: python recipes/train.py experiment=mini_r1_zero"
    assert f"unfinished: it received {number.name}. {words}" in capsys.readouterr().err


def test_the_job_is_requeued_once(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    assert run(lambda config: os.kill(os.getpid(), signal.SIGUSR1)) == 75
    assert slurm.asked == ["show job --oneliner 7", "requeue 7"]
    assert "it received SIGUSR1. job 7 is requeued, restart 1. The same" in capsys.readouterr().err

    def told(config: Any) -> None:
        left = Interrupted("by somebody who has told it")
        left.told = True
        raise left

    assert run(told) == 75
    assert len(slurm.asked) == 2
    assert capsys.readouterr().err == ""


def test_what_a_person_has_ended_is_not_requeued(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)

    def ended(config: Any) -> None:
        left = Interrupted("it received SIGINT")
        left.requeue = False
        raise left

    assert run(ended) == 75
    assert slurm.asked == []


def test_other_ranks_leave_the_job_to_the_first_and_end_behind_it(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch, SLURM_PROCID="1")
    slept: list[float] = []
    monkeypatch.setattr(compose.time, "sleep", slept.append)
    assert run(lambda config: signal.raise_signal(signal.SIGUSR1)) == 75
    assert slurm.asked == []
    assert slept == [10.0]
    assert capsys.readouterr().err == ""


def test_ctrl_c_is_told_with_the_command(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda config: signal.raise_signal(signal.SIGINT)) == 75
    words = "unfinished: Ctrl-C. The same command goes on from what is saved: python recipes/train.py"
    assert capsys.readouterr().err == f"{words} experiment=mini_r1_zero\n"


def test_a_second_ctrl_c_is_told_as_what_it_is(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def work(config: Any) -> None:
        with interruption.waiting():
            signal.raise_signal(signal.SIGINT)
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                sys.exit(1)  # as Lightning does

    assert run(work) == 75
    assert "unfinished: Ctrl-C twice ended it at once, and what was not saved is lost. The" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "argv", "command"),
    [
        (["python", "recipes/train.py", "a=1"], ["recipes/train.py", "a=1"], "python recipes/evaluate.py b=2"),
        (
            [".venv/bin/python", "../r/recipes/train.py", "a=1"],
            ["../r/recipes/train.py", "a=1"],
            ".venv/bin/python ../r/recipes/evaluate.py b=2",
        ),
        (
            ["python3", "-m", "lightning_r1", "train", "a=1"],
            ["/r/recipes/train.py", "a=1"],
            "python3 -m lightning_r1 evaluate b=2",
        ),
        (
            ["/venv/bin/python", "/venv/bin/lightning-r1", "train", "a=1"],
            ["/r/recipes/train.py", "a=1"],
            "lightning-r1 evaluate b=2",
        ),
        (["python", "-m", "pytest"], ["/x/pytest/__main__.py"], "python recipes/evaluate.py b=2"),
    ],
)
def test_commands_are_written_as_this_one_was(
    typed: list[str], argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", typed)
    monkeypatch.setattr(sys, "argv", argv)
    assert leaving.command("evaluate", "b=2") == command
    if argv[0].endswith("train.py"):
        assert leaving.same_command() == command.replace("evaluate", "train").replace("b=2", "a=1")
