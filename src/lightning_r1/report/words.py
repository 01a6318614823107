"""Numbers as people read them."""

from __future__ import annotations

from lightning_r1.evaluation.comparison import Comparison
from lightning_r1.report.stages import Number

NAMES = {
    "pass@1": "pass@1", "think_length_mean": "thinking, tokens", "length_mean": "length, tokens",
    "truncated_fraction": "cut off", "format_fraction": "strict format", "reflection_rate": "reflections a completion",
    "language_share": "language of the prompt", "ungraded_fraction": "not gradable, taken as wrong",
    "pair_accuracy": "pair accuracy", "label_accuracy": "label accuracy",
    "longer_accuracy": "accuracy of the longer one", "score_mean": "score, mean", "score_std": "score, spread",
    "item_response_estimate": "item-response estimate", "loss": "loss",
}  # fmt: skip


def brief(value: float) -> str:
    """Three digits, more of a large number.

    >>> brief(0.94377), brief(36.70), brief(6342.6), brief(2.3e-7)
    ('0.944', '36.7', '6,343', '2.3e-07')
    """
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if size >= 0.001 or not value else f"{value:.1e}"


def with_interval(number: Number | None) -> str:
    """``0.944 [0.927, 0.961]``."""
    if number is None:
        return ""
    if number.low is None or number.high is None:
        return brief(number.value)
    return f"{number.value:.3f} [{number.low + 0:.3f}, {number.high:.3f}]".replace("[-0.000", "[0.000")


def duration(seconds: float) -> str:
    """Two units at most.

    >>> duration(7.31), duration(152.79), duration(7265), duration(200000)
    ('7.3 s', '2 min 33 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, below, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name}" + (f" {rest} {part}" if rest else "")
    raise AssertionError(seconds)


def change(found: Comparison | None) -> str:
    """Of pass@1, in points: ``+88.6 [+86.5, +90.6]``."""
    if found is None:
        return ""
    return f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def certainty(found: Comparison | None) -> str:
    """The exact paired test: ``p = 0.031``, and whether that is noise."""
    if found is None:
        return ""
    p = f"p = {found.p_value:.2g}" if found.p_value >= 1e-4 else "p < 0.0001"
    return f"{p}, noise" if found.within_noise else p
