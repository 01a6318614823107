"""Curves as lists of numbers: smoothed, and thinned to what a picture can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

Curve = tuple[list[int], list[float]]
"""Steps, and the value at each."""


def running_mean(values: Sequence[float], half_width: int) -> list[float]:
    """Mean over the neighbours within ``half_width``, fewer at the ends; what is not finite does not count.

    >>> running_mean([0.0, 3.0, 6.0], 1)
    [1.5, 3.0, 4.5]
    """
    finite = [value if math.isfinite(value) else 0.0 for value in values]
    sums = list(accumulate(finite, initial=0.0))
    counts = list(accumulate((math.isfinite(value) for value in values), initial=0))
    means = []
    for place in range(len(values)):
        low, high = max(0, place - half_width), min(len(values), place + half_width + 1)
        count = counts[high] - counts[low]
        means.append((sums[high] - sums[low]) / count if count else math.nan)
    return means


def smoothed(values: Sequence[float]) -> list[float]:
    """What is drawn bold: the mean over a twentieth of the curve."""
    return running_mean(values, max(1, len(values) // 40))


def thinned(values: Sequence[float], most: int) -> list[int]:
    """Places to keep of a long curve: its ends, and of every stretch the smallest and the largest.

    Args:
        values: of the curve.
        most: places that are kept at most; at least 4.

    >>> thinned([0, 9, 1, 2, 1, -9, 1, 0], 6)
    [0, 1, 4, 5, 7]
    """
    count = len(values)
    if count <= most:
        return list(range(count))
    stretches = (most - 2) // 2
    kept = {0, count - 1}
    for stretch in range(stretches):
        places = range(stretch * count // stretches, (stretch + 1) * count // stretches)
        if finite := [place for place in places if math.isfinite(values[place])]:
            kept |= {min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)}
    return sorted(kept)


def rounded(value: float | None, digits: int = 5) -> float | int | None:
    """Short enough for a page; JSON has no NaN and no infinity, so these are null.

    >>> rounded(0.123456789), rounded(200.0), rounded(float("nan"))
    (0.12346, 200, None)
    """
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short == int(short) else short
