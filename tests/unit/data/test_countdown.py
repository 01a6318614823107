"""Countdown: solvable, disjoint, the same for the same seed."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest

from lightning_r1.data.countdown import countdown_rows
from lightning_r1.text.golds import check_gold


def solvable(values: tuple[Fraction, ...], target: Fraction) -> bool:
    """By trying every pair with every operation."""
    if len(values) == 1:
        return values[0] == target
    for left, right in itertools.permutations(range(len(values)), 2):
        a, b = values[left], values[right]
        rest = tuple(value for place, value in enumerate(values) if place not in (left, right))
        results = {a + b, a - b, a * b} | ({a / b} if b else set())
        if any(solvable((*rest, result), target) for result in results):
            return True
    return False


def test_the_search_of_this_test() -> None:
    assert solvable((Fraction(8), Fraction(3), Fraction(8), Fraction(3)), Fraction(24))  # 8 / (3 - 8 / 3)
    assert not solvable((Fraction(1), Fraction(1), Fraction(1)), Fraction(7))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_every_problem_is_solvable_and_within_its_ranges(split: str) -> None:
    rows = list(countdown_rows(split, size=40, seed=1, largest_number=30, largest_target=50))
    assert len(rows) == 40
    sizes = set()
    for row in rows:
        check_gold(row.answer)
        numbers, target = row.answer["numbers"], row.answer["target"]
        sizes.add(len(numbers))
        assert row.answer["kind"] == "expression"
        assert row.answer["ordered"] is False
        assert all(1 <= number <= 30 for number in numbers)
        assert 1 <= target <= 50
        assert solvable(tuple(map(Fraction, numbers)), Fraction(target)), row
    assert sizes == {3, 4}


def test_the_question_says_numbers_and_target() -> None:
    row = next(countdown_rows("train", size=1))
    assert f"Using the numbers {row.answer['numbers']}, " in row.question
    assert f"that equals {row.answer['target']}. " in row.question
    mine = next(countdown_rows("train", size=1, question="{target} from {numbers}!"))
    assert mine.question == f"{row.answer['target']} from {row.answer['numbers']}!"


def test_ids_are_the_problem() -> None:
    for row in countdown_rows("train", size=20):
        key = ",".join(map(str, sorted(row.answer["numbers"]))) + f"={row.answer['target']}"
        assert row.id == f"countdown/{key}"


def test_splits_are_disjoint_over_many_seeds() -> None:
    # few different problems, so that seeds meet each other's
    small = {"size": 60, "fewest_numbers": 2, "most_numbers": 3, "largest_number": 9, "largest_target": 20}
    train, heldout = (
        {row.id for seed in range(12) for row in countdown_rows(split, seed=seed, **small)}
        for split in ("train", "heldout")
    )
    assert not train & heldout
    assert len(train) < 12 * 60, "the seeds do meet"


def test_problems_of_one_seed_are_different() -> None:
    rows = list(countdown_rows("train", size=300, seed=5))
    assert len({row.id for row in rows}) == 300
    assert len({row.question for row in rows}) == 300


def test_the_same_for_the_same_seed() -> None:
    assert list(countdown_rows("train", size=30, seed=2)) == list(countdown_rows("train", size=30, seed=2))
    assert list(countdown_rows("train", size=30, seed=2)) != list(countdown_rows("train", size=30, seed=3))


def test_a_smaller_size_is_the_beginning_of_a_larger() -> None:
    assert list(countdown_rows("train", size=10)) == list(countdown_rows("train", size=30))[:10]


def test_the_share_that_is_held_out() -> None:
    assert list(countdown_rows("heldout", size=20, heldout_one_in=1))
    with pytest.raises(ValueError, match=r"data\.size"):
        list(countdown_rows("train", size=1, heldout_one_in=1))


def test_too_many_are_refused_with_what_was_found() -> None:
    # 1 and 1: 2 and 1 are all there is
    ranges = {"fewest_numbers": 2, "most_numbers": 2, "largest_number": 1, "largest_target": 9}
    possible = 0
    for split in ("train", "heldout"):
        with pytest.raises(
            ValueError, match=r"data\.size=5: only \d different problems found; lower it or widen"
        ) as refusal:
            list(countdown_rows(split, size=5, **ranges))
        possible += int(str(refusal.value).split("only ")[1][0])
    assert possible == 2
