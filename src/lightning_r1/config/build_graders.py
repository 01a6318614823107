"""What decides in an evaluation whether an answer is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.utils import instantiate

from lightning_r1.models.codec import Codec
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.base import Reward
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Prompt


def build_grader(config: Mapping[str, Any], codec: Codec, prompts: Iterable[Prompt]) -> RewardSuite:
    """Accuracy, and the tests of ``eval.code`` where any of the prompts has some; a prompt has one of the two.

    Args:
        config: resolved.
        codec: its template says where an answer stands.
        prompts: of all sets.
    """
    rewards: dict[str, Reward] = {"accuracy": Accuracy(codec.template.tags)}
    if any(prompt.answer.get("kind") == "code" for prompt in prompts):
        # made in two steps: Hydra would turn the tags into a config
        rewards["code"] = instantiate(config["eval"]["code"], _partial_=True, _convert_="all")(tags=codec.template.tags)
    return RewardSuite(rewards)
