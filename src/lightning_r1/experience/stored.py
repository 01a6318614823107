"""Scored groups as plain data and tensors: what a checkpoint can hold and ``weights_only`` loading allows."""

from __future__ import annotations

from dataclasses import asdict
from itertools import accumulate
from typing import Any

import torch

from lightning_r1.types import Completion, Group, Outcome, Prompt, RewardScore, ScoredGroup


def to_plain(scored: ScoredGroup) -> dict[str, Any]:
    """A group with its rewards. Tokens and log-probabilities are tensors: a rollout has millions of them."""
    prompt, completions = scored.group.prompt, scored.group.completions
    return {
        "prompt": asdict(prompt),
        "lengths": [len(one.token_ids) for one in completions],
        "token_ids": torch.tensor([token for one in completions for token in one.token_ids], dtype=torch.int32),
        # an engine's own numbers, to the last bit
        "logprobs": torch.tensor([value for one in completions for value in one.logprobs], dtype=torch.float64),
        "finish_reasons": [one.finish_reason for one in completions],
        "texts": [one.text for one in completions],
        "policy_versions": [one.policy_version for one in completions],
        "sampled": [None if one.sampled is None else torch.tensor(one.sampled) for one in completions],
        "replies": [list(one.replies) for one in completions],
        "rewards": list(scored.rewards),
        "breakdown": {
            name: [(score.value, str(score.outcome), score.detail) for score in column]
            for name, column in scored.breakdown.items()
        },
    }


def from_plain(plain: dict[str, Any]) -> ScoredGroup:
    """The group that :func:`to_plain` described."""
    tokens, logprobs = plain["token_ids"].tolist(), plain["logprobs"].tolist()
    ends = list(accumulate(plain["lengths"]))
    nothing = [None] * len(ends)  # of a checkpoint from before there were environments
    completions = tuple(
        Completion(
            tuple(tokens[end - length : end]),
            tuple(logprobs[end - length : end]),
            reason,
            text,
            version,
            None if sampled is None else tuple(sampled.tolist()),
            tuple(replies or ()),
        )
        for end, length, reason, text, version, sampled, replies in zip(
            ends,
            plain["lengths"],
            plain["finish_reasons"],
            plain["texts"],
            plain["policy_versions"],
            plain.get("sampled", nothing),
            plain.get("replies", nothing),
            strict=True,
        )
    )
    prompt = Prompt(**{**plain["prompt"], "token_ids": tuple(plain["prompt"]["token_ids"])})
    breakdown = {
        name: [RewardScore(value, Outcome(outcome), detail) for value, outcome, detail in column]
        for name, column in plain["breakdown"].items()
    }
    return ScoredGroup(Group(prompt, completions), tuple(plain["rewards"]), breakdown)
