"""The verb *train*: one phase from its config to an exported model and a summary.

Started again, a run goes on from its newest whole checkpoint, in the same folder, to the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.table import Table

from lightning_r1.callbacks.checkpoint import Saved, newest_checkpoint
from lightning_r1.callbacks.console import console, quiet
from lightning_r1.callbacks.requeue import leave_together, let_ranks_end
from lightning_r1.config.build import Run, build, check
from lightning_r1.config.card_facts import card_facts
from lightning_r1.config.folder_lock import hold
from lightning_r1.config.leaving import leave
from lightning_r1.config.machine import check_machine, check_space
from lightning_r1.config.model_card import write_model_card
from lightning_r1.config.run_folder import SUMMARY, keep_config, provenance, take_folder, write_summary
from lightning_r1.config.tracking import tell_products
from lightning_r1.models.adapter import numel, trainable_parameters
from lightning_r1.parallel.interruption import Interrupted, interruption
from lightning_r1.parallel.memory import peak_gib


def train(config: Mapping[str, Any]) -> dict[str, Any]:
    """Train one phase.

    Args:
        config: resolved; see ``conf/train.yaml``.

    Returns:
        What ``summary.json`` holds.

    Raises:
        ConfigError: before anything expensive, for a config that cannot be run or a folder that holds
            another run, or one that is being written.
        Interrupted: on every rank, if a signal or the time limit ended it before its last step. What is there is
            saved, and a Slurm job is requeued.
    """
    check(config)
    check_machine(config)
    run_dir = Path(config["paths"]["run_dir"])
    first = not getattr(rank_zero_only, "rank", 0)
    with interruption.listening(), ExitStack() as held:
        if first:
            held.enter_context(hold(run_dir))
        finished = take_folder(config) if first else _finished(config)
        if finished is not None:
            if first:
                console.print(
                    f"{config['name']} is finished already ({run_dir}); resume=never trains it anew", soft_wrap=True
                )
            return finished
        quiet()
        run = held.enter_context(closing(build(config)))
        try:
            return _fit(run)
        except Interrupted as left:
            held.close()
            leave_together(left, partial(leave, most=config["callbacks"]["requeue"]["max_restarts"]))
            let_ranks_end(run.trainer)
            raise


def _finished(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Nothing but ``{}``, as a finished run's other ranks return, where there is nothing left to do: the first rank
    leaves then as well, and would be waited for.
    """
    done = config["resume"] != "never" and (Path(config["paths"]["run_dir"]) / SUMMARY).is_file()
    return {} if done else None


def _fit(run: Run) -> dict[str, Any]:
    """Train to the end."""
    run_dir, config = run.run_dir, run.config
    check_space(run)
    run.start()
    saved = None  # rank 0 tells the others
    if not getattr(rank_zero_only, "rank", 0):
        keep_config(run_dir, config)
        saved = newest_checkpoint(run_dir / "checkpoints", tell=console.print)
    _announce(run, saved)
    for logger in run.trainer.loggers:
        if start_at := getattr(logger, "start_at", None):
            start_at(saved.step if saved else 0)
    with interruption.waiting():  # also for the export: what is made behind the last step is soon made
        run.trainer.fit(run.module, run.datamodule, ckpt_path=saved.path if saved else None)
        return _finish(run)


def _announce(run: Run, saved: Saved | None) -> None:
    policy = run.module.policy
    parameters = f"{sum(map(numel, policy.parameters())):,} parameters"
    if (trained := trainable_parameters(policy)) and run.config["model"].get("adapter"):
        parameters += f", {trained:,} of them in an adapter that trains ({run.config['model']['adapter']})"
    table = Table(show_header=False, box=None, padding=(0, 1))
    for name, fact in (
        ("run", f"{run.config['name']}, in {run.run_dir}"),
        ("phase", run.config["phase"]["name"]),
        ("model", f"{run.config['model']['name']}, {parameters}"),
        ("steps", f"{run.trainer.max_steps}" + (f", going on at {saved.step}" if saved else "")),
        ("plan", run.module.plan()),
    ):
        table.add_row(f"[dim]{name}[/]", fact)
    console.print(table)


def _finish(run: Run) -> dict[str, Any]:
    """Export the model and write the summary, if the last step was reached; nothing else is a good end.

    Raises:
        Interrupted: if it was not: something of Lightning's has stopped the trainer (``trainer.max_time``).
    """
    trainer, config = run.trainer, run.config
    steps = trainer.global_step
    if steps < int(trainer.max_steps):
        raise Interrupted(f"the trainer stopped at step {steps} of {trainer.max_steps}")
    model_dir = run.run_dir / "model"
    summary = {
        "phase": config["phase"]["name"],
        "model": config["model"]["name"],
        "steps": steps,
        "seconds": round(run.module.seconds, 2),
        "tokens": int(run.module.tokens),
        "tokens_per_second": round(run.module.tokens / max(run.module.seconds, 1e-9), 1),
        "peak_memory_gib": round(peak_gib(), 3),
        "before": run.evaluation.before if run.evaluation else {},
        "after": run.evaluation.after if run.evaluation else {},
        **provenance(),
    }
    run.module.export(model_dir, card=card_facts(config, summary) if trainer.is_global_zero else {})
    if not trainer.is_global_zero:
        return {}
    write_model_card(model_dir, base=config["model"]["path"])
    write_summary(run.run_dir, summary)
    tell_products(trainer.loggers, run.run_dir)
    return summary
