"""Pairs of answers labelled by a judge: what a helpfulness model is trained on (R1 paper v2, B.2).

Of each question two answers are compared; a pair is kept if the judge prefers one clearly, by more than 1 on
average of four verdicts. Then the lengths are balanced over the whole data set, for a reward model that finds
preferred answers longer learns to like length.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.comparison import Comparison, Pair, PairJudge
from lightning_r1.text.openers import says_nothing
from lightning_r1.text.tags import Tags
from lightning_r1.types import Group, Outcome, Preference


@dataclass(frozen=True)
class Labelling:
    """How pairs are made of completions."""

    judge: PairJudge
    min_gap: float = 1.0
    """As of :func:`label_pairs`."""
    balance_lengths: bool = True

    def __post_init__(self) -> None:
        """Refuse a gap that no pair has."""
        if not 0 <= self.min_gap < 2:
            raise ValueError(f"sample.pairs.min_gap={self.min_gap}: expected at least 0, and less than 2")


def pairs_of(groups: Sequence[Group], tags: Tags) -> list[tuple[str, str, str, Pair]]:
    """Id, both whole texts, and what the judge is shown of them, for each group with two answers to compare.

    The pair are a group's first two completions that end, say something after their thinking, and differ.
    """
    found = []
    for group in groups:
        said: dict[str, str] = {}
        for completion in group.completions:
            summary = (tags.after_thinking(completion.text) or "").strip()
            if completion.finish_reason == "stop" and not says_nothing(summary, tags):
                said.setdefault(summary, completion.text)
        if len(said) < 2:
            continue
        (first, first_text), (second, second_text) = list(said.items())[:2]
        reference = group.prompt.answer.get("reference")
        pair = Pair(group.prompt.question, first, second, None if reference is None else str(reference))
        found.append((group.prompt.id, first_text, second_text, pair))
    return found


def label_pairs(
    groups: Sequence[Group], judge: PairJudge, tags: Tags, *, min_gap: float = 1.0
) -> tuple[list[Preference], Counter[str]]:
    """Preferences of a judge.

    Args:
        groups: completions to compare, two or more of each prompt.
        judge: of the pairs.
        tags: of the thinking, which the judge does not see.
        min_gap: a pair is kept if the verdicts' mean is further from 0 than this.

    Returns:
        The preferences, responses whole, in the order of the groups; and how many groups were ``kept``, had no two
        answers to compare (``no pair``), a judgement that is not clear (``close``), or none (``unscorable``).

    Raises:
        RewardError: if the judge is away: what it has not seen would be missing from the data.
    """
    pairs = pairs_of(groups, tags)
    facts = {group.prompt.id: group.prompt for group in groups}
    kept: list[Preference] = []
    counts: Counter[str] = Counter({"no pair": len(groups) - len(pairs)})
    for (name, first, second, _), said in zip(pairs, judge.compare_all([pair for *_, pair in pairs]), strict=True):
        counts[_what(said, min_gap)] += 1
        if _what(said, min_gap) == "kept":
            chosen, rejected = (first, second) if said.delta > 0 else (second, first)
            prompt = facts[name]
            kept.append(Preference(name, prompt.question, chosen, rejected, prompt.domain, prompt.language))
    return kept, +counts


def _what(said: Comparison, min_gap: float) -> str:
    if said.outcome is Outcome.TIMEOUT:
        raise RewardError(f"the judge of pairs is away: {said.detail}; start again when it is back")
    if math.isnan(said.delta):
        return "unscorable"
    return "kept" if abs(said.delta) > min_gap else "close"


def balance_lengths(pairs: Sequence[Preference]) -> list[Preference]:
    """As many pairs whose chosen response is longer as whose rejected one is, and by about as much.

    Of the side that has more, each pair of the other side keeps the one whose difference in characters is
    nearest to its own. Pairs of equal length stay. The order is kept.
    """
    longer: dict[int, list[tuple[int, int]]] = {1: [], -1: []}
    for place, pair in enumerate(pairs):
        gap = len(pair.chosen) - len(pair.rejected)
        if gap:
            longer[1 if gap > 0 else -1].append((abs(gap), place))
    few, many = sorted((longer[1], longer[-1]), key=len)
    left, matched = sorted(many), set()
    # the largest differences first: they have the fewest to choose from
    for gap, _ in sorted(few, reverse=True):
        near = bisect_left(left, (gap, 0))
        best = min((index for index in (near - 1, near) if 0 <= index < len(left)), key=lambda i: abs(left[i][0] - gap))
        matched.add(left.pop(best)[1])
    dropped = {place for _, place in many} - matched
    return [pair for place, pair in enumerate(pairs) if place not in dropped]
