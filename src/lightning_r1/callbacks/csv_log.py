"""``metrics.csv``, always: one row a step, also across interruptions.

Lightning's CSVLogger deletes the file when a run goes on. This one keeps what was written, and drops
only the rows of steps after the checkpoint, which are made again.
"""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class MetricsCSV(Logger):
    """Writes every step's numbers to one file.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.columns: list[str] = ["step"]

    @property
    def name(self) -> str:
        """Of this logger."""
        return "csv"

    @property
    def version(self) -> int:
        """There is one."""
        return 0

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Kept in ``config.yaml``, not here."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; new names make new columns.

        Numbers of one step may come in several calls (steps, evaluation): each is a row.
        """
        row = {"step": step, **{name: value for name, value in metrics.items() if name != "epoch"}}
        if new := sorted(set(row) - set(self.columns)):
            rows = self.read()
            self.columns += new
            self._rewrite(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    @rank_zero_only
    def start_at(self, step: int) -> None:
        """Keep the rows up to this step; 0 begins anew."""
        rows = [row for row in self.read() if int(row["step"]) <= step] if step else []
        self.columns = ["step"] if not rows else list(rows[0])
        self._rewrite(rows)

    def read(self) -> list[dict[str, str]]:
        """The rows so far; a last line that was cut short by a kill is left out."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [row for row in rows if None not in row.values() and (row["step"] or "").isdigit()]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial, self.path)
