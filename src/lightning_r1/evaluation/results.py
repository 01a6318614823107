"""What is stored of an evaluation, and the numbers that come of it.

A :class:`Sample` is a graded completion. All numbers come from samples alone, so that stored ones can be
graded anew, by a better grader say, without sampling again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lightning_r1.evaluation.metrics import summarise
from lightning_r1.evaluation.rating import item_response_rating
from lightning_r1.evaluation.voting import AnswerClasses
from lightning_r1.rewards.accuracy import answer_classes
from lightning_r1.types import FinishReason, Outcome, Prompt

KS = (1, 4, 16, 64)
"""The k of pass@k and cons@k that are always told, besides the number of samples."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A graded completion: one line of a samples file.

    Example: ``Sample(prompt_id="aime24/60", prompt="...", completion="<think>...", answer="204",
    correct=True, outcome="ok", finish_reason="stop", tokens=6113, think_tokens=5702.0, ...)``
    """

    prompt_id: str
    prompt: str
    """The text that the policy saw."""
    completion: str
    answer: str | None
    """As extracted; None votes for nothing."""
    correct: bool
    outcome: str
    """How the grading ended (:class:`~lightning_r1.types.Outcome`)."""
    finish_reason: FinishReason
    tokens: int
    think_tokens: float
    strict_format: bool
    reflections: int
    language_share: float | None
    """Of the thinking's words, in the prompt's language; None for thinking without words."""


def numbers_of(
    prompts: Sequence[Prompt],
    samples: Sequence[Sample],
    *,
    ks: Sequence[int] = KS,
    classes: AnswerClasses = answer_classes,
) -> dict[str, float]:
    """Numbers of one set.

    Args:
        prompts: of the set.
        samples: equally many of each prompt.
        ks: of pass@k and cons@k, besides 1 and the number of samples.
        classes: which answers to a problem are equal: what a majority counts.

    Returns:
        ``pass@k`` and ``cons@k`` with ``_low`` and ``_high``, the ends of their 95 % interval over problems (no
        cons@k where answers are programs: two programs are no vote for the same answer); ``pass@1_error``;
        ``length_mean`` and ``think_length_mean`` in tokens; ``truncated_fraction`` that ran into the token limit;
        ``format_fraction`` with strict tags; ``reflection_rate``, reflective markers a completion;
        ``ungraded_fraction``, counted as wrong because the grader failed; ``language_share`` of the thinking's
        words, over completions that think in words, if any; and where problems have ratings,
        ``item_response_estimate`` with ``item_response_error``.
    """
    problems = problems_of(prompts, samples, classes)
    correct = [problem["correct"] for problem in problems]
    voting = all(prompt.answer.get("kind") != "code" for prompt in prompts)
    labels = [problem["classes"] for problem in problems] if voting else None
    shares = [one.language_share for one in samples if one.language_share is not None]
    numbers = summarise(correct, labels, ks) | {
        "length_mean": fmean(one.tokens for one in samples),
        "think_length_mean": fmean(one.think_tokens for one in samples),
        "truncated_fraction": fmean(one.finish_reason == "length" for one in samples),
        "format_fraction": fmean(one.strict_format for one in samples),
        "reflection_rate": fmean(one.reflections for one in samples),
        "ungraded_fraction": fmean(not Outcome(one.outcome).counts for one in samples),
    }
    if shares:
        numbers["language_share"] = fmean(shares)
    ratings = [prompt.answer.get("rating") for prompt in prompts]
    if all(isinstance(rating, int | float) for rating in ratings):
        estimate = item_response_rating(ratings, [fmean(right) for right in correct])  # type: ignore[arg-type]
        numbers |= {"item_response_estimate": estimate.rating, "item_response_error": estimate.error}
    return numbers


def problems_of(
    prompts: Iterable[Prompt], samples: Iterable[Sample], classes: AnswerClasses = answer_classes
) -> list[dict[str, Any]]:
    """Results problem by problem.

    Returns:
        For each prompt ``prompt_id``; of its samples, in order, ``correct``, ``answers``, and ``classes``:
        equal numbers for equal answers, None for none; and the mean of their ``tokens``.
    """
    by_id: dict[str, list[Sample]] = {}
    for one in samples:
        by_id.setdefault(one.prompt_id, []).append(one)
    problems = []
    for prompt in prompts:
        of_prompt = by_id[prompt.id]
        labels = iter(classes([one.answer for one in of_prompt if one.answer is not None], prompt.answer))
        numbers: dict[Any, int] = {}
        problems.append(
            {
                "prompt_id": prompt.id,
                "correct": [one.correct for one in of_prompt],
                "answers": [one.answer for one in of_prompt],
                "classes": [
                    None if one.answer is None else numbers.setdefault(next(labels), len(numbers)) for one in of_prompt
                ],
                "tokens": fmean(one.tokens for one in of_prompt),
            }
        )
    return problems
