"""Counting where the thinking turns back on itself."""

from __future__ import annotations

import pytest

from lightning_r1.text.reflection import ENGLISH_MARKERS, count_reflections


@pytest.mark.parametrize(
    ("thinking", "markers", "count"),
    [
        ("", ("wait",), 0),
        ("wait", (), 0),
        ("Wait, that is 7. But wait: awaiting.", ("wait",), 2),
        ("WAIT wait Wait", ("wait",), 3),
        ("waits await waiting wait_", ("wait",), 0),  # whole words
        ("(wait) wait. wait; wait", ("wait",), 4),
        ("but wait", ("wait", "but wait"), 1),  # the longer one, once
        ("but wait, wait", ("but wait", "wait"), 2),
        ("wait no", ("no", "wait", "wait no"), 1),
        ("2+5=7;2*5=10!", (";",), 1),
        (";;;", (";",), 3),
        ("a.b a+b", (".",), 1),  # a marker is text, not a pattern
        ("a*b a.b", ("*",), 1),
        ("hmm. hmmm", ("hmm",), 1),
        ("re-check, recheck and re check", ("re-check", "recheck"), 2),
        ("wait!wait", ("wait!",), 1),
    ],
)
def test_counts(thinking: str, markers: tuple[str, ...], count: int) -> None:
    assert count_reflections(thinking, markers) == count


def test_english_markers() -> None:
    text = (
        "Let me check 2+2. Hmm, that's not right. Wait, wait. However, I made a mistake. Alternatively, try again. "
        "The mistakes of others, and waiting, do not count."
    )
    # let me check, hmm, that's not right, wait, wait, however, mistake, alternatively, try again
    assert count_reflections(text, ENGLISH_MARKERS) == 9


def test_lists_serve_as_well_as_tuples() -> None:
    assert count_reflections("wait", ["wait"]) == 1


def test_a_megabyte() -> None:
    assert count_reflections("wait " * 200_000, ENGLISH_MARKERS) == 200_000
    assert count_reflections("w" * 1_000_000, ENGLISH_MARKERS) == 0
