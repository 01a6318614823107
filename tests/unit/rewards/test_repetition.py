"""The repetition penalty: shares counted by hand, a naive count, and every known way around it."""

from __future__ import annotations

import pickle
import random
import time
from collections.abc import Callable

import pytest

from lightning_r1.rewards.repetition import Repetition
from lightning_r1.text.filters import pieces
from lightning_r1.types import Completion, Outcome, Prompt

PROMPT = Prompt("test/1", "q", "q", (1,), {})
LOOP = "wait, let me check that again. "
HONEST = """<think>We need the number of ways to write 12 as a sum of two primes. The primes below 12 are 2, 3, 5, 7
and 11. Let me go through them one by one: 12 - 2 = 10 is no prime, 12 - 3 = 9 is no prime, 12 - 5 = 7 is a prime,
12 - 7 = 5 is a prime, 12 - 11 = 1 is no prime.

Wait, let me check whether order matters: 5 + 7 and 7 + 5 are the same. So there is one way.

| prime | rest |
|-------|------|
| 5     | 7    |
--------------------------------------------------------------------------------
</think><answer>1</answer>"""


def penalty(text: str, reward: Repetition | None = None) -> float:
    verdict = (reward or Repetition())(PROMPT, Completion((1,), (0.0,), "stop", text))
    assert verdict.outcome is Outcome.OK
    return verdict.value


# by hand: the pairs of pieces are counted
@pytest.mark.parametrize(
    ("text", "repeated", "pairs"),
    [
        ("", 0, 1),
        ("a", 0, 1),
        ("a b", 0, 1),
        ("a b c d", 0, 3),
        ("a b a b", 1, 3),  # ab, ba, ab
        ("a a a a", 2, 3),
        ("a b c a b c a b c", 5, 8),  # ab bc ca ab bc ca ab bc
        ("2*5=10, 2*5=10", 4, 10),  # pieces 2 * 5 = 10 , 2 * 5 = 10
        ("对吗对吗", 1, 3),  # ideographs are words
        ("对吗 对 吗?", 1, 4),
    ],
)
def test_shares(text: str, repeated: int, pairs: int) -> None:
    assert penalty(text, Repetition(ngram=2)) == pytest.approx(-repeated / pairs)
    assert penalty(text, Repetition(ngram=2, max_penalty=3.0)) == pytest.approx(-3 * repeated / pairs)
    assert penalty(text, Repetition(ngram=2, max_penalty=0.0)) == 0


@pytest.mark.parametrize("ngram", [2, 3, 8])
def test_against_a_naive_count(ngram: int) -> None:
    rng = random.Random(ngram)
    for _ in range(30):
        text = " ".join(rng.choices("abcd", k=rng.randrange(60)))
        words = pieces(text)
        grams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
        expected = sum(gram in grams[:place] for place, gram in enumerate(grams)) / max(len(grams), 1)
        assert penalty(text, Repetition(ngram=ngram)) == pytest.approx(-expected)


def disguised(change: Callable[[str, random.Random], str]) -> str:
    """The loop, never twice in the same letters."""
    rng = random.Random(0)
    return "".join(change(letter, rng) for letter in LOOP * 100)


def test_honest_text_keeps_all() -> None:
    assert penalty(HONEST) == 0


def test_accents_are_no_repetition() -> None:
    for text in (
        "Où est la réponse? Là, où l'été dernier était déjà passé, ça alors.",
        "각각의 수를 더하면 된다.",
        "がぎぐげご",
    ):
        assert penalty(text, Repetition(ngram=2)) == 0


def test_a_loop_loses_nearly_all() -> None:
    assert penalty(LOOP * 3) < -0.1
    assert penalty(LOOP * 200) < -0.99
    assert penalty("让我再检查一次。" * 100) < -0.98
    assert penalty("<think>" + "the " * 500 + "</think>") < -0.95  # what the language reward pays 1 for


@pytest.mark.parametrize(
    "evasion",
    [
        disguised(lambda letter, rng: rng.choice((letter.upper(), letter))),
        disguised(lambda letter, rng: letter + rng.choice(("", "", "", "\u200b", "\u2060", "\u00ad"))),
        disguised(lambda letter, rng: rng.choice((letter, chr(ord(letter) + 0xFEE0)) if letter.isalpha() else letter)),
        disguised(lambda letter, rng: letter + rng.choice(("", "", "\ufe0e", "\ufe0f", "\U000e0101", "\u2066"))),
        disguised(lambda letter, rng: letter + rng.choice(("", "", "\u0301", "\u0323", "\u20d2", "\U000e0041"))),
        disguised(lambda letter, rng: letter.replace("a", rng.choice("aàáâäå")).replace("e", rng.choice("eèéêë"))),
        "!" * 5000,
        "z" * 5000,
        "0" * 5000,
        "ha" * 5000,
        "abc" * 5000,
        "\n" * 5000,
        " " * 5000,
        "- " * 2000,
        "_" * 5000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_ways_around_it_that_are_closed(evasion: str) -> None:
    assert penalty(evasion) < -0.8


def test_counting_along_is_seen_where_it_is_asked_for() -> None:
    counting = " ".join(f"Step {n}: wait, I am not sure, let me think." for n in range(50))
    table = " ".join(f"Then {n} times {n} is {n * n}, and {n * n} minus {n} is {n * n - n}." for n in range(2, 52))
    for text in (counting, table):
        assert penalty(text) == 0
        assert penalty(text, Repetition(all_numbers_alike=True)) < -0.9


def test_time_is_linear_in_the_length() -> None:
    rng = random.Random(0)
    hostile = ["-=" * 500_000, "a" * 1_000_000, "x " * 500_000, "\n" * 1_000_000, "ﷺ" * 50_000]
    hostile.append(" ".join(str(rng.random()) for _ in range(50_000)))
    for text in hostile:
        started = time.process_time()
        penalty(text)
        assert time.process_time() - started < 10, text[:10]


@pytest.mark.parametrize("options", [{"ngram": 1}, {"max_penalty": -1.0}])
def test_options_that_do_not_fit(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"ngram=1: expected >= 2|max_penalty=-1.0: expected >= 0"):
        Repetition(**options)  # type: ignore[arg-type]


def test_it_goes_to_a_worker_and_back() -> None:
    assert penalty(LOOP * 9, pickle.loads(pickle.dumps(Repetition(ngram=8)))) == penalty(LOOP * 9, Repetition(ngram=8))
