"""The end of work: a few lines with what was reached, where it is, and commands that compose."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from lightning_r1.callbacks.console import NODE
from lightning_r1.config import ending
from lightning_r1.config.compose import compose_config
from lightning_r1.config.run_folder import SUMMARY


def config(output: Path, *chosen: str) -> dict[str, Any]:
    choice = chosen or ["experiment=mini_r1_zero"]
    return compose_config("train", [*choice, f"paths.output_dir={output}", "name=mine"])


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 10
    return lines


def commands(lines: list[str]) -> list[list[str]]:
    """The words of what comes next."""
    start = next(place for place, line in enumerate(lines) if line.startswith("  next"))
    return [shlex.split(line[14:]) for line in lines[start:]]


def test_a_training_tells_scores_places_and_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "mine"
    for made in ("rollouts", "evaluations", "wandb/offline-run-1-mine"):
        (run / made).mkdir(parents=True)
    (run / "report.html").touch()
    numbers = {"eval/operators/pass@1": 0.05, "eval/operators/pass@1_low": 0.03, "eval/operators/pass@1_high": 0.07}
    summary = {"steps": 1200, "seconds": 90.0, "before": numbers, "after": {"eval/operators/pass@1": 0.94}}
    ending.tell_training(config(tmp_path), summary)
    lines = told(capsys)
    assert lines[:7] == [
        "mine is finished: 1,200 steps in 1.5 min",
        "  operators   pass@1 0.050 [0.030, 0.070] -> 0.940",
        f"  model       {run}/model",
        f"  report      {run}/report.html",
        f"  completions {run}/rollouts, held-out ones in {run}/evaluations",
        f"  numbers     {run}/{SUMMARY}, {run}/metrics.csv",
        f"  W&B         offline; to upload it: wandb sync {run}/wandb/offline-run-1-mine",
    ]
    evaluation, chat, later = commands(lines)
    assert evaluation[1:] == ["recipes/evaluate.py", "eval=operators", f"model.path={run}/model", "template=mini"]
    assert compose_config("evaluate", evaluation[2:])["template"]["name"] == "mini"
    assert chat[1:] == ["recipes/serve.py", f"model.path={run}/model"]
    assert later[1:] == ["recipes/sample.py", "sample=cold_start", f"model.path={run}/model", "..."]


def test_what_is_not_there_is_not_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ending.tell_training(config(tmp_path), {"steps": 1, "seconds": 1.0, "before": {}, "after": {}})
    text = "\n".join(told(capsys))
    for word in ("report.html", "completions", "W&B", "pass@1"):
        assert word not in text


def test_a_reward_model_tells_its_own_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = {"eval/heldout/pair_accuracy": 0.9348, "eval/heldout/loss": 0.23}
    summary = {"steps": 1, "seconds": 1.0, "before": {"eval/heldout/pair_accuracy": 0.5}, "after": after}
    ending.tell_training(config(tmp_path, "phase=reward_model", "experiment=mini_reward_model"), summary)
    lines = told(capsys)
    assert lines[1] == "  held out    pair_accuracy 0.500 -> 0.935, loss 0.230"
    (then,) = commands(lines)
    assert f"reward.rewards.helpfulness.path={tmp_path}/mine/model" in then


def test_a_node_of_a_pipeline_has_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NODE, "rl")
    ending.tell_training(config(tmp_path), {"steps": 2, "seconds": 1.0})
    assert told(capsys) == ["mine is finished: 2 steps in 1.0 s"]


@pytest.mark.parametrize(
    ("job", "summary", "file"),
    [
        ("cold_start", {"traces": 3}, "traces.jsonl"),
        ("rejection_sampling", {"traces": 3}, "traces.jsonl"),
        ("label_pairs", {"pairs": 3}, "pairs.jsonl"),
    ],
)
def test_what_a_sampling_job_leaves_can_be_trained_on(
    job: str, summary: dict[str, int], file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ending.tell_sampling({"name": "x", "sample": {"name": job}}, tmp_path / file, summary)
    ((_, recipe, *overrides),) = commands(told(capsys))
    assert recipe == "recipes/train.py"
    given = {"model=...": "model=mini", "model.path=...": "model.path=a/b"}
    composed = compose_config("train", [given.get(word, word) for word in overrides])
    assert str(tmp_path / file) in str(composed["data"])


def test_lessons_can_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ending.tell_teaching({"name": "x"}, tmp_path / "lessons", {"lessons": 2, "tokens": 10})
    ((_, recipe, *overrides),) = commands(told(capsys))
    assert recipe == "recipes/train.py"
    composed = compose_config("train", [word.replace("model=...", "model=mini") for word in overrides])
    assert composed["data"]["folder"] == str(tmp_path / "lessons")


def test_a_pipeline_tells_its_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {name: {"path": str(tmp_path / name)} for name in ("base", "traces")}
    (tmp_path / "base" / "model").mkdir(parents=True)
    ending.tell_pipeline(tmp_path, results)
    lines = told(capsys)
    assert lines[0] == "finished: 2 nodes"
    assert f"  models      1, in {tmp_path}/<node>/model" in lines
    assert commands(lines)[0][1:] == ["recipes/serve.py", f"model.path={tmp_path}/base/model"]


def test_a_pipeline_proposes_the_model_that_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {name: {"path": str(tmp_path / name)} for name in ("first", "second", "third")}
    for name in ("first", "second"):
        (tmp_path / name / "model").mkdir(parents=True)
    for shown, proposed in (([], "second"), (["first"], "first"), (["first", "third"], "first")):
        ending.tell_pipeline(tmp_path, results, shown)
        assert commands(told(capsys))[0][1:] == ["recipes/serve.py", f"model.path={tmp_path}/{proposed}/model"]
