"""Bytes, seconds and counts, for people."""

from __future__ import annotations


def gib(count: float) -> str:
    """Bytes for people.

    >>> gib(3 * 2**30), gib(5 * 2**20)
    ('3.0 GiB', '5 MiB')
    """
    return f"{count / 2**30:,.1f} GiB" if count >= 2**29 else f"{count / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """For people.

    >>> duration(0.25), duration(90), duration(7200), duration(300000)
    ('0.2 s', '1.5 min', '2.0 h', '3.5 days')
    """
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size * (2 if unit == "days" else 1):
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "step"), counted(2000, "step")
    ('1 step', '2,000 steps')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
