"""A judge of pairs: which of two answers is better, asked in both orders.

The R1 paper labels the pairs of its helpfulness model so (v2, B.2): DeepSeek-V3 is shown both answers four times, in
random order, and the mean of its verdicts counts. Here the orders are drawn, too, but each comes as often as the
other: a judge that always prefers the first answer makes a tie, not noise. The paper does not publish the numbers
of the five verdicts; ours are 2, 1, 0, -1, -2, so that its threshold of 1 asks for more than "better" on average.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from lightning_r1.remote.answers import Answers, Record
from lightning_r1.remote.chat import ChatClient, ChatError, ChatRefused
from lightning_r1.rewards.canaries import CASES, Canaries
from lightning_r1.rewards.verdicts import Preferred
from lightning_r1.text.marks import clip_middle, new_mark
from lightning_r1.types import Outcome, RewardScore

Disagreement = Literal["mean", "tie", "unscorable"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to a question, as the judge is shown them: without their thinking."""

    question: str
    first: str
    second: str
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a judge says of a pair."""

    delta: float
    """Mean verdict, 2 (the first is much better) to -2; NaN unless ``outcome`` is ``ok``."""
    verdicts: tuple[float, ...] = ()
    """Of each query, turned so that positive is for the first answer."""
    outcome: Outcome = Outcome.OK
    detail: str = ""


class PairJudge:
    """Compares pairs.

    Args:
        client: of the model; its own cache is left unused, for no question is the same twice.
        rubric: what is better: ``helpful``, ``harmless``, or a text that says it.
        queries: of each pair, half of them in each order.
        disagreement: if the two orders' means point to different answers: ``mean`` takes the mean of all,
            ``tie`` gives 0, ``unscorable`` gives nothing.
        tries: a reply that cannot be read is asked for anew so often.
        max_answer_chars: a longer answer loses its middle.
        seed: of the orders.
        cache: folder of the verdicts; null keeps none.
        canaries: what :meth:`start` asks of the judge; null asks nothing.

    Raises:
        ValueError: for an odd number of queries, and what is unknown or out of its range.
    """

    def __init__(
        self,
        client: ChatClient,
        *,
        rubric: str = "helpful",
        queries: int = 4,
        disagreement: Disagreement = "mean",
        tries: int = 2,
        max_answer_chars: int = 16_000,
        seed: int = 0,
        cache: str | Path | None = None,
        canaries: Canaries | None = None,
    ) -> None:
        if queries < 2 or queries % 2:
            raise ValueError(f"queries={queries}: expected an even number, half of it for each order")
        if disagreement not in ("mean", "tie", "unscorable"):
            raise ValueError(f"disagreement={disagreement!r}: expected mean, tie or unscorable")
        for key, value in {"tries": tries, "max_answer_chars": max_answer_chars}.items():
            if value < 1:
                raise ValueError(f"{key}={value}: expected >= 1")
        self.client, self.verdict, self.queries, self.disagreement = client, Preferred(rubric), queries, disagreement
        self.tries, self.max_answer_chars, self.seed = tries, max_answer_chars, seed
        self.answers, self.canaries = Answers(cache), canaries

    def start(self) -> None:
        """Put the judge to the test: it has to like each wrong answer less than a right one, past the cache.

        Raises:
            RuntimeError: if it is away, or fails; one line.
        """
        if self.canaries is None:
            return
        cases = CASES[self.canaries.cases]
        right = {case.question: place for place, case in enumerate(cases) if case.right}
        wrong = [place for place, case in enumerate(cases) if not case.right and case.question in right]
        pairs = [
            Pair(cases[place].question, cases[right[cases[place].question]].answer, cases[place].answer)
            for place in wrong
        ]
        with ThreadPoolExecutor(self.client.at_once) as threads:
            said = list(threads.map(lambda pair: self.compare(pair, fresh=True), pairs))
        if away := next((one for one in said if one.outcome is Outcome.TIMEOUT), None):
            raise RuntimeError(f"judge of pairs: it does not answer: {away.detail}")
        scores = [RewardScore(math.nan, Outcome.TIMEOUT)] * len(cases)  # of those that have no partner
        for place, one in zip(wrong, said, strict=True):
            scores[place] = RewardScore(float(one.delta <= 0), one.outcome)
            known = math.nan if math.isnan(one.delta) else 1.0
            scores[right[cases[place].question]] = RewardScore(known, one.outcome)
        self.canaries.check("of pairs", scores)

    def compare(self, pair: Pair, *, fresh: bool = False) -> Comparison:
        """All queries of one pair, one after the other; the first without a verdict ends them.

        Args:
            pair: of answers.
            fresh: neither take verdicts from the cache nor leave them there.
        """
        pair = Pair(
            pair.question,
            clip_middle(pair.first.strip(), self.max_answer_chars),
            clip_middle(pair.second.strip(), self.max_answer_chars),
            pair.reference,
        )
        if pair.first == pair.second:
            return Comparison(0.0, detail="the same answer twice")
        verdicts: dict[bool, list[float]] = {False: [], True: []}
        said: list[float] = []
        for number, swapped in enumerate(self._orders(pair)):
            try:
                value = self._query(pair, number, swapped, fresh)
            except ChatError as error:
                outcome = Outcome.UNSCORABLE if isinstance(error, ChatRefused) else Outcome.TIMEOUT
                return Comparison(math.nan, tuple(said), outcome, str(error))
            if value is None:
                return Comparison(math.nan, tuple(said), Outcome.UNSCORABLE, "no verdict that can be read")
            verdicts[swapped].append(value)
            said.append(value)
        if fmean(verdicts[False]) * fmean(verdicts[True]) < 0 and self.disagreement != "mean":
            if self.disagreement == "tie":
                return Comparison(0.0, tuple(said), detail="the orders disagree")
            return Comparison(math.nan, tuple(said), Outcome.UNSCORABLE, "the orders disagree")
        return Comparison(fmean(said), tuple(said))

    def compare_all(self, pairs: Sequence[Pair]) -> list[Comparison]:
        """One comparison a pair, in order, many at once."""
        with ThreadPoolExecutor(self.client.at_once) as threads:
            return list(threads.map(self.compare, pairs))

    def _orders(self, pair: Pair) -> list[bool]:
        """Whether each query shows the second answer first; drawn for the pair, each order as often as the other."""
        orders = [False, True] * (self.queries // 2)
        random.Random(f"{self.seed}/orders/{pair.question}/{pair.first}/{pair.second}").shuffle(orders)
        return orders

    def _query(self, pair: Pair, number: int, swapped: bool, fresh: bool) -> float | None:
        shown = (pair.second, pair.first) if swapped else (pair.first, pair.second)
        for again in range(self.tries):
            record = self._record(pair, shown, [number, again], fresh)
            value = self.verdict.read(record["reply"], record["mark"])
            if value is not None:
                return -value if swapped else value
        return None

    def _record(self, pair: Pair, shown: tuple[str, str], numbers: list[int], fresh: bool) -> Record:
        def make() -> Record:
            mark = new_mark(pair.question, pair.reference or "", *shown)
            message = self.verdict.message(mark, pair.question, pair.reference, *shown)
            reply = self.client.ask([{"role": "user", "content": message}])
            return {"mark": mark, "message": message, "reply": reply}

        if fresh:
            return make()
        about = self.verdict.message("", pair.question, pair.reference, *shown)
        return self.answers.once([self.client.url, self.client.model, self.client.options, about, numbers], make)
