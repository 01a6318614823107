"""Rules about adapters: what they stand on, what they need, who can train one."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get
from lightning_r1.models.adapter import INSTALL, INSTALL_QLORA, AdapterSettings

_KINDS = ("lora", "qlora")
_ENDS = ("lm_head", "embed_tokens", "wte", "embed_out")


def an_adapter_is_one_of_ours(config: Config) -> None:
    """By its name, of the model that trains, with settings in range."""
    kind = get(config, "model.adapter")
    if kind is not None and kind not in _KINDS:
        raise ConfigError(f"model.adapter={kind}: expected null, {' or '.join(_KINDS)}")
    if get(config, "teacher.adapter") is not None:
        raise ConfigError(
            f"teacher.adapter={get(config, 'teacher.adapter')}: a teacher does not train; leave it at null, and give "
            "teacher.path a merged model"
        )
    settings = get(config, "adapter")
    if not isinstance(settings, Mapping):
        return
    try:
        AdapterSettings(**{name: value for name, value in settings.items() if name != "_target_"})
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if heads := [name for name in _names(settings.get("targets")) if name in _ENDS]:
        raise ConfigError(
            f"adapter.targets: {heads[0]} cannot be adapted, for its weights are read as they are; leave it out, or "
            "set adapter.targets=all-linear"
        )


def an_adapter_has_its_libraries(config: Config) -> None:
    """Said before a model is loaded."""
    needed = {"lora": ["peft"], "qlora": ["peft", "bitsandbytes"]}.get(get(config, "model.adapter"), [])
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        kind = get(config, "model.adapter")
        raise ConfigError(
            f"model.adapter={kind}: {' and '.join(missing)} is not installed; install it with "
            f"{INSTALL if kind == 'lora' else INSTALL_QLORA}, or set model.adapter=null"
        )


def an_adapter_is_trained_on_a_trained_model(config: Config) -> None:
    """It is a small change of what is there: not of random weights, nor of what does not train."""
    kind = get(config, "model.adapter")
    if kind is None:
        return
    if get(config, "phase") is None:
        raise ConfigError(
            f"model.adapter={kind}: nothing trains here; set model.adapter=null and model.path to the merged model "
            "that training left (RUN/model)"
        )
    if get(config, "phase.kind") == "reward_model":
        raise ConfigError(
            f"model.adapter={kind}: a reward model's head is new and has to train with the whole model; set "
            "model.adapter=null"
        )
    if get(config, "model.architecture") is not None:
        raise ConfigError(
            f"model.adapter={kind}: random weights are no base; set model.adapter=null, or model.path to a trained "
            "model"
        )


def four_bits_are_not_sharded(config: Config) -> None:
    """A shard of packed codes has lost the rows and blocks that it belongs to."""
    strategy = get(config, "parallel.strategy")
    name = str(get(config, "parallel.strategy._target_") or strategy).lower()
    if get(config, "model.adapter") == "qlora" and any(word in name for word in ("fsdp", "shard", "modelparallel")):
        raise ConfigError(
            "model.adapter=qlora: weights in four bits cannot be sharded; choose parallel=ddp, or model.adapter=lora"
        )


def _names(targets: object) -> list[str]:
    return [str(target).rpartition(".")[2] for target in targets] if isinstance(targets, list | tuple) else []


ADAPTER_RULES = (
    an_adapter_is_one_of_ours,
    an_adapter_has_its_libraries,
    an_adapter_is_trained_on_a_trained_model,
    four_bits_are_not_sharded,
)
