r"""Finding the answer: the last tag behind the thinking, the last balanced box."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from lightning_r1.text.answers import extract_answer, last_boxed
from lightning_r1.text.tags import Tags

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>7?</think><answer>8</answer>", "8"),
        ("7?</think><answer>8</answer>", "8"),  # the opening tag was in the prompt
        ("<think>a</think><answer>\n 8 \n</answer>", "8"),
        ("<think>a</think>so <answer>8</answer> it is", "8"),
        # the last of several
        ("<think>a</think><answer>7</answer><answer>8</answer>", "8"),
        ("<think>a</think><answer>7</answer> no, <answer>8</answer>", "8"),
        ("<think>a</think><answer>7<answer>8</answer>", "8"),
        # what is never finished, or stands in the thinking, is no answer
        ("<think>a</think><answer>7</answer><answer>8", "7"),
        ("<think>a</think><answer>8", None),
        ("<think>a</think>8</answer>", None),
        ("<think>a<answer>8</answer></think>", None),
        ("<think>a<answer>8</answer></think>I do not know", None),
        ("<think>a</think><answer>7</answer></think><answer>8</answer>", "8"),
        ("<think>a</think><answer>7</answer></think>", None),
        ("<answer>8</answer>", None),
        ("<think>a<answer>8</answer>", None),
        ("", None),
        ("</think>", None),
        ("<think>a</think><answer></answer>", None),
        ("<think>a</think><answer> \n</answer>", None),
        ("<think>a</think></answer>8<answer>", None),
    ],
)
def test_the_answer_in_tags(text: str, answer: str | None) -> None:
    assert extract_answer(text, Tags()) == answer


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><answer>8</answer></answer>",
        "<think>a</think><answer>8</answer> and that is my </answer>",
        "<think>a</think><answer><answer>8</answer></answer>",
    ],
)
def test_the_last_complete_pair_counts_whatever_closes_behind_it(text: str) -> None:
    assert extract_answer(text, Tags()) == "8"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think>a</think>So \boxed{8}.", "8"),
        (r"<think>\boxed{7}</think>So \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"<think>\boxed{7}</think>It is 7.", None),  # boxed in the thinking only
        (r"<think>a</think>\boxed{7} or \boxed{8}", "8"),
        (r"<think>a</think>\boxed{7} or \boxed{8", "7"),  # the last that balances
        (r"<think>a</think>\boxed{8", None),
        (r"<think>a</think>\boxed{}", None),
        (r"<think>a</think>\boxed{ }", None),
        (r"<think>a</think>\boxed{ 8 }", "8"),
        (r"<think>a</think>\boxed 8", None),
        # the tag is stronger than a box outside it, and a box inside it is the answer
        (r"<think>a</think><answer>7</answer> \boxed{8}", "7"),
        (r"<think>a</think>\boxed{7}<answer>8</answer>", "8"),
        (r"<think>a</think><answer>so \boxed{8}</answer>", "8"),
        (r"<think>a</think><answer>\boxed{8</answer>", r"\boxed{8"),
        (r"<think>a</think><answer>\boxed{}</answer>", None),
        (r"\boxed{8}", None),  # no thinking was closed
    ],
)
def test_the_answer_in_a_box(text: str, answer: str | None) -> None:
    assert extract_answer(text, Tags()) == answer


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{1}", "1"),
        (r"\boxed{1} then \boxed{\{2, 3\}}", r"\{2, 3\}"),
        (r"\boxed{\{}", r"\{"),  # an escaped brace does not count
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{a\\}", r"a\\"),  # an escaped backslash does not escape the brace
        (r"\boxed{\\\}}", r"\\\}"),
        (r"\boxed{\boxed{1}}", "1"),  # the innermost starts last
        (r"\boxed{x=\boxed{5}}", "5"),
        (r"\boxed{x^{y^{z}}} = 3", "x^{y^{z}}"),
        (r"\boxed{1}}}}", "1"),
        (r"\boxed{{1}", None),
        (r"\boxed{1} \boxed{{2}", "1"),
        (r"\boxed{", None),
        ("\\boxed{\\", None),
        (r"\\boxed{1}", "1"),  # behind a line break, or escaped once too often
        ("boxed{1}", None),
        ("", None),
        ("\\boxed{two\nlines}", "two\nlines"),
    ],
)
def test_the_last_box_that_balances(text: str, inside: str | None) -> None:
    assert last_boxed(text) == inside


def lines_run(text: str) -> int:
    """How many lines of Python ``last_boxed(text)`` runs: its work, whatever the machine does beside."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        last_boxed(text)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "piece",
    [r"\boxed{", r"\boxed{{}", r"\boxed{{1}", "{", "\\"],
    ids=["open", "unclosed", "one_of_two", "brace", "escape"],
)
def test_the_work_grows_with_the_text_and_not_with_its_square(piece: str) -> None:
    # a policy can write 30,000 tokens of these; twice the text may be twice the work, not four times
    once, twice = (lines_run(r"\boxed{" + piece * repeats) for repeats in (100, 200))
    assert twice <= 2.5 * once


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>" + "x" * MEGABYTE + "</think><answer>8</answer>", "8"),
        ("</think>" + "<answer>" * (MEGABYTE // 8), None),
        ("</think>" * (MEGABYTE // 8), None),
        ("</think><answer>8</answer>" + "</answer" * (MEGABYTE // 8), "8"),
        (r"</think>\boxed{" + "{" * MEGABYTE, None),
        (r"</think>\boxed{" + "\\" * MEGABYTE, None),
        (r"</think>\boxed{8}" + "}" * MEGABYTE, "8"),
        ("</think>" + "\\boxed" * (MEGABYTE // 6), None),
        ("</think>" + r"\boxed{" * (MEGABYTE // 7), None),
        ("</think>" + r"\boxed{" * (MEGABYTE // 7) + "8}" + "}" * (MEGABYTE // 7), "8"),
        (r"</think><answer>" + r"\boxed{8}" * (MEGABYTE // 9) + "</answer>", "8"),
    ],
    ids=[
        "thinking",
        "answers",
        "closed",
        "almost",
        "braces",
        "escapes",
        "closing",
        "boxes",
        "opened",
        "nested",
        "many",
    ],
)
def test_a_megabyte_is_searched(text: str, answer: str | None) -> None:
    assert extract_answer(text, Tags()) == answer
