"""Wall time until the miniature is right seven times in ten, ours and TRL's GRPOTrainer, from the same base.

Same prompts, rewards, group size, sampling, loss, learning rate and schedule. Every so many steps both are measured
on held-out problems, by the same engine and grader, while their clocks stand still; a run ends when it has reached
the target twice in a row, and the time is that of the first.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_r1.benchmarks.grpo_step_vs_trl import in_a_process
from lightning_r1.benchmarks.result import here
from lightning_r1.benchmarks.step_systems import our_overrides, their_trainer
from lightning_r1.benchmarks.step_work import Work
from lightning_r1.callbacks.console import console


@dataclass(frozen=True)
class Goal:
    """When a run is over."""

    target: float = 0.7
    """Of pass@1 on held-out problems."""
    every: int = 10
    """Steps between measurements."""
    problems: int = 128
    max_steps: int = 200
    lr: float = 5e-4
    seed: int = 0


@dataclass
class Curve:
    """What was measured of one run."""

    steps: list[int]
    seconds: list[float]
    """Of training alone."""
    passes: list[float]

    def reached(self, target: float) -> float | None:
        """Seconds until the target, or None."""
        return next((at for at, value in zip(self.seconds, self.passes, strict=True) if value >= target), None)


def benchmark(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run and print the comparison.

    Args:
        config: ``conf/benchmark/learning_vs_trl.yaml``, resolved.

    Returns:
        The curves of every seed, and the seconds to the target.
    """
    work = Work(model=config["model"], threads=config["threads"], kl_coef=0.001)
    curves: dict[str, list[Curve]] = {"ours": [], "TRL": []}
    for seed in config["seeds"]:
        goal = Goal(**{name: config[name] for name in ("target", "every", "problems", "max_steps", "lr")}, seed=seed)
        for name, learn in (("ours", ours), ("TRL", trl)):
            curve = in_a_process(partial(learn, goal=goal), work)  # type: ignore[arg-type]
            assert isinstance(curve, Curve)
            curves[name].append(curve)
            console.print(f"seed {seed}  {name:>4}  {told(curve.reached(goal.target))}")
    where = here()
    tell(config, curves, where["line"])
    draw(config, curves)
    return {
        "where": where,
        "seconds": {name: [curve.reached(config["target"]) for curve in of] for name, of in curves.items()},
        "curves": {name: [vars(curve) for curve in of] for name, of in curves.items()},
    }


class Watch:
    """Stands still while it measures.

    Args:
        policy: that learns.
        codec: of it.
        goal: when it is over.
    """

    def __init__(self, policy: Any, codec: Any, goal: Goal) -> None:
        from itertools import islice

        from lightning_r1.data.operators import operators_rows
        from lightning_r1.data.rows import as_prompts
        from lightning_r1.rewards.accuracy import Accuracy
        from lightning_r1.rollout.group import GroupEngine

        self.goal, self.curve, self.trained = goal, Curve([], [], []), 0.0
        self.engine, self.grader = GroupEngine(policy, codec), Accuracy(codec.template.tags)
        self.prompts = as_prompts(islice(operators_rows("heldout"), goal.problems), codec)

    def start(self) -> None:
        """A step begins."""
        self.started = time.perf_counter()

    def stop(self, step: int) -> bool:
        """A step has ended; whether the run is over."""
        self.trained += time.perf_counter() - self.started
        if step % self.goal.every:
            return False
        self.curve.steps.append(step)
        self.curve.seconds.append(self.trained)
        self.curve.passes.append(self.pass_at_1())
        return len(self.curve.passes) > 1 and min(self.curve.passes[-2:]) >= self.goal.target

    def pass_at_1(self) -> float:
        """Share of held-out problems whose one completion is right."""
        from lightning_r1.types import Sampling

        sampling = Sampling(group_size=1, max_new_tokens=112)
        groups = self.engine.generate(self.prompts, sampling, seeds=range(len(self.prompts)))
        return sum(self.grader(group.prompt, group.completions[0]).value for group in groups) / len(groups)


def _overrides(work: Work, goal: Goal) -> list[str]:
    return [
        *our_overrides(work),
        f"seed={goal.seed}",
        f"trainer.max_steps={goal.max_steps}",
        f"optim.lr={goal.lr}",
        "schedule=linear",
        "schedule.warmup_steps=5",
        "algo.dead_groups=drop",
    ]


def ours(work: Work, goal: Goal) -> Curve:
    """A run of ``experiment=mini_r1_zero``."""
    import lightning as L

    from lightning_r1.callbacks.console import quiet
    from lightning_r1.config.build import build, check
    from lightning_r1.config.compose import compose_config

    quiet()
    with tempfile.TemporaryDirectory() as folder:
        config = compose_config("train", [*_overrides(work, goal), f"paths.output_dir={folder}"])
        check(config)
        run = build(config)
        watch = Watch(run.module.policy, run.codec, goal)

        class Clock(L.Callback):
            def on_train_batch_start(self, *arguments: Any) -> None:
                watch.start()

            def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
                trainer.should_stop = watch.stop(trainer.global_step)

        try:
            run.start()
            run.trainer.callbacks = [Clock()]  # type: ignore[attr-defined]  # set by Lightning's connector
            run.trainer.fit(run.module, run.datamodule)
        finally:
            run.close()
    return watch.curve


def trl(work: Work, goal: Goal) -> Curve:
    """The same by TRL's ``GRPOTrainer``."""
    from transformers import TrainerCallback

    from lightning_r1.models.policy import Policy

    class Clock(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **options: Any) -> None:
            watch.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            control.should_training_stop = watch.stop(state.global_step)

    options = {
        "seed": goal.seed,
        "max_steps": goal.max_steps,
        "learning_rate": goal.lr,
        "lr_scheduler_type": "linear",
        "warmup_steps": 5,
        "adam_beta2": 0.99,
        "max_grad_norm": 1.0,
    }
    with tempfile.TemporaryDirectory() as folder:
        trainer, codec = their_trainer(work, folder, _overrides(work, goal), options, Clock(), [])
        watch = Watch(Policy(trainer.model), codec, goal)
        trainer.train()
    return watch.curve


def told(seconds: float | None) -> str:
    """In words."""
    return "not reached" if seconds is None else f"{seconds:.1f} s"


def tell(config: Mapping[str, Any], curves: Mapping[str, list[Curve]], line: str) -> None:
    """The table."""
    table = Table(
        title=f"seconds of training until pass@1 {config['target']} in the miniature, {config['threads']} thread",
        title_justify="left",
    )
    for column in ("", *(f"seed {seed}" for seed in config["seeds"])):
        table.add_column(column, justify="right" if column else "left")
    for name, of in curves.items():
        table.add_row(name, *(told(curve.reached(config["target"])) for curve in of))
    console.print(table)
    console.print(line, style="dim", soft_wrap=True)


def draw(config: Mapping[str, Any], curves: Mapping[str, list[Curve]]) -> None:
    """pass@1 over seconds, a panel a seed."""
    if not config.get("picture"):
        return
    from lightning_r1.benchmarks.plot import curves as lines

    panels = {
        f"held-out pass@1, seed {seed}": {name: (of[at].seconds, of[at].passes) for name, of in curves.items()}
        for at, seed in enumerate(config["seeds"])
    }
    lines(Path(config["picture"]), panels, title="the miniature: learning", x_label="seconds of training")
