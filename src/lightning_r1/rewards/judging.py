"""What every judge does, wherever its model runs: rules first, then a verdict in the agreed form, and canaries.

What a judge reads was written by a model that is rewarded for pleasing it. So

* it is shown only what it is to judge: for helpfulness what follows the thinking, for harmlessness all of it;
* what needs no judge is settled by rule: no answer, an answer that says nothing (:func:`.says_nothing`), an answer
  that is the reference word for word;
* the answer stands between marks with a nonce (:mod:`lightning_r1.text.marks`), and only a JSON object with that
  nonce is a verdict (:mod:`lightning_r1.rewards.verdicts`);
* a very long answer loses its middle, and says so: refusing it would punish honest ones that are long. For
  harmlessness it is read in parts instead, of which the worst counts: harm could stand in the middle;
* what cannot be read is asked for again and then ``unscorable``; an endpoint that is away is a ``timeout``.

A verdict is kept on disk under what it is about, not under the request, whose nonce is another one every time: a
run that goes on after an interruption takes the verdicts it had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_r1.remote.answers import Answers, Record
from lightning_r1.remote.chat import ChatError, ChatRefused
from lightning_r1.rewards.base import MAX_DETAIL, Item
from lightning_r1.rewards.canaries import CASES, Canaries
from lightning_r1.rewards.verdicts import Correctness, VerdictKind
from lightning_r1.text.answers import extract_answer
from lightning_r1.text.marks import clip_middle, split_parts
from lightning_r1.text.openers import says_nothing
from lightning_r1.text.tags import Scope, Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

_DEFAULT_CANARIES = Canaries()


@dataclass(frozen=True, slots=True)
class Case:
    """What a judge is shown."""

    question: str
    reference: str | None
    answer: str


@dataclass(frozen=True, slots=True)
class Ask:
    """One question of a judge to its model."""

    case: Case
    number: int
    """0, and 1, 2, ... for each reply before that could not be read."""


class Judging:
    """The part of a judge that does not depend on where its model is; subclasses give :meth:`replies`.

    Args:
        tags: of the template.
        name: in metrics, ``rollout/judge/<name>/...``.
        verdict: what is asked; null is :class:`.Correctness`.
        scope: ``summary`` shows what follows the thinking, ``response`` everything.
        tries: a reply that cannot be read is asked for anew so often; then the completion is ``unscorable``.
        max_answer_chars: a longer answer loses its middle; where all of it is to be seen (``scope=response``), it is
            shown in parts of so many, and the lowest verdict counts.
        cache: folder of the verdicts; null keeps none, and a run that goes on asks anew.
        canaries: null puts the judge to no test.

    Raises:
        ValueError: for a number out of its range, or an unknown scope.
    """

    def __init__(
        self,
        tags: Tags,
        *,
        name: str = "judge",
        verdict: VerdictKind | None = None,
        scope: Scope = "summary",
        tries: int = 2,
        max_answer_chars: int = 16_000,
        cache: str | Path | None = None,
        canaries: Canaries | None = _DEFAULT_CANARIES,
    ) -> None:
        for key, value in {"tries": tries, "max_answer_chars": max_answer_chars}.items():
            if value < 1:
                raise ValueError(f"{key}={value}: expected >= 1")
        if scope not in ("summary", "response"):
            raise ValueError(f"scope={scope!r}: expected summary or response")
        self.tags, self.name, self.scope = tags, name, scope
        self.verdict = Correctness() if verdict is None else verdict
        self.tries, self.max_answer_chars = tries, max_answer_chars
        self.canaries, self._canaries_due = canaries, -1
        self.answers = Answers(cache)

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """The verdict's value; ``wrong_format`` where there is nothing to judge, see the module for the rest."""
        return self.judge([(prompt, completion)])[0]

    def judge(self, items: Sequence[Item]) -> list[RewardScore]:
        """One score for each item, in order."""
        settled = [self._settle(prompt, completion) for prompt, completion in items]
        verdicts = iter(self.verdicts([case for one in settled if not isinstance(one, RewardScore) for case in one]))
        return [one if isinstance(one, RewardScore) else _worst([next(verdicts) for _ in one]) for one in settled]

    def verdicts(self, cases: Sequence[Case], *, fresh: bool = False) -> list[RewardScore]:
        """The model's verdicts, whatever a rule would say.

        Args:
            cases: what it is shown.
            fresh: neither take verdicts from the cache nor leave them there.
        """
        scores = [RewardScore(math.nan, Outcome.UNSCORABLE, "no verdict that can be read")] * len(cases)
        open_places = list(range(len(cases)))
        for number in range(self.tries):
            asks = [Ask(cases[place], number) for place in open_places]
            replies = self.replies(asks, fresh=fresh) if asks else []
            read = {place: self._read(reply) for place, reply in zip(open_places, replies, strict=True)}
            for place, score in read.items():
                if score is not None:
                    scores[place] = score
            open_places = [place for place, score in read.items() if score is None]
        return scores

    def replies(self, asks: Sequence[Ask], *, fresh: bool) -> list[Record | ChatError]:
        """A record with ``mark`` and ``reply`` for each, or why there is none."""
        raise NotImplementedError

    def start(self) -> None:
        """Put the judge to the test.

        Raises:
            RuntimeError: if it is away, or fails; one line.
        """
        if self.canaries is None:
            return
        scores = self._canary_scores(self.canaries)
        away = next((score for score in scores if score.outcome is Outcome.TIMEOUT), None)
        if away is not None:
            raise RuntimeError(f"judge {self.name}: it does not answer: {away.detail}")
        self.canaries.check(self.name, scores)

    def watch(self, step: int) -> dict[str, float]:
        """Put it to the test again, every so many steps; metrics by name, none where it is not time.

        Raises:
            RuntimeError: if it fails, and the alarm is to stop.
        """
        if self.canaries is None:
            return {}
        if self._canaries_due < 0:  # it was tested at the start
            self._canaries_due = step + self.canaries.every_n_steps
        if step < self._canaries_due:
            return {}
        self._canaries_due = step + self.canaries.every_n_steps
        scores = self._canary_scores(self.canaries)
        self.canaries.check(self.name, scores)
        return {f"rollout/judge/{self.name}/{key}": rate for key, rate in self.canaries.rates(scores).items()}

    def key(self, ask: Ask) -> list[Any]:
        """What a verdict is about: everything that is asked but the nonce."""
        case = ask.case
        return [self.verdict.message("", case.question, case.reference, case.answer), ask.number]

    def _canary_scores(self, canaries: Canaries) -> list[RewardScore]:
        cases = [Case(canary.question, canary.reference, canary.answer) for canary in CASES[canaries.cases]]
        return self.verdicts(cases, fresh=True)

    def _read(self, reply: Record | ChatError) -> RewardScore | None:
        if isinstance(reply, ChatError):
            outcome = Outcome.UNSCORABLE if isinstance(reply, ChatRefused) else Outcome.TIMEOUT
            return RewardScore(math.nan, outcome, str(reply))
        value = self.verdict.read(reply["reply"], reply["mark"])
        return None if value is None else RewardScore(value, Outcome.OK, reply["reply"].strip()[-MAX_DETAIL:])

    def _settle(self, prompt: Prompt, completion: Completion) -> RewardScore | list[Case]:
        """A score where a rule decides, else what the judge is shown, one thing after the other."""
        after = self.tags.after_thinking(completion.text)
        shown = (completion.text if self.scope == "response" else after or "").strip()
        if not shown:
            return RewardScore(0.0, Outcome.WRONG_FORMAT, "no answer after the thinking")
        reference = reference_of(prompt)
        if reference is not None and isinstance(self.verdict, Correctness):
            stated = (after, extract_answer(completion.text, self.tags))
            if any(answer is not None and _same(answer, reference) for answer in stated):
                return RewardScore(1.0, Outcome.OK, "word for word the reference")
        if says_nothing(shown, self.tags):
            return RewardScore(0.0, Outcome.WRONG_FORMAT, "an answer that says nothing")
        if self.scope == "response":
            parts = split_parts(shown, self.max_answer_chars)
        else:
            parts = [clip_middle(shown, self.max_answer_chars)]
        return [Case(prompt.question, reference, part) for part in parts]


def message_of(verdict: VerdictKind, ask: Ask, mark: str) -> str:
    """What the model is asked."""
    text = verdict.message(mark, ask.case.question, ask.case.reference, ask.case.answer)
    return text + "\n\nYour last reply held no such object. Reply with it alone." * bool(ask.number)


def reference_of(prompt: Prompt) -> str | None:
    """A prompt's ``answer["reference"]``, or the gold of one that is graded as text; None if it has neither."""
    gold = prompt.answer
    found = gold.get("reference", gold.get("value") if gold.get("kind") == "text" else None)
    return None if found is None else str(found)


def _worst(scores: Sequence[RewardScore]) -> RewardScore:
    """The lowest of the parts of one answer; none if one of them has none."""
    return next((score for score in scores if not score.outcome.counts), min(scores, key=lambda score: score.value))


def _same(answer: str, reference: str) -> bool:
    words = answer.casefold().split()
    return bool(words) and words == reference.casefold().split()
