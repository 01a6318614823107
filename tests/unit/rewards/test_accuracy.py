"""The accuracy reward: what is right, what is wrong, and what is nobody's fault."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_r1.rewards.accuracy import Accuracy, grade_expression, grade_number, grade_text
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

ORDERED = {"kind": "expression", "numbers": [2, 5, 1], "target": 9, "ordered": True, "operators": "+-*"}
FREE = {"kind": "expression", "numbers": [3, 7, 3], "target": 24}


def grade(text: str, gold: dict[str, Any]) -> RewardScore:
    prompt = Prompt("test/1", "q", "q", (1,), gold)
    return Accuracy(Tags())(prompt, Completion((1,), (0.0,), "stop", text=text))


def answered(answer: str) -> str:
    return f"<think>hmm</think><answer>{answer}</answer>"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("(2*5)-1", True),
        ("2*5-1", True),
        (" 2 * 5 - 1 ", True),
        ("2×5−1", True),
        ("((2)*(5))-(1)", True),
        ("(5*2)-1", False),  # not in this order
        ("2*5+1", False),  # another value
        ("2*5", False),  # a number is missing
        ("2*5-1*1", False),  # one is used twice
        ("2*5-1+0", False),
        ("9", False),
        ("25-1*15", False),  # digits are not glued
        ("10-1", False),
        ("2*5/1-1", False),
    ],
)
def test_an_ordered_expression(answer: str, right: bool) -> None:
    score = grade(answered(answer), ORDERED)
    assert (score.value, score.outcome) == (float(right), Outcome.OK)


def test_only_the_golds_operators_are_allowed() -> None:
    gold = {"kind": "expression", "numbers": [8, 4, 1], "target": 2}
    assert grade_expression("8/4*1", gold)
    assert not grade_expression("8/4*1", {**gold, "operators": "+-*"})
    assert grade_expression("8/4*1", {**gold, "operators": "/*"})


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("3*7+3", True),
        ("3+7*3", True),
        ("7*3+3", True),
        ("(3/3+7)*3", False),
        ("3*7", False),
        ("7*3+3+0", False),
        ("3*7+3-3+3", False),
        ("24", False),
        ("-3+7*3+6", False),
    ],
)
def test_an_expression_in_any_order(answer: str, right: bool) -> None:
    assert grade_expression(answer, FREE) is right


@pytest.mark.parametrize(
    ("numbers", "target", "answer", "right"),
    [
        ([3, 1], "1/3", "1/3", True),
        ([2, 1], 0.5, "1/2", True),
        ([10, 1], 0.1, "1/10", True),  # the decimal, not the binary number beside it
        ([3, 1], 0.333, "1/3", False),
        ([0.1, 2], 0.2, "0.1*2", True),
        ([1.5, 2], 3, "1.5*2", True),
        (["1/2", 4], 2, "0.5*4", True),
    ],
)
def test_values_are_compared_exactly(numbers: list[Any], target: Any, answer: str, right: bool) -> None:
    assert grade_expression(answer, {"numbers": numbers, "target": target}) is right


@pytest.mark.parametrize(
    ("answer", "value", "right"),
    [
        ("0.5", "1/2", True),
        ("1/2", 0.5, True),
        ("0.333", "1/3", False),
        ("1,234", 1234, True),
        ("$18", 18, True),
        ("18.0", "18", True),
        ("18.", 18, True),
        ("-7", 7, False),
        ("19", 18, False),
        ("\\boxed{18}", 18, True),
        ("So the total is \\boxed{18} dollars.", 18, True),
        ("100000000000000000000001", "100000000000000000000001", True),
        ("100000000000000000000000", "100000000000000000000001", False),
    ],
)
def test_a_number(answer: str, value: Any, right: bool) -> None:
    score = grade(answered(answer), {"kind": "number", "value": value})
    assert (score.value, score.outcome) == (float(right), Outcome.OK)


def test_to_repeat_the_question_is_no_answer() -> None:
    score = grade(answered("123*456"), {"kind": "number", "value": 123 * 456})
    assert score.value == 0


@pytest.mark.parametrize(
    ("answer", "value", "right"),
    [("Paris", "paris", True), ("  PARIS ", "Paris", True), ("new\nyork", "New  York", True),
     ("Straße", "STRASSE", True),
     ("Paris, France", "Paris", False), ("newyork", "new york", False), ("7", 7, True)],
)  # fmt: skip
def test_a_text(answer: str, value: Any, right: bool) -> None:
    assert grade_text(answer, {"value": value}) is right


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(2*5)-1",
        "<answer>(2*5)-1</answer>",  # no thinking was closed
        "<think><answer>(2*5)-1</answer></think>",  # the answer is in the thinking
        "<think>(2*5)-1</think>",
        r"<think>\boxed{(2*5)-1}</think>so it is",
        "<think>hmm</think>(2*5)-1",
        "<think>hmm</think><answer>(2*5)-1",
        "<think>hmm</think><answer></answer>",
        "<think>hmm</think><answer>nine</answer>",
        "<think>hmm</think><answer>(2*5-1</answer>",
        "<think>hmm</think><answer>9**9**9</answer>",
        "<think>hmm</think><answer>__import__('os').system('true')</answer>",
        "<think>hmm</think><answer>2*5-1=9</answer>",
        "<think>hmm</think><answer>1/0</answer>",
        "<think>hmm</think><answer>1_0-1</answer>",
        "<think>hmm</think><answer>" + "(" * 200_000 + "</answer>",
    ],
    ids=lambda text: text[-40:],
)
def test_without_a_readable_answer_the_format_is_wrong(text: str) -> None:
    score = grade(text, ORDERED)
    assert (score.value, score.outcome) == (0.0, Outcome.WRONG_FORMAT)
    assert score.detail


def test_the_last_answer_counts() -> None:
    assert grade("<think>a</think><answer>9</answer><answer>2*5-1</answer>", ORDERED).value == 1
    assert grade("<think>a</think><answer>2*5-1</answer><answer>9</answer>", ORDERED).value == 0


def test_the_detail_says_what_was_graded() -> None:
    assert grade(answered("2*5+1"), ORDERED).detail == "2*5+1"
    assert "division by zero" in grade(answered("1/0"), ORDERED).detail


@pytest.mark.parametrize(
    "gold",
    [
        {},
        {"kind": None},
        {"kind": "integral", "value": 7},
        {"kind": "number"},
        {"kind": "number", "value": "seven"},
        {"kind": "number", "value": None},
        {"kind": "expression", "numbers": [7]},
        {"kind": "expression", "numbers": ["seven"], "target": 7},
        {"kind": "expression", "numbers": [7], "target": "seven"},
        {"kind": "expression", "numbers": [7], "target": "1/0"},
    ],
    ids=str,
)
def test_a_bad_gold_is_nobodys_zero(gold: dict[str, Any]) -> None:
    # whatever was answered: an honest 0 would teach the whole group that it was wrong
    for text in (answered("7"), answered("seven"), "no answer"):
        assert grade(text, gold).outcome is Outcome.UNSCORABLE


def test_programs_are_nobodys_zero_outside_of_a_sandbox() -> None:
    gold = {"kind": "code", "tests": [{"input": "1 2\n", "output": "3\n"}]}
    score = grade(answered("print(3)"), gold)
    assert (score.outcome, score.detail) == (Outcome.UNSCORABLE, "no grader here for 'code'")


def test_golds_of_the_task_files_are_read_as_they_are_checked() -> None:
    # what check_gold lets through, the grader understands
    assert grade_expression("6*3", {"numbers": [6, 3], "target": "$18"})
    assert grade_expression("600*3", {"numbers": [600, 3], "target": "1,800"})
    assert grade_number("18", {"value": "$18.00"})


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("3.14", {"value": "3.14159"}, False),
        ("3.14", {"value": "3.14159", "absolute_tolerance": 0.01}, True),
        ("3.1515", {"value": "3.14159", "absolute_tolerance": 0.01}, True),
        ("3.1516", {"value": "3.14159", "absolute_tolerance": 0.01}, False),  # exact at the edge: 3.15159
        ("3.15159", {"value": "3.14159", "absolute_tolerance": 0.01}, True),
        ("102", {"value": 100, "relative_tolerance": 0.02}, True),
        ("102.1", {"value": 100, "relative_tolerance": 0.02}, False),
        ("-102", {"value": -100, "relative_tolerance": 0.02}, True),
        ("102.5", {"value": 100, "relative_tolerance": 0.02, "absolute_tolerance": 1}, False),  # they do not add up
        ("0.001", {"value": 0, "relative_tolerance": 0.5}, False),
        ("0.001", {"value": 0, "relative_tolerance": 0.5, "absolute_tolerance": 0.001}, True),  # the larger one
        (r"x=\frac{157}{50}", {"value": "3.14"}, True),
        (r"204^\circ", {"value": 204}, True),
        (r"18\text{ dollars}", {"value": 18}, True),
        ("1,234 apples", {"value": 1234}, True),
        (r"6.02\times10^{23}", {"value": "602000000000000000000000"}, True),
    ],
)
def test_a_number_may_be_off_by_as_much_as_its_gold_allows(answer: str, gold: dict[str, Any], right: bool) -> None:
    score = grade(answered(answer), {"kind": "number", **gold})
    assert (score.value, score.outcome) == (float(right), Outcome.OK)


@pytest.mark.parametrize("answer", ["50%", "1010_2", "2, 3", "2=2", "1+1", "10^{10^{10}}", "two", r"\pm2", "x"])
def test_what_is_no_single_number(answer: str) -> None:
    for value in (50, 1010, 2, "0.5"):
        score = grade(answered(answer), {"kind": "number", "value": value, "absolute_tolerance": 0.1})
        assert (score.value, score.outcome) == (0, Outcome.WRONG_FORMAT)


@pytest.mark.parametrize(
    ("closing", "value"),
    [(r"\boxed{nitrous  Acid}", 1), ("<answer>water</answer>", 0), ("<answer>acid</answer>", None), (r"\boxed{B}", 1)],
)
def test_a_choice_may_be_told_by_its_text(closing: str, value: float | None) -> None:
    gold = {"kind": "choice", "value": "B", "options": ["Water", "Nitrous acid", "Salt", "salt"]}
    score = grade(f"<think>hmm</think>{closing}", gold)
    assert (score.value, score.outcome) == ((value, Outcome.OK) if value is not None else (0, Outcome.WRONG_FORMAT))
    assert grade("<think>hmm</think><answer>salt</answer>", gold).outcome is Outcome.WRONG_FORMAT  # which of the two?
