"""From a resolved config to the rewards of a run, and to what runs them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from hydra.utils import instantiate

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.schema import locate
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.base import InProcessScorer, Scorer
from lightning_r1.rewards.suite import RewardSuite


def build_rewards(config: Mapping[str, Any], codec: Codec, scorer: Scorer | None = None) -> RewardSuite:
    """The reward functions by name, and where they run."""
    nodes = config["reward"]["rewards"] or {}
    rewards = {name: build_reward(node, f"reward.rewards.{name}", codec) for name, node in nodes.items()}
    return RewardSuite(
        rewards,
        config["reward"]["weights"],
        scorer or build_scorer(config),
        config["reward"].get("routes"),
        instantiate(config["reward"]["stop_at"]),
    )


def build_reward(node: Mapping[str, Any], path: str, codec: Codec) -> Any:
    """One reward; a class that asks for ``tags`` gets the template's, a function its options."""
    target = locate(node["_target_"], f"{path}._target_")
    options = {key: _built(value) for key, value in node.items() if key != "_target_"}
    signature = inspect.signature(target)
    given = () if inspect.isclass(target) else ("prompt", "completion")
    if "tags" in signature.parameters:
        options.setdefault("tags", codec.template.tags)
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        raise ConfigError(f"{path}={node['_target_']}: {error}; its options stand beside _target_") from error
    return partial(target, **options) if given else target(**options)


def _built(value: Any) -> Any:
    """An option of a reward that is an object of its own."""
    return instantiate(value, _convert_="all") if isinstance(value, Mapping) and "_target_" in value else value


def build_scorer(config: Mapping[str, Any]) -> Scorer:
    """Where rewards run: in worker processes, or here where there are to be none."""
    return instantiate(config["reward"]["workers"]) if config["reward"]["workers"]["workers"] else InProcessScorer()
