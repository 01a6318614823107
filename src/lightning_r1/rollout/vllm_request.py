"""What vLLM is asked for a prompt's group, in process and over HTTP alike, and what has to come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning_r1.rollout.engine import EngineError
from lightning_r1.types import Prompt, Sampling

Row = tuple[list[int], list[float]]
"""Token ids and log-probabilities of a completion."""


def sampling_of(prompt: Prompt, sampling: Sampling) -> Sampling:
    """As the prompt is sampled: within its own budget of tokens."""
    return replace(sampling, max_new_tokens=sampling.budget(prompt))


def vllm_parameters(sampling: Sampling, seed: int, stop_ids: Sequence[int]) -> dict[str, Any]:
    """``SamplingParams`` of one prompt's group, for the library and over HTTP alike.

    Completion g draws from ``seed + g`` (vLLM's own rule). Only our stop tokens stop, the model's EOS among them.
    """
    return {
        "n": sampling.group_size if sampling.temperature else 1,  # greedy ones are all alike, and refused
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": seed % 2**62,  # and G more stay below what 64 bits hold
        "stop_token_ids": list(stop_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "detokenize": False,
    }


def whole_group(rows: Sequence[Row], sampling: Sampling, who: str) -> list[Row]:
    """All completions of a group, from what :func:`vllm_parameters` asked for.

    Raises:
        EngineError: if it is something else; names the place and the numbers.
    """
    asked = sampling.group_size if sampling.temperature else 1
    if len(rows) != asked:
        raise EngineError(f"{who}: {len(rows)} completions came where {asked} were asked for")
    for tokens, logprobs in rows:
        if not 1 <= len(tokens) <= sampling.max_new_tokens or len(logprobs) != len(tokens):
            raise EngineError(
                f"{who}: a completion has {len(tokens)} tokens and {len(logprobs)} log-probabilities, where 1 to "
                f"{sampling.max_new_tokens} of each were asked for"
            )
    return list(rows) * (sampling.group_size // asked)
