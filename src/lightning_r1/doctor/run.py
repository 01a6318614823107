"""All checks of a run, one after the other, and the table of what they found."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from lightning_r1.callbacks.console import console, quiet
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.leaving import command
from lightning_r1.doctor import data, engine, environment, memory, plan, rewards, template
from lightning_r1.doctor.findings import CHECKS, Finding, examine
from lightning_r1.doctor.patient import Patient

_COLOURS = {"ok": "green", "warning": "yellow", "failed": "bold red"}
# the order is that of the table: what is needed by others first, and the plan with the speeds that were measured last
_MODULES = (environment, template, data, rewards, engine, memory, plan)
_ORDER = (
    *("config", "versions", "devices", "logging", "template", "data", "prompts", "rewards", "golds"),
    *("model", "run folder", "engine", "memory", "batch plan"),
)


def doctor(config: Mapping[str, Any]) -> dict[str, list[Finding]]:
    """Examine a run without training.

    Args:
        config: resolved; see ``conf/doctor.yaml``.

    Returns:
        What each check found, by its name; the run is fit if nothing failed.

    Raises:
        ConfigError: if ``doctor.only`` names a check that there is not.
    """
    quiet()
    patient = Patient(config)
    found: dict[str, list[Finding]] = {}
    try:
        for name in chosen(config["doctor"]["only"]):
            found[name] = examine(CHECKS[name], patient)
            _show(name, found[name])
    finally:
        patient.close()
    for title, columns, rows in patient.tables:
        _show_table(title, columns, rows)
    counts = {level: sum(finding.level == level for of in found.values() for finding in of) for level in _COLOURS}
    verdict = "this run should not be started as it is" if counts["failed"] else "this run can be started"
    colour = _COLOURS["failed" if counts["failed"] else "ok"]
    console.print(f"{counts['failed']} failed, {counts['warning']} warning(s): [{colour}]{verdict}[/]")
    if not counts["failed"] and Path(sys.argv[0]).stem == "doctor":
        own = ("doctor.", "gpu=", "assumed")
        run = [word for word in sys.argv[1:] if not word.lstrip("+~").startswith(own)]
        console.print(f"to start it: {command('train', *run)}", markup=False, soft_wrap=True)
    return found


def chosen(only: Sequence[str] | None) -> list[str]:
    """The checks to make, in order.

    Raises:
        ConfigError: for one that there is not.
    """
    for name in only or ():
        if name not in _ORDER:
            raise ConfigError(f"doctor.only: {name!r} is no check; choose from {', '.join(_ORDER)}")
    return [name for name in _ORDER if only is None or name in only]


def is_fit(found: Mapping[str, Sequence[Finding]]) -> bool:
    """Whether nothing failed."""
    return not any(finding.level == "failed" for of_check in found.values() for finding in of_check)


def _show(name: str, findings: Sequence[Finding]) -> None:
    """One line a finding, as soon as it is known."""
    for place, finding in enumerate(findings):
        heading = escape(name) if place == 0 else ""
        fix = f" [dim]-> {escape(finding.fix)}[/]" if finding.fix else ""
        colour = _COLOURS[finding.level]
        console.print(f"{heading:<11} [{colour}]{finding.level:<7}[/] {escape(finding.text)}{fix}", soft_wrap=True)


def _show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
