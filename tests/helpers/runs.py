"""Small runs through the real configs: what to override, and how to compare what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightning_r1.config.compose import compose_config

TINY_MODEL = [
    "model.architecture.hidden_size=32",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.intermediate_size=64",
    "model.architecture.num_key_value_heads=4",
    "model.architecture.head_dim=8",
    "model.architecture.initializer_range=0.1",
]
QUIET = ["logger=csv", "callbacks.console.every_n_steps=1000", "callbacks.rollouts.show_at_steps=[]"]
COIN_EVAL = [
    "eval.sets.operators._target_=helpers.coin.coin_rows",
    "eval.sets.operators.split=heldout",
    "eval.sampling.max_new_tokens=12",
]


def coin_base(output: Path, *overrides: str) -> dict[str, Any]:
    """Config of a base for the coin task: about five seconds."""
    return compose_config(
        "train",
        [
            "experiment=mini_base", *TINY_MODEL, *QUIET, *COIN_EVAL, "name=coin/base", f"paths.output_dir={output}",
            "~data.corpus", "+data.corpus={_target_: helpers.coin.CoinCorpus}", "trainer.max_steps=600",
            "schedule.warmup_steps=10", "optim.lr=6e-3", "data.batch_size=32", *overrides,
        ],
    )  # fmt: skip


def coin_rl(output: Path, base: Path, *overrides: str) -> dict[str, Any]:
    """Config of RL on the coin task from a base."""
    return compose_config(
        "train",
        [
            "experiment=mini_r1_zero", *QUIET, *COIN_EVAL, "name=coin/rl", f"paths.output_dir={output}",
            f"model.path={base}", "data.rows._target_=helpers.coin.coin_rows", "+data.rows.size=400",
            "algo.sampling.max_new_tokens=12", "algo.prompts_per_rollout=8", "trainer.max_steps=120",
            "optim.lr=2e-3", "eval.every_n_steps=0", *overrides,
        ],
    )  # fmt: skip


def coin_sample(output: Path, base: Path, *overrides: str) -> dict[str, Any]:
    """Config of a sampling job on the coin task: completions of 40 problems in parts of 8."""
    return compose_config(
        "sample",
        [
            "sample=cold_start", "model=mini", "template=mini", "data=operators", "name=coin/traces",
            f"model.path={base}", f"paths.output_dir={output}", "threads=1", "trainer.accelerator=cpu",
            "data.rows._target_=helpers.coin.coin_rows", "+data.rows.size=40",
            "sample.sampling.max_new_tokens=12", "sample.prompts_a_part=8", *overrides,
        ],
    )  # fmt: skip


def coin_sft(output: Path, base: Path, traces: Path, *overrides: str) -> dict[str, Any]:
    """Config of SFT on traces of the coin task."""
    return compose_config(
        "train",
        [
            "phase=cold_start_sft", "model=mini", "template=mini", "eval=operators", *QUIET, *COIN_EVAL,
            "name=coin/sft", f"paths.output_dir={output}", f"model.path={base}", "threads=1", "trainer.accelerator=cpu",
            f"data.sources.traces.path={traces}", "data.batch_size=8", "optim.lr=2e-3", "schedule.warmup_steps=2",
            "phase.module.micro_batch_tokens=64", *overrides,
        ],
    )  # fmt: skip


def coin_evaluation(output: Path, model: Path, *overrides: str) -> dict[str, Any]:
    """Config of an evaluation on the coin task: four samples of 24 problems, in three parts."""
    return compose_config(
        "evaluate",
        [
            "eval=operators", "model=mini", "template=mini", f"model.path={model}", f"paths.output_dir={output}",
            "eval.sets.operators._target_=helpers.coin.coin_rows", "eval.sampling.max_new_tokens=12", "threads=1",
            "name=coin/evaluation", "samples=4", "limit=24", "save_every=32", "trainer.accelerator=cpu", *overrides,
        ],
    )  # fmt: skip


def coin_teach(output: Path, teacher: Path, traces: Path, *overrides: str) -> dict[str, Any]:
    """Config of a teacher's lessons on traces of the coin task, 8 traces a shard."""
    return compose_config(
        "teach",
        [
            "model@teacher=mini", f"teacher.path={teacher}", f"traces.path={traces}", "template=mini", "threads=1",
            "name=coin/lessons", f"paths.output_dir={output}", "trainer.accelerator=cpu", "teach.top_k=4",
            "teach.max_tokens=64", "teach.micro_batch_tokens=64", "teach.traces_a_shard=8", *overrides,
        ],
    )  # fmt: skip


def coin_distill(output: Path, *overrides: str, student: Path | None = None) -> dict[str, Any]:
    """Config of a distillation into a student, or into one from scratch that is smaller than the base."""
    scratch = ["model=mini_scratch", *TINY_MODEL, "model.architecture.hidden_size=24"]
    return compose_config(
        "train",
        [
            *(["model=mini", f"model.path={student}"] if student else scratch), "template=mini", *QUIET, "threads=1",
            "name=coin/student", f"paths.output_dir={output}", "trainer.accelerator=cpu", "optim.lr=1e-2",
            "schedule.warmup_steps=2", "phase.module.micro_batch_tokens=128", *overrides,
        ],
    )  # fmt: skip


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """The exported weights of a run."""
    from safetensors.torch import load_file

    return load_file(run_dir / "model" / "model.safetensors")


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of any parameter."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)
