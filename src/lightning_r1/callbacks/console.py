"""What a person sees: a bar for everything long, a line now and then, completions at chosen steps."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from lightning_r1.models.load import quiet_transformers
from lightning_r1.modules.phase import Phase
from lightning_r1.types import ScoredGroup

# one rank speaks: Lightning knows its number as soon as it is imported
console = Console(highlight=False, quiet=bool(getattr(rank_zero_only, "rank", 0)))

NODE = "LIGHTNING_R1_NODE"
"""Set in the environment of work that is a node of a pipeline."""

COLUMNS = {
    "rollout/reward_mean": ("reward", ".2f"),
    "rollout/reward/accuracy": ("accuracy", ".2f"),
    "rollout/think_length_mean": ("thinking", ".1f"),
    "rollout/truncated_fraction": ("truncated", ".2f"),
    "policy/entropy": ("entropy", ".2f"),
    "policy/kl_ref": ("kl", ".4f"),
    "distill/divergence": ("divergence", ".4f"),
    "train/loss": ("loss", ".3f"),
    "train/pair_accuracy": ("pair accuracy", ".2f"),
    "train/label_accuracy": ("label accuracy", ".2f"),
    "train/accuracy": ("token accuracy", ".3f"),
    "optim/grad_norm": ("grad", ".2f"),
    "optim/lr": ("lr", ".1e"),
}


class ConsoleProgress(L.Callback):
    """Progress of a phase on the console: live bars on a terminal, lines elsewhere.

    Args:
        every_n_steps: a line every so many steps; 0 is only after the last.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps
        self.progress: Progress | None = None
        self.tasks: dict[str, Any] = {}
        self.latest: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bars."""
        if not trainer.is_global_zero or not isinstance(pl_module, Phase):
            return
        self.started, self.first_step = time.perf_counter(), trainer.global_step
        self.total = int(trainer.max_steps)
        pl_module.report = self._report
        if console.is_terminal:
            self.progress = _bars()
            self.progress.start()
            self._report("steps", trainer.global_step, self.total)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; print a line when it is due."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Phase)
        self.latest |= pl_module.latest
        step = trainer.global_step
        self._report("steps", step, self.total)
        if step == self.total or (self.every_n_steps and step % self.every_n_steps == 0):
            rate = (step - self.first_step) / (time.perf_counter() - self.started)
            line = f"step {step:>5}/{self.total}  {self._numbers()}  {rate:.2f} steps/s"
            console.print(Text(line, style="dim"), soft_wrap=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the bars, after the last evaluation."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the bars: the error's message should stand alone."""
        self._close()

    def _close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress, self.tasks = None, {}

    def _numbers(self) -> str:
        return "  ".join(
            f"{label} {self.latest[name]:{form}}" for name, (label, form) in COLUMNS.items() if name in self.latest
        )

    def _report(self, what: str, done: int, total: int) -> None:
        if self.progress is None:
            return
        if what not in self.tasks:
            self.tasks[what] = self.progress.add_task(what, total=total, note="")
        note = self._numbers() if what == "steps" else ""
        self.progress.update(self.tasks[what], completed=done, total=total, note=note)


_BAR, _LEAST_NOTE, _BESIDE_NOTE = 24, 12, 60


def _bars() -> Progress:
    # of what does not fit in a line, the note becomes shorter: rich would shrink what it is about to nothing
    note = Column(no_wrap=True, overflow="ellipsis", max_width=max(_LEAST_NOTE, console.width - _BESIDE_NOTE))
    return Progress(
        TextColumn("{task.description:>8}"),
        BarColumn(bar_width=_BAR),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", table_column=note),
        console=console,
        transient=True,
    )


@contextmanager
def told_progress(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A live bar on a terminal, a line each time elsewhere; the function it gives is told how many are done."""
    if not console.is_terminal:
        yield lambda done: console.print(f"{what}: {done} of {total} {unit}", style="dim", soft_wrap=True)
        return
    with _bars() as bars:
        task = bars.add_task(what, total=total, note=unit)
        yield lambda done: bars.update(task, completed=done)


def show_completions(scored: Sequence[ScoredGroup], *, step: int, count: int = 3) -> None:
    """Print a few completions of a rollout with what each reward gave.

    Args:
        scored: groups of one rollout.
        step: of the policy that wrote them.
        count: how many; from different groups.
    """
    table = Table(title=f"completions at step {step}", title_justify="left", show_lines=True)
    table.add_column("prompt", overflow="fold", max_width=40)
    table.add_column("completion", overflow="fold", ratio=1)
    table.add_column("rewards", no_wrap=True)
    for group in scored[:count]:
        completion = group.group.completions[0]
        rewards = "\n".join(
            f"{name} {scores[0].value:.2f}" + ("" if scores[0].outcome.counts else f" ({scores[0].outcome})")
            for name, scores in group.breakdown.items()
        )
        table.add_row(Text(group.group.prompt.question), Text(completion.text), Text(rewards))
    console.print(table)


def show_end(title: str, rows: Iterable[tuple[str, str]], then: Sequence[str] = ()) -> None:
    """Print what a person wants to know when work has ended: a few lines, whose paths and commands can be copied.

    A node of a pipeline has but the first: the pipeline has an end of its own.

    Args:
        title: what is done.
        rows: a word, and what was reached or where it is.
        then: commands that may come next.
    """
    console.print(Text(title, style="bold"), soft_wrap=True)
    if os.environ.get(NODE):
        return
    told = [*rows, *(("next" if place == 0 else "", one) for place, one in enumerate(then))]
    for word, what in told:
        console.print(Text.assemble((f"  {word:<12}", "dim"), what), soft_wrap=True)


def quiet() -> None:
    """Libraries speak when something is wrong."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet_transformers()
    for expected in (
        ".*does not have many workers.*",  # ticks need none
        ".*module.* in eval mode at the start of training.*",  # the reference
        ".*`srun` command is available on your system.*",  # who is on a cluster may well want to stay on one machine
        ".*isinstance.treespec, LeafSpec.*",  # between Lightning and torch
    ):
        warnings.filterwarnings("ignore", message=expected)
