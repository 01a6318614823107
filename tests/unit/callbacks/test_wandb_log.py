"""Weights & Biases: online for somebody who is logged in, offline for everybody else, a run of its own for each run."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from helpers.console import said
from helpers.offline_wandb import config_of, history_of, records, run_folders
from helpers.quick import quick_rl, random_base
from helpers.strike import strike
from lightning_r1.callbacks.csv_log import MetricsCSV
from lightning_r1.callbacks.wandb_log import wandb_logger
from lightning_r1.config.build import build
from lightning_r1.config.compose import compose_config
from lightning_r1.modules.phase import Phase
from lightning_r1.parallel.interruption import Interrupted
from lightning_r1.text.records import read_jsonl
from lightning_r1.train import train


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is logged in, and W&B keeps nothing outside the test's folder."""
    alone(monkeypatch, tmp_path)


def alone(patch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_SILENT", "WANDB_PROJECT"):
        patch.setenv(name, "")  # remembers what stood there: W&B and Lightning set some of them
        patch.delenv(name)
    patch.setenv("NETRC", str(folder / "netrc"))
    for name in ("CONFIG", "CACHE", "DATA", "ARTIFACT"):
        patch.setenv(f"WANDB_{name}_DIR", str(folder / "wandb_home"))


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, str]]:
    """Two runs in one process, as a pipeline makes them, under the default logger; and what W&B said."""
    folder = tmp_path_factory.mktemp("wandb")
    base = random_base(folder / "base")
    with pytest.MonkeyPatch.context() as patch:
        alone(patch, folder)
        words: list[str] = []
        patch.setattr(wandb, "termwarn", lambda text, *args, **how: words.append(text))
        for name in ("first", "second"):
            config = quick_rl(
                folder, base, "logger=wandb", "callbacks.rollouts.table_rows=3", f"name=coin/{name}",
                f"seed={len(name)}",
                # what knows nothing never stops
                "callbacks.watchdog.constant_reward=null", "callbacks.watchdog.all_truncated=null",
            )  # fmt: skip
            train(config)
        yield folder / "coin" / "first", folder / "coin" / "second", " ".join(words)
        wandb.teardown()


def test_wandb_is_the_default_and_csv_the_other_choice() -> None:
    said = ["model.path=org/model", "data=countdown", "trainer.max_steps=1"]
    assert compose_config("train", said)["logger"] == {"wandb": {"project": "lightning-r1", "mode": "auto"}}
    assert compose_config("train", [*said, "logger=csv"])["logger"] == {"wandb": None}


def test_csv_alone_leaves_wandb_out(tmp_path: Path) -> None:
    run = build(quick_rl(tmp_path, random_base(tmp_path / "base"), "logger=csv"))
    assert [type(logger) for logger in run.trainer.loggers] == [MetricsCSV]
    assert not (tmp_path / "coin" / "rl" / "wandb").exists()


def test_a_run_of_somebody_who_is_not_logged_in_is_kept_offline(two_runs: tuple[Path, Path, str]) -> None:
    for run_dir in two_runs[:2]:
        (folder,) = run_folders(run_dir)
        assert config_of(folder)["name"] == f"coin/{run_dir.name}"


def test_the_config_lands_whole(two_runs: tuple[Path, Path, str]) -> None:
    for run_dir, seed in zip(two_runs[:2], (5, 6), strict=True):
        config = config_of(*run_folders(run_dir))
        assert config["seed"] == seed
        assert config["algo"]["sampling"]["group_size"] == 4
        assert config["reward"]["rewards"].keys() == {"accuracy", "format", "length"}
        assert config["paths"]["run_dir"] == str(run_dir)


def test_the_metrics_are_those_of_the_csv(two_runs: tuple[Path, Path, str]) -> None:
    for run_dir in two_runs[:2]:
        ours = MetricsCSV(run_dir / "metrics.csv").read()
        theirs = [row for row in history_of(*run_folders(run_dir)) if not any("completions/" in name for name in row)]
        assert [row["trainer/global_step"] for row in theirs] == [int(row["step"]) for row in ours] == [0, 1, 2, 3, 3]
        for row, expected in zip(theirs, ours, strict=True):
            numbers = {name: float(value) for name, value in expected.items() if value and name != "step"}
            assert {name: row[name] for name in numbers} == pytest.approx(numbers, nan_ok=True)
            assert len(numbers) >= 8


def test_a_table_of_completions_lands(two_runs: tuple[Path, Path, str]) -> None:
    run_dir = two_runs[0]
    (folder,) = run_folders(run_dir)
    rows = [row["completions/nrows"] for row in history_of(folder) if "completions/nrows" in row]
    assert rows == [3, 6, 9]
    files = sorted(folder.glob("files/media/table/completions_*.json"), key=lambda file: file.stat().st_size)
    table = json.loads(files[-1].read_text())
    lines = [line for path in sorted((run_dir / "rollouts").iterdir()) for line in read_jsonl(path)[:3]]
    place = table["columns"].index
    for row, line in zip(table["data"], lines, strict=True):
        assert row[place("completion")] == line["completion"]
        assert row[place("reward")] == pytest.approx(line["reward"])
        assert json.loads(row[place("rewards")]) == line["rewards"]


def test_wandb_itself_says_nothing(two_runs: tuple[Path, Path, str]) -> None:
    assert two_runs[2] == ""


def test_an_alert_lands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = wandb_logger(tmp_path, name="a")
    logger.alert("watchdog: solved", "step 7: nothing is left to learn")
    logger.finalize("success")
    wandb.teardown()  # its process has written everything only then
    (folder,) = run_folders(tmp_path)
    alerts = [record.alert for record in records(folder) if record.HasField("alert")]
    assert [(alert.title, alert.text, alert.level) for alert in alerts] == [
        ("watchdog: solved", "step 7: nothing is left to learn", "WARN")
    ]


def test_one_line_says_how_to_sync(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / ("a_long_name_" * 12)
    wandb_logger(run_dir, name="a")
    expected = f"W&B is offline (not logged in). To upload this run: wandb sync {run_dir}/wandb/offline-run-*\n"
    assert capsys.readouterr().out == expected


def test_the_line_names_the_folder_that_is_there(two_runs: tuple[Path, Path, str]) -> None:
    assert len(run_folders(two_runs[0])) == 1


KEY = {"WANDB_API_KEY": "0" * 40}


@pytest.mark.parametrize(
    ("mode", "environment", "netrc", "offline"),
    [
        ("auto", {}, "", True),
        ("auto", KEY, "", False),
        ("auto", {}, "machine api.wandb.ai login user password 0", False),
        ("auto", {}, "machine github.com login user password 0", True),
        ("auto", {}, "this is no netrc", True),
        ("auto", {"WANDB_BASE_URL": "https://wandb.here"}, "machine api.wandb.ai login user password 0", True),
        ("auto", {"WANDB_BASE_URL": "https://wandb.here"}, "machine wandb.here login user password 0", False),
        ("auto", {**KEY, "WANDB_MODE": "offline"}, "", True),
        ("auto", {**KEY, "WANDB_MODE": "disabled"}, "", True),
        ("offline", KEY, "", True),
        ("online", {}, "", False),
    ],
)
def test_who_is_online(
    mode: str,
    environment: dict[str, str],
    netrc: str,
    offline: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc:
        (tmp_path / "netrc").write_text(netrc)
    wandb_logger(tmp_path / "run", name="a", mode=mode)
    assert ("W&B is offline" in said(capsys)) == offline


def test_whoever_asked_for_offline_is_not_told_to_log_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wandb_logger(tmp_path, name="a", mode="offline")
    assert said(capsys) == f"W&B is offline. To upload this run: wandb sync {tmp_path}/wandb/offline-run-*"


def test_another_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"logger\.mode='on': expected auto, online or offline"):
        wandb_logger(tmp_path, name="a", mode="on")


class StubRun:
    """Stands for the run that W&B makes."""

    id = "stub"

    def __init__(self) -> None:
        self.codes: list[int | None] = []
        self.config: dict[str, Any] = {}

    def finish(self, exit_code: int | None = None) -> None:
        self.codes.append(exit_code)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What W&B was started with."""
    options: dict[str, Any] = {"run": StubRun()}
    monkeypatch.setattr(wandb, "init", lambda **how: options.update(how) or options["run"])
    return options


def test_the_id_stays_over_interruptions_and_options_reach_wandb(tmp_path: Path, started: dict[str, Any]) -> None:
    logger = wandb_logger(tmp_path / "run", name="mini/r1_zero", project="mine", entity="us", tags=["a", "b"])
    assert logger.experiment is started["run"]
    expected = {
        "name": "mini/r1_zero",
        "id": "mini-r1_zero",  # W&B takes no slash
        "resume": "allow",
        "project": "mine",
        "dir": str(tmp_path / "run"),
        "entity": "us",
        "tags": ["a", "b"],
    }
    assert {name: started[name] for name in expected} == expected


def test_the_logger_group_reaches_wandb(tmp_path: Path, started: dict[str, Any]) -> None:
    base = random_base(tmp_path / "base")
    build(quick_rl(tmp_path, base, "logger=wandb", "logger.wandb.project=mine", "+logger.wandb.group=sweep"))
    assert {name: started[name] for name in ("name", "project", "group")} == {
        "name": "coin/rl",
        "project": "mine",
        "group": "sweep",
    }
    assert started["run"].config["seed"] == 0


@pytest.mark.parametrize(("status", "code"), [("success", 0), ("failed", 1)])
def test_the_run_ends_with_the_training(status: str, code: int, tmp_path: Path, started: dict[str, Any]) -> None:
    logger = wandb_logger(tmp_path, name="a")
    logger.finalize(status)
    assert started["run"].codes == []  # nothing was begun
    logger.experiment  # noqa: B018
    logger.finalize(status)
    assert started["run"].codes == [code]


def test_a_run_that_was_interrupted_twice_is_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of step 1; in that of step 3, by a SIGTERM that has ended W&B's own process before."""
    config = quick_rl(
        tmp_path, random_base(tmp_path / "base"), "logger=wandb", "trainer.max_steps=5", "eval.every_n_steps=1",
        "callbacks.watchdog.constant_reward=null", "callbacks.watchdog.all_truncated=null",
    )  # fmt: skip
    for step, number in ((1, signal.SIGUSR1), (2, signal.SIGTERM)):
        with monkeypatch.context() as patch:
            strike(patch, Phase, "_step", call=step, number=number)
            if number is signal.SIGTERM:
                end = wandb.Run.mark_preempting
                patch.setattr(wandb.Run, "mark_preempting", lambda run, end=end: (end(run), _gone()))
            with pytest.raises(Interrupted):
                train(config)
    train(config)
    folders = run_folders(tmp_path / "coin" / "rl")
    assert len(folders) == 3
    assert {record.run.run_id for folder in folders for record in records(folder) if record.HasField("run")} == {
        "coin-rl"
    }
    preempted = [any(record.HasField("preempting") for record in records(folder)) for folder in folders]
    assert preempted == [True, True, False]
    history = [row for folder in folders for row in history_of(folder)]
    for name, steps in (("policy/loss", [1, 2, 3, 4, 5]), ("eval/operators/pass@1", [0, 1, 2, 3, 4, 5])):
        assert [row["trainer/global_step"] for row in history if name in row] == steps
    wandb.teardown()


def _gone() -> None:
    raise ConnectionResetError("Connection lost")
