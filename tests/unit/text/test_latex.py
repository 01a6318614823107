"""Spellings of one mathematical answer, and answers that stay different."""

from fractions import Fraction

import pytest

from lightning_r1.text.latex import decimal_places, normal_form, tidy

ALIKE = [
    ("42", "42."),
    ("42", "$42$"),
    ("42", r"\(42\)"),
    ("42", r"\boxed{42}"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", r"\frac{2}{4}"),
    (r"\dfrac{3}{4}", r"\tfrac34"),
    (r"\frac{7}{3}", "7/3"),
    (r"1\frac{1}{2}", "1.5"),
    (r"-1\frac{1}{2}", "-1.5"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac 59", r"\frac{5}{9}"),
    ("(1,2)", r"\left(1, 2\right)"),
    ("(1,2)", r"\bigl( 1,\, 2 \bigr)"),
    (r"(-\infty,3]", r"\left(-\infty, 3\right]"),
    (r"\{1,2,3\}", r"\left\{ 1, 2, 3 \right\}"),
    (r"50\%", "50%"),
    (r"30^{\circ}", "30°"),
    ("1,234,567", "1234567"),
    ("12000", "12{,}000"),
    ("12000", r"12,\!000"),
    ("1234567", r"1,\! 234,\!567"),
    ("p - q", "p-q"),
    (r"2\sqrt 2", r"2\sqrt{2}"),
    ("073", "73"),
    (r"\frac{1}{\sqrt2}", r"\dfrac{1}{\sqrt{2}}"),
    (r"6.02\times10^{23}", "602000000000000000000000"),
    (r"6.02 \cdot 10^{23}", "6.02e23"),
    (r"1.5 × 10^{-3}", "0.0015"),
    ("10^6", "1000000"),
    ("2^{10}", "1024"),
    ("-2^2", "-4"),
    (r"0.\overline{3}", r"\frac{1}{3}"),
    (r"0.1\overline{6}", r"\frac16"),
    (r"-2.\overline{45}", r"-\frac{27}{11}"),
    ("1 1/2", r"\frac{3}{2}"),
    (r"\frac{1.5}{2}", "0.75"),
    (".5", "1/2"),
    ("x²", "x^2"),
    ("½", "0.5"),
    ("−5", "-5"),
    (r"\neq", r"\ne"),
    (r"x\geqslant 3", r"x \ge 3"),
    ("infinity", r"\infty"),
    (r"\pi x", "π x"),
    (r"\begin{pmatrix}1&2\\ 3&4\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
]
DIFFERENT = [
    ("42", "43"),
    ("(1,2)", "(2,1)"),
    ("[0,1)", "[0,1]"),
    (r"50\%", "0.5"),
    (r"50\%", "50"),
    (r"\frac{1}{3}", "0.333"),
    (r"\frac{1}{3}", "0.333333"),
    (r"\pi", "3.14"),
    ("x^2", "x_2"),
    ("x", "X"),
    ("12", "1 2"),
    (r"\frac{12}{3}", r"\frac{1}{23}"),
    (r"\text{east}", r"\text{west}"),
    ("-5", "5"),
    (r"\frac{1}{0}", "0"),
    (r"10^{-20}", r"10^{-21}"),
    (r"10^{-200}", "0"),
    ("2^{10}", "20"),
    (r"0.\overline{3}", "0.3"),
    ("1e5", "1e6"),
    ("1.5", "1,5"),
    ("1,23", "123"),
    (r"2\frac{-1}{3}", r"\frac{5}{3}"),
    (r"\pi x", r"\pix"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_one_answer_written_in_two_ways(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_two_answers(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


def test_numbers_are_exact() -> None:
    assert normal_form(r"\dfrac{10}{4}") == Fraction(5, 2)
    assert normal_form("0.1") == Fraction(1, 10)
    assert normal_form(r"\frac{\pi}{2}") == r"\frac{\pi}{2}"


@pytest.mark.parametrize(
    ("text", "places"),
    [("0.333333", 6), ("-3.141593", 6), ("0.33333", None), ("123456", None), ("1/3", None), ("0.000001", None),
     ("0.0123456", 7), ("1234.5", None), (r"\sqrt{2}-1.414213", None), ("x.333333", None), ("", None)],
)  # fmt: skip
def test_what_may_be_rounded(text: str, places: int | None) -> None:
    assert decimal_places(text) == places


@pytest.mark.parametrize(
    ("text", "tidied"),
    [("$42$", "42"), ("$$42$$", "42"), ("$18", "$18"), (r"\$18", "$18"), (r"$\$18$", "$18"), (r"\(x\)", "x"),
     (r"\left[0,1\right)", "[0,1)"), ("  a   b. ", "a b"), (r"\boxed{7}", "7"), ("1 .", "1")],
)  # fmt: skip
def test_what_says_nothing_is_left_out(text: str, tidied: str) -> None:
    assert tidy(text) == tidied


def test_the_form_of_a_form_is_itself() -> None:
    for answer in (answer for pair in ALIKE + DIFFERENT for answer in pair):
        form = normal_form(answer)
        assert normal_form(str(form)) == form


@pytest.mark.parametrize(
    "hostile",
    [r"\frac{" * 20_000, "{" * 100_000, " " * 100_000 + "x", "1" * 100_000, r"\text{" * 300, "0" * 1_999,
     r"\frac{" + "1" * 900 + "}{" + "1" * 900 + "}", "-" * 1_999, "9**9**9", "(" * 1_999, r"\mathrm " * 200],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_a_hostile_answer_has_an_end(hostile: str) -> None:
    assert isinstance(normal_form(hostile), str | Fraction)
