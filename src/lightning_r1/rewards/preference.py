"""Preference rewards: what a reward model thinks of a response (arXiv 2501.12948 v2, section 3.1, eq. 5 and 6).

Helpfulness is judged by the final summary alone, so that the judgement does not interfere with how the model
thinks; harmlessness by the whole response, for harm can stand in the thinking too. A response whose thinking
is never closed has no summary: its thoughts are not shown in its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from lightning_r1.models.export import read_card
from lightning_r1.models.reward_model import load_reward_model
from lightning_r1.rewards.base import Item
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore


class RewardModelScore:
    r"""Scores completions with a reward model, all of a rollout at once, on the rollout's device.

    .. math:: z = \min(\max((r - \text{mean}) / \text{std}, \text{lowest}), \text{highest})

    The reward is z, or :math:`\sigma(z)`. Within a group the mean changes nothing; the deviation is what makes the
    score comparable with the other rewards that it is added to, and the bounds keep a single odd score from
    deciding a group. The paper publishes no scale.

    Args:
        path: of the reward model, a folder or hub id; any sequence classifier of transformers.
        tags: of the template.
        scope: ``summary`` for helpfulness, ``response`` for harmlessness.
        mean: subtracted. Null takes what was measured when the model was trained here, 0 for others.
        std: divided by. Null as with ``mean``, 1 for others.
        lowest: least z, and that of a completion without a summary.
        highest: greatest z.
        probability: give :math:`\sigma(z)`: of a safety model with mean 0 and std 1, the probability that it is safe.
        label: for a classifier of several classes, the one whose log-odds are the score.
        dtype: of the model's weights; scores are float32.
        attention: as ``model.attention``.
        max_tokens: of question and response, if fewer than the model's context; the question is cut first. With
            ``scope=response`` a longer response is read in parts, and the lowest score counts.
        micro_batch_tokens: of one forward, padding included.

    Raises:
        ValueError: for a model that cannot be used, or bounds that are not in order.
    """

    def __init__(
        self,
        path: str,
        tags: Tags,
        *,
        scope: Literal["summary", "response"] = "summary",
        mean: float | None = None,
        std: float | None = None,
        lowest: float = -5.0,
        highest: float = 5.0,
        probability: bool = False,
        label: str | None = None,
        dtype: str = "float32",
        attention: str = "sdpa",
        max_tokens: int | None = None,
        micro_batch_tokens: int = 16384,
    ) -> None:
        card = read_card(path)
        self.mean = card.get("score_mean", 0.0) if mean is None else mean
        self.std = card.get("score_std", 1.0) if std is None else std
        if not lowest < highest:
            raise ValueError(f"lowest={lowest}, highest={highest}: the bounds of a score are not in order")
        if not self.std > 0:
            raise ValueError(f"std={self.std}: expected > 0, it divides the score of the reward model {path}")
        self.tags, self.lowest, self.highest, self.probability = tags, lowest, highest, probability
        self.micro_batch_tokens = micro_batch_tokens
        self.model = load_reward_model(
            path, scope=scope, tags=tags, label=label, max_tokens=max_tokens, dtype=dtype, attention=attention
        )

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """The score of one completion."""
        return self.score_batch([(prompt, completion)])[0]

    def score_batch(self, items: Sequence[Item]) -> list[RewardScore]:
        """See :class:`.BatchReward`; ``wrong_format`` where there is nothing to judge."""
        turns = {
            place: (prompt.question, completion.text)
            for place, (prompt, completion) in enumerate(items)
            if self._has_something_to_judge(completion)
        }
        raw = self.model.score(list(turns.values()), micro_batch_tokens=self.micro_batch_tokens)
        nothing = RewardScore(self.reward(-math.inf), Outcome.WRONG_FORMAT, "nothing after the thinking")
        scores = [nothing] * len(items)
        for place, score in zip(turns, raw, strict=True):
            scores[place] = RewardScore(self.reward(score), Outcome.OK, f"{score:.4g} by the model")
        return scores

    def reward(self, score: float) -> float:
        """The model's number as a reward; NaN stays NaN."""
        if math.isnan(score):
            return score
        z = min(max((score - self.mean) / self.std, self.lowest), self.highest)
        return (1 + math.tanh(z / 2)) / 2 if self.probability else z  # this form cannot overflow

    def to(self, device: Any) -> None:
        """Move the model."""
        self.model.to(device)

    def _has_something_to_judge(self, completion: Completion) -> bool:
        if self.model.turns.scope == "summary" and self.tags.after_thinking(completion.text) is None:
            return False
        return bool(self.model.turns.visible(completion.text))
