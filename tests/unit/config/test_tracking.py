"""What W&B is told of a run: groups, tags, and a graph of runs and artifacts that is the pipeline's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.offline_wandb import artifacts_of, history_of, run_folders, run_of, table_of
from helpers.quick import random_base
from lightning_r1.callbacks.tables import completion_table
from lightning_r1.config.checks import RULES
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.logger_rules import wandb_can_be_begun
from lightning_r1.config.run_folder import keep_config, write_summary
from lightning_r1.config.tracking import group_of, inputs_of, products_of, tags_of, tell_products
from lightning_r1.evaluate import evaluate
from lightning_r1.pipeline.graph import Node, write_manifest
from lightning_r1.pipeline.runners import Command
from lightning_r1.text.records import read_jsonl

MADE = {"train": "model", "sample": "traces.jsonl", "teach": "lessons"}


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Node]:
    """The nodes of the miniature, each with a folder as a finished run leaves it."""
    output = tmp_path_factory.mktemp("output")
    nodes = {}
    for name, spec in compose_config("pipeline", ["pipeline=mini"])["pipeline"]["nodes"].items():
        inputs = spec.get("inputs") or {}
        config: dict[str, Any] = {"name": f"mini/{name}", "paths": {"run_dir": str(output / "mini" / name)}}
        for place, source in inputs.items():
            config[place] = {"somewhere": [f"{output}/mini/{source}"]}
        parents = {place: source.split("/")[0] for place, source in inputs.items()}
        keys = {place: nodes[parent].key for place, parent in parents.items()}
        node = Node(name, Command(spec.get("verb", "train"), ()), config, parents, keys, key=f"key of {name}")
        keep_config(node.folder, config)
        made = node.folder / MADE[node.command.verb]
        made.touch() if made.suffix else made.mkdir()
        write_summary(node.folder, {"phase": name, "commit": "0123456789ab", "after": {"eval/a/pass@1": 0.5}})
        write_manifest(node, status="done")
        nodes[name] = node
    return nodes


def test_the_graph_of_artifacts_is_that_of_the_pipeline(mini: dict[str, Node]) -> None:
    made_by = {product.name: node.name for node in mini.values() for product in products_of(node.folder)}
    assert len(made_by) == len(mini)
    edges = {(made_by[product.name], node.name) for node in mini.values() for product in inputs_of(node.config)}
    assert edges == {(parent, node.name) for node in mini.values() for parent in node.parents.values()}
    assert len(edges) > len(mini)
    for node in mini.values():
        for product in inputs_of(node.config):
            assert product.key == mini[made_by[product.name]].key


def test_what_a_run_leaves_is_told_with_its_scores(mini: dict[str, Node]) -> None:
    told: list[Any] = []

    class Log:
        leaves = told.append

    tell_products([Log(), object()], mini["r1_zero"].folder)
    (product,) = told
    assert (product.name, product.run, product.path.name) == ("mini-r1_zero-model", "mini/r1_zero", "model")
    assert product.facts == {"scores": {"eval/a/pass@1": 0.5}, "phase": "r1_zero", "commit": "0123456789ab"}


def test_nodes_are_grouped_by_their_pipeline_and_a_run_alone_by_its_phase(
    mini: dict[str, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_RUN_GROUP", raising=False)
    assert {group_of(node.config, node.command.verb) for node in mini.values()} == {"mini"}
    alone = compose_config(
        "train", ["model=qwen2_5_1_5b", "data=gsm8k", "trainer.max_steps=1", "logger.wandb.tags=[mine]"]
    )
    assert group_of(alone) == "r1_zero"
    assert {"r1_zero", "qwen2_5_1_5b", "accuracy", "format", "adamw", "mine"} <= {*tags_of(alone)}
    assert group_of({**alone, "logger": {"wandb": {"group": "ablation"}}}) == "ablation"
    monkeypatch.setenv("WANDB_RUN_GROUP", "night")
    assert group_of(alone) == "night"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "on"}, r"logger\.wandb\.mode=on: choose one of auto, online, offline"),
        ({"artifacts": "all"}, r"logger\.wandb\.artifacts=all: choose one of none, reference, upload"),
        ({"init_timeout_s": 0}, r"logger\.wandb\.init_timeout_s=0: expected seconds > 0"),
        ({"grupo": "a"}, r"logger\.wandb\.grupo: wandb\.init takes no such argument"),
        ({"id": "a"}, r"logger\.wandb\.id: wandb\.init takes no such argument"),
    ],
)
def test_a_mistake_is_told_before_anything_is_built(options: dict[str, Any], message: str) -> None:
    assert wandb_can_be_begun in RULES
    with pytest.raises(ConfigError, match=message):
        wandb_can_be_begun({"logger": {"wandb": options}})


def test_what_wandb_takes_besides_is_no_mistake() -> None:
    wandb_can_be_begun({"logger": {"wandb": {"entity": "team", "notes": "why", "project": "mine", "group": None}}})
    wandb_can_be_begun({"logger": {"wandb": None}})
    wandb_can_be_begun({})


def test_an_evaluation_logs_scores_and_samples_and_what_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    base = tmp_path / "coin" / "base"
    random_base(base / "model")
    (base / "config.yaml").write_text(yaml.safe_dump({"name": "coin/base"}))
    write_summary(base, {"after": {}})
    config = compose_config(
        "evaluate",
        ["model=mini", f"model.path={base}/model", "template=mini", "eval=operators", "eval.sampling.max_new_tokens=8",
         "limit=4", "samples=2", "threads=1", "trainer.accelerator=cpu",
         f"paths.output_dir={tmp_path}", "name=coin/scores", "logger=wandb",
         "logger.wandb.artifacts=reference"],
    )  # fmt: skip
    summary = evaluate(config)
    (folder,) = run_folders(tmp_path / "coin" / "scores")
    run = run_of(folder)
    assert (run.display_name, run.run_group, run.job_type) == ("coin/scores", "coin", "evaluate")
    (numbers,) = [row for row in history_of(folder) if "eval/operators/pass@1" in row]
    assert {name: numbers[name] for name in summary["after"]} == pytest.approx(summary["after"])
    (scores,) = table_of([folder], "scores")
    assert (scores["set"], scores["problems"], scores["samples"]) == ("operators", 4, 2)
    assert scores["pass@1"] == summary["after"]["eval/operators/pass@1"]
    samples = read_jsonl(tmp_path / "coin" / "scores" / "samples" / "operators.jsonl")
    rows = table_of([folder], "eval/operators/samples")
    assert [row["completion"] for row in rows] == [one["completion"] for one in samples[::2]]
    (read,) = artifacts_of(folder)
    assert (read.name, read.use_after_commit) == ("coin-base-model", True)


def test_a_cell_is_empty_where_a_reward_is_not_for_the_prompt_and_long_texts_are_cut_in_the_middle() -> None:
    record = {
        "step": 1, "prompt_id": "a", "prompt": "1+1=", "completion": "b" * 15_000 + "e" * 15_000, "reward": None,
        "rewards": {"accuracy": None}, "outcomes": {"accuracy": "timeout"}, "advantage": 0.0, "finish_reason": "stop",
        "tokens": 3,
    }  # fmt: skip
    columns, (row,) = completion_table([record], ["accuracy", "helpfulness"], most=8)
    cells = dict(zip(columns, row, strict=True))
    assert (cells["reward/helpfulness"], cells["outcome"]) == (None, "accuracy timeout")
    assert cells["completion"].startswith("bbb")
    assert cells["completion"].endswith("eee")
    assert "[... 10,000 characters ...]" in cells["completion"]
