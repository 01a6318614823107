"""A pipeline's tables on the console: what every phase did to the model, and which differences are noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from lightning_r1.evaluation.comparison import Comparison
from lightning_r1.report.stages import Number, StageTable, stage_tables


def tables(spec: Mapping[str, Any], results: Mapping[str, Any]) -> list[Table]:
    """One table for each title of ``spec["rows"]``; see :func:`lightning_r1.report.stages.stage_tables`.

    Args:
        spec: of the pipeline's config.
        results: of :func:`lightning_r1.pipeline.graph.run`.

    Returns:
        Tables for the console. ``±`` is half the 95 % interval over problems; a difference is of pass@1, in
        points, to the row above, with ``noise`` where the exact sign-flip test has p >= 0.05.
    """
    return [_drawn(table) for table in stage_tables(spec, results)]


def _drawn(stages: StageTable) -> Table:
    # eight columns in 80 characters
    table = Table(title=stages.title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for label in ("", *stages.columns, "change"):
        table.add_column(label, justify="left" if label == "" else "right", no_wrap=True)
    for stage in stages.stages:
        cells = [_cell(stage.numbers.get(label)) for label in stages.columns]
        table.add_row(stage.name, *cells, change(stage.change))
    return table


def _cell(number: Number | None) -> str:
    if number is None:
        return ""
    value = number.value
    if number.low is not None and number.high is not None:
        return f"{value:.2f} ±{(number.high - number.low) / 2:.2f}".replace("±0.", "±.")
    return f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def change(found: Comparison | None) -> str:
    """Of pass@1, in points."""
    if found is None:
        return ""
    return f"{100 * found.difference:+.0f}{' noise' if found.within_noise else ''}"
