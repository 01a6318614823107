"""A W&B that does not answer, in every way that a server can fail: the run goes on, and nothing is lost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from helpers.console import said
from helpers.offline_wandb import artifacts_of, history_of, run_folders
from helpers.wandb_server import HANGS, WORKS, log_in, serve
from lightning_r1.callbacks.wandb_artifacts import Product
from lightning_r1.callbacks.wandb_log import RunLogger, wandb_logger


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """W&B keeps nothing outside the test's folder, and nothing of it outlives the test."""
    for name in ("WANDB_MODE", "WANDB_SILENT", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")  # remembers what stood there: W&B and our logger set them
        monkeypatch.delenv(name)
    for name in ("CONFIG", "CACHE"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb_home"))
    wandb.teardown()  # it reads the environment once
    yield
    wandb.teardown()


def begin(folder: Path, *, finish_timeout_s: float = 60, artifacts: str = "none") -> RunLogger:
    return wandb_logger(
        folder, name="mini/a", mode="online", init_timeout_s=2, finish_timeout_s=finish_timeout_s, artifacts=artifacts
    )


@pytest.mark.parametrize("state", [None, HANGS, 500, 401], ids=["refuses", "hangs", "500", "bad key"])
def test_a_server_that_is_not_there_makes_the_run_an_offline_one(
    state: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(state or 500) as server:
        log_in(monkeypatch, server.url if state is not None else _nobody())
        logger = begin(tmp_path)
        for step in (1, 2):
            logger.log_metrics({"policy/loss": 0.5}, step)
        logger.end()
    assert capsys.readouterr().out.count("W&B") == 1
    wandb.teardown()  # everything is written only then
    (folder,) = run_folders(tmp_path)
    assert [row["global_step"] for row in history_of(folder)] == [1, 2]


def test_a_server_that_dies_takes_nothing_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve() as server:
        log_in(monkeypatch, server.url)
        logger = begin(tmp_path, finish_timeout_s=3)
        logger.log_metrics({"policy/loss": 0.5}, 1)
        server.state = 500
        logger.log_metrics({"policy/loss": 0.25}, 2)
        logger.alert("watchdog: solved", "nothing is left to learn")
        logger.grow_table("completions", ["text"], [["<think>"]], step=2)
        logger.end()
        assert [row["global_step"] for row in server.history] in ([], [1])
        server.state = WORKS
        _sync(tmp_path, "run-*", "--no-skip-online")
        rows = {row["global_step"]: row for row in server.history}
        assert (rows[1]["policy/loss"], rows[2].get("policy/loss", 0.25)) == (0.5, 0.25)
        assert [alert["title"] for alert in server.of("NotifyScriptableRunAlert")] == ["watchdog: solved"]
    told = said(capsys)
    assert "not everything could be uploaded in 3 s. To upload the rest: wandb sync --no-skip-online" in told
    assert "the run goes on" not in told


def test_what_is_kept_offline_is_whole_when_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ``wandb sync`` itself; the run was killed after step 3 and went on at 2."""
    product = _product(tmp_path / "base", "mini/base")
    own = _product(tmp_path / "a", "mini/a")
    for steps, at in ((range(1, 4), 0), (range(3, 5), 2)):
        logger = wandb_logger(tmp_path / "a", name="mini/a", group="mini", mode="offline", artifacts="reference")
        logger.start_at(at)
        logger.uses(product)
        for step in steps:
            logger.log_metrics({"rollout/reward_mean": 0.1 * step, "progress/rollouts": step}, step)
            logger.grow_table("completions", ["step", "text"], [[step, f"{at}"]], step=step)
        if at:
            logger.leaves(own)
        logger.end()
    wandb.teardown()
    with serve() as server:
        log_in(monkeypatch, server.url)
        _sync(tmp_path / "a", "offline-run-*")
    assert len({run["name"] for run in server.of("UpsertBucket")}) == 1
    assert {run["groupName"] for run in server.of("UpsertBucket")} - {None} == {"mini"}
    last = max(
        (row["completions"] for row in server.history if "completions" in row), key=lambda row: row["increment_num"]
    )
    shown = [*last["previous_increments_paths"], last["artifact_path"]]
    sent = {artifact["input"]["clientID"]: artifact["input"] for artifact in server.of("CreateArtifact")}
    clients = [address.removeprefix("wandb-client-artifact://").partition("/")[0] for address in shown]
    assert set(clients) <= sent.keys()
    contents = [server.files[f"artifact/{address.partition('//')[2].partition('/')[2]}"] for address in shown]
    assert [json.loads(content)["data"] for content in contents] == [
        [[1, "0"]], [[2, "0"]], [[3, "2"]], [[4, "2"]]
    ]  # fmt: skip
    made = {one["artifactCollectionName"]: one for one in sent.values() if one["artifactTypeName"] == "model"}
    assert made["mini-base-model"]["runName"] is None
    assert made["mini-a-model"]["runName"] is not None
    assert {use["input"]["artifactID"] for use in server.of("UseArtifact")} == {made["mini-base-model"]["digest"]}


def test_who_makes_and_who_reads_know_a_thing_as_the_same_version(tmp_path: Path) -> None:
    for mode in ("reference", "upload"):
        product = _product(tmp_path / mode / "base", "mini/base")
        maker = wandb_logger(tmp_path / mode / "base", name="mini/base", mode="offline", artifacts=mode)
        maker.leaves(product)
        maker.end()
        reader = wandb_logger(tmp_path / mode / "rl", name="mini/rl", mode="offline", artifacts=mode)
        reader.uses(product)
        reader.end()
        wandb.teardown()  # everything is written only then
        ((made,), (read,)) = (artifacts_of(*run_folders(tmp_path / mode / name)) for name in ("base", "rl"))
        assert (made.digest, made.name, made.type) == (read.digest, "mini-base-model", "model")
        assert (made.use_after_commit, read.use_after_commit) == (False, True)
        assert {*made.aliases} == {"latest", "0c1d2e3f4a5b"}
        kept = {entry.path: entry.local_path for entry in made.manifest.contents}
        assert kept.keys() == {"summary.json", "model/weights"}
        assert all(Path(file).is_file() for file in kept.values() if file), (
            "a path that holds wherever it is synced from"
        )


def test_what_fails_is_told_once_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = wandb_logger(tmp_path, name="a", mode="offline")
    logger.log_metrics({"a": 1.0}, 1)
    said(capsys)
    for step in (2, 3):
        logger.log_metrics({"a": object()}, step)  # type: ignore[dict-item]
        logger.grow_table("t", ["one"], [["too", "many"]], step=step)
    logger.log_metrics({"a": 4.0}, 4)
    logger.end()
    told = said(capsys)
    assert told.count("the run goes on") == 1
    assert "calls failed" in told
    wandb.teardown()  # everything is written only then
    (folder,) = run_folders(tmp_path)
    assert history_of(folder)[-1]["a"] == 4.0


def _product(folder: Path, run: str) -> Product:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights").write_text(run)
    (folder / "summary.json").write_text(f'{{"run": "{run}"}}')
    return Product(folder / "model", run=run, key="0c1d2e3f4a5b")


def _sync(run_dir: Path, pattern: str, *options: str) -> None:
    folders = [str(folder) for folder in sorted(run_dir.glob(f"wandb/{pattern}"))]
    spoken = {name: value for name, value in os.environ.items() if name != "WANDB_SILENT"}
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *options, *folders],
        capture_output=True,
        text=True,
        timeout=120,
        env=spoken,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Finished syncing") == len(folders), done.stderr


def _nobody() -> str:
    """Where no server listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
