"""Which letter a completion chooses."""

import pytest

from lightning_r1.text.choices import extract_choice
from lightning_r1.text.tags import Tags


def chosen(closing: str) -> str | None:
    return extract_choice(f"<think>Surely A. ANSWER: A</think>{closing}", Tags())


@pytest.mark.parametrize(
    ("closing", "letter"),
    [
        ("ANSWER: C", "C"),
        ("Answer: C", "C"),
        ("It has to be the acid.\nANSWER: C", "C"),
        ("ANSWER: C\n", "C"),
        ("**ANSWER: C**", "C"),
        ("ANSWER: $C$", "C"),
        ("ANSWER: (C)", "C"),
        ("ANSWER: C) 4.5 m", "C"),
        ("answer: C.", "C"),
        ("The final answer is C.", "C"),
        ("ANSWER: A\nNo, wait.\nANSWER: C", "C"),  # the last one
        ("The answer is A, no, the answer is C", "C"),
        (r"So \boxed{C}.", "C"),
        (r"So \boxed{c}", "C"),
        (r"So \boxed{\text{(C)}}", "C"),
        (r"\boxed{A} or rather \boxed{C}", "C"),
        (r"\boxed{\textbf{C. } 4.5}", "C"),
        ("<answer>C</answer>", "C"),
        ("<answer> (c) </answer>", "C"),
        ("<answer>ANSWER: C</answer>", "C"),
        ("<answer>The answer is option C</answer>", "C"),
        ("<answer>C: nitrous acid</answer>", "C"),
        ("<answer>C, a weak acid</answer>", "C"),
        ("<answer>C, A Weak Acid</answer>", "C"),
        ("<answer>C. A and B do not dissolve</answer>", "C"),
        ("ANSWER: C, for A dissolves", "C"),
        ("ANSWER: C and I am sure", "C"),
        ("ANSWER: A <answer>C</answer>", "C"),  # the tag decides
        ("C", "C"),
        ("It is the acid.\n\nC", "C"),
        ("It is the acid.\n(C)", "C"),
        ("Option C", "C"),
        ("ANSWER: H", "H"),
        # no letter at all
        ("", None),
        ("ANSWER:", None),
        ("The answer is a bit of a surprise", None),
        ("The answer is Ammonia", None),
        ("<answer>the acid</answer>", None),
        ("<answer>A or C</answer>", None),
        ("<answer>A, C</answer>", None),  # many candidates
        ("<answer>A, B, C, D</answer>", None),
        ("<answer>(A) or (C)</answer>", None),
        ("<answer>A; C.</answer>", None),
        (r"\boxed{A,C}", None),
        ("ANSWER: A or C", None),
        ("ANSWER: A, B, C, D", None),
        ("ANSWER: A/C", None),
        ("ANSWER: (A) and (C)", None),
        ("<answer></answer>ANSWER: ", None),
        ("A good question.", None),
        ("I think so", None),
        (r"\boxed{42}", None),
        ("ANSWER: 3", None),
        ("<answer>I'd say</answer>", None),
    ],
)
def test_the_letter(closing: str, letter: str | None) -> None:
    assert chosen(closing) == letter


def test_what_is_thought_is_no_answer() -> None:
    assert extract_choice("ANSWER: C", Tags()) is None
    assert extract_choice("<think>ANSWER: C", Tags()) is None
    assert extract_choice("<think>ANSWER: C</think>", Tags()) is None


HOSTILE = [
    *(word * 20_000 for word in ("answer ", "answer:", "the final ", "(", r"\text", "ANSWER: is is ")),
    " " * 100_000 + "so",
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda text: text[:8])
def test_a_hostile_text_has_an_end(hostile: str) -> None:
    assert chosen(hostile) is None
    assert chosen(f"<answer>{hostile}</answer>") is None
    assert chosen(hostile + "\nANSWER: C") == "C"
