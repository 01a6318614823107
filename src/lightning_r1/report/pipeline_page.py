"""The page of a pipeline: its graph with every node's scores, the paper's tables, all curves of the RL nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning_r1.report import graph
from lightning_r1.report.charts import overlay
from lightning_r1.report.markup import Html, facts, html, join, section, table, tag
from lightning_r1.report.page import page, write
from lightning_r1.report.pipeline_folder import NodeFolder, PipelineFolder, read_pipeline
from lightning_r1.report.read import read_curves
from lightning_r1.report.run_page import NO_SCRIPTS, curve_sections, heading, note, write_run_page
from lightning_r1.report.scores import MAIN
from lightning_r1.report.stages import StageTable, number, stage_tables
from lightning_r1.report.words import NAMES, brief, certainty, change, duration, with_interval

_OF_RL = "rollout/reward_mean"


def write_pipeline_page(folder: Path) -> Path:
    """Write ``report.html`` into a pipeline's folder, and into those of its training nodes that have none of today."""
    pipeline = read_pipeline(folder)
    for node in pipeline.nodes.values():
        if node.trains and _is_stale(node.path):
            write_run_page(node.path)
    curves = {node.name: read_curves(node.path / "metrics.csv") for node in pipeline.nodes.values() if node.trains}
    of_rl = {name: of_node for name, of_node in curves.items() if _OF_RL in of_node}
    compared = (pipeline.spec.get("tables") or {}).get("compare")
    drawn = overlay(of_rl, sets=[compared] if compared else None)
    parts = [heading(pipeline.name, f"pipeline · {pipeline.state}{_time(pipeline)}"), NO_SCRIPTS]
    parts.append(section("graph", "The graph", tag("div", drawing(pipeline), class_="graph", tabindex="0")))
    spec = pipeline.spec.get("tables") or {}
    done = {name: node.result for name, node in pipeline.nodes.items() if node.status == "done"}
    if made := [_stages(one) for one in stage_tables(_possible(spec, done), done)]:
        under = note(f"In brackets 95 % over problems. {spec.get('note', '')}")
        parts.append(section("tables", "What every phase did", *made, under))
    parts += curve_sections(drawn)
    parts.append(section("nodes", "Nodes", *(_node(node) for node in pipeline.nodes.values())))
    return write(folder / "report.html", page(f"{pipeline.name} · report", join(parts), {"charts": drawn}))


def _is_stale(folder: Path) -> bool:
    """Whether its page is older than what it is made of."""
    made = folder / "report.html"
    sources = [folder / name for name in ("metrics.csv", "summary.json") if (folder / name).is_file()]
    return not made.is_file() or any(source.stat().st_mtime > made.stat().st_mtime for source in sources)


def _time(pipeline: PipelineFolder) -> str:
    seconds = sum(node.manifest.get("seconds") or 0 for node in pipeline.nodes.values())
    return f" · {duration(seconds)} over all nodes" if seconds else ""


def _possible(spec: Mapping[str, Any], done: Mapping[str, Any]) -> dict[str, Any]:
    """The tables, with those rows that are there."""
    rows = {title: [name for name in names if name in done] for title, names in (spec.get("rows") or {}).items()}
    return {"columns": spec.get("columns") or {}, "compare": spec.get("compare", ""),
            "rows": {title: names for title, names in rows.items() if names}}  # fmt: skip


def _stages(stages: StageTable) -> Html:
    rows = [
        (tag("a", stage.name, href=f"#node-{stage.name}"),
         *(with_interval(stage.numbers.get(label)) for label in stages.columns),
         change(stage.change), certainty(stage.change))
        for stage in stages.stages
    ]  # fmt: skip
    return join([tag("h3", stages.title), table(("", *stages.columns, "change, points", "paired test"), rows)])


def drawing(pipeline: PipelineFolder) -> Html:
    """The graph; a node leads to its part of the page."""
    found = graph.layout({name: list(dict.fromkeys(node.parents.values())) for name, node in pipeline.nodes.items()})
    arrow = tag("marker", tag("path", d="M0 0L8 4L0 8z", class_="tip"), id="arrow", viewBox="0 0 8 8", refX="7",
                refY="4", markerWidth="7", markerHeight="7", orient="auto")  # fmt: skip
    edges = [tag("path", class_="edge", d=_bend(points), marker_end="url(#arrow)") for points in found.edges.values()]
    nodes = [_box(pipeline.nodes[name], x, y, _score_key(pipeline.spec)) for name, (x, y) in found.nodes.items()]
    return tag("svg", tag("defs", arrow), *edges, *nodes, viewBox=f"-2 -2 {found.width + 4:.0f} {found.height + 4:.0f}",
               width=f"{found.width + 4:.0f}", height=f"{found.height + 4:.0f}", role="img",
               aria_label="graph of the pipeline's nodes")  # fmt: skip


def _bend(points: Sequence[tuple[float, float]]) -> str:
    """Through the points, upright at each."""
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to_x, to_y) in pairwise(points):
        middle = (y + to_y) / 2
        text += f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
    return text


def _box(node: NodeFolder, x: float, y: float, score_key: str | None) -> Html:
    seconds = node.manifest.get("seconds")
    when = f"{node.status} · {duration(seconds)}" if seconds else node.status
    return tag("a",
        tag("rect", width=str(graph.WIDTH), height=str(graph.HEIGHT), rx="7"),
        tag("circle", cx="13", cy="17", r="4", class_=node.status),
        tag("text", node.name, x="24", y="21", class_="name"),
        tag("text", f"{node.verb} · {when}", x="12", y="37", class_="soft"),
        tag("text", _score(node, score_key), x="12", y="52", class_="soft"),
        href=f"#node-{node.name}", transform=f"translate({x:.1f} {y:.1f})")  # fmt: skip


def _score_key(spec: Mapping[str, Any]) -> str | None:
    """What the tables compare."""
    name = (spec.get("tables") or {}).get("compare")
    return f"eval/{name}/pass@1" if name else None


def _score(node: NodeFolder, score_key: str | None) -> str:
    """A node's result in a few words."""
    numbers = node.summary.get("after") or {}
    keys = [score_key, *(key for main in MAIN for key in numbers if key.endswith(f"/{main}"))]
    if key := next((key for key in keys if key in numbers), None):
        found, metric = number(numbers, key), key.rpartition("/")[2]
        reach = f" ±{(found.high - found.low) / 2:.3f}" if found.low is not None and found.high is not None else ""
        return f"{NAMES.get(metric, metric)} {found.value:.3f}{reach}"
    for what in ("traces", "lessons"):
        if what in node.summary:
            return f"{node.summary[what]:,} {what}"
    return ""


def _node(node: NodeFolder) -> Html:
    numbers = node.summary.get("after") or {}
    made_from = ", ".join(f"{parent} ({path})" for path, parent in node.parents.items())
    about = [("status", node.status), ("made from", made_from), ("command", node.manifest.get("command")),
             ("key", node.manifest.get("key")), ("commit", node.manifest.get("commit"))]  # fmt: skip
    plain = [(name, brief(value) if isinstance(value, float) else f"{value:,}") for name, value in node.summary.items()
             if isinstance(value, int | float) and not isinstance(value, bool)]  # fmt: skip
    left_out = node.summary.get("left_out")
    if isinstance(left_out, Mapping):
        plain.append(("left out", ", ".join(f"{why} {count:,}" for why, count in left_out.items())))
    sets = list(dict.fromkeys(key.split("/")[1] for key in numbers))
    metrics = [metric for metric in dict.fromkeys(key.split("/", 2)[2] for key in numbers)
               if not metric.endswith(("_low", "_high", "_error"))]  # fmt: skip
    rows = [(NAMES.get(metric, metric),
             *(with_interval(number(numbers, key)) if (key := f"eval/{name}/{metric}") in numbers else ""
               for name in sets)) for metric in metrics]  # fmt: skip
    link = tag("p", tag("a", "its own report: curves and completions", href=f"{node.name}/report.html"))
    return tag("details",
        tag("summary", tag("b", node.name), tag("span", f"{node.verb} · {node.status}", class_="under")),
        link if (node.path / "report.html").is_file() else html(""),
        facts((name, fact) for name, fact in [*about, *plain] if fact),
        table(("held out", *sets), rows) if rows else html(""),
        class_="node", id=f"node-{node.name}")  # fmt: skip
