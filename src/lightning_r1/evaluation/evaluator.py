"""Sampling answers to held-out prompts and grading them."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_r1.evaluation.metrics import summarise
from lightning_r1.models.codec import Codec
from lightning_r1.parallel.collectives import all_gather, rank, world_size
from lightning_r1.rewards.base import InProcessScorer, Reward
from lightning_r1.rollout.engine import Progress, RolloutEngine, seed_for
from lightning_r1.rollout.statistics import completion_statistics
from lightning_r1.types import Group, Prompt, Sampling


def evaluate(
    engine: RolloutEngine,
    grader: Reward,
    prompts: Sequence[Prompt],
    codec: Codec,
    *,
    sampling: Sampling,
    seed: int,
    progress: Progress | None = None,
) -> tuple[dict[str, float], list[Group]]:
    """Sample ``sampling.group_size`` answers of each prompt and grade them; the work is shared by ranks.

    Args:
        engine: samples from the policy.
        grader: a completion is right if its value is 1.
        prompts: of one set.
        codec: template and tokenizer.
        sampling: how to sample.
        seed: the same seed draws the same randomness for the same prompt, so that two models can
            be compared on equal terms.
        progress: told how far it is.

    Returns:
        ``pass@1``, ``pass@1_error``, ``pass@k``, and the statistics of the completions
        (:func:`~lightning_r1.rollout.statistics.completion_statistics`); and this rank's groups.
    """
    chosen = range(rank(), len(prompts), world_size())
    groups = engine.generate(
        [prompts[index] for index in chosen],
        sampling,
        seeds=[seed_for(seed, "evaluate", index) for index in chosen],
        progress=progress,
    )
    items = [(group.prompt, completion) for group in groups for completion in group.completions]
    scores = iter(InProcessScorer().score("accuracy", grader, items))
    correct = [[next(scores).value == 1 for _ in group.completions] for group in groups]
    statistics = completion_statistics([completion for _, completion in items], codec) if items else {}
    # a rank may have had nothing to do: there can be more ranks than prompts
    everybody = [part for part in all_gather((correct, statistics, len(items))) if part[2]]
    rows = sum(count for _, _, count in everybody)
    means = {name: sum(numbers[name] * count for _, numbers, count in everybody) / rows for name in everybody[0][1]}
    return summarise([problem for part, _, _ in everybody for problem in part]) | means, groups
