"""What is refused unread, with its reason, and how little work that is."""

from __future__ import annotations

import sys
import time
from types import FrameType
from typing import Any

import pytest

from lightning_r1.text.hostile import hostile

REFUSED = {
    "a tower of powers": [
        "10^{10^{10}}", "10^{10^8}", "10^{10^{8}}", r"10^{\left(10^{8}\right)}", "2^{10^9}", "2^{-10^9}", "9^{9^9}",
        r"\frac{5^{5^{5^{5^5}}}-5}{16}", r"\dfrac{5^{\left(5^{\left(5^{\left(5^5\right)}\right)} - 4\right)} - 5}{16}",
        "9**9**9", "2^2^2^2", "2 ^ { 3 ^ { 3 }}", "2^{\\frac{10^9}{1}}", "e^{e^{e^{e}}}", "((99^{99})^{99})^{99}",
        "(10^{9999})^{9999}", "((10^{9999})^{9999})", "x^{x^{x^x}}",
    ],
    "an exponent of more than 4 digits": [
        "2^{1000000000}", "x^{12345}", "2^{9999*9999}", r"2^{9999\cdot 9999}", "2^{(9999)(9999)}", "2^12345",
        "2^{1234+1234+1234+1}",
    ],
    "a factorial in an exponent": ["2^{9!}", "2^{(9+1)!}"],
    "a factorial of a number of more than 4 digits": ["10000000!", "100000 !", "{99999}!", r"\frac{12345!}{2}"],
    "a factorial of more than a number": ["(10^7)!", "9!!", "(9!)!", "((9)!)!", "(99999+1)!", "((1+2)(3+4))!", "{9!}!"],
    "a binomial of a number of more than 4 digits": [r"\binom{100000}{50000}", r"\dbinom{2}{100000}"],
    "more than 4 brackets opened at once": [
        "((((((x))))))", "{{{{{x}}}}}", r"\left(\left(\left(\left(\left(x\right)\right)\right)\right)\right)",
        "( ( [ { (1", r"\{\{\{\{\{1",
    ],
    "brackets more than 12 deep": [r"\frac{1}{1+" * 13 + "x" + "}" * 13, "(1+" * 13, r"\sqrt{2+" * 13],
    "a number of more than 200 digits": ["1" * 201, f"x+0.{'3' * 201}"],
    "a factorial of a power": ["9999^{99}!", "(2^{99})^{99}!", "(1+x)^{y}!"],
    "a power of a large factorial or binomial": [
        "(9999!)^{9999}", "9999!^{99}", "(2+999!)^{99}", r"\binom{9999}{4999}^{99}", r"\binom{999}{x}^2",
    ],
    "a binomial that is a polynomial of a large degree": [r"\binom{x}{9999}", r"\dbinom{n+1}{999}"],
    "a root of a large factorial": [r"\sqrt{9999!+1}", r"\sqrt[9999]{9999!}", r"\sqrt{\binom{9999}{4}}"],
    "a special function": [r"\Gamma(99999999)", r"\zeta\left(2\right)", r"\operatorname{li}(9)"],
    "more than 12 factorials": ["9999!" * 13],
    "more than 12 bars": ["|" * 20 + "x" + "|" * 20],
    "more than 63 separators": [",".join("1" * 65), ";".join("x" * 66)],
    "401 characters, more than 400": ["x" * 401, " " * 401],
    "1000000 characters, more than 400": ["x" * 1_000_000, "{" * 1_000_000, "9^" * 500_000],
    r"int: sums, integrals, limits and macros are not calculated": [r"\int_0^1 x dx"],
    r"sum: sums, integrals, limits and macros are not calculated": [r"\sum_{k=1}^{10^9} k"],
    r"prod: sums, integrals, limits and macros are not calculated": [r"3+\prod_{k=1}^n k"],
    r"lim: sums, integrals, limits and macros are not calculated": [r"\lim_{x\to0}x"],
    r"def: sums, integrals, limits and macros are not calculated": [r"\def\x{\x\x}\x"],
    r"underbrace: sums, integrals, limits and macros are not calculated": [r"\underbrace{9\ldots9}"],
    "∑: sums, integrals, limits and macros are not calculated": ["∑ k"],
    "the character U+200B": ["4\u200b2"],
    "the character U+202E": ["\u202e42"],
    "the character U+0000": ["4\x002"],
    "the character U+FF14": ["４2"],
    "the character U+0335": ["=\u0335"],
    "the character U+1D7D2": ["𝟒"],
}  # fmt: skip
LET_THROUGH = [
    "42", "", "-7.5", r"\frac{14}{3}", "x^2+3x+2", "e^{x^2}", "e^{-x^2/2}", "2^{100}", "2^{2024}", "10^{-7}",
    r"6.02\times10^{23}", "5!", "2024!", "(n+1)!", "(10-3)!", r"\frac{(2n)!}{n!n!}", r"\binom{2024}{1012}", "(x^2)^3",
    "(2^3)^2", r"2^{\frac{2021}{2022}}", r"\left(\frac{1}{2}\right)^{10}", r"\sqrt{1+\sqrt{1+\sqrt{2}}}",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\{(1,2),(3,4)\}", r"(-\infty, 3]", "x\n+1", "π/2", "x²", "30°", "½",
    r"\text{是}", "(x+1)^{2023}", "x^{n^2}", "2^{2^n}", "2^{2^{n}}", r"e^{2\pi i/3}", "3^{0.12345678}",
    r"\text{no solution}", "a_1^2+a_2^2", "(2^{10}-1)^2", r"\frac{x^{2}-1}{(x^{2}+1)^{2}}", r"\left[\left((1)\right)",
    r"\infty", r"\interval", r"\summary", "1" * 200, "x" * 400, ")))(((", "n!^2", r"\Gamma",
    "(5!)^{10}", r"\sqrt{5!}", r"\binom{n}{12}", "^", "2^", "**", "}{",
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "answer"),
    [(reason, answer) for reason, answers in REFUSED.items() for answer in answers],
    ids=lambda text: text[:40],
)
def test_refused(reason: str, answer: str) -> None:
    assert hostile(answer) == reason


@pytest.mark.parametrize("answer", LET_THROUGH, ids=lambda text: text[:40])
def test_let_through(answer: str) -> None:
    assert hostile(answer) is None


def lines_run(answer: str) -> int:
    """How many lines of Python it takes, whatever the machine does beside."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        hostile(answer)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("piece", ["x^2+", "(x)", "2^{x}", "x,", r"\frac{1}{2}", "n!", "{", "1", "é"])
def test_the_work_grows_with_the_text_and_not_with_its_square(piece: str) -> None:
    once, twice = (lines_run((piece * 400)[:length]) for length in (180, 360))
    assert twice <= 2.5 * max(once, 20)


def test_a_megabyte_is_not_read() -> None:
    # some lines, however long the text is
    assert lines_run("(" * 1_000_000) < 5
    started = time.perf_counter()
    for _ in range(1000):
        hostile(r"\frac{" * 200_000)
    assert time.perf_counter() - started < 2
