"""Which curves the page draws, and their numbers, thinned to what a screen can show."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_r1.report.series import Curve, rounded, smoothed, thinned

# of one line; a chart is about 400 pixels wide
_MOST_POINTS, _MOST_POINTS_OF_OTHERS = 480, 160


@dataclass(frozen=True)
class Panel:
    """A chart of the page.

    Example: ``Panel("accuracy", "share", (("rollout/reward/accuracy", "training"), ("eval/*/pass@1", "held out")))``
    """

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    """Log name and label; a * stands for any name, and is the label where there are several."""
    stacked: bool = False
    """Whether the lines are parts of a sum."""
    where_not_zero: bool = False
    """Draw only lines that ever leave zero: troubles that a healthy run does not have."""


PANELS: Mapping[str, tuple[Panel, ...]] = {
    "Learning": (
        Panel("reward", "", (("rollout/reward_mean", "sum"), ("rollout/reward/*", ""))),
        Panel("accuracy", "share", (("rollout/reward/accuracy", "training"), ("eval/*/pass@1", "held out"))),
        Panel("thinking length", "tokens",
              (("rollout/think_length_mean", "training"), ("eval/*/think_length_mean", "held out"))),
        Panel("reflection rate", "markers a completion",
              (("rollout/reflection_rate", "training"), ("eval/*/reflection_rate", "held out"))),
        Panel("completions and groups", "share",
              (("rollout/format_fraction", "strict format"), ("rollout/truncated_fraction", "cut off"),
               ("rollout/dead_group_fraction", "groups of equal reward"))),
        Panel("scoring that went wrong", "share",
              (("rollout/outcome/timeout", "timeout"), ("rollout/outcome/crash", "crash"),
               ("rollout/outcome/unscorable", "unscorable")), where_not_zero=True),
        Panel("loss", "", (("train/loss", "training"), ("eval/*/loss", "held out"))),
        Panel("accuracy", "share",
              (("train/accuracy", "of tokens"), ("train/pair_accuracy", "of pairs"), ("train/label_accuracy",
               "of labels"), ("eval/*/pair_accuracy", "held-out pairs"),
               ("eval/*/label_accuracy", "held-out labels"))),
        Panel("divergence from the teacher", "nats a token", (("distill/divergence", "training"),)),
    ),
    "Policy": (
        Panel("entropy", "nats a token", (("policy/entropy", "training"), ("distill/student_entropy", "student"),
                                          ("distill/teacher_entropy", "teacher"))),
        Panel("KL", "nats a token", (("policy/kl_ref", "to the reference"), ("policy/kl_old", "to the old policy"))),
        Panel("clip fractions", "share of tokens",
              (("policy/clip_fraction_high", "above"), ("policy/clip_fraction_low", "below"))),
        Panel("log-prob gap, sampler to trainer", "nats a token",
              (("policy/logprob_gap", "mean"), ("policy/logprob_gap_max", "largest"))),
        Panel("largest ratio", "", (("policy/ratio_max", "largest ratio"),)),
        Panel("gradient norm", "", (("optim/grad_norm", "gradient norm"),)),
        Panel("learning rate", "", (("optim/lr", "learning rate"),)),
    ),
    "Time and memory": (
        Panel("time of a step", "seconds",
              (("time/rollout_s", "rollout"), ("time/reward_s", "rewards"), ("time/update_s", "update")), stacked=True),
        Panel("speed", "tokens a second", (("perf/tokens_per_s", "tokens a second"),)),
        Panel("peak memory", "GiB", (("memory/peak_gib", "peak memory"),)),
        Panel("model FLOPs utilisation", "share", (("perf/mfu", "MFU"),)),
    ),
}  # fmt: skip
_OTHERS = "Other numbers"


def charts(curves: Mapping[str, Curve]) -> dict[str, list[dict[str, Any]]]:
    """Charts of one run, by section; numbers that no panel names are the last section, a chart each.

    Args:
        curves: by log name.

    Returns:
        Of what was measured, charts: ``title``, ``unit``, ``stacked`` and ``lines``, as :func:`line` makes them.
    """
    sections: dict[str, list[dict[str, Any]]] = {}
    used: set[str] = set()
    for section, panels in PANELS.items():
        for panel in panels:
            named = list(_named(panel, curves))
            used |= {name for name, _ in named}
            lines = [line(curves, name, label) for name, label in named if _worth(panel, curves[name])]
            if lines:
                chart = {"title": panel.title, "unit": panel.unit, "stacked": panel.stacked, "lines": lines}
                sections.setdefault(section, []).append(chart)
    for name in sorted(curves):
        if name not in used and not _is_bound(name, curves):
            lines = [line(curves, name, name.rpartition("/")[2], most=_MOST_POINTS_OF_OTHERS)]
            sections.setdefault(_OTHERS, []).append({"title": name, "unit": "", "stacked": False, "lines": lines})
    return sections


def overlay(
    runs: Mapping[str, Mapping[str, Curve]], *, sets: Collection[str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Charts of several runs, one for each number that the panels name, with a line a run.

    Args:
        runs: curves of each, by what it is called; a run has the same colour in all charts.
        sets: held-out sets whose numbers are drawn; all, if not said.
    """
    sections: dict[str, list[dict[str, Any]]] = {}
    everything = {name: curve for curves in runs.values() for name, curve in curves.items()}
    seen: set[str] = set()
    for section, panels in PANELS.items():
        for panel in panels:
            for name, label in _named(panel, everything):
                of_set = name.split("/")[1] if name.startswith("eval/") else None
                having = {run: curves for run, curves in runs.items() if name in curves}
                if name in seen or not any(_worth(panel, curves[name]) for curves in having.values()):
                    continue
                if of_set and sets is not None and of_set not in sets:
                    continue
                places = {run: place for place, run in enumerate(runs)}
                lines = [line(curves, name, run) | {"colour": places[run]} for run, curves in having.items()]
                seen.add(name)
                title = panel.title if label in ("training", panel.title) else f"{panel.title}: {label}"
                chart = {"title": title, "unit": panel.unit, "stacked": False, "lines": lines}
                sections.setdefault(section, []).append(chart)
    return sections


def line(curves: Mapping[str, Curve], name: str, label: str, *, most: int = _MOST_POINTS) -> dict[str, Any]:
    """A curve as the page draws it.

    Returns:
        ``name``, ``label``, steps ``x``, values ``y`` with null for what is not finite; of evaluations, which are
        points, the ends ``low`` and ``high`` of their interval where there is one, of others ``mean``, smoothed.
    """
    steps, values = curves[name]
    places = thinned(values, most)
    made: dict[str, Any] = {"name": name, "label": label, "x": [steps[place] for place in places],
                            "y": [rounded(values[place]) for place in places]}  # fmt: skip
    if name.startswith("eval/"):
        for end in ("low", "high"):
            by_step = dict(zip(*curves.get(f"{name}_{end}", ([], [])), strict=True))
            if any(step in by_step for step in made["x"]):
                made[end] = [rounded(by_step.get(step)) for step in made["x"]]
    else:
        means = smoothed(values)
        made["mean"] = [rounded(means[place]) for place in places]
    if broken := sum(not math.isfinite(value) for value in values):
        made["not_finite"] = broken
    return made


def _named(panel: Panel, known: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Log names of a panel that were logged, with their labels."""
    seen: set[str] = set()
    for pattern, label in panel.lines:
        found = [name for name in fnmatch.filter(known, pattern) if name not in seen]
        seen |= set(found)
        for name in sorted(found):
            yield name, _label(pattern, label, name, alone=len(found) == 1)


def _label(pattern: str, label: str, name: str, *, alone: bool) -> str:
    if "*" not in pattern or (alone and label):
        return label
    before, _, behind = pattern.partition("*")
    star = name[len(before) : len(name) - len(behind)]
    return f"{label}: {star}" if label else star


def _worth(panel: Panel, curve: Curve) -> bool:
    return not panel.where_not_zero or any(curve[1])


def _is_bound(name: str, curves: Mapping[str, Sequence[Any]]) -> bool:
    """Whether it is the end of another number's interval."""
    return name.endswith(("_low", "_high")) and name.rpartition("_")[0] in curves
