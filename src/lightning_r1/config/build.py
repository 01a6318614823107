"""From a resolved config to the objects of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.loggers.logger import Logger

from lightning_r1.callbacks.checkpoint import AtomicCheckpointIO, OneChoice, StepCheckpoints
from lightning_r1.callbacks.console import ConsoleProgress
from lightning_r1.callbacks.csv_log import MetricsCSV
from lightning_r1.callbacks.evaluation import Evaluation, HeldOutEvaluation
from lightning_r1.callbacks.requeue import KeepsHandlers, Requeue
from lightning_r1.callbacks.rollouts import RolloutRecorder
from lightning_r1.callbacks.watchdog import Watchdog
from lightning_r1.config.build_engine import build_engine
from lightning_r1.config.build_graders import build_grader
from lightning_r1.config.build_policy import build_codec, build_policy, build_teacher
from lightning_r1.config.build_reward_model import build_example_evaluation, build_reward_model
from lightning_r1.config.build_rewards import build_rewards, build_scorer
from lightning_r1.config.build_strategy import build_strategy, is_sharded
from lightning_r1.config.checks import check_rules
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.schema import check_signatures
from lightning_r1.config.tracking import build_run_logger
from lightning_r1.data.rows import as_prompts
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.models.reward_model import RewardModel
from lightning_r1.modules.phase import Phase
from lightning_r1.parallel.interruption import alone_with_ctrl_c
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import RolloutEngine, close
from lightning_r1.types import Prompt, Sampling


@dataclass(frozen=True)
class Run:
    """Everything a training run needs."""

    config: Mapping[str, Any]
    run_dir: Path
    codec: Codec
    module: Phase
    datamodule: L.LightningDataModule
    trainer: L.Trainer
    evaluation: Evaluation | None
    suites: Sequence[RewardSuite] = ()
    """Rewards and graders; their workers live until :meth:`close`."""

    def start(self) -> None:
        """Wait until every reward can be asked.

        Raises:
            RewardError: if one cannot; names it.
        """
        for suite in self.suites:
            suite.start()

    def close(self) -> None:
        """Let go of what the phase does in the background, of the rewards' processes, of the engine's, and of loggers.

        Called while an error is handled, it is the run's end that they are told of.
        """
        for logger in self.trainer.loggers:
            if end := getattr(logger, "end", None):
                end(sys.exc_info()[1])
        self.module.close()
        for suite in self.suites:
            suite.close()
        engines: list[Any] = [getattr(holder, "engine", None) for holder in (self.module, self.evaluation)]
        for engine in engines:
            if engine is not None:
                close(engine)


def check(config: Mapping[str, Any]) -> None:
    """Everything that can be known to be wrong before anything is built.

    Raises:
        ConfigError: names the key, the value and the fix.
    """
    check_signatures(config)
    check_rules(config)


def build(config: Mapping[str, Any]) -> Run:
    """Build a run from a checked, resolved config. It has to be closed.

    Raises:
        ConfigError: for what only shows when files are read.
    """
    with ExitStack() as started:
        run = _build(config, started)
        started.pop_all()
    return run


def _build(config: Mapping[str, Any], started: ExitStack) -> Run:
    run_dir = Path(config["paths"]["run_dir"])
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.manual_seed(config["seed"])
    datamodule = instantiate(config["data"], _convert_="all")
    module: Phase
    evaluation: Evaluation | None
    suites: list[RewardSuite] = []
    if config["phase"]["kind"] == "reward_model":
        codec = build_codec(config)
        parts = _parts(config, build_reward_model(config, codec), codec)
        module = call_with(config["phase"]["module"], data=datamodule, **parts)
        evaluation = build_example_evaluation(config, datamodule)
    else:
        codec, policy = build_policy(config, hollow=is_sharded(config))
        scorer = build_scorer(config)
        started.callback(scorer.close)
        engine = build_engine(config, policy, codec)
        started.callback(close, engine)
        tokenise(config, datamodule, codec)
        if config["phase"]["kind"] in ("rl", "distill"):
            suites.append(build_rewards(config, codec, scorer))
        module = build_module(config, policy, codec, engine, datamodule, *suites)
        sets = build_sets(config, codec)
        if sets:
            suites.append(build_grader(config, codec, sets, scorer))
        evaluation = _evaluation(config, policy, engine, run_dir, sets, suites[-1]) if sets else None
    callbacks: list[L.Callback] = [
        ConsoleProgress(**config["callbacks"]["console"]),  # before the evaluation, which reports to it
        *([evaluation] if evaluation else []),
        RolloutRecorder(run_dir / "rollouts", **config["callbacks"]["rollouts"]),
        Watchdog(instantiate(config["callbacks"]["watchdog"], _convert_="all")),
        Requeue(**config["callbacks"]["requeue"]),  # behind all that belongs to a step
        StepCheckpoints(run_dir / "checkpoints", **config["callbacks"]["checkpoint"]),
    ]
    trainer = _trainer(config, callbacks, _loggers(config, run_dir), max_steps=count_steps(config, datamodule))
    return Run(config, run_dir, codec, module, datamodule, trainer, evaluation, suites)


def tokenise(config: Mapping[str, Any], datamodule: Any, codec: Codec) -> None:
    """Make the prompts or traces of a phase, once; raw text is cut when it is learned."""
    if config["phase"]["kind"] != "text":
        datamodule.tokenise(codec)


def build_module(
    config: Mapping[str, Any],
    policy: Policy,
    codec: Codec,
    engine: RolloutEngine,
    datamodule: Any,
    rewards: RewardSuite | None = None,
) -> Phase:
    """The phase's LightningModule.

    Args:
        config: resolved.
        policy: if it is hollow, the teacher is as well.
        codec: template and tokenizer.
        engine: samples from the policy.
        datamodule: tokenised.
        rewards: built already; else they are built here.

    Raises:
        ConfigError: if prompts, completions or traces do not fit the model's context.
    """
    parts = _parts(config, policy, codec)
    if config["phase"]["kind"] == "text":
        return call_with(config["phase"]["module"], data=datamodule, **parts)
    if config["phase"]["kind"] == "sft":
        _traces_fit_context(policy, datamodule.longest)
        return call_with(config["phase"]["module"], data=datamodule, **parts)
    if config["phase"]["kind"] == "distill":
        parts["teacher"] = build_teacher(config, codec, hollow=policy.model.device.type == "meta")
    algorithm = instantiate(config["algo"])
    check_context(
        _context(policy), datamodule.longest, algorithm.sampling, key="algo.sampling", fix="data.max_prompt_tokens"
    )
    rewards = rewards or build_rewards(config, codec)
    rewards.expect([*datamodule.train, *datamodule.general])
    return call_with(
        config["phase"]["module"],
        algorithm=algorithm,
        engine=engine,
        rewards=rewards,
        stream=datamodule.stream(config["seed"], max_steps=count_steps(config, datamodule)),
        **parts,
    )


def _parts(config: Mapping[str, Any], policy: Policy | RewardModel, codec: Codec) -> dict[str, Any]:
    """What every phase takes."""
    return {
        "policy": policy,
        "codec": codec,
        "optimizer": instantiate(config["optim"], _convert_="all"),
        "schedule": instantiate(config["schedule"]),
        "seed": config["seed"],
    }


def count_steps(config: Mapping[str, Any], datamodule: Any) -> int:
    """Optimizer steps: ``trainer.max_steps``, or as many as ``data.epochs`` take if that is fewer or said by -1."""
    said, of_epochs = config["trainer"]["max_steps"], getattr(datamodule, "steps", None)
    return min(steps for steps in (said, of_epochs) if steps not in (-1, None))


def _context(policy: Policy) -> int | None:
    return getattr(policy.model.config.get_text_config(decoder=True), "max_position_embeddings", None)


def _traces_fit_context(policy: Policy, longest: int) -> None:
    context = _context(policy)
    if context and longest > context:
        raise ConfigError(
            f"data.max_tokens: the longest trace has {longest} tokens, the model's context {context}; set "
            f"data.max_tokens={context} to leave the longer ones out"
        )


def check_context(context: float | None, longest: int, sampling: Sampling, *, key: str, fix: str) -> None:
    """Refuse completions that would not fit behind the longest prompt.

    Raises:
        ConfigError: names the key, the value and the fix.
    """
    if context and longest + sampling.max_new_tokens > context:
        raise ConfigError(
            f"{key}.max_new_tokens={sampling.max_new_tokens}: with prompts of up to {longest} tokens it exceeds the "
            f"model's context of {context}; lower it or {fix}"
        )


def build_sets(config: Mapping[str, Any], codec: Codec, *, limit: int | None = None) -> dict[str, list[Prompt]]:
    """The prompts of every set in ``eval.sets``; of each the first ``limit``, if said."""
    sets = {name: instantiate(node, _convert_="all") for name, node in (config["eval"]["sets"] or {}).items()}
    return {name: as_prompts(islice(rows, limit), codec) for name, rows in sets.items()}


def _evaluation(
    config: Mapping[str, Any],
    policy: Policy,
    engine: RolloutEngine,
    run_dir: Path,
    sets: Mapping[str, Sequence[Prompt]],
    grader: RewardSuite,
) -> HeldOutEvaluation:
    options = config["eval"]
    sampling = instantiate(options["sampling"])
    for name, prompts in sets.items():
        longest = max((len(prompt.token_ids) for prompt in prompts), default=0)
        fix = f"leave the longest out of eval.sets.{name}"
        check_context(_context(policy), longest, sampling, key="eval.sampling", fix=fix)
    return HeldOutEvaluation(
        engine,
        grader,
        sets,
        sampling=sampling,
        every_n_steps=options["every_n_steps"],
        seed=options["seed"],
        ks=options["ks"],
        folder=run_dir / "evaluations",
        table_rows=config["callbacks"]["rollouts"]["table_rows"],
    )


def _loggers(config: Mapping[str, Any], run_dir: Path) -> list[Logger]:
    loggers: list[Logger] = [MetricsCSV(run_dir / "metrics.csv")]
    if (logger := build_run_logger(config)) is not None:
        loggers.append(logger)
    return loggers


def _trainer(
    config: Mapping[str, Any], callbacks: list[L.Callback], loggers: list[Logger], *, max_steps: int
) -> L.Trainer:
    trainer = call_with(
        config["trainer"],
        max_steps=max_steps,
        strategy=build_strategy(config),
        callbacks=callbacks,
        logger=loggers,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=config["paths"]["run_dir"],
        max_epochs=-1,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    alone_with_ctrl_c(trainer.strategy.launcher)
    trainer._signal_connector, trainer._checkpoint_connector = KeepsHandlers(trainer), OneChoice(trainer)
    return trainer


def call_with(node: Mapping[str, Any], **objects: Any) -> Any:
    """Instantiate a node with objects of ours besides; Hydra itself would turn dataclasses into configs."""
    return instantiate(node, _partial_=True, _convert_="all")(**objects)
