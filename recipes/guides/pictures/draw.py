"""The pictures of "reading a run", from the metrics.csv of the runs that the page tells how to make.

python recipes/guides/pictures/draw.py outputs/reading outputs/mini
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")  # there may be no screen
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from lightning_r1.report.read import read_curves
from lightning_r1.report.series import Curve

HEALTHY, SICK, OTHER = "#7d8590", "#c8553d", "#33658a"


@dataclass(frozen=True)
class Picture:
    """Panels in a row (or two), and the runs that are drawn in each."""

    file: str
    title: str
    runs: dict[str, str]
    """Folder -> label, drawn in grey, red, blue."""
    panels: dict[str, tuple[str, ...]]
    """Title -> log names; several are summed."""
    rows: int = 1


ACCURACY = {"held-out pass@1": ("eval/operators/pass@1",)}
THINKING = {"thinking (tokens)": ("rollout/think_length_mean",)}
ENTROPY = {"entropy (nats a token)": ("policy/entropy",)}
DEAD = {"dead groups": ("rollout/dead_group_fraction",)}
KL = {"KL to the reference (nats a token)": ("policy/kl_ref",)}
CLIPPED = {"clipped tokens": ("policy/clip_fraction_low", "policy/clip_fraction_high")}

PICTURES = (
    Picture(
        "healthy.png",
        "a healthy run",
        {"healthy": "healthy"},
        {
            "format": ("rollout/format_fraction",),
            "accuracy": ("rollout/reward/accuracy",),
            **THINKING,
            "reflections a completion": ("rollout/reflection_rate",),
            **ENTROPY,
            **KL,
            **DEAD,
            "gradient norm": ("optim/grad_norm",),
        },
        rows=2,
    ),
    Picture(
        "learning_rate.png",
        "optim.lr=5e-3, ten times too high",
        {"healthy": "healthy", "hot": "too high"},
        {**ACCURACY, **ENTROPY, **KL, **THINKING},
    ),
    Picture(
        "truncation.png",
        "algo.sampling.max_new_tokens=16",
        {"healthy": "healthy", "short": "too short"},
        {**ACCURACY, "truncated": ("rollout/truncated_fraction",), **THINKING, **DEAD},
    ),
    Picture(
        "hacking.png",
        "a reward that pays wrong answers for being long",
        {"healthy": "healthy", "hack": "hacked"},
        {
            "reward (at most 2)": ("rollout/reward_mean",),
            **ACCURACY,
            "length (tokens)": ("rollout/length_mean",),
            "reflections a completion": ("rollout/reflection_rate",),
        },
    ),
    Picture(
        "off_policy.png",
        "algo.num_iterations=16 optim.lr=2e-3",
        {"healthy": "healthy", "offpolicy": "too far off policy"},
        {**ACCURACY, **CLIPPED, "largest ratio": ("policy/ratio_max",), **KL},
    ),
    Picture(
        "temperature.png",
        "algo.sampling.temperature=0.2",
        {"healthy": "healthy", "cold": "too cold"},
        {"accuracy in training": ("rollout/reward/accuracy",), **ACCURACY, **DEAD, **ENTROPY},
    ),
    Picture(
        "kl.png",
        "algo.kl_coef=0 and algo.kl_coef=1",
        {"healthy": "0.001", "kl_high": "1", "kl_off": "0"},
        {**ACCURACY, **THINKING, **ENTROPY, **KL},
    ),
    Picture(
        "language.png",
        "RL without and with the language reward",
        {"reasoning_rl": "with", "no_language_reward": "without"},
        {
            "held-out words in the prompt's language": ("eval/operators/language_share",),
            **ACCURACY,
            **THINKING,
            "format": ("rollout/format_fraction",),
        },
    ),
)


def total(curves: dict[str, Curve], names: tuple[str, ...]) -> Curve:
    """The sum of some numbers, step by step; nothing where one was not measured."""
    if any(name not in curves for name in names):
        return [], []
    steps = curves[names[0]][0]
    return steps, [sum(at) for at in zip(*(curves[name][1] for name in names), strict=True)]


def draw(axis: Axes, curve: Curve, colour: str, label: str) -> list[float]:
    """A faint line of the values and a bold one of their running mean; few values are joined as they are."""
    steps, values = curve
    half = len(values) // 40
    bold = [sum(part) / len(part) for i in range(len(values)) if (part := values[max(0, i - half) : i + half + 1])]
    if half:
        axis.plot(steps, values, color=colour, alpha=0.2, linewidth=0.7)
    axis.plot(steps, bold, color=colour, linewidth=1.8, label=label)
    return bold


def paint(picture: Picture, runs: dict[str, dict[str, Curve]], into: Path) -> None:
    """One file."""
    columns = len(picture.panels) // picture.rows
    size = (3.0 * columns, 2.25 * picture.rows + 0.35)
    figure, axes = plt.subplots(picture.rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis, (title, names) in zip(axes.flat, picture.panels.items(), strict=True):
        reached = [0.0]
        for colour, (folder, label) in zip((HEALTHY, SICK, OTHER), picture.runs.items(), strict=False):
            reached += draw(axis, total(runs[folder], names), colour, label)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylim(0, 1.12 * max(reached) or 1)  # one wild step, faint behind, would flatten all others
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    if len(picture.runs) > 1:
        axes.flat[0].legend(fontsize=8, frameon=False)
    axes[-1, 0].set_xlabel("optimizer step", fontsize=8)
    figure.suptitle(picture.title, fontsize=10, x=0.01, ha="left")
    figure.savefig(into / picture.file, dpi=95)
    plt.close(figure)


def main(folders: list[Path], into: Path = Path(__file__).parent) -> None:
    """Draw whatever the folders have all runs for, and say what is left out for want of a run."""
    runs = {file.parent.name: read_curves(file) for folder in folders for file in sorted(folder.glob("*/metrics.csv"))}
    for picture in PICTURES:
        missing = [folder for folder in picture.runs if folder not in runs]
        if missing:
            sys.stderr.write(f"{picture.file}: no run {', '.join(missing)}\n")
            continue
        paint(picture, runs, into)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
