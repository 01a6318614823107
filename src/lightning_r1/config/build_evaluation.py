"""From a resolved config to what an evaluation needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.fabric.strategies import DDPStrategy

from lightning_r1.config.build import build_sets, call_with, check
from lightning_r1.config.build_engine import build_engine
from lightning_r1.config.build_policy import build_policy
from lightning_r1.config.compose import CONF
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.machine import check_machine
from lightning_r1.models.codec import Codec
from lightning_r1.models.load import context_length
from lightning_r1.parallel.interruption import alone_with_ctrl_c, interruption
from lightning_r1.rollout.engine import RolloutEngine
from lightning_r1.types import Prompt, Sampling


@dataclass(frozen=True)
class EvaluationSet:
    """One set: its prompts, and how they are sampled."""

    name: str
    prompts: list[Prompt]
    sampling: Sampling


def check_evaluation(config: Mapping[str, Any]) -> None:
    """What can be known to be wrong before anything is read.

    Raises:
        ConfigError: names the key, the value and the fix.
    """
    check(config)
    if not config["eval"]["sets"]:
        sets = sorted({file.stem for file in (CONF / "eval").glob("*.yaml")} - {"default"})
        raise ConfigError(f"eval is not chosen; add eval=<one or several of: {', '.join(sets)}>")
    if config["model"]["path"] is None:
        raise ConfigError("model.path=None: random weights answer nothing; set it to a folder or hub id")
    if config["rescore"] and config["resume"] == "never":
        raise ConfigError("rescore=true: resume=never would move the stored samples aside; leave one of them out")
    if config["compare"] is not None and not Path(config["compare"], "problems").is_dir():
        raise ConfigError(
            f"compare={config['compare']}: no evaluation was finished there; give an evaluation's run folder"
        )
    for key in ("samples", "limit"):
        if config[key] is not None and config[key] < 1:
            raise ConfigError(f"{key}={config[key]}: expected >= 1, or null")
    if config["save_every"] < 1:
        raise ConfigError(f"save_every={config['save_every']}: expected >= 1 completions between two saves")


def launch(config: Mapping[str, Any]) -> torch.device:
    """Start the other ranks, or meet them, and tell this rank's device.

    Raises:
        ConfigError: if this machine has not what it takes.
    """
    check_machine(config)
    name, minutes = (config["parallel"].get(key) for key in ("strategy", "timeout_minutes"))
    strategy = DDPStrategy(timeout=timedelta(minutes=minutes)) if name == "ddp" and minutes else name
    fabric = call_with(config["trainer"], strategy=strategy)
    alone_with_ctrl_c(fabric.strategy.launcher)
    fabric.launch()
    # who leaves takes the ranks along that were started here
    interruption.children |= {process.pid for process in getattr(fabric.strategy.launcher, "procs", ())}
    return fabric.device


def build_evaluation_sets(config: Mapping[str, Any], codec: Codec) -> list[EvaluationSet]:
    """The sets of ``eval.sets``, each with its number of samples and a token limit that fits the model.

    Raises:
        ConfigError: if a set is empty or a prompt fills the model's context.
    """
    options, context = config["eval"], context_length(config["model"]["path"], config["model"].get("context"))
    sampling: Sampling = instantiate(options["sampling"])
    sets = []
    for name, prompts in build_sets(config, codec, limit=config["limit"]).items():
        if not prompts:
            raise ConfigError(f"eval.sets.{name}: there are no problems in it")
        longest = max(len(prompt.token_ids) for prompt in prompts)
        if longest >= context:
            raise ConfigError(
                f"eval.sets.{name}: a prompt has {longest} tokens, the model's context {context}; leave the set out"
            )
        samples = config["samples"] or options["samples"].get(name, sampling.group_size)
        fitting = int(min(sampling.max_new_tokens, context - longest))
        sets.append(EvaluationSet(name, prompts, replace(sampling, group_size=samples, max_new_tokens=fitting)))
    return sets


def build_sampler(config: Mapping[str, Any], device: torch.device) -> RolloutEngine:
    """The model in an engine, awake."""
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    codec, policy = build_policy(config)
    engine = build_engine(config, policy.to(device), codec)
    engine.wake()
    engine.sync_weights(0)
    return engine
