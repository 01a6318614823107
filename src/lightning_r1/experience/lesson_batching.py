"""From lessons to padded micro-batches within a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_r1.data.lessons import Lesson
from lightning_r1.experience.batching import Layouts, MicroBatch, Sequences, blank, placed_micro_batches


@dataclass(frozen=True, slots=True)
class LessonBatch(MicroBatch):
    """Some lessons, padded, for one forward and backward."""

    top_ids: Tensor = field(default_factory=lambda: torch.zeros(0))
    """``[N, T, k]``."""
    top_logprobs: Tensor = field(default_factory=lambda: torch.zeros(0))
    """``[N, T, k + 1]``."""


def lesson_batches(
    lessons: Sequence[Lesson], budget: int, pad_id: int, top_k: int, layouts: Layouts | None = None
) -> list[LessonBatch]:
    """A minibatch within a budget of tokens a forward; never empty, see :meth:`.Phase.update`."""
    if not lessons:
        batch = blank(pad_id)
        return [_lesson_batch(batch, [torch.zeros(1, top_k)], [torch.zeros(1, top_k + 1)])]
    sequences = Sequences(
        prompt_ids=[lesson.prompt_ids.long() for lesson in lessons],
        completion_ids=[lesson.completion_ids.long() for lesson in lessons],
        advantages=torch.zeros(len(lessons)),
    )
    batches = []
    for rows, batch in placed_micro_batches(sequences, budget, pad_id, layouts):
        tops = ([getattr(lessons[row], name) for row in rows] for name in ("top_ids", "top_logprobs"))
        batches.append(_lesson_batch(batch, *tops))
    return batches


def _lesson_batch(batch: MicroBatch, top_ids: list[Tensor], top_logprobs: list[Tensor]) -> LessonBatch:
    return LessonBatch(
        input_ids=batch.input_ids,
        prompt_lengths=batch.prompt_lengths,
        completion_mask=batch.completion_mask,
        advantages=batch.advantages,
        layout=batch.layout,
        top_ids=pad_sequence(top_ids, batch_first=True),
        top_logprobs=pad_sequence(top_logprobs, batch_first=True),
    )
