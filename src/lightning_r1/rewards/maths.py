r"""Grading mathematical answers: the same but for how it is written.

An answer that is spelled like the gold is right; one that could freeze a computer algebra system is refused
(:mod:`lightning_r1.text.hostile`); the rest is taken apart (:mod:`lightning_r1.text.math_answers`) and compared part by
part. Single values that are no exact numbers are parsed by math-verify and compared at a few fixed points with forty
digits: its own comparison depends on the direction, reads ``1=2`` as 2, and takes 1e-20 for 1e-21. Only what has no
numeric value is left to it, and then both directions must agree.

Call it in a process that can be killed: no alarm ends what has gone wrong in here. Where it errs, it errs towards
"wrong". The policy, row by row (``=`` right, ``!`` wrong, in either direction):

================== ================================== = =================================== ==========================
what               one                                  other                               why
================== ================================== = =================================== ==========================
spelling           ``\dfrac{3}{4}``                   = ``\tfrac34``
number             ``0.5``                            = ``\frac{2}{4}``                     numbers are exact
number             ``1,234.50``                       = ``1234.5``                          thousands
number             ``1,234``                          ! ``1, 234``                          a list has spaces
number             ``12{,}000``                       = ``12000``
mixed number       ``1\frac{1}{2}``                   = ``1.5``
mixed number       ``2\frac{1}{3}``                   ! ``\frac{2}{3}``
period             ``0.1\overline{6}``                = ``\frac{1}{6}``
powers of ten      ``6.02\times10^{23}``              = ``602000000000000000000000``
powers of ten      ``10^{-20}``                       ! ``10^{-21}``
large number       ``2^{300}``                        ! ``2^{300}+1``                       to the last digit
rounding           ``\frac{1}{3}``                    ! ``0.333``
rounding           ``\frac{1}{3}``                    = ``0.333333``                        six digits or more, rounded
rounding           ``\frac{2}{3}``                    ! ``0.666666``                        cut, not rounded
rounding           ``\pi``                            ! ``3.14``
rounding           ``\pi``                            = ``3.141593``
rounding           ``\pi``                            ! ``\frac{22}{7}``
rounding           ``0.333333``                       ! ``0.3333333``                       two decimals are exact
calculation        ``5``                              ! ``2+3``                             it may be the question
calculation        ``56088``                          ! ``123\times456``
calculation        ``96``                             = ``2^5\cdot3``
calculation        ``120``                            = ``5!``
approximation      ``\sqrt{2}``                       = ``\sqrt{2}\approx1.41``             what is exact counts
percent            ``50\%``                           = ``50\text{ percent}``
percent            ``50\%``                           ! ``0.5``                             as stated
percent            ``50\%``                           ! ``50``
unit               ``5``                              = ``5\text{ cm}``                     may be left out
unit               ``5\text{ cm}``                    ! ``5\text{ m}``                      but not be another
unit               ``5\text{ cm}^2``                  ! ``5\text{ cm}^3``
unit               ``10\text{ m/s}``                  = ``10\ \mathrm{m/s}``
unit               ``3\text{ apples}``                = ``3``                               unknown words are not read
unit               ``3\text{ or 4}``                  ! ``3``                               unless they say more
unit               ``\pi\text{ cm}``                  = ``\pi``
unit               ``\pi\text{ cm}``                  ! ``2\pi\text{ cm}``
time               ``5:30\text{ a.m.}``               ! ``5:30\text{ p.m.}``
currency           ``\$18``                           = ``18\text{ dollars}``
currency           ``\$18``                           ! ``18\text{ euros}``
degrees            ``30^\circ``                       = ``30``
degrees            ``30^\circ``                       ! ``\frac{\pi}{6}``                   as stated
degrees            ``30^\circ C``                     = ``30^\circ``                       may be left out
degrees            ``30^\circ C``                     = ``30\text{ degrees Celsius}``
degrees            ``30^\circ\text{C}``               ! ``30^\circ\text{F}``
degrees            ``\sin(30^\circ)``                 = ``\frac{1}{2}``                     in a function
base               ``1010_2``                         = ``1010``                            may be left out
base               ``1010_{2}``                       ! ``1010_3``
base               ``1010_2``                         ! ``10``                              as stated
ratio              ``3:4``                            = ``3 : 4``
ratio              ``3:4``                            ! ``6:8``                             as stated: a time, a score
named              ``5``                              = ``x=5``
named              ``x=5``                            ! ``y=5``
named              ``5``                              = ``x=2+3=5``                         all of it is right
named              ``2``                              ! ``1=2``
named              ``1``                              ! ``x^2+y^2=1``
equation           ``y=2x+1``                         = ``2x+1``
equation           ``y=2x+1``                         = ``2y-4x=2``                         a multiple
equation           ``x^2=4``                          ! ``x=2``
equation           ``3x+4=10``                        ! ``x=2``                             not solved
equation           ``x-2=0``                          ! ``x=2``                             the same
inequality         ``1<x<3``                          = ``(1,3)``
inequality         ``x\ge3``                          = ``[3,\infty)``
inequality         ``2x+2y<6``                        = ``3>x+y``
inequality         ``x+y<3``                          ! ``x+y>3``
interval           ``[0,1)``                          ! ``[0,1]``                           brackets count
interval           ``(-\infty,0)\cup(1,\infty)``      = ``(1,\infty)\cup(-\infty,0)``
interval           ``x<0\text{ or }x>1``             = ``(1,\infty)\cup(-\infty,0)``
interval           ``x<0, x>1``                       ! ``(1,\infty)\cup(-\infty,0)``     a comma says both
interval           ``\mathbb{R}``                     = ``(-\infty,\infty)``
tuple              ``(1,2)``                          = ``\left(1, \frac{4}{2}\right)``
tuple              ``(1,2)``                          ! ``(2,1)``
tuple              ``(1,2)``                          ! ``1,2``                             a list is no point
tuple              ``(1,2)``                          ! ``\{1,2\}``
tuple              ``(1,2)``                          = ``x=1, y=2``                        in the order of the names
tuple              ``(1,2)``                          = ``(x,y)=(1,2)``
set                ``\{1,2,3\}``                      = ``\{3,1,2\}``
set                ``\{1,2\}``                        = ``2, 1``
set                ``2``                              = ``\{2\}``
set                ``\emptyset``                      = ``\{\}``
list               ``2``                              ! ``1,2,3``                           many candidates do not win
list               ``2``                              ! ``2,2``
list               ``1,1,2``                          ! ``1,2,2``
list               ``2``                              ! ``2\text{ or }3``
list               ``2,3``                            = ``x=3\text{ or }x=2``
list               ``1,2,\ldots,10``                  ! ``1,2,10``
plus-minus         ``\pm 2``                          = ``\{2,-2\}``
plus-minus         ``1\pm\sqrt{2}``                   = ``1-\sqrt2, 1+\sqrt2``
plus-minus         ``\{-2,1\pm\sqrt{5}\}``             = ``1-\sqrt5, 1+\sqrt5, -2``
plus-minus         ``\pm 2``                          ! ``2``
matrix             ``\begin{pmatrix}1&2\\3&4\end{pmatrix}`` = ``\begin{bmatrix}1&2\\3&4\end{bmatrix}``
matrix             ``\begin{pmatrix}1\\2\end{pmatrix}`` ! ``(1,2)``
text               ``\text{Yes}``                     = ``yes``
text               ``\text{(A)}``                     = ``A``
text               ``\text{no solution}``             ! ``\text{one solution}``
letters            ``x``                              ! ``X``
expression         ``x^2+3x+2``                       = ``(x+1)(x+2)``
expression         ``x^2+3x+2``                       ! ``(x+1)(x+3)``
expression         ``1``                              = ``\sin^2 x+\cos^2 x``
expression         ``|x|``                            = ``\sqrt{x^2}``
expression         ``x``                              ! ``\sqrt{x^2}``
complex            ``(1+i)^2``                        = ``2i``                              i is the imaginary unit
constant           ``x^2+C``                          ! ``x^2``
================== ================================== = =================================== ==========================
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from lightning_r1.text.arithmetic import ExpressionError
from lightning_r1.text.hostile import hostile
from lightning_r1.text.math_answers import read_answer
from lightning_r1.text.math_shapes import Calculator, Shape, decide, same

CALCULATOR = "lightning_r1.rewards.calculator"
"""Imported with the first value that has to be calculated: it takes a second, and brings sympy."""


def grade_math(answer: str, gold: Mapping[str, Any]) -> bool:
    r"""Whether an answer is its gold but for how it is written.

    >>> grade_math(r"\frac{1}{\sqrt2}", {"value": r"\frac{\sqrt{2}}{2}"}), grade_math("1,2,3", {"value": "2"})
    (True, False)

    Raises:
        ExpressionError: for an answer that is refused unread; says why.
    """
    return equal_answers(answer, str(gold["value"]))


def equal_answers(one: str, other: str) -> bool:
    """Whether two answers are the same but for how they are written; symmetric.

    Raises:
        ExpressionError: if one of them is refused unread.
    """
    if one.strip() == other.strip():
        return True
    for answer in (one, other):
        if (reason := hostile(answer)) is not None:
            raise ExpressionError(reason)
    return same(read_answer(one), read_answer(other), Calculator(_equal_values, _multiples))


Pairs = Sequence[tuple[str, str]]


def math_classes(answers: Sequence[str], equal: Callable[[Pairs], Sequence[bool]] | None = None) -> list[Hashable]:
    """A label for each answer: equal ones share it, what is refused unread is equal to its own spelling alone.

    Args:
        answers: to one problem.
        equal: asked, once, which pairs are the same where only a calculation tells; without it they are different.

    Returns:
        The first answer of each class. Equality is taken on: a class may hold ``x=5`` and ``y=5`` if 5 is in it.
    """
    labels: list[Hashable] = [_bucket(answer) for answer in answers]
    first = dict(reversed(list(zip(labels, answers, strict=True))))
    readable = [label for label in dict.fromkeys(labels) if not isinstance(label, str)]
    parents: dict[Hashable, Hashable] = {label: label for label in first}

    def root(label: Hashable) -> Hashable:
        while parents[label] != label:
            label = parents[label]
        return label

    open_pairs = []
    for place, one in enumerate(readable):
        for other in readable[:place]:
            verdict = decide(one, other)  # type: ignore[arg-type]
            if verdict is None:
                open_pairs.append((other, one))
            elif verdict:
                parents[root(one)] = root(other)
    open_pairs = [pair for pair in open_pairs if root(pair[0]) != root(pair[1])]
    if equal is not None and open_pairs:
        verdicts = equal([(first[one], first[other]) for one, other in open_pairs])
        for (one, other), verdict in zip(open_pairs, verdicts, strict=True):
            if verdict:
                parents[root(other)] = root(one)
    return [first[root(label)] for label in labels]


def _bucket(answer: str) -> Shape | str:
    """The shape of an answer, or the text of one that is refused."""
    return " ".join(answer.split()) if hostile(answer) else read_answer(answer)


def _equal_values(one: str, other: str) -> bool:
    from lightning_r1.rewards.calculator import equal_values

    return equal_values(one, other)


def _multiples(one: str, other: str, positive: bool) -> bool:
    from lightning_r1.rewards.calculator import multiples

    return multiples(one, other, positive)
