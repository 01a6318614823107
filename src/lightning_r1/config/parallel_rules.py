"""Rules about ranks: how many there are, and what of a model each of them holds."""

from __future__ import annotations

from collections.abc import Callable

from lightning_r1.config.build_strategy import is_sharded, launched
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get

_PRECISIONS = ("32-true", "bf16-true", "bf16-mixed")


def ranks_are_those_that_were_started(config: Config) -> None:
    """Who started these processes knows how many there are."""
    told = launched()
    if told is None or get(config, "trainer") is None:
        return
    for key, count in (("devices", told.a_node), ("num_nodes", told.nodes)):
        said = get(config, f"trainer.{key}")
        if said is not None and said != count:
            what = "tasks a node" if key == "devices" else "nodes"
            raise ConfigError(
                f"trainer.{key}={said}: {told.by} started {count} {what}; leave it out (auto takes {told.by}'s), or "
                f"have {told.by} start {said}"
            )


def sharding_is_for_training(config: Config) -> None:
    """Whoever only samples or scores does so on its own."""
    if is_sharded(config) and get(config, "phase") is None:
        raise ConfigError(
            "parallel=fsdp: only training is sharded, here each rank works on its own; choose parallel=ddp, or "
            "rollout=vllm_server for a model that one device cannot hold"
        )


def shards_can_be_laid_out(config: Config) -> None:
    """Ranks divide into replicas, and there is a device to offload from."""
    if not is_sharded(config):
        return
    nodes = get(config, "trainer.num_nodes")
    said, ranks = get(config, "parallel.replicas"), get(config, "trainer.devices") * nodes
    replicas = nodes if said == "nodes" else said
    if not isinstance(replicas, int) or replicas < 1 or ranks % replicas:
        raise ConfigError(
            f"parallel.replicas={said}: expected a divisor of the {ranks} ranks (trainer.devices x trainer.num_nodes), "
            "or nodes"
        )
    if get(config, "parallel.cpu_offload") and get(config, "trainer.accelerator") == "cpu":
        raise ConfigError("parallel.cpu_offload=true: trainer.accelerator=cpu has nothing to offload; set it to false")


def a_sharded_precision_is_one_of_two(config: Config) -> None:
    """bfloat16 comes from the strategy, over float32 weights, or from the weights; not from both."""
    if not is_sharded(config):
        return
    mixed, precision, dtype = (
        get(config, key) for key in ("parallel.mixed_precision", "trainer.precision", "model.dtype")
    )
    if mixed not in (None, "bf16"):
        raise ConfigError(f"parallel.mixed_precision={mixed}: expected bf16 or null")
    if mixed and (str(precision), dtype) != ("32-true", "float32"):
        raise ConfigError(
            f"parallel.mixed_precision={mixed}: it keeps float32 weights, and trainer.precision={precision} "
            f"model.dtype={dtype} does not; set trainer.precision=32-true model.dtype=float32, or leave one of the two"
        )
    if str(precision) not in _PRECISIONS:
        raise ConfigError(f"trainer.precision={precision}: sharded training knows {', '.join(_PRECISIONS)}")


def sharded_layers_are_not_compiled(config: Config) -> None:
    """What is compiled would hold the hooks that make a layer whole."""
    if is_sharded(config) and get(config, "model.compile"):
        raise ConfigError("model.compile=true: not with parallel=fsdp; set it to false, or choose parallel=ddp")


def ranks_wait_for_each_other(config: Config) -> None:
    """For some time, and not for ever."""
    minutes = get(config, "parallel.timeout_minutes")
    if minutes is not None and (not isinstance(minutes, int | float) or minutes <= 0):
        raise ConfigError(f"parallel.timeout_minutes={minutes}: expected more than 0; 30 suits most clusters")


PARALLEL_RULES: list[Callable[[Config], None]] = [
    ranks_are_those_that_were_started,
    sharding_is_for_training,
    shards_can_be_laid_out,
    ranks_wait_for_each_other,
    a_sharded_precision_is_one_of_two,
    sharded_layers_are_not_compiled,
]
