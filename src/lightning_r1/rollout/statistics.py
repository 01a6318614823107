"""What completions look like: length, thinking, truncation, self-correction, tags."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from lightning_r1.models.codec import Codec
from lightning_r1.text.reflection import count_reflections
from lightning_r1.types import Completion


def completion_statistics(completions: Sequence[Completion], codec: Codec) -> dict[str, float]:
    """Means over completions.

    Returns:
        ``length_mean`` and ``think_length_mean`` in tokens; ``truncated_fraction`` that ran into
        the token limit; ``reflection_rate``, reflective markers a completion; ``format_fraction``
        with strict tags.
    """
    template = codec.template
    thinking = [template.tags.thinking(completion.text) for completion in completions]
    return {
        "length_mean": fmean(len(completion.token_ids) for completion in completions),
        "think_length_mean": fmean(
            thinking_tokens(completion, text) for completion, text in zip(completions, thinking, strict=True)
        ),
        "truncated_fraction": fmean(completion.finish_reason == "length" for completion in completions),
        "reflection_rate": fmean(count_reflections(text, template.reflection_markers) for text in thinking),
        "format_fraction": fmean(template.tags.is_strict(completion.text) for completion in completions),
    }


def thinking_tokens(completion: Completion, thinking: str) -> float:
    """Tokens of the thinking: the completion's tokens by the thinking's share of its characters.

    Exact would be to tokenise the thinking again, which costs more than the number is worth.
    """
    return len(completion.token_ids) * len(thinking) / max(len(completion.text), 1)
