"""From a resolved config to what a sampling job needs."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from lightning_r1.config.build import check, check_context
from lightning_r1.config.build_engine import build_engine
from lightning_r1.config.build_policy import build_policy
from lightning_r1.config.build_rewards import build_reward, build_rewards
from lightning_r1.config.errors import ConfigError
from lightning_r1.experience.labelling import Labelling
from lightning_r1.experience.rewriting import INSTRUCTION, Rewriter
from lightning_r1.experience.selection import Selection
from lightning_r1.models.codec import Codec
from lightning_r1.models.export import read_card
from lightning_r1.models.identity import weights_hash
from lightning_r1.models.load import context_length
from lightning_r1.remote.chat import ChatClient
from lightning_r1.rewards.base import Reward, attribute
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import RolloutEngine, close
from lightning_r1.text.filters import TraceFilter
from lightning_r1.types import Prompt, Sampling


@dataclass(frozen=True)
class SamplingJob:
    """Everything that a sampling job needs."""

    codec: Codec
    engine: RolloutEngine
    rewards: RewardSuite
    selection: Selection
    rewriter: Rewriter | None
    prompts: list[Prompt]
    """In the order in which they are sampled."""
    sampling: Sampling
    provenance: dict[str, Any]
    """Facts that every trace is given."""

    def start(self) -> None:
        """The rewards prove themselves."""
        self.rewards.start()

    def close(self) -> None:
        """Give back what runs the rewards and the engine."""
        self.rewards.close()
        close(self.engine)


@dataclass(frozen=True)
class LabellingJob:
    """Everything that a job needs which has pairs labelled."""

    codec: Codec
    engine: RolloutEngine
    labelling: Labelling
    prompts: list[Prompt]
    """In the order in which they are sampled."""
    sampling: Sampling
    provenance: dict[str, Any]
    """Facts about the model."""

    def start(self) -> None:
        """The judge proves itself.

        Raises:
            ConfigError: if it is away, or fails its canaries.
        """
        try:
            self.labelling.judge.start()
        except RuntimeError as error:
            raise ConfigError(f"sample.pairs.judge: {error}") from error

    def close(self) -> None:
        """Give back what runs the engine."""
        close(self.engine)


def check_sampling(config: Mapping[str, Any]) -> None:
    """What can be known to be wrong before anything is read.

    Raises:
        ConfigError: names the key, the value and the fix.
    """
    check(config)
    options = config["sample"]
    if config["model"]["path"] is None:
        raise ConfigError("model.path=None: random weights answer nothing; set it to a folder or hub id")
    for key in ("max_per_prompt", "prompts_a_part"):
        if options.get(key, 1) < 1:
            raise ConfigError(f"sample.{key}={options[key]}: expected >= 1")
    for key in ("max_total", "max_prompts"):
        if options[key] is not None and options[key] < 1:
            raise ConfigError(f"sample.{key}={options[key]}: expected >= 1, or null for no limit")
    sampling = options["sampling"]
    if sampling["temperature"] == 0 and sampling["group_size"] > 1:
        raise ConfigError(
            f"sample.sampling.group_size={sampling['group_size']}: at temperature 0 all completions of a prompt are "
            "the same; set it to 1, or raise sample.sampling.temperature"
        )
    (_check_pairs if "pairs" in options else _check_traces)(config, options)


def _check_traces(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    unknown = set(options["require"]) - set(config["reward"]["rewards"])
    if unknown:
        raise ConfigError(
            f"sample.require.{min(unknown)}: there is no such reward; the rewards are "
            f"{', '.join(config['reward']['rewards'])}"
        )
    for key, node in (("judge", options["judge"]), *((f"faults.{k}", v) for k, v in options["faults"].items())):
        if node is not None and "_target_" not in node:
            raise ConfigError(f"sample.{key}: it names no function; add _target_: <dotted path>")


def _check_pairs(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    if options["sampling"]["group_size"] < 2:
        raise ConfigError(
            f"sample.sampling.group_size={options['sampling']['group_size']}: a pair needs two completions of a "
            "prompt; set it to 2 or more"
        )
    for key in ("judge", "rewrite"):
        if options.get(key):
            raise ConfigError(f"sample/{key}: it is for traces, and sample=label_pairs makes none; leave it out")


def build_sampling(config: Mapping[str, Any], device: torch.device) -> SamplingJob | LabellingJob:
    """Build a job from a checked config.

    Raises:
        ConfigError: for what only shows when files are read.
    """
    options = config["sample"]
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    sampling: Sampling = instantiate(options["sampling"])
    codec, policy = build_policy(config)
    data = instantiate(config["data"], _convert_="all")
    data.tokenise(codec)
    context = context_length(config["model"]["path"], config["model"].get("context"))
    check_context(context, data.longest, sampling, key="sample.sampling", fix="data.max_prompt_tokens")
    engine = build_engine(config, policy.to(device), codec)
    prompts = _in_order(data.train, config["seed"])[: options["max_prompts"]]
    facts = _provenance(config, sampling, weights_hash(policy.model))
    if "pairs" in options:
        return LabellingJob(codec, engine, _labelling(options["pairs"]), prompts, sampling, facts)
    rewards = build_rewards(config, codec)
    rewards.expect(data.train)
    rewards.to(device)
    selection = Selection(
        filter=TraceFilter(codec.template.tags, instantiate(options["faults"], _convert_="all")),
        require=options["require"],
        max_per_prompt=options["max_per_prompt"],
        judge=_judge(options["judge"], codec, device) if options["judge"] else None,
    )
    return SamplingJob(
        codec=codec,
        engine=engine,
        rewards=rewards,
        selection=selection,
        rewriter=_rewriter(options["rewrite"], Path(config["paths"]["run_dir"]), rewards, selection, codec),
        prompts=prompts,
        sampling=sampling,
        provenance=facts,
    )


def _labelling(options: Mapping[str, Any]) -> Labelling:
    try:
        return Labelling(**{**options, "judge": instantiate(options["judge"], _convert_="all")})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sample.pairs: {error}") from error


def _judge(node: Mapping[str, Any], codec: Codec, device: torch.device) -> Reward:
    """Decides where no rule does; it proves itself before the job begins.

    Raises:
        ConfigError: if it is away, or fails its canaries.
    """
    judge = build_reward(node, "sample.judge", codec)
    if move := attribute(judge, "to"):
        move(device)
    if start := attribute(judge, "start"):
        try:
            start()
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"sample.judge: {error}") from error
    return judge


def _rewriter(options: Mapping[str, Any] | None, run_dir: Path, *parts: Any) -> Rewriter | None:
    if options is None:
        return None
    client: ChatClient = instantiate(options["client"], cache=str(run_dir / "rewritten"))
    return Rewriter(client, *parts, instruction=options["instruction"] or INSTRUCTION)


def _in_order(prompts: list[Prompt], seed: int) -> list[Prompt]:
    """Shuffled: a job that ends with enough traces has taken them from everywhere."""
    order = list(prompts)
    random.Random(f"{seed}/sample").shuffle(order)
    return order


def _provenance(config: Mapping[str, Any], sampling: Sampling, weights: str) -> dict[str, Any]:
    card, options = read_card(config["model"]["path"]), config["sample"]
    return {
        "model": str(config["model"]["path"]),
        "weights": weights,
        "phase": card.get("phase"),
        "step": card.get("steps"),
        "sampling": sampling.plain(),
        "seed": config["seed"],
        "filters": [*options.get("require", ()), *options.get("faults", ())],
        "rewritten_by": None,
    }
