"""Sampling answers to held-out prompts, and grading them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from lightning_r1.evaluation.results import KS, Sample, numbers_of
from lightning_r1.evaluation.voting import AnswerClasses
from lightning_r1.models.codec import Codec
from lightning_r1.parallel.collectives import all_gather, rank, together, world_size
from lightning_r1.parallel.interruption import Interrupted, interruption
from lightning_r1.rewards.accuracy import stated_answer
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.classes import CalculatedClasses
from lightning_r1.rewards.outcomes import Tally
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.engine import EngineError, Progress, RolloutEngine, seed_for
from lightning_r1.text.language import count_words, language_share, script_of
from lightning_r1.text.reflection import count_reflections
from lightning_r1.text.templates import Template
from lightning_r1.types import Completion, Group, Outcome, Prompt, Sampling, ScoredGroup


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Numbers by name, and the samples they come from, prompt by prompt."""

    numbers: dict[str, float]
    samples: list[Sample]


def evaluate(
    engine: RolloutEngine,
    grader: RewardSuite,
    prompts: Sequence[Prompt],
    codec: Codec,
    *,
    sampling: Sampling,
    seed: int,
    ks: Sequence[int] = KS,
    classes: AnswerClasses | None = None,
    progress: Progress | None = None,
    still_wanted: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Sample ``sampling.group_size`` answers of each prompt and grade them; the work is shared by ranks.

    Args:
        engine: samples from the policy.
        grader: a completion is right if its rewards, of which each prompt has one as a rule, add up to 1.
        prompts: of one set.
        codec: template and tokenizer.
        sampling: how to sample.
        seed: the same seed draws the same randomness for the same prompt, so that two models can
            be compared on equal terms.
        ks: see :func:`.numbers_of`.
        classes: see :func:`.numbers_of`; by default what needs a calculation is calculated where the grader runs.
        progress: told how far it is.
        still_wanted: asked now and then; ends the work by raising :class:`.Interrupted`, on every rank.

    Returns:
        The same on every rank; its numbers are those of :func:`.numbers_of`.

    Raises:
        ValueError: for prompts that share an id, or an unknown language, before anything is sampled.
        EngineError: on every rank, if an engine that is another program cannot go on.
        RewardError: on every rank, if the grader fails too often (``grader.stop_at``).
    """
    check_prompts(prompts)
    mine = [prompts[index] for index in range(rank(), len(prompts), world_size())]
    graded = together(
        lambda: sample(
            engine, grader, mine, codec, sampling=sampling, seed=seed, progress=progress, still_wanted=still_wanted
        ),
        Interrupted,
        RewardError,
        EngineError,
    )
    by_id: dict[str, list[Sample]] = {prompt.id: [] for prompt in prompts}
    for one in (one for part in all_gather(graded) for one in part):
        by_id[one.prompt_id].append(one)
    samples = [one for of_prompt in by_id.values() for one in of_prompt]
    # one rank's: whether a pair of answers took too long to compare may differ
    of_rank = together(
        lambda: (
            {} if rank() else numbers_of(prompts, samples, ks=ks, classes=classes or CalculatedClasses(grader.scorer))
        ),
        RewardError,
    )
    return Evaluation(all_gather(of_rank)[0], samples)


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Refuse prompts that could not be told apart in a file, or whose language nobody can count.

    Raises:
        ValueError: names the first.
    """
    id, times = Counter(prompt.id for prompt in prompts).most_common(1)[0] if prompts else ("", 0)
    if times != 1:
        raise ValueError(f"the set has {times} prompts with the id {id!r}; each problem needs an id of its own")
    for prompt in prompts:
        script_of(prompt.language)


def sample(
    engine: RolloutEngine,
    grader: RewardSuite,
    prompts: Sequence[Prompt],
    codec: Codec,
    *,
    sampling: Sampling,
    seed: int,
    progress: Progress | None = None,
    still_wanted: Callable[[], None] = lambda: None,
) -> list[Sample]:
    """Sample and grade on this rank; a prompt's randomness belongs to its id. See :func:`evaluate`."""
    if not prompts:
        return []
    seeds = [seed_for(seed, "evaluate", prompt.id) for prompt in prompts]
    scoring = grader.open()

    def told(done: int, total: int) -> None:
        still_wanted()
        if progress:
            progress(done, total)

    groups = engine.generate(prompts, sampling, seeds=seeds, progress=told, finished=scoring.add)
    lengths = [
        (completion.length, codec.thinking_tokens(completion)) for group in groups for completion in group.completions
    ]
    with interruption.at_once():
        scored = scoring.result()
    return _graded(scored, lengths, codec.template, grader)


def grade_again(
    grader: RewardSuite, prompts: Sequence[Prompt], samples: Sequence[Sample], template: Template
) -> list[Sample]:
    """Grade stored samples anew; the grader sees texts without their token ids.

    Raises:
        ValueError: if a sample answers another prompt than the one that now has its id.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    for one in samples:
        if one.prompt_id not in by_id or by_id[one.prompt_id].text != one.prompt:
            raise ValueError(
                f"prompt {one.prompt_id!r} is not what it was when it was sampled (the set or the template changed), "
                "and only grading can be repeated; evaluate under another name="
            )
    groups = [
        Group(by_id[id], tuple(Completion((), (), one.finish_reason, text=one.completion) for one in of_prompt))
        for id, of_prompt in groupby(samples, key=lambda one: one.prompt_id)
    ]
    return _graded(grader.score(groups), [(one.tokens, one.think_tokens) for one in samples], template, grader)


def _graded(
    scored: Sequence[ScoredGroup], lengths: Sequence[tuple[int, float]], template: Template, grader: RewardSuite
) -> list[Sample]:
    # a gold that nobody can grade is a fact about the set, and is told among the numbers
    Tally().add(scored).check(replace(grader.stop_at, unscorable=None))
    items = [
        (group.group.prompt, completion, place, group)
        for group in scored
        for place, completion in enumerate(group.group.completions)
    ]
    samples = []
    for (prompt, completion, place, group), (tokens, think_tokens) in zip(items, lengths, strict=True):
        thinking = template.tags.thinking(completion.text)
        samples.append(
            Sample(
                prompt_id=prompt.id,
                prompt=prompt.text,
                completion=completion.text,
                answer=stated_answer(completion.text, prompt.answer, template.tags),
                correct=group.rewards[place] == 1,
                outcome=_outcome(group, place).value,
                finish_reason=completion.finish_reason,
                tokens=tokens,
                think_tokens=think_tokens,
                strict_format=template.tags.is_strict(completion.text),
                reflections=count_reflections(thinking, template.reflection_markers),
                language_share=language_share(thinking, prompt.language) if count_words(thinking) else None,
            )
        )
    return samples


def _outcome(scored: ScoredGroup, place: int) -> Outcome:
    """Why it is no honest grade, if it is none; else the first that is no plain one."""
    outcomes = [scores[place].outcome for scores in scored.breakdown.values()]
    failed = [outcome for outcome in outcomes if not outcome.counts]
    return next(iter(failed), next((outcome for outcome in outcomes if outcome is not Outcome.OK), Outcome.OK))
