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
        ``length_mean`` and ``think_length_mean`` in tokens of the policy's own; ``truncated_fraction`` that ran into
        the token limit (or an environment's limit of turns); ``reflection_rate``, reflective markers a
        completion; ``format_fraction`` with strict tags.
    """
    template = codec.template
    thinking = [template.tags.thinking(completion.text) for completion in completions]
    return {
        "length_mean": fmean(completion.length for completion in completions),
        "think_length_mean": fmean(map(codec.thinking_tokens, completions)),
        "truncated_fraction": fmean(completion.finish_reason == "length" for completion in completions),
        "reflection_rate": fmean(count_reflections(text, template.reflection_markers) for text in thinking),
        "format_fraction": fmean(template.tags.is_strict(completion.text) for completion in completions),
    }
