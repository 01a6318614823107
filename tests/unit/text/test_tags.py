"""Taking a completion apart at its tags."""

from __future__ import annotations

import pytest

from lightning_r1.text.tags import Tags

TAGS = Tags()
MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("text", "thinking"),
    [
        ("<think>2+2=4</think><answer>4</answer>", "2+2=4"),
        ("<think>2+2=", "2+2="),  # never closed: to the end
        ("2+2=4</think> 4", "2+2=4"),  # never opened: from the start
        ("2+2=4", "2+2=4"),
        ("", ""),
        ("<think></think>4", ""),
        ("before<think>a</think>after", "a"),
        ("<think>a</think>b<think>c</think>d", "a</think>b<think>c"),  # up to the last closing tag
        ("<think>a<think>b</think>c</think>d", "a<think>b</think>c"),
        ("<think>a<answer>7</answer>b</think>c", "a<answer>7</answer>b"),
        ("<think>\n a \n</think>", "\n a \n"),
        ("<THINK>a</THINK>b", "<THINK>a</THINK>b"),  # tags are exact
    ],
)
def test_thinking(text: str, thinking: str) -> None:
    assert TAGS.thinking(text) == thinking


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>", ""),
        ("<think>a</think>b</think>c", "c"),  # the last one
        ("<think>a", None),
        ("", None),
        ("<answer>4</answer>", None),
        ("a< /think>b", None),
        ("a</think >b", None),
    ],
)
def test_after_thinking(text: str, rest: str | None) -> None:
    assert TAGS.after_thinking(text) == rest


STRICT = [
    "<think>a</think><answer>b</answer>",
    "<think>a</think>\n<answer>b</answer>",
    "  \n<think>a</think> \t\n <answer>b</answer>\n\n",
    "<think>\n\n2 < 3 and 4 > 1\n</think><answer><b></answer>",
    "<think>a</think><answer>\\boxed{4}</answer>",
    "<think>a </ think> b</think><answer>c</answer>",
]
NOT_STRICT = [
    "",
    "a",
    "<think>a</think>",
    "<answer>b</answer>",
    "<think>a<answer>b</answer>",  # the thinking is not closed
    "a</think><answer>b</answer>",  # nor opened
    "<think>a</think><answer>b",  # the answer is not closed
    "<think>a</think>b</answer>",
    "<think>a</think><answer>b</answer> and more",
    "first <think>a</think><answer>b</answer>",
    "<think>a</think> so <answer>b</answer>",
    "<think></think><answer>b</answer>",  # empty parts
    "<think> \n</think><answer>b</answer>",
    "<think>a</think><answer></answer>",
    "<think>a</think><answer> \n </answer>",
    "<answer>b</answer><think>a</think>",  # wrong order
    "<think>a<answer>b</think></answer>",
    "</think>a<think><answer>b</answer>",
    "<think>a</think></answer>b<answer>",
    "<think><answer>b</answer></think>",  # nested
    "<think>a</think><answer>b</answer><answer>c</answer>",  # twice
    "<think>a</think><think>a</think><answer>b</answer>",
    "<think>a<think>b</think><answer>c</answer>",
    "<think>a</think><answer>b</answer></answer>",
    "<think>a</think><answer>the tag <answer> again</answer>",
    "<Think>a</Think><answer>b</answer>",
    "<think >a</think><answer>b</answer>",
]


@pytest.mark.parametrize("text", STRICT)
def test_strict(text: str) -> None:
    assert TAGS.is_strict(text)


@pytest.mark.parametrize("text", NOT_STRICT)
def test_not_strict(text: str) -> None:
    assert not TAGS.is_strict(text)


def test_other_tags() -> None:
    tags = Tags("[[", "]]", "<|a|>", "<|/a|>")
    assert tags.is_strict("[[x]]<|a|>y<|/a|>")
    assert not tags.is_strict("<think>x</think><answer>y</answer>")
    assert tags.thinking("[[x]]y") == "x"
    assert tags.after_thinking("[[x]]y") == "y"


@pytest.mark.parametrize(
    "fields",
    [{"think_open": ""}, {"answer_close": ""}, {"think_open": "</think>"}, {"answer_open": "<think>"}],
    ids=str,
)
def test_empty_and_equal_tags_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="four different, non-empty tags"):
        Tags(**fields)


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * (MEGABYTE // 7),
        "</think>" * (MEGABYTE // 8),
        "<" * MEGABYTE,
        "<think>" + " " * MEGABYTE + "</think><answer>b</answer>",
        "<think></think>" * (MEGABYTE // 15),
    ],
    ids=["open", "close", "almost", "blank", "pairs"],
)
def test_a_megabyte_is_taken_apart(text: str) -> None:
    assert not TAGS.is_strict(text)
    assert isinstance(TAGS.thinking(text), str)
    TAGS.after_thinking(text)
