"""GRPO over an engine that follows a script, and a trainer to run it: a step takes milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers.logger import Logger
from torch.utils.data import DataLoader

from helpers.engine import ScriptedEngine
from helpers.models import tiny_policy
from helpers.prompts import number_prompt
from lightning_r1.callbacks.checkpoint import AtomicCheckpointIO
from lightning_r1.data.datamodule import Ticks
from lightning_r1.data.stream import PromptStream
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.modules.algorithm import Algorithm
from lightning_r1.modules.grpo import GRPO
from lightning_r1.optim.adamw import adamw
from lightning_r1.optim.schedule import warmup_then
from lightning_r1.parallel.checkpoint_strategy import OneDeviceStrategy
from lightning_r1.rewards.base import Reward
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.train import quiet
from lightning_r1.types import Completion, Prompt, Sampling

SCRIPT = {
    "1": ["1</think><answer>1</answer><eos>", "</think><answer>2</answer><eos>", ";;"],
    "2": ["</think><answer>2</answer><eos>", "1;2</think><answer>2</answer><eos>", "3</think><answer>3</answer><eos>"],
}
"""A number is asked for itself. First question: right, wrong, cut off; second: right, right, wrong."""


def long_is_good(prompt: Prompt, completion: Completion) -> float:
    """A reward in which all completions of :data:`SCRIPT` differ from some other of their group."""
    return float(len(completion.token_ids))


def scripted_grpo(
    codec: Codec,
    script: Mapping[str, Sequence[str]] = SCRIPT,
    *,
    rewards: Mapping[str, Reward] | None = None,
    policy: Policy | None = None,
    **algorithm: Any,
) -> GRPO:
    """GRPO on a tiny model; a rollout is every question of the script, three completions each.

    Args:
        codec: template and tokenizer.
        script: completions by question, see :class:`.ScriptedEngine`.
        rewards: by name.
        policy: a tiny one by default.
        algorithm: options of :class:`.Algorithm`.
    """
    questions = [number_prompt(codec, question, int(question)) for question in script]
    defaults = {"prompts_per_rollout": len(questions), "sampling": Sampling(group_size=3, max_new_tokens=16)}
    return GRPO(
        algorithm=Algorithm(**{**defaults, **algorithm}),
        engine=ScriptedEngine(codec, script),
        rewards=RewardSuite(rewards or {"length": long_is_good}),
        stream=PromptStream(questions, seed=0),
        policy=policy or tiny_policy(),
        codec=codec,
        optimizer=partial(adamw, lr=1e-3),
        schedule=partial(warmup_then),
    )


def fit(
    module: L.LightningModule,
    *,
    steps: int,
    folder: Path,
    callbacks: Sequence[L.Callback] = (),
    loggers: Sequence[Logger] = (),
    resume: Path | None = None,
) -> L.Trainer:
    """Train for so many steps in all, under the real checkpoint writer.

    Args:
        module: a phase.
        steps: ``max_steps``.
        folder: of whatever Lightning wants to write.
        callbacks: in this order.
        loggers: of the run.
        resume: a checkpoint to go on from.
    """
    quiet()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        strategy=OneDeviceStrategy(),
        max_steps=steps,
        max_epochs=-1,
        callbacks=list(callbacks),
        logger=list(loggers),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, DataLoader(Ticks(), batch_size=None), ckpt_path=resume)
    return trainer
