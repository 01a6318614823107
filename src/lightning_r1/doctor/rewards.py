"""Every reward is asked, where and how the run will ask it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from lightning_r1.doctor.data import as_completion, describe_score, sampled, shortened
from lightning_r1.doctor.findings import Finding, check, failed, ok, warning
from lightning_r1.doctor.golds import completion_text, right_answer, wrong_answer
from lightning_r1.doctor.patient import Patient
from lightning_r1.rewards.base import BatchReward, InProcessScorer, Item, Reward
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.types import Outcome, Prompt, RewardScore

_ASKED = 4
_HOSTILE = ("9**9**9**9**9", r"\boxed{9^{9^{9^{9^{9}}}}}", "((((" * 5000 + "1", "9" * 100_000)


@check("rewards")
def rewards_answer(patient: Patient) -> Iterator[Finding]:
    """A right, a wrong and an empty completion, and hostile ones, in honest numbers and in time."""
    if not patient.rolls_out:
        return
    suite, data = patient.rewards, patient.data
    suite.check_covers([*data.train, *data.general])
    for name, reward in suite.rewards.items():
        prompts = [prompt for prompt in (*data.train, *data.general) if name in suite.asked(prompt)]
        if not prompts:
            yield failed(f"{name} is for none of the prompts", f"reward.routes.{name}, or leave the reward out")
            continue
        yield from _asked(patient, name, reward, sampled(prompts, _ASKED, "rewards"))


def _asked(patient: Patient, name: str, reward: Reward, prompts: Sequence[Prompt]) -> Iterator[Finding]:
    tags = patient.template_codec.template.tags
    texts = {
        "right": [completion_text(tags, right_answer(prompt.answer) or "42") for prompt in prompts],
        "wrong": [completion_text(tags, wrong_answer(prompt.answer)) for prompt in prompts],
        "empty": ["" for _ in prompts],
    }
    told, seconds, dishonest = [], 0.0, False
    for what, written in texts.items():
        items = [(prompt, as_completion(text)) for prompt, text in zip(prompts, written, strict=True)]
        scores, took = _timed(patient.rewards, name, reward, items)
        seconds += took
        bad = [score for score in scores if not score.outcome.counts]
        if bad and not dishonest:
            dishonest = True
            # a gold that cannot be used is a matter of the data, and of the golds' own check
            level = warning if bad[0].outcome is Outcome.UNSCORABLE else failed
            yield level(
                f"{name}: {len(bad)} of {len(scores)} {what} answers ended in {bad[0].outcome}: "
                f"{describe_score(bad[0])}",
                f"look at reward.rewards.{name}: such answers teach nothing",
            )
        told.append(f"{what} {describe_score(scores[0])}")
    if not dishonest:
        each = 1000 * seconds / (3 * len(prompts))
        yield ok(f"{name}: {'; '.join(map(shortened, told))}; {each:.1f} ms an answer")
    yield from _attacked(patient, name, reward, prompts[0])


def _attacked(patient: Patient, name: str, reward: Reward, prompt: Prompt) -> Iterator[Finding]:
    tags, limit = patient.template_codec.template.tags, patient.options["slowest_answer_s"]
    for text in _HOSTILE:
        items = [(prompt, as_completion(completion_text(tags, text)))]
        scores, seconds = _timed(patient.rewards, name, reward, items)
        if seconds > limit:
            yield failed(
                f"{name}: {shortened(text, 30)} took {seconds:.1f} s, more than {limit:g} s ({scores[0].outcome})",
                "a reward needs a limit of its own; this one stalls every step",
            )


def _timed(suite: RewardSuite, name: str, reward: Reward, items: Sequence[Item]) -> tuple[Sequence[RewardScore], float]:
    scorer = InProcessScorer() if isinstance(reward, BatchReward) else suite.scorer_of(reward)
    started = time.perf_counter()
    scores = scorer.score(name, reward, items)
    return scores, time.perf_counter() - started
