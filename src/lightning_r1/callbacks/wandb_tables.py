"""Tables of a W&B run that grow: rows are added, and those that are there stay, also across interruptions.

W&B calls such a table incremental. Its own object keeps every row in memory and forgets what it holds when a run is
resumed offline; here every addition is an object of its own that is told what came before it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_r1.text.records import write_whole

MOST_INCREMENTS = 100
"""W&B shows no more of a table than its latest 100 additions."""


class GrowingTables:
    """What the tables of a run hold so far.

    Args:
        file: keeps it, as ``{name: [[step, address], ...]}``.
        axis: the name of the step.
    """

    def __init__(self, file: Path, *, axis: str) -> None:
        self.file, self.axis = file, axis
        self.increments: dict[str, list[tuple[int, str]]] = {}
        # a machine that went down may have left it empty: the tables begin anew
        with suppress(FileNotFoundError, ValueError):
            self.increments = {
                name: [(step, at) for step, at in of] for name, of in json.loads(file.read_text()).items()
            }

    def start_at(self, step: int) -> None:
        """Keep what was added up to this step; 0 begins anew."""
        self.increments = {name: [one for one in of if 0 < step >= one[0]] for name, of in self.increments.items()}
        self._write()

    def grow(self, run: Any, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, step: int) -> None:
        """Add rows to a table."""
        import wandb

        before = self.increments.setdefault(name, [])
        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows], log_mode="INCREMENTAL")
        table._increment_num = len(before)
        table._previous_increments_paths = [address for _, address in before][1 - MOST_INCREMENTS :]
        run.log({name: table, self.axis: step})
        if address := table._get_artifact_entry_ref_url():
            before.append((step, address))
            self._write()

    def _write(self) -> None:
        write_whole(self.file, json.dumps(self.increments))
