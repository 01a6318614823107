"""What a run's folder holds, as plain data: finished, unfinished, or of an older version."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.run_folder import SUMMARY, kept_config
from lightning_r1.report.series import Curve
from lightning_r1.text.records import read_json, read_jsonl

MOST_BYTES = 256 * 2**20
"""Of a file with samples that is read; a larger one is left out, and named on the page."""


@dataclass(frozen=True)
class RunFolder:
    """A run, as it stands on disk."""

    path: Path
    config: Mapping[str, Any]
    """Empty where there is none."""
    summary: Mapping[str, Any]
    """Empty while the run is not finished."""
    curves: Mapping[str, Curve]

    @property
    def name(self) -> str:
        """As the user calls it."""
        return str(self.config.get("name") or self.path.name)

    @property
    def step(self) -> int:
        """The last one that was logged."""
        return max((curve[0][-1] for curve in self.curves.values()), default=0)

    @property
    def planned(self) -> int | None:
        """Steps in all, where the config says so."""
        steps = (self.config.get("trainer") or {}).get("max_steps")
        return steps if isinstance(steps, int) and steps > 0 else None

    @property
    def state(self) -> str:
        """How far it is: ``finished, 200 steps`` or ``step 120 of 200, last heard of 2026-11-28 02:31``."""
        if self.summary:
            steps = self.summary.get("steps")
            return "finished" if steps is None else f"finished, {steps:,} steps"
        of_all = f" of {self.planned:,} ({self.step / self.planned:.0%})" if self.planned else ""
        heard = datetime.fromtimestamp((self.path / "metrics.csv").stat().st_mtime)
        return f"unfinished: step {self.step:,}{of_all}, last heard of {heard:%Y-%m-%d %H:%M}"


def read_run(folder: Path) -> RunFolder:
    """Read a training run.

    Raises:
        ConfigError: if the folder holds no ``metrics.csv``.
    """
    config = kept_config(folder) if (folder / "config.yaml").is_file() else {}
    return RunFolder(folder, config, read_json(folder / SUMMARY), read_curves(folder / "metrics.csv"))


def read_curves(path: Path) -> dict[str, Curve]:
    """Steps and values of every number in a ``metrics.csv``; a last line that is being written does not count.

    Raises:
        ConfigError: if there is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"run={path.parent}: there is no {path.name}; give the folder of a training run")
    curves: dict[str, Curve] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not (row["step"] or "").isdigit() or None in row.values():
                continue
            for name, value in row.items():
                if name != "step" and value:
                    steps, values = curves.setdefault(name, ([], []))
                    steps.append(int(row["step"]))
                    values.append(float(value))
    return curves


def evaluations(folder: Path) -> dict[str, dict[int, Path]]:
    """Files with the samples of held-out evaluations, by set and step; of the verb *evaluate*, at step 0."""
    sets: dict[str, dict[int, Path]] = {}
    for file in folder.glob("evaluations/*.jsonl"):
        # a set's name may hold a dash, and step 100000 has one digit more than others
        if match := re.fullmatch(r"(.+)-(\d+)", file.stem):
            sets.setdefault(match[1], {})[int(match[2])] = file
    for file in folder.glob("samples/*.jsonl"):
        sets.setdefault(file.stem, {})[0] = file
    return {name: dict(sorted(files.items())) for name, files in sorted(sets.items())}


def passed_over(*folders: Path) -> str:
    """A sentence on the first and last evaluations of runs that are too large to be read; empty where none is."""
    files = {
        file
        for folder in folders
        for steps in evaluations(folder).values()
        for file in (steps[min(steps)], steps[max(steps)])
        if file.stat().st_size > MOST_BYTES
    }
    if not files:
        return ""
    named = ", ".join(f"{file} ({file.stat().st_size / 2**20:,.0f} MiB)" for file in sorted(files))
    return (
        f"Not read, being larger than {MOST_BYTES / 2**20:,.0f} MiB: {named}. Its set has no paired test and none "
        "of its prompts on this page; the scores are complete."
    )


def read_samples(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Graded completions by the id of their prompt; nothing of a file that is too large to be read in time."""
    samples: dict[str, list[dict[str, Any]]] = {}
    for sample in read_jsonl(file) if file.stat().st_size <= MOST_BYTES else ():
        samples.setdefault(sample["prompt_id"], []).append(sample)
    return samples
