"""One rollout: prompts to groups, groups to rewards, rewards to advantages.

All of it happens between two optimizer steps, and nothing of it depends on anything but the weights,
the seed and the position in the prompt stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lightning_r1.experience.batching import Sequences
from lightning_r1.functional import (
    group_relative_advantages,
    informative_groups,
    per_reward_advantages,
)
from lightning_r1.functional.advantages import Baseline, Std
from lightning_r1.parallel.collectives import all_gather, all_max, rank, together
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.outcomes import Tally
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import EngineError, Progress, RolloutEngine
from lightning_r1.types import Prompt, Sampling, ScoredGroup

DeadGroups = Literal["keep", "drop", "refill"]


@dataclass(frozen=True, slots=True)
class Credit:
    """How rewards become advantages, and which completions take part in the update.

    ``dead_groups`` are those whose rewards are all equal, which teach nothing: ``keep`` leaves them
    in (they still count in the denominators, and under the KL), ``drop`` leaves them out, ``refill``
    draws more prompts until the rollout is full of others (DAPO's dynamic sampling), at most
    ``max_refills`` times.
    """

    std: Std = "sample"
    baseline: Baseline = "mean"
    per_reward: bool = False
    dead_groups: DeadGroups = "keep"
    max_refills: int = 4
    mask_truncated: bool = False
    """Leave out completions that ran into the token limit (DAPO's overlong filtering)."""

    def __post_init__(self) -> None:
        """Refuse unknown options, by name."""
        if self.dead_groups not in ("keep", "drop", "refill"):
            raise ValueError(f"algo.dead_groups={self.dead_groups!r}: expected keep, drop or refill")
        if self.max_refills < 1:
            raise ValueError(f"algo.max_refills={self.max_refills}: expected >= 1")

    def advantages(self, scored: Sequence[ScoredGroup], weights: Mapping[str, float]) -> Tensor:
        """``[B, G]``; ``weights`` has every reward of the run, also those that no group here has."""
        if not self.per_reward:
            return group_relative_advantages(_totals(scored), std=self.std, baseline=self.baseline)
        # over the whole batch of all ranks, for its last normalisation is over the batch
        everybody = all_gather(_columns(scored, list(weights)))
        advantages = per_reward_advantages(
            torch.cat(everybody), torch.tensor(list(weights.values()), dtype=torch.float64), std=self.std
        )
        return advantages.split([len(part) for part in everybody])[rank()]

    def informative(self, scored: Sequence[ScoredGroup]) -> Tensor:
        """``[B]`` bool: groups that are not dead. Normalised one by one, parts may teach where sums are equal."""
        if not self.per_reward:
            return informative_groups(_totals(scored))
        names = list(dict.fromkeys(name for group in scored for name in group.breakdown))
        return torch.stack([informative_groups(column) for column in _columns(scored, names).unbind(-1)]).any(0)


@dataclass(frozen=True, slots=True)
class Rollout:
    """What one rollout made on this rank."""

    scored: list[ScoredGroup]
    """The groups that make up the buffer."""
    advantages: Tensor
    """``[B, G]``."""
    sequences: Sequences
    """The rows that take part in the update."""
    draws: int
    """How often prompts were drawn: 1, and 1 for each refill."""
    dead_groups: int
    """Dead groups sampled on this rank, kept or not."""
    sampled_groups: int
    """Groups sampled on this rank."""
    generation_seconds: float
    reward_seconds: float
    """That scoring took longer than sampling: it begins with the first group that is whole."""


def collect(
    draw: Callable[[int], tuple[list[Prompt], list[int]]],
    engine: RolloutEngine,
    rewards: RewardSuite,
    *,
    sampling: Sampling,
    credit: Credit,
    groups: int,
    progress: Progress | None = None,
) -> Rollout:
    """Sample, score and give credit.

    Args:
        draw: ``draw(refill)`` gives this rank's prompts and seeds of the rollout's first draw
            (0) and of each refill (1, 2, ...).
        engine: samples.
        rewards: score each group as soon as it is whole, while others are still sampled.
        sampling: how to sample.
        credit: how rewards become advantages.
        groups: groups that this rank's part of the rollout should hold.
        progress: told how far sampling is.

    Raises:
        EngineError: on every rank, if an engine that is another program cannot go on.
        RewardError: on every rank, if a reward cannot be asked or fails too often (``rewards.stop_at``).
    """
    scored: list[ScoredGroup] = []
    tally = Tally()
    sampled = dead = draws = 0
    generation = scoring = 0.0
    refills = credit.max_refills if credit.dead_groups == "refill" else 0
    for refill in range(refills + 1):
        prompts, seeds = draw(refill)
        started = time.perf_counter()
        open_scoring = rewards.open()
        sampling_of_rank = partial(engine.generate, prompts, sampling, seeds=seeds)
        together(partial(sampling_of_rank, progress=progress, finished=open_scoring.add), EngineError)
        generated = time.perf_counter()
        fresh_scored = together(open_scoring.result, RewardError)
        scoring += time.perf_counter() - generated
        generation += generated - started
        tally.add(fresh_scored).over_ranks().check(rewards.stop_at)
        draws += 1
        sampled += len(fresh_scored)
        alive = credit.informative(fresh_scored).tolist()
        dead += len(alive) - sum(alive)
        wanted = alive if credit.dead_groups == "refill" else [True] * len(alive)
        scored += [group for group, keep in zip(fresh_scored, wanted, strict=True) if keep]
        # every rank draws as often as the one that needs most: the stream has one position
        if not all_max(len(scored) < groups):
            break
    scored = scored[:groups] or fresh_scored[:groups]
    advantages = credit.advantages(scored, rewards.weights)
    return Rollout(
        scored=scored,
        advantages=advantages,
        sequences=_sequences(scored, advantages, credit),
        draws=draws,
        dead_groups=dead,
        sampled_groups=sampled,
        generation_seconds=generation,
        reward_seconds=scoring,
    )


def _totals(scored: Sequence[ScoredGroup]) -> Tensor:
    """Summed rewards ``[B, G]``, NaN where a part could not be scored."""
    return torch.tensor([group.rewards for group in scored], dtype=torch.float64)


def _columns(scored: Sequence[ScoredGroup], names: Sequence[str]) -> Tensor:
    """Rewards one by one ``[B, G, K]``, NaN in the whole row where a part could not be scored.

    A reward that is not for a group's prompt is 0 for all of it, which is no advantage for any.
    """
    columns = torch.tensor(
        [[_column(group, name) for name in names] for group in scored], dtype=torch.float64
    ).transpose(1, 2)
    return columns.masked_fill(_totals(scored).isnan().unsqueeze(-1), torch.nan)


def _column(group: ScoredGroup, name: str) -> list[float]:
    if name not in group.breakdown:
        return [0.0] * len(group.rewards)
    return [score.value for score in group.breakdown[name]]


def _sequences(scored: Sequence[ScoredGroup], advantages: Tensor, credit: Credit) -> Sequences:
    """The rows that take part in the update."""
    alive = (advantages != 0).any(1).tolist()
    prompt_ids, completion_ids, kept_advantages, logprobs = [], [], [], []
    for group, of_group, live in zip(scored, advantages.tolist(), alive, strict=True):
        if not live and credit.dead_groups != "keep":
            continue
        prompt = torch.tensor(group.group.prompt.token_ids)
        for completion, advantage in zip(group.group.completions, of_group, strict=True):
            if credit.mask_truncated and completion.finish_reason == "length":
                continue
            prompt_ids.append(prompt)
            completion_ids.append(torch.tensor(completion.token_ids))
            kept_advantages.append(advantage)
            # Lightning makes the model's dtype torch's default, and bfloat16 would round them
            logprobs.append(torch.tensor(completion.logprobs, dtype=torch.float32))
    return Sequences(prompt_ids, completion_ids, torch.tensor(kept_advantages, dtype=torch.float32), logprobs)
