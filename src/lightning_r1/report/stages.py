"""The paper's tables for one's own run, as plain data: what every phase did, and which differences are noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_r1.evaluation.comparison import Comparison, compare
from lightning_r1.report.read import evaluations
from lightning_r1.text.records import read_jsonl


@dataclass(frozen=True)
class Number:
    """A number with its 95 % interval over problems, if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Stage:
    """A row: a node's numbers, by column, and its pass@1 beside the row above, where both were measured."""

    name: str
    numbers: Mapping[str, Number]
    change: Comparison | None


@dataclass(frozen=True)
class StageTable:
    """A table: what became of a model, node by node."""

    title: str
    columns: Sequence[str]
    stages: Sequence[Stage]


def stage_tables(spec: Mapping[str, Any], results: Mapping[str, Any]) -> list[StageTable]:
    """One table for each title of ``spec["rows"]``.

    Args:
        spec: ``columns``, label to ``<set>/<number>``; ``compare``, the set in which a row is held against the
            one above it; ``rows``, title to nodes, from the first to what became of it.
        results: ``{node: {path, eval}}``.
    """
    return [_table(title, names, spec, results) for title, names in spec["rows"].items()]


def _table(title: str, names: Sequence[str], spec: Mapping[str, Any], results: Mapping[str, Any]) -> StageTable:
    known = {key for name in names for key in results[name]["eval"]}
    columns = {label: f"eval/{key}" for label, key in spec["columns"].items() if f"eval/{key}" in known}
    stages: list[Stage] = []
    for name in names:
        numbers = results[name]["eval"]
        change = difference(results, stages[-1].name, name, spec["compare"]) if stages else None
        found = {label: number(numbers, key) for label, key in columns.items() if key in numbers}
        stages.append(Stage(name, found, change))
    return StageTable(title, list(columns), stages)


def number(numbers: Mapping[str, float], key: str) -> Number:
    """Of an evaluation, with its interval."""
    return Number(numbers[key], numbers.get(f"{key}_low"), numbers.get(f"{key}_high"))


def difference(results: Mapping[str, Any], first: str, second: str, set_name: str) -> Comparison | None:
    """Of pass@1, problem by problem; nothing where one of the two was not evaluated on the set."""
    samples = [_correct(Path(results[name]["path"]), set_name) for name in (first, second)]
    return compare(*samples) if all(samples) else None


def _correct(folder: Path, set_name: str) -> dict[str, list[bool]]:
    """Of the run's last evaluation: for each problem, whether each sample is right."""
    files = evaluations(folder).get(set_name)
    correct: dict[str, list[bool]] = {}
    for sample in read_jsonl(files[max(files)]) if files else ():
        correct.setdefault(sample["prompt_id"], []).append(sample["correct"])
    return correct
