"""One rollout: prompts to groups, groups to rewards, rewards to advantages.

All of it happens between two optimizer steps, and nothing of it depends on anything but the weights,
the seed and the position in the prompt stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lightning_r1.experience.batching import Sequences, sampled_masks
from lightning_r1.experience.draft import Draft, Flight, make_draft
from lightning_r1.experience.queue import GroupQueue, Waiting
from lightning_r1.functional import (
    group_relative_advantages,
    informative_groups,
    per_reward_advantages,
)
from lightning_r1.functional.advantages import Baseline, Std
from lightning_r1.parallel.collectives import all_gather, all_max, all_sum, rank, together
from lightning_r1.parallel.interruption import Interrupted
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
    ``max_refills`` times, each time as many as should do. Each rank fills its own part of the rollout, from its own
    prompts: which informative groups are taken, and how many prompts are drawn for them, depends on the number of
    ranks, as nothing else of a rollout does. Ranks that share weights and ranks that hold them whole take the same.
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
    prompts: int
    """Prompts drawn on this rank, as many as on every other."""
    dead_groups: int
    """Dead groups sampled on this rank, kept or not."""
    sampled_groups: int
    """Groups sampled on this rank."""
    generation_seconds: float
    reward_seconds: float
    """That scoring took longer than sampling: it begins with the first group that is whole."""
    waited_seconds: float | None = None
    """That a rollout in flight was waited for; None where none was in flight."""


def collect(
    draw: Callable[[int, int], tuple[list[Prompt], list[int]]],
    engine: RolloutEngine,
    rewards: RewardSuite,
    *,
    sampling: Sampling,
    credit: Credit,
    groups: int,
    number: int = 1,
    queue: GroupQueue | None = None,
    flight: Flight | None = None,
    progress: Progress | None = None,
    still_wanted: Callable[[], None] = lambda: None,
) -> Rollout:
    """Sample, score and give credit.

    Args:
        draw: ``draw(taken, count)`` gives the next ``count`` prompts of this rank and their seeds, behind
            ``taken`` that it was given for this rollout.
        engine: samples.
        rewards: score each group as soon as it is whole, while others are still sampled.
        sampling: how to sample.
        credit: how rewards become advantages.
        groups: groups that this rank's part of the rollout should hold.
        number: of the rollout.
        queue: of informative groups that earlier rollouts had too many of; gets those of this one.
        flight: the first draw, if it was begun already, of :func:`prompts_needed`.
        progress: told how far sampling is.
        still_wanted: asked now and then; ends the work by raising :class:`.Interrupted`.

    Raises:
        Interrupted: on every rank, if one is to leave; the queue is as it was.
        EngineError: on every rank, if an engine that is another program cannot go on.
        RewardError: on every rank, if a reward cannot be asked or fails too often (``rewards.stop_at``).
    """
    queue = GroupQueue() if queue is None else queue
    taking = _Taking(credit, groups, number, queue.usable(number))
    tally = Tally()
    count = 0 if flight else prompts_needed(queue, groups, number)
    while True:
        if flight:
            make, flight = flight.result, None
        else:
            prompts, seeds = draw(taking.prompts, count)
            make = partial(
                make_draft, prompts, seeds, engine, rewards, sampling, progress=progress, still_wanted=still_wanted
            )
        # an interruption first: who is asked to leave does not wait, and what fails then fails because of it
        draft = together(partial(_wanted, make, still_wanted), Interrupted, EngineError, RewardError)
        tally.add(draft.scored).over_ranks().check(rewards.stop_at)
        taking.add(draft)
        count = taking.refill()
        if not count:
            break
    queue.keep(taking.chosen[groups:], rollout=number)
    return taking.rollout(rewards.weights)


def _wanted(make: Callable[[], Draft], still_wanted: Callable[[], None]) -> Draft:
    """A draft, unless its ranks are to leave: Slurm signals all of a job's processes, also an engine's or a judge's."""
    try:
        return make()
    except (EngineError, RewardError):
        still_wanted()
        raise


def prompts_needed(queue: GroupQueue, groups: int, number: int) -> int:
    """Prompts that every rank draws first: what the rank with the emptiest queue lacks."""
    return int(all_max(max(groups - len(queue.usable(number)), 0)))


class _Taking:
    """What a rollout has so far, and what it still lacks.

    Args:
        credit: which groups are wanted, and how often more are drawn.
        groups: that it should hold.
        number: of the rollout.
        waiting: groups of earlier ones.
    """

    def __init__(self, credit: Credit, groups: int, number: int, waiting: Sequence[Waiting]) -> None:
        self.credit, self.groups, self.number = credit, groups, number
        self.chosen = list(waiting)
        self.drafts: list[Draft] = []
        self.prompts = self.alive = 0

    def add(self, draft: Draft) -> None:
        """Take its groups, or the informative ones of them."""
        alive = self.credit.informative(draft.scored).tolist() if draft.scored else []
        refill = self.credit.dead_groups == "refill"
        self.drafts.append(draft)
        self.prompts += len(draft.scored)
        self.alive += sum(alive)
        wanted = zip(draft.scored, alive, strict=True)
        self.chosen += [Waiting(self.number, group) for group, keep in wanted if keep or not refill]

    def refill(self) -> int:
        """Prompts that every rank draws next: the stream has one position, and the rank that needs most decides.

        As many as should do by the share of informative groups so far, and each time more generously; no more
        than a whole rollout.
        """
        if self.credit.dead_groups != "refill" or len(self.drafts) > self.credit.max_refills:
            return 0
        missing = int(all_max(self.groups - len(self.chosen)))
        if missing <= 0:
            return 0
        alive, prompts = all_sum(self.alive), all_sum(self.prompts)
        expected = math.ceil(missing * prompts / alive) if alive else self.groups
        return min(len(self.drafts) * expected, self.groups)

    def rollout(self, weights: Mapping[str, float]) -> Rollout:
        """What has been taken, as far as there is room for it, with its credit."""
        scored = [one.group for one in self.chosen[: self.groups]] or self.drafts[-1].scored[: self.groups]
        advantages = self.credit.advantages(scored, weights)
        waits = [draft.waited_seconds for draft in self.drafts if draft.waited_seconds is not None]
        return Rollout(
            scored=scored,
            advantages=advantages,
            sequences=_sequences(scored, advantages, self.credit),
            draws=len(self.drafts),
            prompts=self.prompts,
            dead_groups=self.prompts - self.alive,
            sampled_groups=self.prompts,
            generation_seconds=sum(draft.generation_seconds for draft in self.drafts),
            reward_seconds=sum(draft.reward_seconds for draft in self.drafts),
            waited_seconds=sum(waits) if waits else None,
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
    prompt_ids, completion_ids, kept_advantages, logprobs, sampled = [], [], [], [], []
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
            sampled.append(completion.sampled)
    return Sequences(
        prompt_ids,
        completion_ids,
        torch.tensor(kept_advantages, dtype=torch.float32),
        logprobs,
        sampled=sampled_masks(sampled, completion_ids),
    )
