"""Weights & Biases: online for somebody who is logged in, offline for everybody else, a run of its own for each run."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import wandb

from helpers.console import said
from helpers.offline_wandb import config_of, history_of, records, run_folders, run_of, table_of
from helpers.quick import quick_rl, random_base
from helpers.strike import strike
from lightning_r1.callbacks.csv_log import MetricsCSV
from lightning_r1.callbacks.wandb_log import wandb_logger
from lightning_r1.config.build import Run, build
from lightning_r1.config.compose import compose_config
from lightning_r1.modules.phase import Phase
from lightning_r1.parallel.interruption import Interrupted
from lightning_r1.rewards.base import RewardError
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
    wandb_options = compose_config("train", said)["logger"]["wandb"]
    assert wandb_options.items() >= {"project": "lightning-r1", "mode": "auto", "artifacts": "none"}.items()
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
        theirs = [row for row in history_of(*run_folders(run_dir)) if not any("/_type" in name for name in row)]
        assert [row["global_step"] for row in theirs] == [int(row["step"]) for row in ours] == [0, 1, 2, 3, 3]
        for row, expected in zip(theirs, ours, strict=True):
            numbers = {name: float(value) for name, value in expected.items() if value and name != "step"}
            assert {name: row[name] for name in numbers} == pytest.approx(numbers, nan_ok=True)
            assert len(numbers) >= 8


def test_numbers_of_a_rollout_are_drawn_over_rollouts_and_the_others_over_steps(
    two_runs: tuple[Path, Path, str],
) -> None:
    (folder,) = run_folders(two_runs[0])
    axes = {
        record.metric.glob_name or record.metric.name: record.metric.step_metric
        for record in records(folder)
        if record.HasField("metric")
    }
    assert axes == {
        "global_step": "",
        "progress/rollouts": "global_step",
        "rollout/*": "progress/rollouts",
        "*": "global_step",
    }
    of_rollouts = [row for row in history_of(folder) if any(name.startswith("rollout/") for name in row)]
    assert [row["progress/rollouts"] for row in of_rollouts] == [1, 2, 3]


def test_a_table_of_completions_grows(two_runs: tuple[Path, Path, str]) -> None:
    run_dir = two_runs[0]
    table = table_of([*run_folders(run_dir)], "completions")
    lines = [
        lines[place]
        for file in sorted((run_dir / "rollouts").iterdir())
        for lines in [read_jsonl(file)]
        for place in (0, 2, 5)
    ]
    assert len(table) == len(lines) == 9
    for row, line in zip(table, lines, strict=True):
        assert {row[f"reward/{name}"] for name in line["rewards"]} == set(line["rewards"].values())
        same = {
            "step": "step",
            "group": "prompt_id",
            "prompt": "prompt",
            "completion": "completion",
            "tokens": "tokens",
        }
        assert {name: row[name] for name in same} == {name: line[there] for name, there in same.items()}
        assert (row["reward"], row["advantage"]) == pytest.approx((line["reward"], line["advantage"]))


def test_a_table_of_held_out_samples_grows(two_runs: tuple[Path, Path, str]) -> None:
    run_dir = two_runs[0]
    table = table_of([*run_folders(run_dir)], "eval/operators/samples")
    before, after = (read_jsonl(run_dir / "evaluations" / f"operators-0000{step}.jsonl") for step in (0, 3))
    assert [row["step"] for row in table] == [0, 0, 0, 3, 3, 3]
    assert [row["problem"] for row in table[:3]] == [row["problem"] for row in table[3:]]
    for rows, samples in ((table[:3], before), (table[3:], after)):
        first = {one["prompt_id"]: one for one in reversed(samples)}
        for row in rows:
            assert (row["completion"], row["correct"]) == tuple(
                first[row["problem"]][of] for of in ("completion", "correct")
            )


def test_runs_are_grouped_by_what_they_are_part_of(two_runs: tuple[Path, Path, str]) -> None:
    for run_dir in two_runs[:2]:
        run = run_of(*run_folders(run_dir))
        assert (run.display_name, run.run_group, run.job_type) == (f"coin/{run_dir.name}", "coin", "r1_zero")
        assert [*run.tags] == ["r1_zero", "mini", "adamw", "accuracy", "format", "length"]


def test_wandb_itself_says_nothing(two_runs: tuple[Path, Path, str]) -> None:
    assert two_runs[2] == ""


def test_an_alert_lands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = wandb_logger(tmp_path, name="a")
    logger.alert("watchdog: solved", "step 7: nothing is left to learn")
    logger.end()
    wandb.teardown()  # its process has written everything only then
    (folder,) = run_folders(tmp_path)
    alerts = [record.alert for record in records(folder) if record.HasField("alert")]
    assert [(alert.title, alert.text, alert.level, alert.wait_duration) for alert in alerts] == [
        ("watchdog: solved", "step 7: nothing is left to learn", "WARN", 15 * 60 * 1000)
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
    with pytest.raises(ValueError, match=r"logger\.wandb\.mode='on': expected auto, online, offline"):
        wandb_logger(tmp_path, name="a", mode="on")


class StubRun:
    """Stands for the run that W&B makes."""

    id = "stub"

    def __init__(self) -> None:
        self.codes: list[int | None] = []
        self.alerts: list[tuple[str, str, str]] = []
        self.preempted = False
        self.config: dict[str, Any] = {}
        self.dir = "/nowhere"

    def finish(self, exit_code: int | None = None) -> None:
        self.codes.append(exit_code)

    def alert(self, title: str, text: str, level: str, wait_duration: Any) -> None:
        self.alerts.append((title, text, level))

    def mark_preempting(self) -> None:
        self.preempted = True

    def define_metric(self, *names: str, **how: str) -> None:
        pass

    def save(self, *files: str, **how: str) -> None:
        pass


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What W&B was started with."""
    options: dict[str, Any] = {"run": StubRun()}

    @wraps(wandb.init)  # its arguments are looked up
    def init(**how: Any) -> Any:
        options.update(how)
        return options["run"]

    monkeypatch.setattr(wandb, "init", init)
    return options


def test_the_id_stays_over_interruptions_and_options_reach_wandb(tmp_path: Path, started: dict[str, Any]) -> None:
    logger = wandb_logger(tmp_path / "run", name="mini/r1_zero", project="mine", entity="us", tags=["a", "b"])
    assert logger.experiment is started["run"]
    expected = {
        "name": "mini/r1_zero",
        "resume": "allow",
        "project": "mine",
        "dir": str(tmp_path / "run"),
        "entity": "us",
        "tags": ["a", "b"],
    }
    assert {name: started[name] for name in expected} == expected
    first = started["id"]
    assert re.fullmatch(r"mini-r1_zero-[0-9a-f]{8}", first)  # W&B takes no slash
    assert wandb_logger(tmp_path / "run", name="mini/r1_zero").experiment
    assert started["id"] == first
    assert wandb_logger(tmp_path / "another", name="mini/r1_zero").experiment
    assert started["id"] != first


def test_a_run_of_an_older_folder_goes_on_in_the_run_that_it_has(tmp_path: Path, started: dict[str, Any]) -> None:
    """Its id was its name then, and stands in the names of W&B's folders alone."""
    for part in ("offline-run-20261127_201323-old", "run-20261127_231500-mini-r1_zero", "latest-run", "run-x"):
        (tmp_path / "run" / "wandb" / part).mkdir(parents=True)
    assert wandb_logger(tmp_path / "run", name="mini/r1_zero").experiment
    assert started["id"] == "mini-r1_zero"


@pytest.mark.parametrize("left", ["", "[", '{"completions": [[1]]}', "\x00\x00"])
def test_what_a_machine_that_went_down_left_stops_nothing(left: str, tmp_path: Path, started: dict[str, Any]) -> None:
    (tmp_path / "wandb").mkdir()
    for name in ("tables.json", "run_id"):
        (tmp_path / "wandb" / name).write_text(left if name == "tables.json" else "")
    logger = wandb_logger(tmp_path, name="mini/r1_zero")
    logger.start_at(3)
    assert logger.experiment
    assert re.fullmatch(r"mini-r1_zero-[0-9a-f]{8}", started["id"])


def test_the_logger_group_reaches_wandb(tmp_path: Path, started: dict[str, Any]) -> None:
    base = random_base(tmp_path / "base")
    build(quick_rl(tmp_path, base, "logger=wandb", "logger.wandb.project=mine", "logger.wandb.group=sweep"))
    assert {name: started[name] for name in ("name", "project", "group")} == {
        "name": "coin/rl",
        "project": "mine",
        "group": "sweep",
    }
    assert started["run"].config["seed"] == 0


LOST = RewardError("the judge does not answer\nand more")


@pytest.mark.parametrize(
    ("error", "code", "alerts"),
    [
        (None, 0, []),
        (LOST, 1, [("run ended: a", "RewardError: the judge does not answer", "ERROR")]),
        (Interrupted("SIGTERM"), 1, []),
        (KeyboardInterrupt(), 1, []),
    ],
)
def test_the_run_ends_with_ours(
    error: BaseException | None, code: int, alerts: list[Any], tmp_path: Path, started: dict[str, Any]
) -> None:
    logger = wandb_logger(tmp_path, name="a")
    logger.end(error)
    assert started["run"].codes == []  # nothing was begun
    logger.experiment  # noqa: B018
    logger.finalize("success")
    assert started["run"].codes == []  # the model is still to be exported
    logger.end(error)
    assert started["run"].codes == [code]
    assert started["run"].alerts == alerts
    assert started["run"].preempted == isinstance(error, Interrupted)


def test_a_run_that_fails_before_its_first_step_is_ended(
    tmp_path: Path, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Run) -> None:
        raise LOST

    monkeypatch.setattr(Run, "start", fail)
    with pytest.raises(RewardError):
        train(quick_rl(tmp_path, random_base(tmp_path / "base"), "logger=wandb"))
    assert started["run"].codes == [1]
    assert started["run"].alerts == [("run ended: coin/rl", "RewardError: the judge does not answer", "ERROR")]


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
    assert len({run_of(folder).run_id for folder in folders}) == 1
    preempted = [any(record.HasField("preempting") for record in records(folder)) for folder in folders]
    assert preempted == [True, True, False]
    history = [row for folder in folders for row in history_of(folder)]
    for name, steps in (("policy/loss", [1, 2, 3, 4, 5]), ("eval/operators/pass@1", [0, 1, 2, 3, 4, 5])):
        assert [row["global_step"] for row in history if name in row] == steps
    lines = [line for file in sorted((tmp_path / "coin" / "rl" / "rollouts").iterdir()) for line in read_jsonl(file)]
    assert [row["completion"] for row in table_of(folders, "completions")] == [line["completion"] for line in lines]
    wandb.teardown()


def _gone() -> None:
    raise ConnectionResetError("Connection lost")
