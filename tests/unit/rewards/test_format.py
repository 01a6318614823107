"""The format rewards: the strict reading of the tags, partial credit on the way to it, and what must not pay."""

from __future__ import annotations

import itertools
import pickle
import random

import pytest

from lightning_r1.rewards.format import Format, TagCount
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

PROMPT = Prompt("test/1", "q", "q", (1,), {"kind": "number", "value": 1})


def score(text: str, tags: Tags | None = None) -> RewardScore:
    return Format(tags or Tags())(PROMPT, Completion((1,), (0.0,), "stop", text=text))


@pytest.mark.parametrize(
    "text", ["<think>a</think><answer>b</answer>", "\n<think>wrong</think> \n <answer>also wrong</answer>\n"]
)
def test_right(text: str) -> None:
    assert score(text) == RewardScore(1.0, Outcome.OK)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<think>a</think>b",
        "<think>a</think><answer></answer>",
        "<answer>b</answer><think>a</think>",
        "<think>a<think>b</think></think><answer>c</answer>",
        "<think>a</think><answer>b</answer><answer>b</answer>",
        "<think>a</think><answer>b</answer>.",
    ],
)
def test_wrong(text: str) -> None:
    wrong = score(text)
    assert (wrong.value, wrong.outcome) == (0.0, Outcome.WRONG_FORMAT)


def test_the_tags_are_the_templates() -> None:
    tags = Tags("[", "]", "{", "}")
    assert score("[a]{b}", tags).value == 1
    assert score("<think>a</think><answer>b</answer>", tags).value == 0


@pytest.mark.parametrize(
    "text",
    [
        "<think><think>a</think></think><answer>b</answer>",  # nested
        "<think>a <answer>b</answer></think><answer>b</answer>",
        "<think>in `<think>` I think</think><answer>b</answer>",  # quoted in code
        "<think>a</think><answer>```</answer>```</answer>",
        "<think> \n\t </think><answer>b</answer>",  # empty but for blanks
        "<think>a</think><answer> </answer>",
        "<think></think><answer></answer>",
        "<think>a</think><answer>b</answer><think>a</think><answer>b</answer>",  # said twice
        "<Think>a</Think><Answer>b</Answer>",  # case
        "<THINK>a</THINK><ANSWER>b</ANSWER>",
        "<thіnk>a</thіnk><аnswer>b</аnswer>",  # Cyrillic і and а
        "＜think＞a＜/think＞＜answer＞b＜/answer＞",
        "< think >a</ think >< answer >b</ answer >",
        "<th\u200bink>a</th\u200bink><answer>b</answer>",
        "</think>a<think></answer>b<answer>",  # closed before opened
    ],
)
def test_exploits_of_the_strict_format(text: str) -> None:
    assert score(text).value == 0
    assert tag_count(text) < 1


def test_the_answer_may_say_anything() -> None:
    assert score("<think>a</think><answer>4 4 4 4 or 5</answer>").value == 1


def test_more_thinking_may_be_asked_for() -> None:
    reward = Format(Tags(), min_thinking_pieces=4)
    for thinking, fits in (("x", 0), ("a b c", 0), ("2*5", 0), ("2*5=", 1), ("对吗对吗", 1), ("----", 0)):
        text = f"<think>{thinking}</think><answer>b</answer>"
        assert reward(PROMPT, Completion((1,), (0.0,), "stop", text=text)).value == fits, thinking
        assert tag_count(text, min_thinking_pieces=4) == (1 if fits else 0.25)
    with pytest.raises(ValueError, match="min_thinking_pieces=0: expected >= 1"):
        Format(Tags(), min_thinking_pieces=0)


def tag_count(text: str, **options: int) -> float:
    verdict = TagCount(Tags(), **options)(PROMPT, Completion((1,), (0.0,), "stop", text=text))
    assert (verdict.outcome is Outcome.OK) is (verdict.value == 1)
    return verdict.value


@pytest.mark.parametrize(
    ("text", "quarters"),
    [
        ("", 0),
        ("The answer is 4.", 0),
        ("<think>", 1),
        ("<think>a", 1),
        ("<think></think>", 1),
        ("<think>a</think>", 2),
        ("<think>a</think>The answer is 4.", 2),
        ("<think>a</think> So: <answer>4</answer>", 2),
        ("<think>a</think>\n<answer>", 3),
        ("<think>a</think><answer></answer>", 3),
        ("<think>a</think><answer>4", 3),
        ("<think>a</think><answer>4</answer> That is it.", 3),
        ("<think>a</think><answer>4</answer>", 4),
        (" <think>a</think>\n\n<answer>4</answer>\n", 4),
        ("Well, <think>a</think><answer>4</answer>", 0),  # something in front
        ("<answer>4</answer>", 0),
        ("a</think><answer>4</answer>", 0),
    ],
)
def test_a_quarter_for_each_tag_in_its_place(text: str, quarters: int) -> None:
    assert tag_count(text) == quarters / 4


@pytest.mark.parametrize(
    ("text", "quarters"),
    [
        ("<think></think><answer></answer>", 1),  # four bare tags
        ("</answer><answer></think><think>", 0),
        ("<think><answer></answer></think>", 1),
        ("<think>a<answer>4</answer></think>", 1),
        ("<think>" * 50, 0),
        ("<think>a</think>" * 2, 0),
        ("<think>a</think><answer>4</answer>" * 3, 0),
        ("<think>a</think><answer>4</answer></answer>", 0),
    ],
)
def test_tags_spammed_or_out_of_order_do_not_pay(text: str, quarters: int) -> None:
    assert tag_count(text) == quarters / 4


def test_only_the_strict_format_has_full_credit() -> None:
    rng = random.Random(0)
    parts = ["<think>", "</think>", "<answer>", "</answer>", "a", " ", "\n"]
    texts = ["".join(rng.choices(parts, k=rng.randrange(9))) for _ in range(3000)]
    texts += ["".join(order) for order in itertools.permutations(["<think>", "a</think>", "<answer>", "b</answer>"])]
    assert 1 <= sum(score(text).value for text in texts) < len(texts) / 10
    for text in texts:
        assert (tag_count(text) == 1) is (score(text).value == 1), text


@pytest.mark.parametrize("kind", [Format, TagCount])
def test_it_goes_to_a_worker_and_back(kind: type[Format]) -> None:
    again = pickle.loads(pickle.dumps(kind(Tags("[", "]", "{", "}"))))
    assert again(PROMPT, Completion((1,), (0.0,), "stop", text="[a]{b}")).value == 1
