"""Rules between fields: one small function each, named after the rule; its message is the fix.

All run on the resolved config before anything expensive. A rule reads with :func:`get`, which gives
None for what a phase does not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lightning_r1.config.adapter_rules import ADAPTER_RULES
from lightning_r1.config.engine_rules import ENGINE_RULES
from lightning_r1.config.environment_rules import ENVIRONMENT_RULES
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.leaving import command
from lightning_r1.config.logger_rules import LOGGER_RULES
from lightning_r1.config.optimizer_rules import OPTIMIZER_RULES
from lightning_r1.config.parallel_rules import PARALLEL_RULES
from lightning_r1.config.plain_rules import PLAIN_RULES
from lightning_r1.config.reading import Config, get
from lightning_r1.config.reward_rules import REWARD_RULES
from lightning_r1.config.rollout_rules import ROLLOUT_RULES
from lightning_r1.functional.divergence import check_divergence

RULES: list[Callable[[Config], None]] = [*PLAIN_RULES]


def rule(check: Callable[[Config], None]) -> Callable[[Config], None]:
    """Register a rule."""
    RULES.append(check)
    return check


def check_rules(config: Config) -> None:
    """Run every rule.

    Raises:
        ConfigError: from the first that is broken.
    """
    for check in RULES:
        check(config)


def _is_rl(config: Config) -> bool:
    return get(config, "phase.kind") == "rl"


def _rolls_out(config: Config) -> bool:
    """Whether the policy learns from its own completions."""
    return get(config, "phase.kind") in ("rl", "distill")


@rule
def name_is_a_folder_name(config: Config) -> None:
    """The name becomes a folder under the output folder."""
    name = get(config, "name")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or ".." in name:
        raise ConfigError(f"name={name!r}: use letters, digits, '_', '-', '.' and '/' only, e.g. name=my_run")


@rule
def model_is_a_path_or_an_architecture(config: Config) -> None:
    """A model is loaded from somewhere or built from scratch."""
    for name in [name for name in ("model", "teacher") if get(config, name) is not None] or ["model"]:
        path, architecture = get(config, f"{name}.path"), get(config, f"{name}.architecture")
        if (path is None) == (architecture is None):
            raise ConfigError(
                f"{name}.path={path}: set {name}.path to a folder or hub id, or choose a model with an architecture "
                "(model=mini_scratch), not both"
            )


@rule
def layers_are_computed_again_or_compiled(config: Config) -> None:
    """What is computed again in the backward must be what ran in the forward."""
    kind, compiled = get(config, "model.activation_checkpointing"), get(config, "model.compile")
    if kind not in (None, False, True, "offload"):
        raise ConfigError(f"model.activation_checkpointing={kind!r}: expected false, true or offload")
    if kind and compiled:
        raise ConfigError("model.compile=true: not beside activation checkpointing; set one of the two to false")


@rule
def a_teacher_has_learned(config: Config) -> None:
    """Random weights teach nothing."""
    if get(config, "teacher.architecture") is not None:
        raise ConfigError("teacher.architecture: random weights teach nothing; set teacher.path to a trained model")


@rule
def model_path_exists(config: Config) -> None:
    """A path that can only be a folder is one."""
    for name in ("model", "teacher"):
        path = get(config, f"{name}.path")
        if path is None or _is_model(path):
            continue
        raise ConfigError(f"{name}.path={path}: {_no_model(path, get(config, f'{name}.made_by'))}")


@rule
def reward_models_exist(config: Config) -> None:
    """A reward that is a model has one."""
    for name, reward in (get(config, "reward.rewards") or {}).items():
        path = reward.get("path")
        if str(reward.get("_target_")).endswith(".RewardModelScore") and not _is_model(str(path)):
            raise ConfigError(
                f"reward.rewards.{name}.path={path}: there is no model there; train it with phase=reward_model, or set "
                "it to a folder with config.json, or to a hub id"
            )


@rule
def from_scratch_is_for_pretraining(config: Config) -> None:
    """Random weights answer nothing, so that there is nothing to reward, and judge nothing."""
    if get(config, "phase.kind") in ("rl", "reward_model") and get(config, "model.architecture") is not None:
        raise ConfigError(
            "model.architecture: RL or a reward model from random weights learns nothing; pretrain it "
            "(phase=pretrain) first"
        )


@rule
def algorithm_is_the_phases(config: Config) -> None:
    """Policy gradients and distillation have different options."""
    if _rolls_out(config) and ("divergence" in (get(config, "algo") or {})) is _is_rl(config):
        needed = "a policy-gradient algorithm, e.g. algo=grpo" if _is_rl(config) else "algo=distill"
        raise ConfigError(f"algo: phase={get(config, 'phase.name')} needs {needed}")


@rule
def a_divergence_is_one_of_ours(config: Config) -> None:
    """Its name, and a beta between its limits."""
    for path in ("algo", "phase.module"):
        options = get(config, path) or {}
        if "divergence" in options:
            try:
                check_divergence(options["divergence"], options["beta"])
            except ValueError as error:
                raise ConfigError(f"{path}.{error}") from error


@rule
def completions_are_scored(config: Config) -> None:
    """Every rollout is scored, also where the phase learns from something else."""
    if _rolls_out(config) and "rewards" not in (get(config, "reward") or {}):
        raise ConfigError("reward: every completion is scored; choose reward=rules (distillation only logs it)")


@rule
def group_has_two_completions(config: Config) -> None:
    """A completion is compared with the others of its group."""
    size = get(config, "algo.sampling.group_size")
    if _is_rl(config) and size < 2:
        raise ConfigError(f"algo.sampling.group_size={size}: a group needs at least 2 completions to compare")


@rule
def rollouts_are_random(config: Config) -> None:
    """Greedy completions of a prompt are all the same."""
    temperature = get(config, "algo.sampling.temperature")
    if _is_rl(config) and temperature <= 0:
        raise ConfigError(
            f"algo.sampling.temperature={temperature}: greedy groups are all alike and teach nothing; R1 uses 1.0"
        )


@rule
def scored_distribution_is_the_sampled_one(config: Config) -> None:
    """The trainer scores the full distribution; a truncated sampler makes every ratio wrong."""
    for key, full in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)):
        value = get(config, f"algo.sampling.{key}")
        if _is_rl(config) and value != full and get(config, "algo.sampler_correction") == "none":
            raise ConfigError(
                f"algo.sampling.{key}={value}: the trainer's log-probabilities are of the untruncated distribution. "
                f"Set it to {full}, or correct the mismatch with algo.sampler_correction=truncate"
            )


@rule
def minibatches_fit_the_rollout(config: Config) -> None:
    """Every minibatch of every rank gets at least one completion, or group where groups stay whole."""
    if not _rolls_out(config):
        return
    algo = config["algo"]
    ranks = _ranks(config)
    what, count = "groups", algo["prompts_per_rollout"] // ranks
    if not algo.get("whole_groups"):
        what, count = "completions", algo["prompts_per_rollout"] * algo["sampling"]["group_size"] // ranks
    if algo["minibatches_per_rollout"] > count:
        raise ConfigError(
            f"algo.minibatches_per_rollout={algo['minibatches_per_rollout']}: a rollout gives each of {ranks} ranks "
            f"only {count} {what}; lower it or raise algo.prompts_per_rollout"
        )


@rule
def prompts_divide_over_ranks(config: Config) -> None:
    """Every rank samples as many groups as the others."""
    prompts = get(config, "algo.prompts_per_rollout")
    if _rolls_out(config) and prompts % _ranks(config):
        raise ConfigError(
            f"algo.prompts_per_rollout={prompts}: not a multiple of the {_ranks(config)} ranks "
            "(trainer.devices x trainer.num_nodes)"
        )


@rule
def refresh_needs_a_reference(config: Config) -> None:
    """Without a KL there is no reference to refresh."""
    steps = get(config, "algo.reference_refresh_steps")
    if steps and not get(config, "algo.kl_coef"):
        raise ConfigError(
            f"algo.reference_refresh_steps={steps}: with algo.kl_coef=0 no reference is held; set algo.kl_coef (R1: "
            "0.001) or algo.reference_refresh_steps=0"
        )


@rule
def dual_clip_lies_above_the_clip(config: Config) -> None:
    """Below it, the dual clip would replace the clip."""
    dual, high = get(config, "algo.dual_clip"), get(config, "algo.clip_high")
    if dual is not None and dual <= 1 + high:
        raise ConfigError(
            f"algo.dual_clip={dual}: it bounds the ratio, above 1 + algo.clip_high = {1 + high}; raise it"
        )


@rule
def correction_bounds_are_ordered(config: Config) -> None:
    """Low below 1 below high: a weight of 1 means no mismatch."""
    low, high = get(config, "algo.correction_low"), get(config, "algo.correction_high")
    if low is not None and not low < 1 < high:
        raise ConfigError(
            f"algo.correction_low={low}, algo.correction_high={high}: importance weights are 1 without mismatch, so "
            "low must be below 1 and high above"
        )


RULES.extend([*PARALLEL_RULES, *OPTIMIZER_RULES, *ADAPTER_RULES, *ROLLOUT_RULES, *REWARD_RULES, *ENGINE_RULES])
RULES.extend([*ENVIRONMENT_RULES, *LOGGER_RULES])


@rule
def clipping_is_not_lightnings(config: Config) -> None:
    """In manual optimization Lightning refuses to clip."""
    if get(config, "trainer.gradient_clip_val") is not None:
        raise ConfigError(
            "trainer.gradient_clip_val: gradients are clipped by the phase; set phase.module.max_grad_norm"
        )


@rule
def precision_needs_no_loss_scaling(config: Config) -> None:
    """float16 gradients underflow without a scaler, which an unclipped ratio defeats."""
    precision = str(get(config, "trainer.precision"))
    if precision.startswith("16"):
        raise ConfigError(f"trainer.precision={precision}: use bf16-true, bf16-mixed or 32-true")


@rule
def steps_are_counted(config: Config) -> None:
    """Schedules and progress need to know the end."""
    if get(config, "phase") is None:
        return
    steps = get(config, "trainer.max_steps")
    if steps == -1 and get(config, "data.epochs") is not None:
        return
    if not isinstance(steps, int) or steps < 1:
        raise ConfigError(
            f"trainer.max_steps={steps}: set the number of optimizer steps, e.g. trainer.max_steps=300 (-1 where "
            "data.epochs tells them)"
        )


def _no_model(path: str, made_by: str | None) -> str:
    """What is there instead, and how to come by a model."""
    folder = Path(path)
    if (folder / "model" / "config.json").is_file():
        return f"it is the folder of a run, whose model is in {folder / 'model'}; set it to that"
    if (folder / "checkpoints").is_dir() or (folder.name == "model" and (folder.parent / "checkpoints").is_dir()):
        run = folder.parent if folder.name == "model" else folder
        return (
            f"the run in {run} is not finished; end it, or take what it has learned: {command('export', f'run={run}')}"
        )
    if made_by:
        verb, *overrides = made_by.removeprefix("python recipes/").replace(".py", "").split()
        return f"there is no model there; make it first with: {command(verb, *overrides)}"
    return "there is no model there; set it to a folder with config.json, or to a hub id"


def _is_model(path: str) -> bool:
    """Whether it is a folder with a model, or looks like a hub id."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path)) or Path(path, "config.json").is_file()


def _ranks(config: Config) -> int:
    devices = get(config, "trainer.devices")
    return (devices if isinstance(devices, int) and devices > 0 else 1) * (get(config, "trainer.num_nodes") or 1)
