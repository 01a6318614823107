"""The page of one training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_r1.config.run_folder import MANIFEST
from lightning_r1.report.charts import charts
from lightning_r1.report.completions import browse
from lightning_r1.report.heldout import before_and_after, prompts
from lightning_r1.report.markup import Html, facts, fold, html, join, section, tag, tiles
from lightning_r1.report.page import page, write
from lightning_r1.report.read import RunFolder, passed_over, read_run
from lightning_r1.report.scores import facts_of, scores, tiles_of, warnings
from lightning_r1.text.records import read_json
from lightning_r1.text.tags import Tags

NO_SCRIPTS = Html(
    "<noscript><p class='note'>"
    "Curves and the browser of completions need JavaScript; the numbers do not.</p></noscript>"
)


def write_run_page(folder: Path) -> Path:
    """Write ``report.html`` into a run's folder.

    Raises:
        ConfigError: if it is no training run.
    """
    run = read_run(folder)
    pairs = before_and_after(folder)
    drawn = charts(run.curves)
    completions = browse(folder, run.curves, group_size=_group_size(run.config))
    held_out = prompts(pairs)
    parts = [heading(run.name, subtitle(run), *_warned(run)), tiles_or_nothing(run), NO_SCRIPTS]
    if (table := scores(run, pairs)) is not None:
        parts.append(section("scores", "Held-out scores", table, note(passed_over(folder))))
    parts += curve_sections(drawn)
    if completions["rollouts"]:
        parts.append(
            section(
                "completions", "Completions", tag("div", id="browser"), tag("p", completions["left_out"], class_="note")
            )
        )
    if held_out["items"]:
        parts.append(section("held-out", "The same held-out prompts, before and after", tag("div", id="prompts")))
    config = folder / "config.yaml"
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    about = [facts(facts_of(run, read_json(folder / MANIFEST)))]
    about += [fold("config.yaml", tag("pre", text))] if text else []
    parts.append(section("about", "About this run", *about))
    data = {"charts": drawn, "completions": completions, "prompts": held_out, "tags": tags_of(run.config)}
    return write(folder / "report.html", page(f"{run.name} · report", join(parts), data))


def note(text: str) -> Html:
    """A remark below what it is about; nothing where there is none."""
    return tag("p", text, class_="note") if text else html("")


def heading(title: str, under: str, *parts: Html) -> Html:
    """The top of a page."""
    return tag("header", tag("h1", title), tag("p", under, class_="under"), *parts)


def subtitle(run: RunFolder) -> str:
    """Phase, model, and how far it is."""
    phase = run.summary.get("phase") or (run.config.get("phase") or {}).get("name")
    model = run.summary.get("model") or (run.config.get("model") or {}).get("name")
    return " · ".join(str(part) for part in (phase, model, run.state) if part)


def tiles_or_nothing(run: RunFolder) -> Html:
    """The main numbers, where there are any."""
    found = tiles_of(run)
    return tiles(found) if found else html("")


def curve_sections(drawn: Mapping[str, Any]) -> list[Html]:
    """Places that the script fills; what no panel names is folded away."""
    made = []
    for number, (title, of_section) in enumerate(drawn.items()):
        place = tag("div", class_="charts", data_section=title)
        if title == "Other numbers":
            made.append(tag("section", fold(f"{title} ({len(of_section)})", place), id="other-numbers"))
        else:
            made.append(section(f"curves-{number}", title, place))
    return made


def tags_of(config: Mapping[str, Any]) -> dict[str, str]:
    """How a completion is taken apart."""
    said = (config.get("template") or {}).get("tags") or {}
    tags = Tags(**{name: tag for name, tag in said.items() if not name.startswith("_")})
    return {"open": tags.think_open, "close": tags.think_close}


def _warned(run: RunFolder) -> list[Html]:
    told = warnings(run.curves)
    return [tag("p", "The watchdog told of ", "; ".join(told), ".", class_="warning")] if told else []


def _group_size(config: Mapping[str, Any]) -> int | None:
    return ((config.get("algo") or {}).get("sampling") or {}).get("group_size")
