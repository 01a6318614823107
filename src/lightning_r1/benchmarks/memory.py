"""Peak memory of an update: ours in float32, in bfloat16 with and without masters, saving activations, and TRL's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_r1.benchmarks.plot import bars
from lightning_r1.benchmarks.update import against_trl, check_systems, numbers
from lightning_r1.benchmarks.update_turn import Work, run
from lightning_r1.callbacks.console import console


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the comparison.

    Args:
        config: ``conf/benchmark/memory.yaml``, resolved.

    Returns:
        Numbers of each system, and their ratios to TRL's.
    """
    check_systems(config["systems"])
    options = {field.name: config[field.name] for field in fields(Work) if field.name in config}
    work = Work(**options)
    turns = {system: [run(work, system) for _ in range(config["rounds"])] for system in config["systems"]}
    found = {system: numbers(work, done) for system, done in turns.items()}
    ratios = against_trl(found)
    table = Table(title=f"memory of one update of {work.shape}, {work.dtype} unless said", title_justify="left")
    for column in ("", "peak GiB", "above start", "of TRL's", "of TRL's above start", "s"):
        table.add_column(column, justify="left" if not column else "right")
    for name, one in found.items():
        ratio = ratios.get(name)
        table.add_row(
            name, f"{one['peak_gib']:.2f}", f"{one['above_start_gib']:.2f}", f"{ratio['memory']:.2f}" if ratio else "",
            f"{ratio['memory_above_start']:.2f}" if ratio else "", f"{one['seconds']:.2f}",
        )  # fmt: skip
    console.print(table)
    panels = {
        title: {name: one[key] for name, one in found.items()}
        for title, key in (("peak GiB", "peak_gib"), ("GiB above start", "above_start_gib"))
    }
    bars(Path(config["plot"]), panels, title=f"memory of one update of {work.shape}")
    return {"work": options, "medians": found, "ratios": ratios}
