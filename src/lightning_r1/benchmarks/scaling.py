"""What a step costs as the work grows: seconds and memory against completions, their length and the model's size.

One quantity at a time. Each point is a process of its own, and the points of a sweep take turns, so that a machine
that drifts drifts for all of them. The exponent is the slope of a straight line through the logarithms: 1 where twice
the work costs twice as much, below it where something is shared, above it where attention begins to tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_r1.benchmarks.grpo_step_vs_trl import NoGPU, in_a_process, medians_of, work_of
from lightning_r1.benchmarks.result import here
from lightning_r1.benchmarks.step_systems import Measured, ours
from lightning_r1.benchmarks.step_work import Work
from lightning_r1.callbacks.console import console

MEASURED = {
    "s a step": "seconds",
    "rollout s": "rollout_seconds",
    "update s": "update_seconds",
    "GiB above model": "above_start_gib",
    "update GiB": "update_gib",
    "update needs GiB": "need_gib",
}


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the sweeps.

    Args:
        config: ``conf/benchmark/scaling.yaml``, resolved.

    Returns:
        Of each sweep its points, and the exponents of their costs.
    """
    try:
        sweeps = {name: points_of(config, name, values) for name, values in config["sweeps"].items()}
    except NoGPU as missing:
        console.print(f"{config['name']}: not run: {missing}", soft_wrap=True)
        return {"where": here(), "not_run": {"everything": str(missing)}}
    where = here()
    told = {}
    for name, points in sweeps.items():
        told[name] = run_sweep(name, points, config["rounds"], config.get("overrides") or ())
        tell(name, told[name], where["line"])
    draw(config, told)
    return {"where": where, "sweeps": told}


def points_of(config: Mapping[str, Any], name: str, values: Sequence[Any]) -> list[tuple[str, float, Work]]:
    """Label, size and work of each point of a sweep; completions always run to the limit."""
    points = []
    for value in values:
        work = work_of({**config, name: value, "lengths": "fixed"})
        points.append((str(value), parameters_of(work.model) if name == "shape" else float(value), work))
    return points


def parameters_of(folder: str) -> float:
    """Of a saved model, without loading it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return float(sum(parameter.numel() for parameter in model.parameters()))


def run_sweep(
    name: str, points: Sequence[tuple[str, float, Work]], rounds: int, overrides: Sequence[str]
) -> dict[str, Any]:
    """Medians of every point, and the exponents."""
    turns: dict[str, list[Measured]] = {label: [] for label, _, _ in points}
    for number in range(rounds):
        for label, _, work in points:
            turns[label].append(in_a_process(partial(ours, overrides=overrides), work))
            seconds = medians_of(turns[label][-1:])["seconds"]
            console.print(f"round {number + 1}/{rounds}  {name}={label}  {seconds:.3f} s")
    medians = {label: medians_of(parts) for label, parts in turns.items()}
    sizes = [size for _, size, _ in points]
    exponents = {key: exponent(sizes, [medians[label][key] for label, _, _ in points]) for key in MEASURED.values()}
    return {"sizes": dict(zip(medians, sizes, strict=True)), "medians": medians, "exponents": exponents}


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of ``log cost`` over ``log size`` by least squares; NaN where there is no line or a cost of nothing.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    if len(set(sizes)) < 2 or min(costs) <= 0:
        return math.nan
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return over / sum((a - mean_x) ** 2 for a in x)


def tell(name: str, sweep: Mapping[str, Any], line: str) -> None:
    """A table of one sweep."""
    table = Table(title=f"a step of ours over {name}", title_justify="left")
    table.add_column(name)
    for column in MEASURED:
        table.add_column(column, justify="right")
    for label, numbers in sweep["medians"].items():
        table.add_row(told_size(label, sweep["sizes"][label]), *(f"{numbers[key]:.3f}" for key in MEASURED.values()))
    exponents = (sweep["exponents"][key] for key in MEASURED.values())
    table.add_row("[bold]exponent[/]", *(f"{value:.2f}" for value in exponents))
    console.print(table)
    console.print(line, style="dim", soft_wrap=True)


def told_size(label: str, size: float) -> str:
    """A number as it is, a shape with its parameters."""
    return label if label == f"{size:.0f}" else f"{label}, {size / 1e6:,.1f} M"


def draw(config: Mapping[str, Any], sweeps: Mapping[str, Mapping[str, Any]]) -> None:
    """A panel a sweep: seconds of the whole step and of its halves."""
    if not config.get("picture"):
        return
    from lightning_r1.benchmarks.plot import curves

    panels = {}
    for name, sweep in sweeps.items():
        sizes = list(sweep["sizes"].values())
        lines = {
            title: (sizes, [sweep["medians"][label][key] for label in sweep["medians"]])
            for title, key in list(MEASURED.items())[:3]
        }
        panels[f"s a step over {'parameters' if name == 'shape' else name}"] = lines
    curves(Path(config["picture"]), panels, title="what a step costs", x_label="")
