"""Rollout engines side by side: tokens a second, the share of what the machine allows, and memory.

The same weights, prompts, seeds and sampling for each; each engine in a process of its own, turn by turn, because a
shared machine drifts. With ``lengths=fixed`` every completion has exactly ``max_new_tokens`` tokens, which is what a
model with random weights needs: it never ends by itself. With ``natural`` lengths the share is of the bound for the
completions that were really written.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_r1.callbacks.console import console


@dataclass(frozen=True)
class Work:
    """What every engine does."""

    model: str
    """Folder of the model."""
    template: str = "mini"
    dtype: str = "float32"
    attention: str = "sdpa"
    prompts: int = 24
    prompt_tokens: int | None = None
    """Of random prompts; None takes the miniature's own."""
    group_size: int = 8
    max_new_tokens: int = 112
    lengths: str = "natural"
    rollouts: int = 4
    """Measured in each turn, after one to warm up."""
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """One turn of one engine; a number a rollout."""

    seconds: list[float]
    tokens: list[float]
    bound_seconds: list[float]
    bound_kind: str
    peak_gib: float
    gigabytes_per_s: float
    """That the machine reads from memory."""
    gigaflop_per_s: float
    """Of a large product."""
    device: str


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the comparison, and draw it.

    Args:
        config: ``conf/benchmark/rollout.yaml``, resolved.

    Returns:
        The work, each engine's medians, and the picture's path.
    """
    engines = {name: config["engines"].get(name, [f"rollout={name}"]) for name in config["run"]}
    with tempfile.TemporaryDirectory() as folder:
        work = _work(config, Path(folder))
        turns: dict[str, list[Measured]] = {name: [] for name in engines}
        for number in range(config["rounds"]):
            for name, overrides in engines.items():
                # a fresh process each time: peak memory is a process's, and nothing warms another's caches
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    turns[name].append(process.submit(measure, work, overrides).result())
                rate = _medians(turns[name][-1:])["tokens_per_s"]
                console.print(f"round {number + 1}/{config['rounds']}  {name:>16}  {rate:,.0f} tokens/s")
    medians = {name: _medians(parts) for name, parts in turns.items()}
    first = next(iter(turns.values()))[0]
    _tell(work, medians, first)
    return {"work": asdict(work), "device": first.device, "medians": medians, "plot": str(_draw(config, medians))}


def _work(config: Mapping[str, Any], folder: Path) -> Work:
    said = {name: config[name] for name in asdict(Work("")) if name in config}
    if config["shape"] is None:
        return Work(**said)
    import torch

    from lightning_r1.benchmarks.shapes import random_model

    return Work(**{**said, "model": str(random_model(config["shape"], folder, dtype=getattr(torch, config["dtype"])))})


def measure(work: Work, overrides: Sequence[str]) -> Measured:
    """One turn of the engine that these overrides of a training run name."""
    import torch

    from lightning_r1.benchmarks.bounds import bound, measure_machine
    from lightning_r1.callbacks.console import quiet
    from lightning_r1.config.build import call_with
    from lightning_r1.config.build_policy import build_policy
    from lightning_r1.config.compose import compose_config
    from lightning_r1.parallel.memory import peak_gib
    from lightning_r1.types import Sampling

    quiet()
    torch.set_num_threads(work.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = compose_config(
        "train",
        [
            "experiment=mini_r1_zero",
            f"template={work.template}",
            f"model.path={work.model}",
            f"model.dtype={work.dtype}",
            f"model.attention={work.attention}",
            *overrides,
        ],
    )
    codec, policy = build_policy(config)
    policy.to(device)
    prompts = _prompts(work, codec)
    if work.lengths == "fixed":
        codec.stop_ids = (-1,)  # no token ends a completion: each runs to the limit
    engine = call_with(config["rollout"], policy=policy, codec=codec)
    sampling = Sampling(group_size=work.group_size, max_new_tokens=work.max_new_tokens)
    seconds, tokens, rollouts = [], [], []
    for number in range(work.rollouts + 1):
        asked = prompts[number * work.prompts : (number + 1) * work.prompts]
        engine.wake()
        engine.sync_weights(number)
        started = time.perf_counter()
        groups = engine.generate(asked, sampling, seeds=range(number * work.prompts, (number + 1) * work.prompts))
        seconds.append(time.perf_counter() - started)
        tokens.append(float(sum(len(one.token_ids) for group in groups for one in group.completions)))
        rollouts.append(groups)
        engine.sleep()
    peak = peak_gib()
    machine = measure_machine(device, policy.model.dtype)  # behind the rollouts: its memory is not theirs
    bounds = [bound(policy.model, groups, machine) for groups in rollouts[1:]]
    return Measured(
        seconds=seconds[1:],
        tokens=tokens[1:],
        bound_seconds=[one.seconds for one in bounds],
        bound_kind=bounds[0].kind,
        peak_gib=peak,
        gigabytes_per_s=machine.bytes_per_s / 1e9,
        gigaflop_per_s=machine.flop_per_s / 1e9,
        device=torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {work.threads} thread(s)",
    )


def _prompts(work: Work, codec: Any) -> list[Any]:
    """As many as all rollouts need, the same for every engine."""
    needed = work.prompts * (work.rollouts + 1)
    if work.prompt_tokens is None:
        from lightning_r1.data.datamodule import PromptDataModule
        from lightning_r1.data.operators import operators_rows

        data = PromptDataModule(rows=operators_rows("train"))
        data.tokenise(codec)
        return [data.train[place % len(data.train)] for place in range(needed)]
    import torch

    from lightning_r1.types import Prompt

    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(len(codec.tokenizer), (needed, work.prompt_tokens), generator=draws).tolist()
    return [Prompt(f"random/{place}", "", "", tuple(of_prompt), {}) for place, of_prompt in enumerate(ids)]


def _medians(turns: Sequence[Measured]) -> dict[str, Any]:
    """Of all rollouts of all turns."""
    rates = [count / took for turn in turns for count, took in zip(turn.tokens, turn.seconds, strict=True)]
    shares = [least / took for turn in turns for least, took in zip(turn.bound_seconds, turn.seconds, strict=True)]
    return {
        "tokens_per_s": statistics.median(rates),
        "share_of_bound": statistics.median(shares),
        "bound": turns[0].bound_kind,
        "seconds": statistics.median(took for turn in turns for took in turn.seconds),
        "tokens_per_rollout": statistics.fmean(count for turn in turns for count in turn.tokens),
        "peak_gib": max(turn.peak_gib for turn in turns),
        "gigabytes_per_s": statistics.median(turn.gigabytes_per_s for turn in turns),
        "gigaflop_per_s": statistics.median(turn.gigaflop_per_s for turn in turns),
    }


def _tell(work: Work, medians: Mapping[str, Mapping[str, Any]], first: Measured) -> None:
    rows = work.prompts * work.group_size
    base = next(iter(medians.values()))
    table = Table(
        title=f"rollout: {work.prompts} prompts x {work.group_size}, up to {work.max_new_tokens} tokens, "
        f"{work.lengths} lengths, {work.dtype}, {first.device}",
        title_justify="left",
    )
    for column in ("", "tokens/s", "ratio", "tokens a completion", "of the bound", "peak GiB"):
        table.add_column(column, justify="right" if column else "left")
    for name, numbers in medians.items():
        table.add_row(
            name,
            f"{numbers['tokens_per_s']:,.0f}",
            f"{numbers['tokens_per_s'] / base['tokens_per_s']:.2f}x",
            f"{numbers['tokens_per_rollout'] / rows:.1f}",
            f"{numbers['share_of_bound']:.0%} ({numbers['bound']})",
            f"{numbers['peak_gib']:.2f}",
        )
    console.print(table)
    console.print(
        f"the bound is of {base['gigabytes_per_s']:,.1f} GB/s read and {base['gigaflop_per_s']:,.0f} GFLOP/s, measured "
        "in the same processes",
        soft_wrap=True,
    )


def _draw(config: Mapping[str, Any], medians: Mapping[str, Mapping[str, Any]]) -> Path:
    from lightning_r1.benchmarks.plot import bars

    panels = {
        "tokens a second": {name: numbers["tokens_per_s"] for name, numbers in medians.items()},
        "share of the bound, %": {name: 100 * numbers["share_of_bound"] for name, numbers in medians.items()},
        "peak memory, GiB": {name: numbers["peak_gib"] for name, numbers in medians.items()},
    }
    return bars(Path(config["plot"]), panels, title=f"rollout, {config['lengths']} lengths")
