"""From a resolved config to a reward model in training, and what it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from lightning_r1.callbacks.example_evaluation import ExampleEvaluation
from lightning_r1.config.build_strategy import is_sharded
from lightning_r1.data.preferences import PreferenceDataModule
from lightning_r1.models.codec import Codec
from lightning_r1.models.reward_model import RewardModel, new_reward_model
from lightning_r1.models.saving import checkpoint_activations


def build_reward_model(config: Mapping[str, Any], codec: Codec, *, whole: bool = False) -> RewardModel:
    """The base model with a scalar head.

    Args:
        config: resolved.
        codec: of the base model.
        whole: with its weights also where it is to be sharded.

    Raises:
        ValueError: for a model that cannot have one.
    """
    phase, model, hollow = config["phase"], config["model"], is_sharded(config) and not whole
    made = new_reward_model(
        model["path"],
        codec.template,
        seed=config["seed"],
        hollow=hollow,
        **{name: phase[name] for name in ("scope", "max_tokens")},
        **{name: model[name] for name in ("dtype", "attention", "dropout")},
    )
    checkpoint_activations(made.model, model.get("activation_checkpointing", False))
    if hollow:
        made.make = lambda: build_reward_model(config, codec, whole=True)
    return made


def build_example_evaluation(config: Mapping[str, Any], data: PreferenceDataModule) -> ExampleEvaluation | None:
    """On what the data holds out, under the name ``heldout``, and on ``eval.sets`` besides."""
    sets = {name: list(instantiate(node, _convert_="all")) for name, node in (config["eval"]["sets"] or {}).items()}
    sets = ({"heldout": data.heldout} if data.heldout else {}) | sets
    return ExampleEvaluation(sets, every_n_steps=config["eval"]["every_n_steps"]) if sets else None
