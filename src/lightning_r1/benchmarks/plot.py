"""One picture beside a benchmark's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")  # there may be no screen
from matplotlib import pyplot as plt

_COLOURS = ("#33658a", "#c8553d", "#588157", "#8d6a9f", "#b0892f", "#5f6c7b")


def bars(path: Path, panels: Mapping[str, Mapping[str, float]], *, title: str) -> Path:
    """A panel a quantity, a bar a system.

    Args:
        path: of the picture.
        panels: quantity, with its unit -> system -> value.
        title: of all.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.4), layout="constrained", squeeze=False)
    for axis, (quantity, values) in zip(axes.flat, panels.items(), strict=True):
        drawn = axis.bar(list(values), list(values.values()), color=_COLOURS[: len(values)], width=0.6)
        axis.bar_label(drawn, fmt=told, fontsize=8)
        axis.set_title(quantity, fontsize=10, loc="left")
        _plain(axis)
    return _save(figure, path, title)


def curves(
    path: Path, panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], *, title: str, x_label: str
) -> Path:
    """A panel a quantity, a line a system.

    Args:
        path: of the picture.
        panels: quantity, with its unit -> system -> (x, y).
        title: of all.
        x_label: of every panel.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(4.8 * len(panels), 3.6), layout="constrained", squeeze=False)
    for axis, (quantity, lines) in zip(axes.flat, panels.items(), strict=True):
        for colour, (system, (x, y)) in zip(_COLOURS, lines.items(), strict=False):
            axis.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.5, label=system)
        axis.set_title(quantity, fontsize=10, loc="left")
        axis.set_xlabel(x_label, fontsize=8)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8, frameon=False)
        _plain(axis)
    return _save(figure, path, title)


def told(value: float) -> str:
    """Three digits, or all that stand before the point.

    >>> told(20226.4), told(0.5634)
    ('20,226', '0.563')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _plain(axis: plt.Axes) -> None:
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: plt.Figure, path: Path, title: str) -> Path:
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
