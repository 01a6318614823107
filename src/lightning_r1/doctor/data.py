"""What will be learned from: how much of it, how long, and whether its golds are right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from lightning_r1.data.decontaminate import Decontaminator
from lightning_r1.doctor.findings import Finding, check, failed, ok, warning
from lightning_r1.doctor.golds import completion_text, right_answer, wrong_answer
from lightning_r1.doctor.patient import Patient
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.base import Reward
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

# below this share of prompts that occur twice nobody needs to know
_FEW_DUPLICATES = 0.01


@check("data")
def data_can_be_learned_from(patient: Patient) -> Iterator[Finding]:
    """How much there is, and of what kind."""
    data, of_first = patient.data, patient.options["limit"]
    told = f" (of each source only the first {of_first} rows were read: doctor.limit)" if of_first else ""
    if patient.rolls_out:
        yield from _prompts(patient, told)
    elif patient.kind == "text":
        documents = data.documents(0)
        lengths = [len(patient.codec.encode(text)) for text in documents]
        yield ok(f"raw text, {data.batch_size} documents a step; the first step's have {spread_of(lengths)} tokens")
    else:
        yield ok(data.describe() + told)
        if patient.kind == "sft":
            lengths = [len(row) for step in range(min(8, patient.steps)) for row in data.rows(step)]
            yield ok(f"traces of the first steps have {spread_of(lengths)} tokens, the longest of all {data.longest}")
            if data.left_out > data.epoch_size:
                yield warning(
                    f"{data.left_out:,} traces are longer than {data.max_tokens} tokens, more than are kept",
                    "data.max_tokens=<more>",
                )


def _prompts(patient: Patient, told: str) -> Iterator[Finding]:
    data = patient.data
    prompts = [*data.train, *data.general]
    questions = Counter(prompt.question for prompt in prompts)
    facts = f"{len(prompts):,} prompts{told}"
    if patient.codec_is_real:
        facts += f" of {spread_of([len(prompt.token_ids) for prompt in prompts])} tokens"
    facts += f"; {_shares(prompts)}"
    if data.left_out:
        facts += f"; {data.left_out:,} longer than {data.max_prompt_tokens} tokens left out"
    if data.left_out > len(prompts):
        yield warning(facts, "data.max_prompt_tokens=<more>")
    else:
        yield ok(facts)
    if twice := len(prompts) - len(questions):
        example = questions.most_common(1)[0][0]
        told = f"{twice:,} prompts are duplicates, e.g. {shortened(example)}"
        if twice > _FEW_DUPLICATES * len(prompts):
            yield warning(told, "remove them from the data: they are drawn more often than the others")
        else:
            yield ok(told)
    for name, held_out in patient.sets.items():
        yield _overlap(name, held_out, prompts)


def _overlap(name: str, held_out: Sequence[Prompt], prompts: Sequence[Prompt]) -> Finding:
    fix = f"data.decontaminate.{name}=<the same rows as in eval.sets.{name}>"
    problems = {problem.question for problem in held_out}
    if same := sum(prompt.question in problems for prompt in prompts):
        return warning(f"{same:,} prompts are problems of eval.sets.{name}: its score will be too good", fix)
    overlapping = len(prompts) - sum(1 for _ in Decontaminator({name: held_out}).clean(prompts))
    if overlapping > len(prompts) / 2:
        return ok(
            f"no prompt is one of the {len(held_out):,} problems of eval.sets.{name}; the words of asking are alike"
        )
    if overlapping:
        told = f"{overlapping:,} prompts share ten words in a row with a problem of eval.sets.{name}"
        return warning(f"{told}: its score may be too good", fix)
    return ok(f"none of them overlaps with the {len(held_out):,} problems of eval.sets.{name}")


@check("golds")
def golds_are_right_for_themselves(patient: Patient) -> Iterator[Finding]:
    """Each sampled gold is worth 1, something else 0, and silence 0 for its format."""
    if not patient.rolls_out:
        return
    suite = patient.rewards
    graders = {name: reward for name, reward in suite.rewards.items() if isinstance(reward, Accuracy)}
    if not graders:
        yield ok("no reward here grades against golds")
    for name, grader in graders.items():
        asked = [prompt for prompt in patient.data.train if name in suite.asked(prompt)]
        yield from _graded(patient, name, grader, sampled(asked, patient.options["sample"], "golds"))


def _graded(patient: Patient, name: str, grader: Reward, prompts: Sequence[Prompt]) -> Iterator[Finding]:
    tags = patient.template_codec.template.tags
    right = {prompt.id: right_answer(prompt.answer) for prompt in prompts}
    known = [prompt for prompt in prompts if right[prompt.id] is not None]
    silent = Counter(str(prompt.answer.get("kind")) for prompt in prompts if right[prompt.id] is None)
    for kind, count in silent.items():
        yield ok(f"{count} golds of kind {kind} cannot be checked by themselves: they hold no answer")
    wrongs = 0
    for what, texts, passes, wanted in (
        ("itself", [completion_text(tags, str(right[p.id])) for p in known], _is_one, "should be 1"),
        ("a wrong answer", [completion_text(tags, wrong_answer(p.answer)) for p in known], _is_zero, "should be 0"),
        ("no answer", ["" for _ in known], _is_silence, "should be 0, wrong_format"),
    ):
        items = [(prompt, as_completion(text)) for prompt, text in zip(known, texts, strict=True)]
        scores = patient.rewards.scorer_of(grader).score(name, grader, items) if items else []
        bad = [(prompt, score) for prompt, score in zip(known, scores, strict=True) if not passes(score)]
        wrongs += len(bad)
        if bad:
            prompt, score = bad[0]
            yield failed(
                f"{name}: for {len(bad)} of {len(known)} golds {what} {wanted}, e.g. {prompt.id} "
                f"({prompt.answer.get('kind')} {shortened(str(right[prompt.id]))}): {describe_score(score)}",
                "correct these rows, or give them another kind",
            )
    if known and not wrongs:
        kinds = ", ".join(sorted({str(prompt.answer["kind"]) for prompt in known}))
        yield ok(f"{name}: {len(known)} golds ({kinds}): itself 1, a wrong answer 0, no answer 0 (wrong_format)")


def _is_one(score: RewardScore) -> bool:
    return score.outcome is Outcome.OK and score.value == 1


def _is_zero(score: RewardScore) -> bool:
    return score.outcome.counts and score.value == 0


def _is_silence(score: RewardScore) -> bool:
    return score.outcome is Outcome.WRONG_FORMAT and score.value == 0


def describe_score(score: RewardScore) -> str:
    """A verdict in a few words."""
    told = f"{score.value:g}" if score.outcome is Outcome.OK else f"{score.value:g} ({score.outcome})"
    return told + (f", {shortened(score.detail)}" if score.detail else "")


def as_completion(text: str) -> Completion:
    """A completion of which only the text is read."""
    return Completion((), (), "stop", text)


def sampled(prompts: Sequence[Prompt], count: int, what: str) -> list[Prompt]:
    """So many of the prompts, always the same ones."""
    return random.Random(f"doctor/{what}").sample(list(prompts), min(count, len(prompts)))


def spread_of(lengths: Sequence[int]) -> str:
    """The shape of a distribution in words.

    >>> spread_of([7, 3, 5])
    '3 to 7 (median 5, 95 % up to 7)'
    """
    ordered = sorted(lengths)
    if not ordered:
        return "no"
    return f"{ordered[0]} to {ordered[-1]} (median {median(ordered):g}, 95 % up to {ordered[int(0.95 * len(ordered))]})"


def shortened(text: str, most: int = 80) -> str:
    """On one line, and no longer than this."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


def _shares(prompts: Sequence[Prompt]) -> str:
    domains = Counter(prompt.domain for prompt in prompts)
    languages = Counter(prompt.language for prompt in prompts)
    kinds = Counter(str(prompt.answer.get("kind", "no gold")) for prompt in prompts)
    return ", ".join(
        " and ".join(f"{name} {count / len(prompts):.0%}" for name, count in counts.items())
        for counts in (domains, languages, kinds)
    ).replace(" 100%", "")
