"""One GRPO step, ours and that of TRL's GRPOTrainer, on the same work.

Same weights, prompts, rewards, group size, sampling, loss and optimizer; each system in processes of its own, turn by
turn, because a shared machine drifts. The miniature's task and model by default; with ``shape`` a model of a real
shape with random weights, random prompts of a length, and a reward that is a matter of luck. With ``lengths=fixed``
every completion has exactly ``max_new_tokens`` tokens; with ``natural`` the model ends them, and tokens a second is
the fair number.

Besides ``ours`` and ``TRL`` there may be variants of each: overrides of ours, options of TRL's config. One that
cannot be run here is told as not run, with the reason.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_r1.benchmarks.result import here
from lightning_r1.benchmarks.step_systems import Measured, ours, trl
from lightning_r1.benchmarks.step_work import Work
from lightning_r1.callbacks.console import console

__all__ = ["Measured", "Work", "benchmark", "ours", "ratios", "trl"]

System = Callable[[Work], Measured]


class NoGPU(RuntimeError):
    """The work is for a GPU, and there is none."""


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the comparison.

    Args:
        config: ``conf/benchmark/grpo_step_vs_trl.yaml``, resolved.

    Returns:
        Medians of each system, their :func:`ratios` to TRL, and why some were not run.
    """
    try:
        work = work_of(config)
    except NoGPU as missing:
        console.print(f"{config['name']}: not run: {missing}", soft_wrap=True)
        return {"where": here(), "not_run": {"everything": str(missing)}}
    systems = systems_of(config)
    turns: dict[str, list[Measured]] = {name: [] for name in systems}
    not_run: dict[str, str] = {}
    for number in range(config["rounds"]):
        for name, system in systems.items():
            if name in not_run:
                continue
            try:
                turns[name].append(in_a_process(system, work))
            except Exception as error:  # whatever a library says on a machine it cannot use
                if name in ("ours", "TRL"):
                    raise
                not_run[name] = first_line(error)
                console.print(f"{name}: not run: {not_run[name]}", soft_wrap=True)
                continue
            median = statistics.median(turns[name][-1].seconds)
            console.print(f"round {number + 1}/{config['rounds']}  {name:>4}  {median:.3f} s")
    medians = {name: medians_of(parts) for name, parts in turns.items() if parts}
    result = {
        "where": here(),
        "work": asdict(work),
        "medians": medians,
        "ratios": {name: ratios(numbers, medians["TRL"]) for name, numbers in medians.items() if name != "TRL"},
        "not_run": not_run,
    }
    tell(work, result, rounds=config["rounds"])
    draw(config, work, medians)
    return result


def work_of(config: Mapping[str, Any]) -> Work:
    """The work of a config; the model is made if it is one of random weights.

    Raises:
        NoGPU: if it is for one.
    """
    import torch

    given = {one.name: config[one.name] for one in fields(Work) if one.name in config}
    if given.get("device") == "cuda" and not torch.cuda.is_available():
        raise NoGPU("benchmark.device=cuda, and there is no GPU here")
    shape = config.get("shape")
    if shape is None:
        return Work(**{**given, "prompt_tokens": None})
    from lightning_r1.benchmarks.shapes import random_model

    folder = Path(config["models"], f"{shape}_{given['dtype']}")
    return Work(**{**given, "model": str(random_model(shape, folder, dtype=getattr(torch, given["dtype"])))})


def systems_of(config: Mapping[str, Any]) -> dict[str, System]:
    """Ours and TRL, and the variants that the config names."""
    systems: dict[str, System] = {"ours": partial(ours, overrides=config.get("overrides") or ()), "TRL": trl}
    for name, overrides in (config.get("ours") or {}).items():
        systems[f"ours, {name}"] = partial(ours, overrides=[*(config.get("overrides") or ()), *overrides])
    for name, options in (config.get("trl") or {}).items():
        systems[f"TRL, {name}"] = partial(trl, options=options)
    return systems


def in_a_process(system: System, work: Work) -> Measured:
    """A fresh one each time: peak memory is a process's, and nothing warms the other's caches."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(system, work).result()


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def medians_of(turns: Sequence[Measured]) -> dict[str, float]:
    """Medians over all steps of all turns; the largest peaks."""
    seconds = [value for turn in turns for value in turn.seconds]
    tokens = [value for turn in turns for value in turn.tokens]
    return {
        "seconds": statistics.median(seconds),
        "rollout_seconds": statistics.median(value for turn in turns for value in turn.rollout_seconds),
        "update_seconds": statistics.median(value for turn in turns for value in turn.update_seconds),
        "tokens_per_s": sum(tokens) / sum(seconds),
        "tokens_per_step": statistics.fmean(tokens),
        "peak_gib": max(turn.peak_gib for turn in turns),
        "above_start_gib": max(turn.above_start_gib for turn in turns),
        "update_gib": max(turn.update_gib for turn in turns),
        "need_gib": max(turn.need_gib for turn in turns),
    }


_FASTER = ("seconds", "rollout_seconds", "update_seconds")
_SHARE = ("peak_gib", "above_start_gib", "update_gib", "need_gib")


def ratios(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    """How many times faster ours is, and which share of their memory it takes."""
    return {
        **{name: theirs[name] / ours[name] for name in _FASTER if name in ours},
        "tokens_per_s": ours["tokens_per_s"] / theirs["tokens_per_s"],
        # what a tiny model needs may fit into memory that its process had already
        **{name: ours[name] / theirs[name] if theirs[name] else math.nan for name in _SHARE if name in ours},
    }


_COLUMNS = {
    "step s": ("seconds", ".3f"),
    "rollout": ("rollout_seconds", ".3f"),
    "update": ("update_seconds", ".3f"),
    "tokens/s": ("tokens_per_s", ",.0f"),
    "peak": ("peak_gib", ".2f"),
    "above": ("above_start_gib", ".2f"),
    "needs": ("need_gib", ".2f"),
}


def tell(work: Work, result: Mapping[str, Any], *, rounds: int) -> None:
    """The table, with where it was measured below it."""
    what = Path(work.model).name if work.prompt_tokens is not None else "the miniature"
    table = Table(
        title=f"one GRPO step on {what}: {work.prompts} prompts x {work.group_size}, up to {work.max_new_tokens} "
        f"tokens, {work.lengths} lengths, KL {work.kl_coef}, {work.dtype} on {work.device}; medians of {rounds} turns",
        title_justify="left",
    )
    table.add_column("")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for name, numbers in result["medians"].items():
        table.add_row(name, *(format(numbers[key], form) for key, form in _COLUMNS.values()))
    for name, against in result["ratios"].items():
        cells = (f"{against[key]:.2f}x" for key, _ in _COLUMNS.values())
        table.add_row(f"[bold]TRL / {name}[/]" if name == "ours" else f"TRL / {name}", *cells)
    for name, reason in result["not_run"].items():
        table.add_row(name, f"not run: {reason}")
    console.print(table)
    console.print(result["where"]["line"], style="dim", soft_wrap=True)
    console.print(
        "Seconds: how many times faster. Memory, in GiB: peak of the process, above the model, and what an update "
        "needs above all that stood when it began; ours as a share of theirs.",
        style="dim",
        soft_wrap=True,
    )


def draw(config: Mapping[str, Any], work: Work, medians: Mapping[str, Mapping[str, float]]) -> None:
    """Bars beside the table."""
    if not config.get("picture"):
        return
    from lightning_r1.benchmarks.plot import bars

    panels = {
        title: {name: numbers[key] for name, numbers in medians.items()}
        for title, key in (
            ("s a step", "seconds"),
            ("rollout, s", "rollout_seconds"),
            ("update, s", "update_seconds"),
            ("update, GiB above model and optimizer", "need_gib"),
        )
    }
    bars(Path(config["picture"]), panels, title=f"{Path(work.model).name}: {work.prompts} x {work.group_size}")
