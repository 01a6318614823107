"""A phase's models under a strategy that shards."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from lightning_r1.models.policy import Policy
from lightning_r1.models.reward_model import RewardModel
from lightning_r1.models.units import units_of
from lightning_r1.parallel.sharding import is_sharded
from lightning_r1.parallel.strategy import ShardedStrategy


def shard_models(strategy: ShardedStrategy, models: Iterable[nn.Module]) -> None:
    """Shard what was built without weights, and give every rank its slices; again, it does nothing. Collective."""
    for model in models:
        if is_sharded(model):
            continue
        assert isinstance(model, Policy | RewardModel)
        assert model.make is not None, "a model to be sharded is built hollow"
        units = units_of(model)
        strategy.shard(
            model, model.make, root=units.root, layers=units.layers, exact=units.exact, methods=units.methods
        )
