"""From a resolved config to the engine that samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from lightning_r1.config.build_environment import build_budget, build_environment
from lightning_r1.config.reading import get
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.beside import BesideEngine
from lightning_r1.rollout.engine import RolloutEngine
from lightning_r1.rollout.episodes import EpisodeEngine


def build_engine(config: Mapping[str, Any], policy: Policy, codec: Codec) -> RolloutEngine:
    """The engine at ``rollout``; over weights of its own if it has to sample while the policy trains, and in turns
    with the ``environment``, if there is one.

    Args:
        config: resolved, checked.
        policy: sampled from.
        codec: template and tokenizer.
    """

    environment = build_environment(config)

    def make(of: Policy) -> RolloutEngine:
        engine: RolloutEngine = instantiate(config["rollout"], _partial_=True, _convert_="all")(policy=of, codec=codec)
        return engine if environment is None else EpisodeEngine(engine, environment, codec, build_budget(config))

    engine = make(policy)
    if get(config, "algo.overlap_rollouts") and not engine.beside_training:
        return BesideEngine(policy, make)
    return engine
