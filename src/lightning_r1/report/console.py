"""What a report prints: where it lies, completions early and late side by side, tables of evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lightning_r1.callbacks.console import console
from lightning_r1.callbacks.score_tables import scores
from lightning_r1.report.difference_page import write_difference_page
from lightning_r1.report.pipeline_folder import is_pipeline
from lightning_r1.report.pipeline_page import write_pipeline_page
from lightning_r1.report.read import evaluations, read_samples
from lightning_r1.report.run_page import write_run_page


def show(run_dir: Path, against: Path | None = None) -> None:
    """Write a run's or a pipeline's page and print where it is; of evaluations, a table for each model.

    Args:
        run_dir: of a run, of a pipeline, or of evaluations.
        against: another run, whose difference to this one is wanted.

    Raises:
        ConfigError: for a folder that holds nothing of these.
    """
    if against is not None:
        console.print(f"report in {write_difference_page(run_dir, against)}", soft_wrap=True)
        return
    if is_pipeline(run_dir):
        console.print(f"report in {write_pipeline_page(run_dir)}", soft_wrap=True)
        return
    if tables := evaluation_tables(run_dir):
        for table in tables:
            console.print(table)
        return
    console.print(f"report in {write_run_page(run_dir)}", soft_wrap=True)
    console.print(f"curves in {_curves(run_dir)}", soft_wrap=True)
    if before_and_after := side_by_side(run_dir):
        console.print(before_and_after)


def leave_report(folder: Path) -> None:
    """Write the page at the end of a run or a pipeline, which tells where it is.

    What goes wrong is told, and fails nothing that is finished.
    """
    write = write_pipeline_page if is_pipeline(folder) else write_run_page
    try:
        write(folder)
    except Exception as error:  # of whatever kind: the run is done
        again = f"python recipes/report.py run={folder} tries again"
        console.print(
            f"report.html could not be made ({type(error).__name__}: {error}); {again}", markup=False, soft_wrap=True
        )


def _curves(run_dir: Path) -> Path:
    """Import late: a page does not wait for matplotlib."""
    from lightning_r1.report.curves import draw_curves

    return draw_curves(run_dir)


def side_by_side(run_dir: Path, *, count: int = 4) -> Table | None:
    """Held-out completions of the first and the last evaluation, of the same prompts.

    Prompts are chosen where something was learned: wrong at first, right in the end.

    Args:
        run_dir: of a training run.
        count: rows, shared by the sets.

    Returns:
        A table for the console, or None if the run has no two evaluations, or nothing was learned.
    """
    sets = [list(files.items()) for files in evaluations(run_dir).values() if len(files) > 1]
    pairs = [(files[0], files[-1]) for files in sets]
    if not pairs:
        return None
    table = Table(
        title=f"the same held-out prompts, before and after ({run_dir})", title_justify="left", show_lines=True
    )
    table.add_column("prompt", no_wrap=True)
    for step, _ in pairs[0]:
        table.add_column(f"step {step}", ratio=1, overflow="fold")
    rows = max(1, count // len(pairs))
    for (_, first), (_, last) in pairs:
        early, late = _first_answers(first), _first_answers(last)
        learned = [id for id in early if id in late and late[id]["correct"] and not early[id]["correct"]]
        for id in learned[:: max(1, len(learned) // rows)][:rows]:
            table.add_row(Text(early[id]["prompt"]), Text(early[id]["completion"]), Text(late[id]["completion"]))
    return table if table.row_count else None


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
    return {prompt_id: samples[0] for prompt_id, samples in read_samples(file).items()}
