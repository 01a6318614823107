r"""Mathematical answers to score, ordinary and hostile, and rewards that say how long each took.

All of it is made from numbers, so that every run has the same. Imported in reward workers: nothing heavy in here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.maths import CALCULATOR
from lightning_r1.text.answers import extract_answer
from lightning_r1.text.math_answers import read_answer
from lightning_r1.text.math_shapes import Calculator, same
from lightning_r1.text.tags import Tags
from lightning_r1.types import Completion, Outcome, Prompt, RewardScore

Work = tuple[str, str, str, float | None]
"""A name of the kind, a gold, an answer, and what it is worth; None where nobody should say."""

# kind, gold, a right answer, a wrong one; {n}, {m} = n + 1 and the like are filled in
_ORDINARY = (
    ("integer", "{n}", "{n}", "{m}"),
    ("integer", "{n}", r"x = {n}", r"x = {m}"),
    ("thousands", "{t}", "{t_commas}", "{t_commas}1"),
    ("decimal", r"\frac{{{n}}}{{8}}", "{eighth}", "{eighth}1"),
    ("fraction", r"\frac{{{n}}}{{{m}}}", r"\dfrac{{{n2}}}{{{m2}}}", r"\dfrac{{{m}}}{{{n}}}"),
    ("mixed number", r"{n}\frac{{1}}{{2}}", "{n}.5", r"{m}\frac{{1}}{{2}}"),
    ("power of ten", r"{n}\times10^{{12}}", "{n}000000000000", "{n}00000000000"),
    ("unit", r"{n}\text{{ cm}}", "{n}", r"{n}\text{{ m}}"),
    ("percent", r"{n}\%", r"{n}\%", "{n}"),
    ("text", r"\text{{row {n}}}", "Row {n}", "row {m}"),
    ("tuple", r"({n},\frac{{1}}{{2}})", r"\left({n}, 0.5\right)", r"\left(0.5, {n}\right)"),
    ("interval", r"[{n},\infty)", r"x\ge {n}", "x>{n}"),
    ("set", r"\{{{n},{m},-1\}}", r"\{{-1, {m}, {n}\}}", r"\{{-1, {m}\}}"),
    ("list", "{n}, {m}", r"{m}\text{{ or }}{n}", "{n}"),
    ("matrix", r"\begin{{pmatrix}}{n}&1\\2&3\end{{pmatrix}}", r"\begin{{bmatrix}}{n}&1\\2&3\end{{bmatrix}}",
     r"\begin{{bmatrix}}{n}&1\\2&4\end{{bmatrix}}"),
    ("root", r"{n}\sqrt{{2}}", r"\sqrt{{{nn2}}}", r"\sqrt{{{n}}}"),
    ("root", r"\frac{{\sqrt{{{m}}}}}{{{m}}}", r"\frac{{1}}{{\sqrt{{{m}}}}}", r"\frac{{1}}{{\sqrt{{{n}}}}}"),
    ("pi", r"\frac{{{n}\pi}}{{3}}", r"{n}\pi/3", r"{m}\pi/3"),
    ("polynomial", "x^2+{n_m}x+{nm}", "(x+{n})(x+{m})", "(x+{n})(x+{n})"),
    ("polynomial", "{n}x^2-{n}", "{n}(x-1)(x+1)", "{n}(x-1)^2"),
    ("function", r"{n}\sin^2 x+{n}\cos^2 x", "{n}", "{m}"),
    ("logarithm", r"\log_2 {p}", "{k}", "{p}"),
    ("equation", "y={n}x+{m}", "y-{n}x={m}", "y-{m}x={n}"),
    ("complex", "{n}+{m}i", "{m}i+{n}", "{m}+{n}i"),
)  # fmt: skip

_HOSTILE = (
    ("tower of powers", "10^{{10^{{{n}}}}}"),
    ("tower of powers", r"\dfrac{{5^{{\left(5^{{\left(5^{{\left(5^{n}\right)}}\right)}} - 4\right)}} - 5}}{{16}}"),
    ("tower of powers", "9**9**9**{n}"),
    ("large exponent", "2^{{10000000{n}}}"),
    ("large exponent", r"2^{{9999\cdot 9999\cdot {n}}}"),
    ("factorial", "(10^{k})!"),
    ("factorial", "9999{n}!"),
    ("factorial", "(({k}!)!)!"),
    ("deep brackets", "({many_round}x+{n}"),
    ("deep brackets", "{many_curly}{n}"),
    ("deep brackets", r"\left({many_left}x"),
    ("long", "{megabyte}{n}"),
    ("long", "{long_sum}{n}"),
    ("integral or sum", r"\int_0^{{{n}}} e^{{-x^2}} dx"),
    ("integral or sum", r"\sum_{{k=1}}^{{10^{{{n}}}}} k^k"),
    ("binomial", r"\binom{{10000{n}}}{{50000}}"),
    ("power of a factorial", "(99{n}!)^{{9999}}"),
    ("root of a tower", r"\sqrt{{10^{{9999}}+{n}}}"),
    ("invisible", "4\u200b{n}"),
    ("candidates", "{candidates}"),
)


def ordinary(count: int) -> list[Work]:
    """Answers as people write them; every second one is right."""
    work: list[Work] = []
    for number in range(count):
        kind, gold, right, wrong = _ORDINARY[number // 2 % len(_ORDINARY)]
        n = 2 + number // (2 * len(_ORDINARY))
        facts = _facts(n)
        work.append(
            (kind, gold.format(**facts), (wrong if number % 2 else right).format(**facts), float(number % 2 == 0))
        )
    return work


def hostile_answers(count: int) -> list[Work]:
    """What a policy writes that looks for the edge; nothing of it is right."""
    work: list[Work] = []
    for number in range(count):
        kind, answer = _HOSTILE[number % len(_HOSTILE)]
        n = 2 + number // len(_HOSTILE)
        work.append((kind, "7", answer.format(**_facts(n), **_masses(n)), 0.0))
    return work


def _facts(n: int) -> dict[str, str | int]:
    return {
        "n": n, "m": n + 1, "n2": 2 * n, "m2": 2 * n + 2, "nn2": 2 * n * n, "n_m": 2 * n + 1, "nm": n * (n + 1),
        "eighth": f"{n / 8:.3f}", "t": 1000 * n + 1, "t_commas": f"{1000 * n + 1:,}", "k": 2 + n % 8,
        "p": 2 ** (2 + n % 8),
    }  # fmt: skip


def _masses(n: int) -> dict[str, str]:
    return {
        "many_round": "(" * (14 + n % 100),
        "many_curly": "{" * (14 + n % 100),
        "many_left": r"\left(" * (14 + n % 40),
        "megabyte": r"\frac{" * (200_000 if n == 2 else 2_000),
        "long_sum": "+".join(f"x^{{{power}}}" for power in range(100)),
        "candidates": ",".join(map(str, range(1, 40 + n % 20))),
    }


def as_item(work: Work, number: int) -> tuple[Prompt, Completion]:
    """A prompt and its completion, with some thinking before the answer."""
    kind, gold, answer, _ = work
    text = f"<think>Let me think about case {number}. Maybe \\boxed{{0}}?</think>The answer is \\boxed{{{answer}}}."
    return Prompt(f"{kind}/{number}", "", "", (1,), {"kind": "math", "value": gold}), Completion((), (), "stop", text)


class Timed:
    """The accuracy reward; the detail of a score says how many seconds it took."""

    preload = (CALCULATOR,)

    def __init__(self) -> None:
        self.accuracy = Accuracy(Tags())

    def __call__(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """1 or 0, as ever."""
        started = time.perf_counter()
        score = self.grade(prompt, completion)
        return RewardScore(score.value, score.outcome, f"{time.perf_counter() - started:.6f}")

    def grade(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """What is timed."""
        return self.accuracy(prompt, completion)


class TimedWithoutFilter(Timed):
    """Everything is calculated: what the worker pool alone is good for."""

    def grade(self, prompt: Prompt, completion: Completion) -> RewardScore:
        """1 or 0."""
        from lightning_r1.rewards.calculator import equal_values, multiples

        answer = extract_answer(completion.text, Tags())
        if answer is None:
            return RewardScore(0.0, Outcome.WRONG_FORMAT)
        if equal_values(answer, str(prompt.answer["value"])):
            return RewardScore(1.0)
        shapes = read_answer(answer), read_answer(str(prompt.answer["value"]))
        return RewardScore(float(same(*shapes, Calculator(equal_values, multiples))))


def spread(work: Sequence[Work], count: int) -> list[Work]:
    """Some of the answers, of all kinds alike."""
    step = max(1, len(work) // max(1, count))
    # a step that shares no factor with the number of kinds visits them all
    while any(step % factor == 0 and len(_HOSTILE) % factor == 0 for factor in range(2, step + 1)):
        step -= 1
    return [work[place * step % len(work)] for place in range(min(count, len(work)))]
