"""A reward model held against examples it has not seen, under ``eval/<set>/...``."""

from __future__ import annotations

import lightning as L

from lightning_r1.callbacks.evaluation import Evaluation
from lightning_r1.evaluation.pairs import evaluate_pairs
from lightning_r1.modules.reward_model import RewardModelling
from lightning_r1.parallel.sharding import whole


class ExampleEvaluation(Evaluation):
    """Accuracy on held-out pairs or labels, before, during and after.

    Mean and deviation of the first set's scores are kept with the exported model: a reward made of it may be
    standardised by them.
    """

    def measure(self, trainer: L.Trainer, module: L.LightningModule, *, quick: bool) -> dict[str, float]:
        """Scores every set; there is nothing to do with less."""
        assert isinstance(module, RewardModelling)
        numbers: dict[str, float] = {}
        for place, (name, examples) in enumerate(self.sets.items()):
            with whole(module.policy):  # ranks have rows of different lengths, in different numbers of forwards
                of_set = evaluate_pairs(module.policy, examples, micro_batch_tokens=module.micro_batch_tokens)
            numbers |= {f"eval/{name}/{metric}": value for metric, value in of_set.items()}
            if place == 0:
                module.measured = {metric: of_set[metric] for metric in ("score_mean", "score_std")}
        return numbers
