"""A pipeline from its config to its tables; at the end, one whose nodes are real."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.console import said
from helpers.quick import overrides_of, quick_rl
from helpers.runs import coin_base, largest_difference, weights
from lightning_r1.callbacks.console import console
from lightning_r1.config.errors import ConfigError
from lightning_r1.models.export import read_card
from lightning_r1.modules.grpo import GRPO
from lightning_r1.pipeline import graph, runners
from lightning_r1.pipeline import run as run_module
from lightning_r1.pipeline.run import run_pipeline

SCORES = {"eval/easy/pass@1": 0.5, "eval/easy/pass@1_low": 0.25, "eval/easy/pass@1_high": 0.75}
TABLES: dict[str, Any] = {
    "columns": {"pass@1": "easy/pass@1"},
    "compare": "easy",
    "rows": {"held-out scores": ["base", "rl"]},
    "note": "what the columns are",
}


def config(output: Path, nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A resolved pipeline config."""
    return {
        "pipeline": {"name": "small", "nodes": nodes, "show": ["rl"], "tables": TABLES},
        "cluster": {"name": "local"},
        "runner": "process",
        "workers": 1,
        "name": "small",
        "paths": {"output_dir": str(output), "run_dir": f"{output}/small"},
        "dry": False,
        "overrides": [],
        **more,
    }


NODES = {
    "base": {"overrides": ["kind=text"]},
    "rl": {"overrides": ["kind=rl"], "inputs": {"model": "base/model"}},
}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nodes that only leave numbers; the names of those that ran."""
    ran: list[str] = []

    def compose(config_name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
        options = dict(override.split("=", 1) for override in overrides)
        output, name = options.pop("paths.output_dir"), options.pop("name")
        paths = {"output_dir": output, "run_dir": f"{output}/{name}"}
        return {"seed": 0, **options, "name": name, "paths": paths, "phase": {"kind": options["kind"]}}

    def train(config: dict[str, Any]) -> dict[str, Any]:
        folder = Path(config["paths"]["run_dir"])
        ran.append(folder.name)
        summary = {"after": SCORES}
        (folder / "evaluations").mkdir()
        samples = [{"prompt_id": str(i), "correct": folder.name == "rl" or i < 4} for i in range(8)]
        (folder / "evaluations" / "easy-00003.jsonl").write_text(
            "".join(json.dumps(sample) + "\n" for sample in samples)
        )
        (folder / "summary.json").write_text(json.dumps(summary))
        return summary

    monkeypatch.setattr(graph, "compose_config", compose)
    monkeypatch.setattr(runners, "compose_config", compose)
    monkeypatch.setattr(import_module("lightning_r1.train"), "train", train)
    monkeypatch.setattr(run_module, "show", lambda folder: console.print(f"curves of {folder}", soft_wrap=True))
    monkeypatch.setattr(console, "_width", 140)
    return ran


def test_a_dry_run_shows_the_plan_and_touches_nothing(
    fakes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_pipeline(config(tmp_path, NODES, dry=True)) == {}
    assert fakes == []
    assert list(tmp_path.iterdir()) == []
    shown = said(capsys)
    assert shown.count("to run") == 2
    assert re.search(r"rl │ train │ base │ to run", shown)


def test_the_summary_names_every_node(fakes: list[str], tmp_path: Path) -> None:
    summary = run_pipeline(config(tmp_path, NODES))
    assert fakes == ["base", "rl"]
    assert json.loads((tmp_path / "small" / "summary.json").read_text()) == summary
    assert summary["nodes"].keys() == {"base", "rl"}
    assert summary["nodes"]["rl"].keys() == {"key", "status", "seconds", "path", "eval"}
    assert summary["nodes"]["rl"]["eval"] == SCORES
    page = (tmp_path / "small" / "report.html").read_text()
    assert "finished, 2 nodes" in page
    assert "held-out scores" in page  # its tables are known from the config that is kept beside it
    assert not list(tmp_path.rglob("*.partial"))


def test_pipelines_of_two_names_share_no_folder(fakes: list[str], tmp_path: Path) -> None:
    run_pipeline(config(tmp_path, NODES))
    paths = {"output_dir": str(tmp_path), "run_dir": f"{tmp_path}/other"}
    summary = run_pipeline(config(tmp_path, NODES, name="other", paths=paths, overrides=["seed=1"]))
    assert fakes == ["base", "rl"] * 2
    assert {node["path"] for node in summary["nodes"].values()} == {f"{tmp_path}/other/{name}" for name in NODES}
    page = (tmp_path / "other" / "report.html").read_text()
    assert "<h1>other</h1>" in page
    assert "finished, 2 nodes" in page


def test_a_second_run_trains_nothing_and_says_the_same(fakes: list[str], tmp_path: Path) -> None:
    first = run_pipeline(config(tmp_path, NODES))
    fakes.clear()
    second = run_pipeline(config(tmp_path, NODES))
    assert fakes == []
    assert [node["status"] for node in second["nodes"].values()] == ["cached", "cached"]
    for name in NODES:
        assert second["nodes"][name]["eval"] == first["nodes"][name]["eval"]
        assert second["nodes"][name]["key"] == first["nodes"][name]["key"]


def test_overrides_reach_every_node(fakes: list[str], tmp_path: Path) -> None:
    first = run_pipeline(config(tmp_path, NODES))
    second = run_pipeline(config(tmp_path, NODES, overrides=["seed=1"]))
    assert fakes == ["base", "rl", "base", "rl"]
    assert all(first["nodes"][name]["key"] != second["nodes"][name]["key"] for name in NODES)


def test_tables_and_curves_are_shown_at_the_end(
    fakes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_pipeline(config(tmp_path, NODES))
    shown = said(capsys)
    assert f"curves of {tmp_path}/small/rl " in shown
    assert shown.count("curves of") == 1  # of those that are named
    assert f"numbers {tmp_path}/small/summary.json" in shown
    assert "held-out scores" in shown
    # four problems more, all in one direction: p = 2 / 2**4
    assert "rl 0.50 ±.25 +50 noise" in shown
    assert "what the columns are" in shown


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"runner": "cloud"}, r"runner=cloud: there is no such runner; choose one of process, subprocess"),
        ({"workers": 2}, r"workers=2: runner=process runs one node at a time; runner=subprocess"),
    ],
)
def test_what_no_runner_can_do_is_refused(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_pipeline(config(tmp_path, NODES, **more))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"show": ["zero"]}, r"pipeline\.show: 'zero' is no node"),
        (
            {"tables": {**TABLES, "rows": {"a": ["base"], "b": ["base", "zero"]}}},
            r"pipeline\.tables\.rows\.b: 'zero' is",
        ),
    ],
)
def test_what_cannot_be_shown_at_the_end_is_refused_before_anything_runs(
    more: dict[str, Any], message: str, dry: bool, fakes: list[str], tmp_path: Path
) -> None:
    spec = config(tmp_path, NODES, dry=dry)
    with pytest.raises(ConfigError, match=message):
        run_pipeline({**spec, "pipeline": {**spec["pipeline"], **more}})
    assert not fakes
    assert not list(tmp_path.iterdir())


def test_several_ranks_want_a_process_of_their_own(tmp_path: Path) -> None:
    # the second rank would be this pipeline again, waiting for the node's lock
    nodes = {"base": {"overrides": ["experiment=mini_base", "trainer.devices=2"]}}
    spec = config(tmp_path, nodes)
    spec["pipeline"] |= {"show": [], "tables": {**TABLES, "rows": {}}}
    with pytest.raises(ConfigError, match=r"pipeline\.nodes\.base: trainer\.devices=2: .*; runner=subprocess"):
        run_pipeline(spec)
    assert not list(tmp_path.iterdir())
    assert run_pipeline({**spec, "dry": True}) == {}


def real(output: Path, *overrides: str, model: str = "base/model") -> dict[str, Any]:
    """A base of a second and a few steps of RL from it, through the real configs; overrides are of the second."""
    base = [*overrides_of(coin_base, output), "trainer.max_steps=20", "+eval.sets.operators.size=8"]
    rl = [*overrides_of(quick_rl, output, Path("unused")), "callbacks.checkpoint.every_n_steps=1", *overrides]
    nodes = {"base": {"overrides": base}, "rl": {"overrides": rl, "inputs": {"model.path": model}}}
    return config(output, nodes)


def statuses(summary: dict[str, Any]) -> list[str]:
    return [node["status"] for node in summary["nodes"].values()]


def test_a_real_pipeline_runs_goes_on_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout, fails, began = GRPO.rollout, True, []

    def watched(module: GRPO) -> dict[str, float]:
        began.append(module.global_step)
        if fails and module.global_step == 2:
            raise RuntimeError("the power is gone")
        return rollout(module)

    monkeypatch.setattr(GRPO, "rollout", watched)

    # interrupted in its second node, behind a checkpoint
    with pytest.raises(RuntimeError, match="power is gone"):
        run_pipeline(real(tmp_path / "a"))
    base, rl = (tmp_path / "a" / "small" / name for name in ("base", "rl"))
    made = (base / "model" / "model.safetensors").stat().st_mtime_ns
    assert json.loads((rl / "manifest.json").read_text())["status"] == "running"
    assert not (tmp_path / "a" / "small" / "summary.json").exists()

    # the same command goes on
    fails = False
    summary = run_pipeline(real(tmp_path / "a"))
    assert began == [0, 1, 2, 2]
    assert statuses(summary) == ["cached", "done"]
    assert (base / "model" / "model.safetensors").stat().st_mtime_ns == made
    assert read_card(rl / "model")["steps"] == 3
    assert summary["nodes"]["rl"]["eval"].keys() >= {"eval/operators/pass@1", "eval/operators/pass@4"}
    with Image.open(rl / "curves.png") as picture:
        assert picture.size[0] > 1000
    monkeypatch.setattr(run_module, "show", lambda folder: None)  # one picture will do

    # to what a run without an interruption ends in
    whole = run_pipeline(real(tmp_path / "b"))
    assert statuses(whole) == ["done", "done"]
    for name in ("base", "rl"):
        ours, theirs = (weights(tmp_path / output / "small" / name) for output in "ab")
        assert largest_difference(ours, theirs) == 0
        assert whole["nodes"][name]["key"] == summary["nodes"][name]["key"]

    # and is not made again; a change of the second node is a change of that one alone
    assert statuses(run_pipeline(real(tmp_path / "a"))) == ["cached", "cached"]
    assert statuses(run_pipeline(real(tmp_path / "a", "seed=1"))) == ["cached", "done"]
    aside = rl.with_name(f"rl.{summary['nodes']['rl']['key']}")
    assert largest_difference(weights(aside), weights(tmp_path / "b" / "small" / "rl")) == 0
    assert largest_difference(weights(rl), weights(aside)) > 0


def test_an_input_that_a_node_does_not_leave_is_refused_by_name(tmp_path: Path) -> None:
    message = rf"model\.path={tmp_path}/small/base/modell: there is no model there"
    with pytest.raises(ConfigError, match=message):
        run_pipeline(real(tmp_path, model="base/modell"))
    assert not (tmp_path / "small" / "rl" / "checkpoints").exists()
