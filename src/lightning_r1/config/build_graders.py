"""What decides in an evaluation whether an answer is right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.utils import instantiate

from lightning_r1.models.codec import Codec
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.base import Reward, Scorer
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Prompt


def build_grader(
    config: Mapping[str, Any], codec: Codec, sets: Mapping[str, Iterable[Prompt]], scorer: Scorer
) -> RewardSuite:
    """Accuracy, and the tests of ``eval.code`` where any of the prompts has some; a prompt has one of the two.

    Args:
        config: resolved.
        codec: its template says where an answer stands.
        sets: prompts by set; the grader begins to get ready for them.
        scorer: where it runs.

    Raises:
        ConfigError: if nobody can grade some of them.
    """
    prompts = [prompt for of_set in sets.values() for prompt in of_set]
    rewards: dict[str, Reward] = {"accuracy": Accuracy(codec.template.tags)}
    if any(prompt.answer.get("kind") == "code" for prompt in prompts):
        # made in two steps: Hydra would turn the tags into a config
        rewards["code"] = instantiate(config["eval"]["code"], _partial_=True, _convert_="all")(tags=codec.template.tags)
    grader = RewardSuite(rewards, scorer=scorer, stop_at=instantiate(config["reward"]["stop_at"]))
    grader.expect(prompts)
    return grader
