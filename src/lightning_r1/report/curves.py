"""A picture of a run's curves: ``curves.png``, for READMEs and for where no browser is."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import matplotlib as mpl

from lightning_r1.report.read import read_curves
from lightning_r1.report.series import Curve, smoothed

mpl.use("agg")  # there may be no screen
from matplotlib import pyplot as plt

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


def draw_curves(run_dir: Path) -> Path:
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


def _draw(axis: Any, curve: Curve, label: str, colour: str, *, points: bool) -> None:
    steps, values = curve
    if points:
        axis.plot(steps, values, "o-", color=colour, markersize=4, linewidth=1.2, label=label)
        return
    axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axis.plot(steps, smoothed(values), color=colour, linewidth=1.8, label=label)


def _scale(axis: Any) -> None:
    """From zero to what the bold lines reach: one wild step, faint behind them, would flatten all others."""
    bold = [value for line in axis.get_lines() if line.get_alpha() is None for value in line.get_ydata()]
    if bold:
        axis.set_ylim(bottom=min(0, min(bold)), top=1.15 * max(0, max(bold)) or 1)
