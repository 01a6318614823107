"""A run's main numbers: first and last, by set; finished or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lightning_r1.report.heldout import Pair
from lightning_r1.report.markup import Html, fold, join, table
from lightning_r1.report.read import RunFolder
from lightning_r1.report.series import Curve
from lightning_r1.report.stages import Number, number
from lightning_r1.report.words import NAMES, brief, certainty, change, duration, with_interval

MAIN = ("pass@1", "pair_accuracy", "label_accuracy")
"""What a set measures, the first that it has."""
_HIDDEN = ("_low", "_high", "_error")


def evaluated(curves: Mapping[str, Curve]) -> dict[str, list[tuple[int, dict[str, float]]]]:
    """Of every set, the evaluations by step: ``{"operators": [(0, {"pass@1": 0.06, ...}), ...]}``."""
    sets: dict[str, dict[int, dict[str, float]]] = {}
    for name, (steps, values) in curves.items():
        if name.startswith("eval/"):
            _, set_name, metric = name.split("/", 2)
            for step, value in zip(steps, values, strict=True):
                sets.setdefault(set_name, {}).setdefault(step, {})[metric] = value
    return {name: sorted(by_step.items()) for name, by_step in sorted(sets.items(), key=_richest)}


def _richest(item: tuple[str, Mapping[int, Mapping[str, float]]]) -> tuple[int, str]:
    """Sets that can be graded most finely come first: the narrowest interval."""
    widths = [
        numbers[f"{main}_high"] - numbers[f"{main}_low"]
        for numbers in item[1].values()
        for main in MAIN
        if f"{main}_low" in numbers
    ]
    return round(100 * fmean(widths)) if widths else 1000, item[0]


def main_number(numbers: Mapping[str, float]) -> tuple[str, Number] | None:
    """Its name, and itself with its interval."""
    return next(((name, number(numbers, name)) for name in MAIN if name in numbers), None)


def tiles_of(run: RunFolder) -> list[tuple[str, str, str]]:
    """The few numbers at the top of the page."""
    made: list[tuple[str, str, str]] = []
    for name, of_set in list(evaluated(run.curves).items())[:2]:
        (_, first), (step, last) = of_set[0], of_set[-1]
        if (before := main_number(first)) and (after := main_number(last)):
            label = f"{NAMES.get(after[0], after[0])}, {name}"
            value = brief(after[1].value) if len(of_set) == 1 else f"{brief(before[1].value)} → {brief(after[1].value)}"
            low, high = after[1].low, after[1].high
            interval = f"95 %: {low + 0:.3f} to {high:.3f}" if low is not None and high is not None else ""
            made.append((label, value, interval or f"at step {step}"))
    for name, label, word in (
        ("rollout/reward_mean", "reward", "training, first to last twentieth"),
        ("rollout/think_length_mean", "thinking length", "tokens, in training"),
        ("train/loss", "loss", "training, first to last twentieth"),
    ):
        if name in run.curves:
            early, late = ends(run.curves[name][1])
            made.append((label, f"{brief(early)} → {brief(late)}", word))
    if seconds := run.summary.get("seconds"):
        speed = run.summary.get("tokens_per_second")
        made.append(("time", duration(seconds), f"{speed:,.0f} tokens a second" if speed else ""))
    if memory := run.curves.get("memory/peak_gib"):
        made.append(("peak memory", f"{max(memory[1]):.2f} GiB", ""))
    return made


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Means of the first and of the last twentieth."""
    count = max(1, len(values) // 20)
    return fmean(values[:count]), fmean(values[-count:])


def scores(run: RunFolder, pairs: Sequence[Pair]) -> Html | None:
    """Held-out scores, with intervals and the paired test; None where nothing was evaluated."""
    sets = evaluated(run.curves)
    if not sets:
        return None
    tested = {pair.set_name: pair.comparison for pair in pairs}
    rows = []
    for name, of_set in sets.items():
        (early, first), (late, last) = of_set[0], of_set[-1]
        before, after = main_number(first), main_number(last)
        if after is None:
            continue
        found = tested.get(name)
        once = len(of_set) == 1
        rows.append((
            name, NAMES.get(after[0], after[0]),
            f"{with_interval(before[1])} (step {early})" if before and not once else "",
            f"{with_interval(after[1])} (step {late})", change(found), certainty(found),
        ))  # fmt: skip
    return join([
        table(("set", "", "first", "last", "change, points", "paired test"), rows,
              caption="In brackets 95 %, over problems. The test is the exact sign-flip test on the problems that "
              "both evaluations have; from p = 0.05 on, a change is called noise."),
        fold("All held-out numbers, first and last", *(_all_numbers(name, of_set) for name, of_set in sets.items())),
    ])  # fmt: skip


def _all_numbers(name: str, of_set: Sequence[tuple[int, Mapping[str, float]]]) -> Html:
    (early, first), (late, last) = of_set[0], of_set[-1]
    rows = [
        (
            NAMES.get(metric, metric),
            *(with_interval(number(side, metric)) if metric in side else "" for side in (first, last)),
        )
        for metric in last
        if not metric.endswith(_HIDDEN)
    ]
    return table((name, f"step {early}", f"step {late}"), rows)


def warnings(curves: Mapping[str, Curve]) -> list[str]:
    """What the watchdog told, and when: ``logprob_gap: from step 30 to step 50``."""
    told = []
    for name, (steps, values) in sorted(curves.items()):
        if name.startswith("watchdog/") and any(values):
            begin: int | None = None
            for step, value in zip(steps, values, strict=True):
                if value and begin is None:
                    begin = step
                elif not value and begin is not None:
                    told.append(f"{name.removeprefix('watchdog/')}: from step {begin} to step {step}")
                    begin = None
            if begin is not None:
                told.append(f"{name.removeprefix('watchdog/')}: from step {begin} on")
    return told


def facts_of(run: RunFolder, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where a run comes from."""
    summary = run.summary or manifest
    versions = ", ".join(f"{name} {version}" for name, version in (summary.get("versions") or {}).items())
    known = (
        ("folder", str(run.path)),
        ("command", manifest.get("command")),
        (
            "made from",
            ", ".join(f"{parent['node']} ({path})" for path, parent in (manifest.get("parents") or {}).items()),
        ),
        ("commit", summary.get("commit")),
        ("versions", versions),
        ("tokens", f"{run.summary['tokens']:,}" if run.summary.get("tokens") else None),
    )
    return [(name, str(fact)) for name, fact in known if fact]
