"""Updates by sequence length: tokens a second, utilisation and peak memory of our layouts, and of TRL.

Every system in fresh processes, turn by turn, because a shared machine drifts. Tokens a second are those of the rows,
prompts and completions, whatever a system computes of them; the utilisation (MFU) is of what has to be computed.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from lightning_r1.benchmarks.plot import curves
from lightning_r1.benchmarks.update_turn import SYSTEMS, TRL, Turn, Work, run
from lightning_r1.callbacks.console import console


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the comparison.

    Args:
        config: ``conf/benchmark/update.yaml``, resolved.

    Returns:
        Medians by length and system, ratios to TRL, and what was not run, with the reason.
    """
    check_systems(config["systems"])
    if config.get("device") == "cuda" and not torch.cuda.is_available():
        why = "benchmark.device=cuda, and there is no GPU here"
        console.print(f"{config['name']}: not run: {why}")
        return {"work": {}, "medians": {}, "ratios": {}, "not_run": {"everything": why}}
    options = {field.name: config[field.name] for field in fields(Work) if field.name in config}
    found: dict[str, dict[str, dict[str, float]]] = {}
    not_run: dict[str, str] = {}
    for completion_tokens in config["completion_tokens"]:
        work = Work(**{**options, "completion_tokens": completion_tokens})
        turns: dict[str, list[Turn]] = {system: [] for system in config["systems"]}
        for number in range(config["rounds"]):
            for system, done in turns.items():
                if (name := f"{system}, {completion_tokens} tokens") in not_run:
                    continue
                try:
                    done.append(run(work, system))
                except (torch.OutOfMemoryError, ValueError) as error:  # another system may fit, or find its kernels
                    not_run[name] = str(error).splitlines()[0]
                    console.print(f"{name}: not run: {not_run[name]}", markup=False)
                    continue
                console.print(
                    f"{completion_tokens} tokens, round {number + 1}/{config['rounds']}  {system:>14}  "
                    f"{statistics.median(done[-1].seconds):.2f} s"
                )
        found[str(completion_tokens)] = {system: numbers(work, done) for system, done in turns.items() if done}
    tell(options, found)
    picture(found, config)
    return {
        "work": options,
        "medians": found,
        "ratios": {length: against_trl(one) for length, one in found.items()},
        "not_run": not_run,
    }


def check_systems(systems: list[str]) -> None:
    """Refuse a system that is none.

    Raises:
        ValueError: names it, and those there are.
    """
    if unknown := [system for system in systems if system not in (*SYSTEMS, TRL)]:
        raise ValueError(f"benchmark.systems={unknown[0]!r}: expected of {', '.join([*SYSTEMS, TRL])}")


def numbers(work: Work, turns: list[Turn]) -> dict[str, float]:
    """Medians of a system's turns."""
    seconds = statistics.median(value for turn in turns for value in turn.seconds)
    return {
        "seconds": seconds,
        "tokens_per_s": sum(work.sequences().lengths()) / seconds,
        "mfu": turns[0].flops / seconds / statistics.median(turn.peak_flops for turn in turns),
        "peak_gib": max(turn.peak_gib for turn in turns),
        "above_start_gib": max(turn.above_start_gib for turn in turns),
        "computed_tokens": turns[0].computed_tokens,
        "loss": turns[0].loss,
        "grad_norm": turns[0].grad_norm,
    }


def against_trl(systems: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """How many times faster than TRL, and which share of its memory; empty where TRL was not run."""
    if TRL not in systems:
        return {}
    theirs = systems[TRL]
    return {
        name: {
            "faster": theirs["seconds"] / one["seconds"],
            "memory": one["peak_gib"] / theirs["peak_gib"],
            "memory_above_start": one["above_start_gib"] / theirs["above_start_gib"],
        }
        for name, one in systems.items()
        if name != TRL
    }


def tell(work: Mapping[str, Any], found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """The table."""
    table = Table(
        title=f"one update of {work['shape']}: {work['prompts']} prompt(s) x {work['group_size']}, prompts of "
        f"{work['prompt_tokens']} tokens, {work['lengths']} lengths, {work['dtype']}, {work['threads']} thread(s)",
        title_justify="left",
    )
    columns = (
        "completions",
        "",
        "s",
        "tokens/s",
        "MFU",
        "peak GiB",
        "above start",
        "x TRL",
        "of TRL's memory above start",
    )
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for length, systems in found.items():
        ratios = against_trl(systems)
        for name, one in systems.items():
            ratio = ratios.get(name)
            table.add_row(
                length, name, f"{one['seconds']:.2f}", f"{one['tokens_per_s']:,.0f}", f"{one['mfu']:.1%}",
                f"{one['peak_gib']:.2f}", f"{one['above_start_gib']:.2f}",
                f"{ratio['faster']:.2f}" if ratio else "", f"{ratio['memory_above_start']:.2f}" if ratio else "",
            )  # fmt: skip
    console.print(table)


def picture(found: Mapping[str, Mapping[str, Mapping[str, float]]], config: Mapping[str, Any]) -> None:
    """``plot.png`` beside the numbers."""
    lengths = list(map(int, found))
    panels = {
        title: {
            system: (reached, [found[str(length)][system][key] for length in reached])
            for system in config["systems"]
            if (reached := [length for length in lengths if system in found[str(length)]])
        }
        for title, key in (("tokens/s", "tokens_per_s"), ("MFU", "mfu"), ("GiB above start", "above_start_gib"))
    }
    title = f"one update of {config['shape']}, prompts of {config['prompt_tokens']} tokens"
    curves(Path(config["plot"]), panels, title=title, x_label="completion tokens")
