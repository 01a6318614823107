"""The systems of a step benchmark, each to be run in a process of its own: ours, and TRL's GRPOTrainer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_r1.benchmarks.meter import Meter
from lightning_r1.benchmarks.step_work import Work, lucky


@dataclass(frozen=True)
class Measured:
    """One turn of one system."""

    seconds: list[float]
    """Of each step."""
    rollout_seconds: list[float]
    update_seconds: list[float]
    tokens: list[float]
    """Completion tokens of each step."""
    peak_gib: float
    """Peak memory: resident of the process, or of the GPU."""
    above_start_gib: float
    """Of that, what came after the model was loaded."""
    update_gib: float
    """As ``above_start_gib``, outside the rollout: activations, gradients, the optimizer's state."""
    need_gib: float
    """Of that, what was not there when the update began: without the optimizer's state."""


def ours(work: Work, overrides: Sequence[str] = ()) -> Measured:
    """Steps of :class:`lightning_r1.modules.grpo.GRPO`, as a recipe runs them."""
    import lightning as L

    from lightning_r1.callbacks.console import quiet
    from lightning_r1.config.build import build, check
    from lightning_r1.config.compose import compose_config
    from lightning_r1.modules.rollout_phase import RolloutPhase

    meter, tokens = Meter(work.device), []

    class Clock(L.Callback):
        def on_train_batch_start(self, *arguments: Any) -> None:
            meter.step_begins()

        def on_train_batch_end(self, trainer: Any, module: Any, *arguments: Any) -> None:
            meter.step_ends()
            groups = module.last_rollout.scored
            tokens.append(float(sum(len(one.token_ids) for group in groups for one in group.group.completions)))

    quiet()
    with tempfile.TemporaryDirectory() as folder:
        config = compose_config("train", [*our_overrides(work), *overrides, f"paths.output_dir={folder}"])
        check(config)
        run = build(config)
        try:
            if work.lengths == "fixed":
                run.codec.stop_ids = (-1,)  # no token ends a completion: each runs to the limit
            run.start()
            run.trainer.callbacks = [Clock()]  # type: ignore[attr-defined]  # set by Lightning's connector
            assert isinstance(run.module, RolloutPhase)
            run.module.rollout = meter.around_rollout(run.module.rollout)  # type: ignore[method-assign]
            meter.begin()
            run.trainer.fit(run.module, run.datamodule)
        finally:
            run.close()
    return _measured(meter, tokens)


def our_overrides(work: Work) -> list[str]:
    """The config of a run of this work."""
    said = [
        "experiment=mini_r1_zero",
        "logger=csv",
        "name=benchmark",
        "eval=default",
        "callbacks.rollouts.every=0",
        f"model.path={work.model}",
        f"model.dtype={work.dtype}",
        f"threads={'null' if work.threads is None else work.threads}",
        f"trainer.max_steps={work.steps + 1}",
        f"trainer.accelerator={'gpu' if work.device == 'cuda' else 'cpu'}",
        f"trainer.precision={'bf16-true' if work.dtype == 'bfloat16' else '32-true'}",
        f"algo.prompts_per_rollout={work.prompts}",
        f"algo.sampling.group_size={work.group_size}",
        f"algo.sampling.max_new_tokens={work.max_new_tokens}",
        f"algo.kl_coef={work.kl_coef}",
        "algo.dead_groups=keep",
        "optim.lr=1e-6",
        "schedule=constant",
        "schedule.warmup_steps=0",
    ]
    if work.prompt_tokens is not None:
        said += [
            f"data.max_prompt_tokens={work.prompt_tokens}",
            "~data.rows",
            f"+data.rows={{_target_: lightning_r1.benchmarks.step_work.random_rows, tokens: {work.prompt_tokens}}}",
            "~reward.rewards",
            "+reward.rewards={luck: {_target_: lightning_r1.benchmarks.step_work.luck}}",
            "~reward.weights",
            "+reward.weights={luck: 1.0}",
            f"phase.module.micro_batch_tokens={work.tokens_per_forward}",
        ]
    return said


def trl(work: Work, options: Mapping[str, Any] | None = None) -> Measured:
    """Steps of TRL's ``GRPOTrainer``; by default with transformers' ``generate``.

    Args:
        work: to do.
        options: more fields of its ``GRPOConfig``.
    """
    from transformers import TrainerCallback

    meter, tokens = Meter(work.device), list[float]()

    class Clock(TrainerCallback):
        def on_step_begin(self, *arguments: Any, **options: Any) -> None:
            meter.step_begins()

        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            meter.step_ends()

    with tempfile.TemporaryDirectory() as folder:
        trainer, _ = their_trainer(work, folder, our_overrides(work), options or {}, Clock(), tokens)
        trainer._prepare_inputs = meter.around_rollout(trainer._prepare_inputs)
        meter.begin()
        trainer.train()
    return _measured(meter, tokens)


def their_trainer(
    work: Work, folder: str, overrides: Sequence[str], options: Mapping[str, Any], callback: Any, tokens: list[float]
) -> tuple[Any, Any]:
    """TRL's trainer on our model, prompts and rewards, and our codec.

    Args:
        work: to do.
        folder: for what it writes.
        overrides: of the run of ours that it stands beside.
        options: more fields of its ``GRPOConfig``.
        callback: of transformers' kind.
        tokens: gets the completion tokens of every rollout.
    """
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    from lightning_r1.callbacks.console import quiet
    from lightning_r1.config.build_policy import build_policy
    from lightning_r1.config.compose import compose_config
    from lightning_r1.types import Prompt

    quiet()
    if work.threads is not None:
        torch.set_num_threads(work.threads)
    config = compose_config("train", overrides)
    codec, policy = build_policy(config)
    prompts: dict[str, Prompt] = {prompt.text: prompt for prompt in _prompts(config, codec)}
    graded = _graders(work, codec)

    def rules(completions: list[str], completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        tokens.append(float(sum(map(len, completion_ids))))
        return [
            graded(prompts[text], completion, ids)
            for text, completion, ids in zip(columns["prompts"], completions, completion_ids, strict=True)
        ]

    trainer = GRPOTrainer(
        model=policy.model,
        processing_class=codec.tokenizer,
        reward_funcs=rules,
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
        callbacks=[callback],
        args=GRPOConfig(output_dir=folder, **{**_their_options(work), **options}),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, codec


def _their_options(work: Work) -> dict[str, Any]:
    rows = work.prompts * work.group_size
    at_once = min(rows, work.rows_per_forward)
    return {
        "use_cpu": work.device == "cpu",
        "bf16": work.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "log_level": "error",
        "max_steps": work.steps + 1,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": rows // at_once,
        "num_generations": work.group_size,
        "max_completion_length": work.max_new_tokens,
        "temperature": 1.0,
        "beta": work.kl_coef,
        "loss_type": "dapo",
        "scale_rewards": "none",
        "generation_kwargs": {"min_new_tokens": work.max_new_tokens} if work.lengths == "fixed" else None,
    }


def _prompts(config: Mapping[str, Any], codec: Any) -> list[Any]:
    """Those that ours draws from."""
    from lightning_r1.config.build import call_with

    data = call_with(config["data"])
    data.tokenise(codec)
    return list(data.train)


def _graders(work: Work, codec: Any) -> Any:
    """The reward of a completion, as ours gives it."""
    from lightning_r1.rewards.accuracy import Accuracy
    from lightning_r1.rewards.format import Format
    from lightning_r1.types import Completion

    if work.prompt_tokens is not None:
        return lambda prompt, text, ids: lucky(ids)
    rules = (Accuracy(codec.template.tags), Format(codec.template.tags))

    def graded(prompt: Any, text: str, ids: list[int]) -> float:
        read = Completion((), (), "stop", codec.template.completion_text(text))
        return sum(reward(prompt, read).value for reward in rules)

    return graded


def _measured(meter: Meter, tokens: list[float]) -> Measured:
    """Without the first step, which warms up."""
    return Measured(
        meter.seconds[1:],
        meter.rollout_seconds[1:],
        meter.update_seconds[1:],
        tokens[1:],
        meter.peak_gib,
        meter.peak_gib - meter.start_gib,
        meter.update_peak_gib - meter.start_gib,
        meter.update_need_gib,
    )
