"""One GRPO step, ours and that of TRL's GRPOTrainer, on the same work.

Same weights, prompts, rewards, group size, sampling, loss and optimizer; each system in processes of its own, one
thread each, turn by turn, because a shared machine drifts. With ``lengths=fixed`` every completion has exactly
``max_new_tokens`` tokens; with ``natural`` the model ends them, and tokens a second is the fair number.
"""

from __future__ import annotations

import gc
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_r1.callbacks.console import console


@dataclass(frozen=True)
class Work:
    """What both systems do."""

    model: str
    """Folder of the model."""
    prompts: int = 24
    group_size: int = 8
    max_new_tokens: int = 112
    lengths: str = "natural"
    kl_coef: float = 0.0
    rows_per_forward: int = 192
    steps: int = 8
    """Measured in each turn, after one to warm up."""
    threads: int = 1


@dataclass(frozen=True)
class Measured:
    """One turn of one system."""

    seconds: list[float]
    """Of each step."""
    tokens: list[float]
    """Completion tokens of each step."""
    peak_gib: float
    """Peak resident memory of the process."""
    above_start_gib: float
    """Of that, what came after the model was loaded."""


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the comparison.

    Args:
        config: ``conf/benchmark/grpo_step_vs_trl.yaml``, resolved.

    Returns:
        Medians of each system, and their :func:`ratios`.
    """
    rounds = config["rounds"]
    work = Work(**{name: config[name] for name in asdict(Work("")) if name in config})
    turns: dict[str, list[Measured]] = {"ours": [], "TRL": []}
    systems: dict[str, Callable[[Work], Measured]] = {"ours": ours, "TRL": trl}
    for number in range(rounds):
        for name, measure in systems.items():
            # a fresh process each time: peak memory is a process's, and nothing warms the other's caches
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                turns[name].append(process.submit(measure, work).result())
            console.print(f"round {number + 1}/{rounds}  {name:>4}  {statistics.median(turns[name][-1].seconds):.3f} s")
    medians = {name: _medians(parts) for name, parts in turns.items()}
    return _tell(work, medians)


def _medians(turns: list[Measured]) -> dict[str, float]:
    seconds = [value for turn in turns for value in turn.seconds]
    tokens = [value for turn in turns for value in turn.tokens]
    return {
        "seconds": statistics.median(seconds),
        "tokens_per_s": sum(tokens) / sum(seconds),
        "tokens_per_completion": statistics.fmean(tokens),
        "peak_gib": max(turn.peak_gib for turn in turns),
        "above_start_gib": max(turn.above_start_gib for turn in turns),
    }


def ratios(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    """How many times faster ours is, and which share of their memory it takes."""
    return {
        "seconds": theirs["seconds"] / ours["seconds"],
        "tokens_per_s": ours["tokens_per_s"] / theirs["tokens_per_s"],
        "peak_gib": ours["peak_gib"] / theirs["peak_gib"],
        "above_start_gib": ours["above_start_gib"] / theirs["above_start_gib"],
    }


def _tell(work: Work, medians: dict[str, dict[str, float]]) -> dict[str, Any]:
    rows = work.prompts * work.group_size
    against = ratios(medians["ours"], medians["TRL"])
    table = Table(
        title=f"one GRPO step: {work.prompts} prompts x {work.group_size}, up to {work.max_new_tokens} tokens, "
        f"{work.lengths} lengths, KL {work.kl_coef}, {work.threads} thread",
        title_justify="left",
    )
    columns = ("", "s a step", "tokens/s", "tokens a completion", "peak GiB", "GiB above start")
    for column in columns:
        table.add_column(column, justify="right" if column else "left")
    for name, numbers in medians.items():
        table.add_row(
            name,
            f"{numbers['seconds']:.3f}",
            f"{numbers['tokens_per_s']:,.0f}",
            f"{numbers['tokens_per_completion'] / rows:.1f}",
            f"{numbers['peak_gib']:.2f}",
            f"{numbers['above_start_gib']:.2f}",
        )
    table.add_row(
        "[bold]ratio[/]",
        f"[bold]{against['seconds']:.2f}x faster[/]",
        f"{against['tokens_per_s']:.2f}x",
        "",
        f"{against['peak_gib']:.2f}x",
        f"{against['above_start_gib']:.2f}x",
    )
    console.print(table)
    return {"work": asdict(work), "medians": medians, "ratios": against}


def ours(work: Work) -> Measured:
    """Steps of :class:`lightning_r1.modules.grpo.GRPO`, as a recipe runs them."""
    import lightning as L
    import torch

    from lightning_r1.callbacks.console import quiet
    from lightning_r1.config.build import build, check
    from lightning_r1.config.compose import compose_config

    class Clock(L.Callback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.tokens: list[float] = []

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            self.started = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.seconds.append(time.perf_counter() - self.started)
            groups = module.last_rollout.scored
            self.tokens.append(sum(len(c.token_ids) for group in groups for c in group.group.completions))

    quiet()
    with tempfile.TemporaryDirectory() as folder:
        config = compose_config("train", [*_our_overrides(work), f"paths.output_dir={folder}"])
        check(config)
        run = build(config)
        if work.lengths == "fixed":
            run.codec.stop_ids = (-1,)  # no token ends a completion: each runs to the limit
        clock = Clock()
        run.trainer.callbacks = [clock]  # type: ignore[attr-defined]  # set by Lightning's connector
        start = _resident_gib()
        run.trainer.fit(run.module, run.datamodule)
        assert torch.get_num_threads() == work.threads
    return _measured(clock.seconds, clock.tokens, start)


def _our_overrides(work: Work) -> list[str]:
    return [
        "experiment=mini_r1_zero",
        "logger=csv",
        "name=benchmark",
        "eval=default",
        "callbacks.rollouts.every=0",
        f"model.path={work.model}",
        f"threads={work.threads}",
        f"trainer.max_steps={work.steps + 1}",
        f"algo.prompts_per_rollout={work.prompts}",
        f"algo.sampling.group_size={work.group_size}",
        f"algo.sampling.max_new_tokens={work.max_new_tokens}",
        f"algo.kl_coef={work.kl_coef}",
        "algo.dead_groups=keep",
        "optim.lr=1e-6",
        "schedule=constant",
        "schedule.warmup_steps=0",
    ]


def trl(work: Work) -> Measured:
    """Steps of TRL's ``GRPOTrainer`` with transformers' ``generate``."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from lightning_r1.callbacks.console import quiet
    from lightning_r1.config.build_policy import build_policy
    from lightning_r1.config.compose import compose_config
    from lightning_r1.data.datamodule import PromptDataModule
    from lightning_r1.data.operators import operators_rows
    from lightning_r1.rewards.accuracy import Accuracy
    from lightning_r1.rewards.format import Format
    from lightning_r1.types import Completion

    quiet()
    torch.set_num_threads(work.threads)
    codec, policy = build_policy(compose_config("train", _our_overrides(work)))
    data = PromptDataModule(rows=operators_rows("train"))
    data.tokenise(codec)
    prompts = {prompt.text: prompt for prompt in data.train}
    tokens: list[float] = []
    seconds: list[float] = []

    def rules(completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        tokens.append(sum(map(len, completion_ids)))
        values: list[float | None] = []
        for text, completion in zip(columns["prompts"], completions, strict=True):
            read = Completion((), (), "stop", codec.template.completion_text(completion))
            values.append(sum(reward(prompts[text], read).value for reward in graders))
        return values

    graders = (Accuracy(codec.template.tags), Format(codec.template.tags))

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.started)

    rows = work.prompts * work.group_size
    fixed = {"min_new_tokens": work.max_new_tokens} if work.lengths == "fixed" else None
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=policy.model,
            processing_class=codec.tokenizer,
            reward_funcs=rules,
            train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
            callbacks=[Clock()],
            args=GRPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to=[],
                save_strategy="no",
                logging_steps=1,
                disable_tqdm=True,
                log_level="error",
                max_steps=work.steps + 1,
                learning_rate=1e-6,
                lr_scheduler_type="constant",
                per_device_train_batch_size=min(rows, work.rows_per_forward),
                gradient_accumulation_steps=rows // min(rows, work.rows_per_forward),
                num_generations=work.group_size,
                max_completion_length=work.max_new_tokens,
                temperature=1.0,
                beta=work.kl_coef,
                loss_type="dapo",
                scale_rewards="none",
                generation_kwargs=fixed,
            ),
        )
        trainer.remove_callback(PrinterCallback)
        start = _resident_gib()
        trainer.train()
    return _measured(seconds, tokens, start)


def _measured(seconds: list[float], tokens: list[float], start_gib: float) -> Measured:
    """Without the first step, which warms up."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Measured(seconds[1:], tokens[1:], peak, peak - start_gib)


def _resident_gib() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30
