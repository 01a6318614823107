"""From a pipeline's config to its results: the plan, the runs, the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from lightning_r1.callbacks.console import console
from lightning_r1.config.ending import tell_pipeline
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.run_folder import keep_config, write_summary
from lightning_r1.pipeline import graph, jobs
from lightning_r1.pipeline.runners import RUNNERS
from lightning_r1.pipeline.slurm import Slurm
from lightning_r1.pipeline.tables import tables
from lightning_r1.report.console import leave_report, show


def run_pipeline(config: Mapping[str, Any]) -> dict[str, Any]:
    """Run a pipeline.

    Args:
        config: resolved; see ``conf/pipeline.yaml``.

    Returns:
        What ``summary.json`` holds: ``nodes``, by name.

    Raises:
        ConfigError: for an unknown runner, workers or devices that it cannot use, or a table of absent nodes.
    """
    if config["runner"] not in RUNNERS:
        raise ConfigError(f"runner={config['runner']}: there is no such runner; choose one of {', '.join(RUNNERS)}")
    if config["runner"] == "process" and config["workers"] > 1:
        raise ConfigError(f"workers={config['workers']}: runner=process runs one node at a time; runner=subprocess")
    folder = Path(config["paths"]["run_dir"])
    spec = {**config["pipeline"], "name": config["name"]}  # whose folder all nodes are in
    nodes = graph.plan(spec, output_dir=config["paths"]["output_dir"], extra=list(config["overrides"]))
    _check_names(spec, {node.name for node in nodes})
    graph.show(nodes)
    if config["dry"]:
        return {}
    on_slurm = config["cluster"]["name"] == "slurm"
    if config["runner"] == "process" and not on_slurm:
        _check_one_rank(nodes)
    keep_config(folder, config)  # a report of it, before it is finished too, needs the graph
    if on_slurm:
        results = _on_slurm(nodes, config)
        if len(results) < len(nodes):
            return {}
    else:
        results = graph.run(nodes, RUNNERS[config["runner"]](), workers=config["workers"])
    console.rule("[bold]results[/]", align="left")
    graph.show(nodes, results)
    summary = {"nodes": results}
    write_summary(folder, summary)
    for name in spec["show"]:
        show(Path(results[name]["path"]))
    for table in tables(spec["tables"], results):
        console.print(table, "")
    console.print(f"± is 95 % over problems. {spec['tables']['note']}")
    leave_report(folder)
    tell_pipeline(folder, results, spec["show"])
    return summary


def _on_slurm(nodes: Sequence[graph.Node], config: Mapping[str, Any]) -> dict[str, Any]:
    """Results of the nodes that are there: all, or ``cluster.follow`` is false.

    Raises:
        SystemExit: with status 1 if a node failed, with 130 if following was broken off.
    """
    slurm, cluster = Slurm(), config["cluster"]
    submitted = jobs.submit(nodes, config["pipeline"], cluster, slurm)
    again = f"the same command again follows them; scancel {' '.join(submitted.job.values())} ends them"
    for name, number in submitted.job.items():
        console.print(f"{name:>30} │ job {number}", markup=False, soft_wrap=True)
    if not cluster["follow"]:
        console.print(f"{len(submitted.job)} jobs are on their way; {again}", soft_wrap=True)
        return jobs.results_of(submitted)
    try:
        jobs.follow(submitted, slurm, poll_s=cluster["poll_s"])
    except KeyboardInterrupt:
        console.print(f"jobs go on; {again}", soft_wrap=True)
        raise SystemExit(130) from None
    results = jobs.results_of(submitted)
    if len(results) < len(nodes):
        ends = {name: {"status": what.partition(":")[0]} for name, what in submitted.status.items()}
        graph.show(nodes, ends | results)
        raise SystemExit("error: not every node was made; what is there is kept: the same command goes on from here")
    return results


def _check_names(spec: Mapping[str, Any], known: Set[str]) -> None:
    """What is shown at the end is looked for before the hours that it takes."""
    rows = {f"tables.rows.{title}": names for title, names in spec["tables"]["rows"].items()}
    for place, names in {"show": spec["show"], **rows}.items():
        for name in names:
            if name not in known:
                raise ConfigError(f"pipeline.{place}: {name!r} is no node of this pipeline; write one of its nodes")


def _check_one_rank(nodes: Sequence[graph.Node]) -> None:
    """Further ranks start this process's own command again: they would wait for the node that waits for them."""
    for node in nodes:
        trainer = node.config.get("trainer") or {}
        for key in ("devices", "num_nodes"):
            if trainer.get(key, 1) not in (1, "1"):
                raise ConfigError(
                    f"pipeline.nodes.{node.name}: trainer.{key}={trainer[key]}: runner=process runs on one device; "
                    "runner=subprocess"
                )
