"""A pipeline's tables: numbers of each node, and whether a row differs from the one above it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lightning_r1.config.compose import compose_config
from lightning_r1.pipeline import graph
from lightning_r1.pipeline.tables import change, tables
from lightning_r1.report.stages import difference

COLUMNS = {"pass@1": "easy/pass@1", "format": "easy/format", "thinking": "easy/length", "safe": "talk/pass@1"}


def leave(file: Path, *right: Sequence[bool]) -> None:
    """Leave samples of an evaluation: for each problem, whether each sample is right."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"prompt_id": f"p{i}", "correct": correct} for i, samples in enumerate(right) for correct in samples]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def result(folder: Path, *right: Sequence[bool], step: int = 10, **numbers: float) -> dict[str, Any]:
    """A node's result, with its evaluation on ``easy``."""
    if right:
        leave(folder / "evaluations" / f"easy-{step:05d}.jsonl", *right)
    return {"path": str(folder), "eval": {f"eval/{name}": value for name, value in numbers.items()}}


def told(results: dict[str, Any], first: str, second: str, set_name: str) -> str:
    """A difference as the console tells it."""
    return change(difference(results, first, second, set_name))


def cells(results: dict[str, Any], rows: dict[str, list[str]]) -> dict[str, list[list[str]]]:
    """Of every table, by its title: the header, then the rows."""
    made = tables({"columns": COLUMNS, "compare": "easy", "rows": rows}, results)
    return {
        str(table.title): [
            [str(column.header) for column in table.columns],
            *(list(row) for row in zip(*(map(str, column.cells) for column in table.columns), strict=True)),
        ]
        for table in made
    }


def test_numbers_intervals_and_differences(tmp_path: Path) -> None:
    wrong, right = [False], [True]
    results = {
        "base": result(
            tmp_path / "base", *[wrong] * 8,
            **{"easy/pass@1": 0.0, "easy/pass@1_low": 0.0, "easy/pass@1_high": 0.375, "easy/length": 12.345},
        ),
        "rl": result(
            tmp_path / "rl", *[right] * 6, *[wrong] * 2,
            **{"easy/pass@1": 0.75, "easy/pass@1_low": 0.35, "easy/pass@1_high": 0.97, "easy/format": 0.987},
        ),
        "more": result(tmp_path / "more", *[right] * 5, *[wrong] * 3, **{"easy/pass@1": 0.625, "easy/length": 1.999}),
    }  # fmt: skip
    rows = {"one": ["base", "rl", "more"], "two": ["base", "more"]}
    assert cells(results, rows) == {
        "one": [
            ["", "pass@1", "format", "thinking", "change"],  # nobody has numbers of how safe it is
            ["base", "0.00 ±.19", "", "12.3", ""],
            ["rl", "0.75 ±.31", "0.99", "", "+75"],  # six of six in one direction: p = 2 / 2**6
            ["more", "0.62", "", "2.00", "-12 noise"],  # one of one: p = 1
        ],
        "two": [
            ["", "pass@1", "thinking", "change"],  # of its own nodes
            ["base", "0.00 ±.19", "12.3", ""],
            ["more", "0.62", "2.00", "+62 noise"],  # five of five: p = 2 / 2**5 = 0.0625, above 0.05
        ],
    }


def test_an_interval_may_be_wide(tmp_path: Path) -> None:
    numbers = {"easy/pass@1": 0.5, "easy/pass@1_low": -0.5, "easy/pass@1_high": 1.5}
    assert cells({"a": result(tmp_path, **numbers)}, {"one": ["a"]})["one"][1] == ["a", "0.50 ±1.00", ""]


def test_a_problem_with_several_samples_counts_once(tmp_path: Path) -> None:
    results = {
        "a": result(tmp_path / "a", *[[True, False, False, False]] * 8),
        "b": result(tmp_path / "b", *[[True, True, True, False]] * 8),
    }
    assert told(results, "a", "b", "easy") == "+50"
    assert told(results, "b", "a", "easy") == "-50"
    assert told(results, "a", "a", "easy") == "+0 noise"


def test_the_last_evaluation_of_the_set_counts(tmp_path: Path) -> None:
    results = {"a": result(tmp_path / "a", *[[False]] * 8), "b": result(tmp_path / "b", *[[False]] * 8, step=99999)}
    evaluations = tmp_path / "b" / "evaluations"
    leave(evaluations / "easy-100000.jsonl", *[[True]] * 8)  # one digit more sorts before by name
    leave(evaluations / "easy-to-read-200000.jsonl", [True])  # another set
    leave(evaluations / "hard-00001.jsonl", [True])
    assert told(results, "a", "b", "easy") == "+100"


def test_an_evaluation_run_keeps_its_samples_elsewhere(tmp_path: Path) -> None:
    results = {"a": result(tmp_path / "a", *[[False]] * 8), "b": result(tmp_path / "b")}
    leave(tmp_path / "b" / "samples" / "easy.jsonl", *[[True]] * 8)
    assert told(results, "a", "b", "easy") == "+100"


def test_without_an_evaluation_there_is_no_difference(tmp_path: Path) -> None:
    results = {"a": result(tmp_path / "a", [True]), "b": result(tmp_path / "b")}
    assert told(results, "a", "b", "easy") == told(results, "b", "a", "easy") == ""


def test_rows_of_other_problems_are_not_compared(tmp_path: Path) -> None:
    results = {"a": result(tmp_path / "a", [True]), "b": result(tmp_path / "b", [True], [True])}
    with pytest.raises(ValueError, match="same problems"):
        told(results, "a", "b", "easy")


def test_the_tables_of_the_miniature_compare_the_same_problems(tmp_path: Path) -> None:
    pipeline = compose_config("pipeline", ["pipeline=mini"])["pipeline"]
    nodes = {node.name: node for node in graph.plan(pipeline, output_dir=str(tmp_path), extra=[])}
    spec = pipeline["tables"]
    for title, names in spec["rows"].items():
        sets = [nodes[name].config["eval"]["sets"][spec["compare"]] for name in names]
        assert all(problems == sets[0] for problems in sets), title
    known = {name for node in nodes.values() for name in ((node.config.get("eval") or {}).get("sets") or {})}
    assert {column.split("/")[0] for column in spec["columns"].values()} <= known
