"""From a resolved config to the engine that samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from lightning_r1.config.reading import get
from lightning_r1.models.codec import Codec
from lightning_r1.models.policy import Policy
from lightning_r1.rollout.beside import BesideEngine
from lightning_r1.rollout.engine import RolloutEngine


def build_engine(config: Mapping[str, Any], policy: Policy, codec: Codec) -> RolloutEngine:
    """The engine at ``rollout``; over weights of its own if it has to sample while the policy trains.

    Args:
        config: resolved, checked.
        policy: sampled from.
        codec: template and tokenizer.
    """

    def make(of: Policy) -> RolloutEngine:
        engine: RolloutEngine = instantiate(config["rollout"], _partial_=True, _convert_="all")(policy=of, codec=codec)
        return engine

    engine = make(policy)
    if get(config, "algo.overlap_rollouts") and not engine.beside_training:
        return BesideEngine(policy, make)
    return engine
