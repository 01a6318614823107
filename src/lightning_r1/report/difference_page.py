"""The page of two runs: what was set differently, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_r1.report.charts import overlay
from lightning_r1.report.heldout import Pair, of_two, prompts
from lightning_r1.report.markup import Html, facts, html, join, section, table, tag
from lightning_r1.report.page import page, write
from lightning_r1.report.read import RunFolder, passed_over, read_run
from lightning_r1.report.run_page import NO_SCRIPTS, curve_sections, heading, note, subtitle, tags_of
from lightning_r1.report.scores import MAIN, evaluated
from lightning_r1.report.stages import number
from lightning_r1.report.words import NAMES, certainty, change, with_interval

_NO_SETTING = ("name", "paths")
_OTHER_NUMBERS = ("think_length_mean", "reflection_rate", "format_fraction", "language_share")


def write_difference_page(run_dir: Path, against_dir: Path) -> Path:
    """Write ``against_<name>.html`` into the first run's folder.

    Raises:
        ConfigError: if one of them is no training run.
    """
    run, against = read_run(run_dir), read_run(against_dir)
    labels = _labels(run, against)
    pairs = of_two(against_dir, run_dir, (labels[1], labels[0]))
    drawn = overlay({labels[1]: against.curves, labels[0]: run.curves})
    held_out = prompts(pairs)
    changed = list(_changed(against.config, run.config))
    parts = [
        heading(f"{labels[0]} against {labels[1]}", f"{run.path} beside {against.path}"),
        NO_SCRIPTS,
        section(
            "runs",
            "The two runs",
            facts((label, subtitle(one)) for label, one in zip(labels, (run, against), strict=True)),
        ),
        section("config", "Settings that differ", _settings(changed, labels)),
        section(
            "scores", "Held-out scores", _scores(run, against, pairs, labels), note(passed_over(against_dir, run_dir))
        ),
        *curve_sections(drawn),
    ]
    if held_out["items"]:
        under = "learned: right in the second run alone; lost: right in the first alone."
        parts.append(
            section("held-out", "The same held-out prompts", tag("p", under, class_="note"), tag("div", id="prompts"))
        )
    data = {"charts": drawn, "prompts": held_out, "tags": tags_of(run.config)}
    name = f"against_{against_dir.resolve().name}.html"
    return write(run_dir / name, page(f"{labels[0]} against {labels[1]}", join(parts), data))


def _labels(run: RunFolder, against: RunFolder) -> tuple[str, str]:
    """The last parts of their folders' paths that tell them apart."""
    one, other = run.path.resolve().parts, against.path.resolve().parts
    length = next((n for n in range(1, len(one)) if one[-n:] != other[-n:]), len(one))
    return "/".join(one[-length:]), "/".join(other[-length:])


def _changed(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Keys at which two configs differ, with both values; the name and the folders always do."""
    if path in _NO_SETTING:
        return
    if isinstance(before, Mapping) or isinstance(after, Mapping):
        before, after = (side if isinstance(side, Mapping) else {} for side in (before, after))
        for key in {**before, **after}:
            yield from _changed(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif before != after:
        yield path, before, after


def _settings(changed: Sequence[tuple[str, Any, Any]], labels: tuple[str, str]) -> Html:
    if not changed:
        return tag("p", "None: the two configs are equal but for their names and folders.")
    rows = [(path, _value(after), _value(before)) for path, before, after in changed]
    return table(("", *labels), rows)


def _value(value: Any) -> Html:
    return tag("code", "(not set)" if value is None else str(value))


def _scores(run: RunFolder, against: RunFolder, pairs: Sequence[Pair], labels: tuple[str, str]) -> Html:
    here, there = evaluated(run.curves), evaluated(against.curves)
    tested = {pair.set_name: pair.comparison for pair in pairs}
    rows: list[tuple[object, ...]] = []
    for name in (name for name in here if name in there):
        last, other = here[name][-1][1], there[name][-1][1]
        for metric in [metric for metric in (*MAIN, *_OTHER_NUMBERS) if metric in last and metric in other]:
            found = tested.get(name) if metric == "pass@1" else None
            numbers = (with_interval(number(side, metric)) for side in (last, other))
            problems = f"{found.problems:,}" if found else ""
            rows.append((name, NAMES.get(metric, metric), *numbers, change(found), certainty(found), problems))
    if not rows:
        return tag("p", "The two runs have no held-out set in common.")
    caption = (
        f"Change: of pass@1, {labels[0]} less {labels[1]}, in points, over the problems that both have; in brackets "
        "95 %. The test is the exact sign-flip test on them; from p = 0.05 on, a change is called noise."
    )
    return table(("set", "", *labels, "change, points", "paired test", "problems"), rows, caption=caption) or html("")
