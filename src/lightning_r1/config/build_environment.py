"""From a resolved config to what a policy can talk to while it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import get
from lightning_r1.rollout.environment import Environment
from lightning_r1.rollout.episodes import Budget


def build_environment(config: Mapping[str, Any]) -> Environment | None:
    """The environment at ``environment.world``, which has proven that it works here; None without one.

    Raises:
        ConfigError: if it is none, or cannot work here; says why.
    """
    node = get(config, "environment.world")
    if node is None:
        return None
    world = instantiate(node, _convert_="all")
    stops = getattr(world, "stops", None)
    if not isinstance(stops, tuple) or not stops or not all(stops) or not callable(getattr(world, "open", None)):
        raise ConfigError(
            f"environment.world._target_={node['_target_']}: expected a class with stops, a tuple of texts, and "
            "open(prompt, seed); see lightning_r1.rollout.environment"
        )
    if start := getattr(world, "start", None):
        try:
            start()
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"environment.world: {error}") from error
    return world


def build_budget(config: Mapping[str, Any]) -> Budget:
    """Of each episode."""
    budget: Budget = instantiate(config["environment"]["budget"])
    return budget
