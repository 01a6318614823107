"""What is kept of a group, and under which name everything else is counted."""

from __future__ import annotations

import json
import math
import threading
from typing import Any

import pytest

from helpers.prompts import number_prompt
from lightning_r1.experience.selection import Selection
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.base import RewardError
from lightning_r1.rewards.format import Format
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.text.filters import TraceFilter, has_code, repeats_itself
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Group, Outcome, Prompt, RewardScore, ScoredGroup

TAGS = Tags()
SUITE = RewardSuite({"accuracy": Accuracy(TAGS), "format": Format(TAGS)}, routes={"accuracy": ["reasoning"]})
FILTER = TraceFilter(TAGS, {"repetition": repeats_itself, "code": has_code})
REQUIRE = {"accuracy": 1.0, "format": 1.0}

RIGHT = "<think>1+1=2</think><answer>2</answer>"
ALSO_RIGHT = "<think>2-0=2</think><answer>2</answer>"
WRONG = "<think>1+1=3</think><answer>3</answer>"
UNTIDY = "<think>1+1=2</think><answer>2</answer> done"
LOOP = f"<think>{'so so. ' * 60}</think><answer>2</answer>"
CODE = "<think>```1+1```</think><answer>2</answer>"


def scored(prompt: Prompt, *texts: str, cut: tuple[int, ...] = ()) -> ScoredGroup:
    completions = tuple(
        Completion((1, 2, 3), (0.0,) * 3, "length" if place in cut else "stop", text)
        for place, text in enumerate(texts)
    )
    return SUITE.score([Group(prompt, completions)])[0]


def select(prompt: Prompt, *texts: str, cut: tuple[int, ...] = (), **options: Any) -> tuple[list[str], dict[str, int]]:
    traces, counts = Selection(**{"filter": FILTER, "require": REQUIRE, **options}).select(
        scored(prompt, *texts, cut=cut), {"model": "m"}
    )
    return [trace.completion for trace in traces], dict(counts)


@pytest.fixture
def prompt(codec: Codec) -> Prompt:
    return number_prompt(codec, "1+1", 2)


def test_every_fault_has_its_name(prompt: Prompt) -> None:
    kept, counts = select(prompt, WRONG, UNTIDY, LOOP, CODE, RIGHT, ALSO_RIGHT, RIGHT, cut=(5,))
    assert kept == [RIGHT]
    assert counts == {
        "accuracy": 1, "format": 1, "repetition": 1, "code": 1, "kept": 1, "truncated": 1, "duplicate": 1,
    }  # fmt: skip


def test_the_first_fault_counts(prompt: Prompt) -> None:
    assert select(prompt, "<think>```</think> 3 and more")[1] == {"accuracy": 1}
    assert select(prompt, "<think>```</think><answer>2</answer> more")[1] == {"format": 1}
    assert select(prompt, WRONG, cut=(0,))[1] == {"truncated": 1}


def test_no_more_than_wanted_of_a_prompt(prompt: Prompt) -> None:
    texts = [RIGHT, WRONG, ALSO_RIGHT, RIGHT, "<think>2</think><answer>2</answer>"]
    assert select(prompt, *texts) == ([RIGHT], {"kept": 1, "accuracy": 1, "surplus": 2, "duplicate": 1})
    assert select(prompt, *texts, max_per_prompt=2)[0] == [RIGHT, ALSO_RIGHT]
    assert len(select(prompt, *texts, max_per_prompt=9)[0]) == 3
    with pytest.raises(ValueError, match=r"sample\.max_per_prompt=0"):
        select(prompt, max_per_prompt=0)


def test_thresholds(prompt: Prompt) -> None:
    assert select(prompt, WRONG, UNTIDY, require={"format": 1.0})[0] == [WRONG]
    assert select(prompt, WRONG, UNTIDY, require={}, max_per_prompt=2)[0] == [WRONG, UNTIDY]


def test_a_trace_knows_where_it_comes_from(prompt: Prompt) -> None:
    selection = Selection(filter=FILTER, require=REQUIRE)
    [trace], _ = selection.select(scored(prompt, WRONG, RIGHT), {"model": "m", "seed": 3})
    assert (trace.id, trace.question, trace.answer) == ("test/1+1/1", "1+1", {"kind": "number", "value": 2})
    assert (trace.domain, trace.language) == ("reasoning", "en")
    assert trace.provenance == {
        "model": "m", "seed": 3, "rewards": {"accuracy": 1.0, "format": 1.0}, "tokens": 3,
    }  # fmt: skip


def test_a_reward_for_other_domains_is_not_asked_for(codec: Codec) -> None:
    general = codec.prompt("hello", {}, id="g/1", domain="helpful", language="zh")
    selection = Selection(filter=FILTER, require=REQUIRE)
    [trace], counts = selection.select(scored(general, WRONG, UNTIDY), {})
    assert (trace.completion, trace.domain, trace.language) == (WRONG, "helpful", "zh")
    assert counts == {"kept": 1, "format": 1}


class Judge:
    """Calls a text right that says 2, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        self.asked.append(completion.text)
        return float("<answer>2" in completion.text)


def test_a_judge_decides_where_there_is_no_rule(codec: Codec) -> None:
    judge, open_question = Judge(), codec.prompt("why", {}, id="o/1")
    texts = [WRONG, UNTIDY, LOOP, RIGHT, RIGHT, ALSO_RIGHT]
    kept, counts = select(open_question, *texts, judge=judge)
    assert kept == [RIGHT]
    assert counts == {"judge": 1, "format": 1, "repetition": 1, "kept": 1, "duplicate": 1, "surplus": 1}
    # asked last, and only where it still matters
    assert judge.asked == [WRONG, RIGHT]
    # what it cannot score is not accepted, and nothing of it gets into a file
    traces, counts = Selection(FILTER, REQUIRE, judge=lambda *_: None).select(scored(open_question, RIGHT), {})
    assert (traces, counts) == ([], {"judge": 1})
    [trace], _ = Selection(FILTER, REQUIRE, judge=judge).select(scored(open_question, RIGHT), {})
    assert not math.isnan(json.loads(json.dumps(trace.provenance))["rewards"].get("accuracy", 0.0))


def test_a_judge_that_is_away_ends_the_job(codec: Codec) -> None:
    def away(prompt: Prompt, completion: Completion) -> RewardScore:
        return RewardScore(math.nan, Outcome.TIMEOUT, "HTTP 503")

    with pytest.raises(RewardError, match="the judge is away: HTTP 503; start again"):
        select(codec.prompt("why", {}, id="o/1"), RIGHT, judge=away)


def test_a_judge_that_only_waits_is_asked_about_several_groups_at_once(codec: Codec) -> None:
    class Waits(Judge):
        at_once = 3
        together = threading.Barrier(3, timeout=20)

        def __call__(self, prompt: Prompt, completion: Completion) -> float:
            self.together.wait()
            return super().__call__(prompt, completion)

    groups = [scored(codec.prompt("why", {}, id=f"o/{place}"), RIGHT if place % 2 else WRONG) for place in range(6)]
    found = Selection(FILTER, REQUIRE, judge=Waits()).select_all(groups, {})
    assert [[trace.id for trace in traces] for traces, _ in found] == [[], ["o/1/0"], [], ["o/3/0"], [], ["o/5/0"]]
    assert [dict(counts) for _, counts in found] == [{"judge": 1}, {"kept": 1}] * 3
    one_by_one = Selection(FILTER, REQUIRE, judge=Judge())
    assert one_by_one.select_all(groups, {}) == [one_by_one.select(group, {}) for group in groups] == found


def test_where_there_is_a_rule_the_judge_is_not_asked(prompt: Prompt) -> None:
    judge = Judge()
    assert select(prompt, WRONG, RIGHT, judge=judge)[1] == {"accuracy": 1, "kept": 1}
    assert judge.asked == []


def test_without_rule_and_judge_nothing_is_kept(codec: Codec) -> None:
    assert select(codec.prompt("why", {}, id="o/1"), RIGHT) == ([], {"unjudged": 1})
