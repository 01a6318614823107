"""The verb *report*: a picture of a run's curves, and its completions early and late, side by side."""

from __future__ import annotations

import csv
import fnmatch
import json
import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.table import Table
from rich.text import Text

from lightning_r1.callbacks.console import console
from lightning_r1.callbacks.score_tables import scores
from lightning_r1.config.errors import ConfigError
from lightning_r1.text.records import read_jsonl

mpl.use("agg")  # there may be no screen
from matplotlib import pyplot as plt

Curve = tuple[list[int], list[float]]

# title, then (log name, label) of each line; a * stands for every evaluation set
PANELS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("reward", (("rollout/reward_mean", "sum"), ("rollout/reward/format", "format"))),
    ("accuracy", (("rollout/reward/accuracy", "training"), ("eval/*/pass@1", "held out"))),
    ("thinking length (tokens)", (("rollout/think_length_mean", "training"), ("eval/*/think_length_mean", "held out"))),
    ("reflections a completion", (("rollout/reflection_rate", "training"), ("eval/*/reflection_rate", "held out"))),
    ("entropy (nats a token)", (("policy/entropy", "training"),)),
    ("KL to the reference (nats a token)", (("policy/kl_ref", "training"),)),
)
_COLOURS = ("#33658a", "#c8553d", "#588157", "#8d6a9f", "#b0892f")


def report(run_dir: Path) -> Path:
    """Draw ``curves.png`` in a run's folder.

    Args:
        run_dir: of a training run.

    Returns:
        The picture.

    Raises:
        ConfigError: if the folder holds no ``metrics.csv``.
    """
    curves = read_curves(run_dir / "metrics.csv")
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), layout="constrained")
    for axis, (title, lines) in zip(axes.flat, PANELS, strict=True):
        for line, (pattern, label) in enumerate(lines):
            names = fnmatch.filter(curves, pattern)
            for place, name in enumerate(names):
                of_set = f"{label}: {name.split('/')[1]}" if len(names) > 1 else label
                colour = _COLOURS[(line + place) % len(_COLOURS)]
                _draw(axis, curves[name], of_set, colour, points=pattern.startswith("eval"))
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("optimizer step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        _scale(axis)
        if len(axis.get_lines()) > 1:
            axis.legend(fontsize=8, frameon=False)
        if not axis.get_lines():
            axis.text(0.5, 0.5, "not measured in this run", ha="center", fontsize=8, transform=axis.transAxes)
    figure.suptitle(str(run_dir), fontsize=11, x=0.01, ha="left")
    picture = run_dir / "curves.png"
    figure.savefig(picture, dpi=130)
    plt.close(figure)
    return picture


def read_curves(path: Path) -> dict[str, Curve]:
    """Steps and values of every number in a ``metrics.csv``."""
    if not path.is_file():
        raise ConfigError(f"run={path.parent}: there is no {path.name}; give the folder of a training run")
    curves: dict[str, Curve] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if name != "step" and value:
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(int(row["step"]))
                    values.append(float(value))
    return curves


def _draw(axis: Any, curve: Curve, label: str, colour: str, *, points: bool) -> None:
    steps, values = curve
    if points:
        axis.plot(steps, values, "o-", color=colour, markersize=4, linewidth=1.2, label=label)
        return
    axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axis.plot(steps, running_mean(values, max(1, len(values) // 40)), color=colour, linewidth=1.8, label=label)


def _scale(axis: Any) -> None:
    """From zero to what the bold lines reach: one wild step, faint behind them, would flatten all others."""
    bold = [value for line in axis.get_lines() if line.get_alpha() is None for value in line.get_ydata()]
    if bold:
        axis.set_ylim(bottom=min(0, min(bold)), top=1.15 * max(0, max(bold)) or 1)


def running_mean(values: list[float], half_width: int) -> list[float]:
    """Mean over the neighbours within ``half_width``, fewer at the ends; what is NaN does not count.

    >>> running_mean([0.0, 3.0, 6.0], 1)
    [1.5, 3.0, 4.5]
    """
    windows = (values[max(0, i - half_width) : i + half_width + 1] for i in range(len(values)))
    measured = ([value for value in window if not math.isnan(value)] for window in windows)
    return [sum(window) / len(window) if window else math.nan for window in measured]


def side_by_side(run_dir: Path, *, count: int = 4) -> Table | None:
    """Held-out completions of the first and the last evaluation, of the same prompts.

    Prompts are chosen where something was learned: wrong at first, right in the end.

    Args:
        run_dir: of a training run.
        count: rows, shared by the sets.

    Returns:
        A table for the console, or None if the run has no two evaluations.
    """
    sets: dict[str, list[Path]] = {}
    for file in sorted((run_dir / "evaluations").glob("*.jsonl"), key=_step):
        sets.setdefault(file.stem.rpartition("-")[0], []).append(file)
    pairs = [(files[0], files[-1]) for _, files in sorted(sets.items()) if len(files) > 1]
    if not pairs:
        return None
    table = Table(
        title=f"the same held-out prompts, before and after ({run_dir})", title_justify="left", show_lines=True
    )
    table.add_column("prompt", no_wrap=True)
    for file in pairs[0]:
        table.add_column(f"step {_step(file)}", ratio=1, overflow="fold")
    rows = max(1, count // len(pairs))
    for first, last in pairs:
        early, late = _first_answers(first), _first_answers(last)
        learned = [id for id in early if id in late and late[id]["correct"] and not early[id]["correct"]]
        for id in learned[:: max(1, len(learned) // rows)][:rows]:
            table.add_row(Text(early[id]["prompt"]), Text(early[id]["completion"]), Text(late[id]["completion"]))
    return table


def show(run_dir: Path) -> None:
    """Print where the picture is, and the completions side by side; of evaluations, a table for each model."""
    if tables := evaluation_tables(run_dir):
        for table in tables:
            console.print(table)
        return
    console.print(f"curves in {report(run_dir)}", soft_wrap=True)
    if before_and_after := side_by_side(run_dir):
        console.print(before_and_after)


def evaluation_tables(folder: Path) -> list[Table]:
    """One for each model that was evaluated in the folder or in folders of it, with all its sets.

    Args:
        folder: of an evaluation, or with a folder for each set, as ``sbatch/evaluate.sbatch`` leaves them.
    """
    models: dict[str, dict[str, Any]] = {}
    for file in sorted([*folder.glob("summary.json"), *folder.glob("*/summary.json")]):
        summary = json.loads(file.read_text())
        if "sets" in summary:
            merged = models.setdefault(summary["path"], {**summary, "sets": {}, "after": {}})
            for part in ("sets", "after"):
                merged[part] |= summary[part]
    return [scores(summary) for summary in models.values()]


def _first_answers(file: Path) -> dict[str, dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {}
    for record in read_jsonl(file):
        answers.setdefault(record["prompt_id"], record)
    return answers


def _step(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])
