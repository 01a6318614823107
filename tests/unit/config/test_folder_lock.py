"""One writer at a time, and none that is dead keeps a living one away."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.console import said
from helpers.ranks import on_ranks
from lightning_r1.config import folder_lock
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.folder_lock import hold, lock_of

BEAT_S = 0.02


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "coin" / "rl"


@pytest.fixture
def left(run_dir: Path) -> Callable[..., None]:
    """A lock as another process leaves it, or holds it."""

    def write(**facts: Any) -> None:
        with hold(run_dir):
            held = json.loads(lock_of(run_dir).read_text())
        run_dir.parent.mkdir()
        lock_of(run_dir).write_text(json.dumps(held | {"token": "another"} | facts))

    return write


def test_a_folder_is_held_until_the_end(run_dir: Path) -> None:
    with hold(run_dir):
        assert json.loads(lock_of(run_dir).read_text())["pid"] == os.getpid()
    assert not run_dir.parent.exists()  # nothing is there that was not
    with hold(run_dir):
        run_dir.mkdir()
    assert list(run_dir.parent.iterdir()) == [run_dir]


def test_a_living_holder_keeps_others_away(run_dir: Path) -> None:
    words = rf"name=rl: .* is being written by process {os.getpid()} on .*choose another name="
    with hold(run_dir, beat_s=BEAT_S):
        with pytest.raises(ConfigError, match=words), hold(run_dir, beat_s=1):
            pass
        assert lock_of(run_dir).exists()


def test_one_that_was_killed_here_does_not(
    run_dir: Path, left: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    left(pid=dead.pid)
    with hold(run_dir, beat_s=1000):
        assert json.loads(lock_of(run_dir).read_text())["pid"] == os.getpid()
    assert f"was held by process {dead.pid} on" in said(capsys)


def test_one_elsewhere_is_gone_when_its_lock_stands_still(run_dir: Path, left: Callable[..., None]) -> None:
    left(machine="another", pid=1)
    with hold(run_dir, beat_s=BEAT_S):
        assert json.loads(lock_of(run_dir).read_text())["pid"] == os.getpid()


def test_one_elsewhere_lives_while_its_lock_is_touched(run_dir: Path, left: Callable[..., None]) -> None:
    left(machine="another", pid=1, host="node7", job="12")
    over = threading.Event()
    heart = threading.Thread(target=folder_lock._beat, args=(lock_of(run_dir), BEAT_S, over))
    heart.start()
    try:
        with pytest.raises(ConfigError, match=r"process 1 on node7 \(job 12\)"), hold(run_dir, beat_s=10):
            pass
    finally:
        over.set()
        heart.join()


@pytest.mark.parametrize(("restart", "gone"), [("0", True), ("1", False)])
def test_an_earlier_run_of_the_same_job_is_gone(
    restart: str, gone: bool, left: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"job": "7", "restart": restart, "machine": "another", "pid": 1}
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert folder_lock._is_gone(held) is gone


def test_who_is_quicker_keeps_it(run_dir: Path, left: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a dead lock and its removal another process has taken it over."""
    left(machine="another", pid=1)
    living = json.loads(lock_of(run_dir).read_text()) | {"token": "living", "pid": 2}

    def overtaken(file: Path, held: dict[str, Any], patience_s: float) -> bool:
        file.write_text(json.dumps(living))
        monkeypatch.setattr(folder_lock, "_lives", lambda *_: True)
        return False

    monkeypatch.setattr(folder_lock, "_lives", overtaken)
    with pytest.raises(ConfigError, match="is being written by process 2"), hold(run_dir):
        pass
    assert json.loads(lock_of(run_dir).read_text()) == living


def test_what_one_rank_finds_held_no_rank_takes(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    def work() -> None:
        try:
            with folder_lock.hold_together(run_dir, beat_s=1):
                pass
        except ConfigError as error:
            refused.append(str(error))

    on_ranks(monkeypatch, [folder_lock], [work, work])
    assert refused == []
    with hold(run_dir, beat_s=BEAT_S):
        on_ranks(monkeypatch, [folder_lock], [work, work])
    assert len(refused) == 2
    assert refused[0] == refused[1]
    assert "is being written by process" in refused[0]


@pytest.mark.parametrize("verb", ["evaluate", "sample", "teach"])
def test_each_verb_holds_its_folder(verb: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"lightning_r1.{verb}")
    checks = {"evaluate": "check_evaluation", "sample": "check_sampling", "teach": "check_teaching"}
    monkeypatch.setattr(module, checks[verb], lambda config: None)
    monkeypatch.setattr(module, "quiet", lambda: None)
    monkeypatch.setattr(module, "launch", lambda config: "cpu")
    monkeypatch.setattr(module, f"_{verb}", lambda config, folder, device: {"held": lock_of(folder).exists()})
    assert getattr(module, verb)({"paths": {"run_dir": str(run_dir)}, "rescore": False}) == {"held": True}
    assert not lock_of(run_dir).exists()
