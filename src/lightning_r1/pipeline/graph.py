"""A graph of nodes: what each is made from, what is there already, and in which order the rest is run.

A node is one run of a verb. Its folder is ``<output>/<pipeline>/<node>``, always the same; a manifest in
it holds the key of what it was made from. A folder with another key is moved aside, not deleted.
"""

from __future__ import annotations

import fcntl
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_r1.callbacks.console import console
from lightning_r1.config.compose import compose_config
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.run_folder import MANIFEST, SUMMARY, provenance
from lightning_r1.config.schema import check_signatures
from lightning_r1.models.export import read_card
from lightning_r1.parallel.interruption import interruption
from lightning_r1.pipeline.artifacts import content_key
from lightning_r1.pipeline.runners import Command, Runner
from lightning_r1.text.records import read_json, write_whole


@dataclass(frozen=True)
class Node:
    """One run of the graph.

    Example: the node ``cold_start`` of the pipeline ``mini`` is ``verb="train"``, with
    ``parents={"model.path": "base", "data.sources.traces.path": "cold_start_traces"}``.
    """

    name: str
    command: Command
    config: dict[str, Any]
    parents: dict[str, str] = field(default_factory=dict)
    """Config path to the name of the node that fills it."""
    parent_keys: dict[str, str] = field(default_factory=dict)
    """Config path to the key of that node: what proves which model a phase began with."""
    key: str = ""

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return Path(self.config["paths"]["run_dir"])

    @property
    def manifest(self) -> dict[str, Any]:
        """What its folder was made from, or nothing."""
        return read_json(self.folder / MANIFEST)

    @property
    def cached(self) -> bool:
        """Whether its folder holds exactly this node, finished."""
        made = self.manifest
        return made.get("key") == self.key and made.get("status") == "done" and (self.folder / SUMMARY).is_file()


def plan(pipeline: Mapping[str, Any], *, output_dir: str, extra: Sequence[str]) -> list[Node]:
    """Compose every node and give it its key.

    Args:
        pipeline: ``name`` and ``nodes``; a node has a ``verb`` (``train`` if not said), ``overrides`` and
            ``inputs`` (config path to ``<node>/<file>``), and follows the nodes it needs.
        output_dir: where folders go.
        extra: overrides for every node whose verb has such a key: lessons of a teacher have no seed.

    Raises:
        ConfigError: for a node that needs one that does not come before it, or whose config is wrong: not
            when its turn comes, hours later. Also for an override that is for no node.
    """
    nodes: dict[str, Node] = {}
    unused = set(extra)
    for name, spec in pipeline["nodes"].items():
        inputs = spec.get("inputs") or {}
        parents = {path: source.split("/")[0] for path, source in inputs.items()}
        for path, parent in parents.items():
            if parent not in nodes:
                raise ConfigError(f"pipeline.nodes.{name}.inputs.{path}: {parent!r} is no node before {name!r}")
        filled = [f"{path}={output_dir}/{pipeline['name']}/{source}" for path, source in inputs.items()]
        where = [f"paths.output_dir={output_dir}", f"name={pipeline['name']}/{name}"]
        command = Command(spec.get("verb", "train"), (*spec["overrides"], *where, *filled))
        try:
            config = compose_config(command.verb, command.overrides)
            if taken := [override for override in extra if _key(override) in config]:
                unused -= set(taken)
                command = Command(command.verb, (*spec["overrides"], *taken, *where, *filled))
                config = compose_config(command.verb, command.overrides)
            check_signatures(config)
        except ConfigError as error:
            raise ConfigError(f"pipeline.nodes.{name}: {error}") from error
        parent_keys = {path: nodes[parent].key for path, parent in parents.items()}
        key = content_key(config, parent_keys, verb=command.verb)
        nodes[name] = Node(name, command, config, parents, parent_keys, key)
    if unused:
        raise ConfigError(f"overrides={sorted(unused)[0]}: no node has such a key")
    return list(nodes.values())


def _key(override: str) -> str:
    """The first part of what an override sets: ``data`` of ``+data.corpus={...}``, ``model`` of ``model@a=mini``."""
    return re.split(r"[.@=]", override.lstrip("+~"))[0]


def run(nodes: Sequence[Node], runner: Runner, *, workers: int = 1) -> dict[str, Any]:
    """Run what is not there yet, each node after those it needs.

    Args:
        nodes: in an order in which each follows those it needs.
        runner: how a node is run.
        workers: nodes that run at once, where their needs allow it; one runs in the thread that calls.

    Returns:
        ``{node: {key, status, seconds, path, eval}}``, in the order of ``nodes``.

    Raises:
        Exception: of the first node that failed, after those that were running have ended; a node that
            stopped before its last step has failed.
    """
    waiting = {node.name: node for node in nodes}
    running: dict[Future[dict[str, Any]], str] = {}
    results: dict[str, Any] = {}
    failure: BaseException | None = None
    with ThreadPoolExecutor(workers) if workers > 1 else _ThisThread() as threads:
        while waiting or running:
            for node in list(waiting.values()):
                ready = set(node.parents.values()) <= results.keys()
                if ready and failure is None and len(running) < max(1, workers):
                    running[threads.submit(_run_one, node, runner)] = waiting.pop(node.name).name
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                failure = failure or future.exception()
                if future.exception() is None:
                    results[name] = future.result()
    if failure is not None:
        raise failure
    return {node.name: results[node.name] for node in nodes}


class _ThisThread(Executor):
    """Runs at once what it is given: signals and Ctrl-C reach only the main thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """An error is raised here; nothing else is running."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def _run_one(node: Node, runner: Runner) -> dict[str, Any]:
    started = time.perf_counter()
    interruption.look()  # a signal behind the last node's last step has not kept it from its end
    with _only_one(node) as lock:
        status = "cached" if node.cached else "done"
        if not node.cached:
            make_room(node)
            console.rule(f"[bold]{node.name}[/]  {node.key}", align="left")
            write_manifest(node, status="running")
            runner(node.name, node.command, lock)
            if not (node.folder / SUMMARY).is_file():
                raise RuntimeError(f"{node.name} stopped before its last step; the same command again goes on")
            write_manifest(node, status="done", seconds=round(time.perf_counter() - started, 1))
    return read_result(node, status)


def read_result(node: Node, status: str) -> dict[str, Any]:
    """What a pipeline's summary says of a finished node."""
    summary = json.loads((node.folder / SUMMARY).read_text())
    return {
        "key": node.key,
        "status": status,
        "seconds": node.manifest["seconds"],  # that it took when it was run
        "path": str(node.folder),
        "eval": summary.get("after", {}),
    }


@contextmanager
def _only_one(node: Node) -> Iterator[int]:
    """Hold the node's lock: two pipelines started at once do not run a node twice.

    The lock is the kernel's, on an open file that a node's own process inherits: however any of them
    ends, it is released when the last of them has.
    """
    file = node.folder.with_name(f".{node.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"{node.name} is being run by another process; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


def show(nodes: Sequence[Node], results: Mapping[str, Any] | None = None) -> None:
    """Print the graph as a table: before running, or with its results."""
    table = Table(title_justify="left")
    for column in ("node", "verb", "needs", "status", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left", no_wrap=column != "needs")
    for node in nodes:
        result = (results or {}).get(node.name, {})
        status = result.get("status") or ("cached" if node.cached else "to run")
        needs = ", ".join(sorted(set(node.parents.values()))) or "-"
        table.add_row(node.name, node.command.verb, needs, status, str(result.get("seconds", "")))
    console.print(table)


def make_room(node: Node) -> None:
    """Move a folder that was made from something else aside; one of the same key goes on."""
    made_from = node.manifest.get("key")
    if not node.folder.exists() or made_from == node.key:
        return
    aside = node.folder.with_name(f"{node.name}.{made_from or time.strftime('%Y%m%d-%H%M%S')}")
    while aside.exists():
        aside = aside.with_name(aside.name + "+")
    node.folder.rename(aside)
    console.print(f"{node.folder} was made from something else and is moved to {aside}", soft_wrap=True)


def write_manifest(node: Node, *, status: str, seconds: float | None = None, job: str | None = None) -> None:
    """What the folder is made from: enough to prove where a model comes from.

    Args:
        node: whose folder it is.
        status: ``running`` or ``submitted``, then ``done``; ``failed`` and ``cancelled`` go on when run again.
        seconds: that it took.
        job: number of the Slurm job that makes it.
    """
    node.folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "node": node.name,
        "key": node.key,
        "status": status,
        "seconds": seconds,
        **({"job": job} if job else {}),
        "parents": {path: {"node": name, "key": node.parent_keys[path]} for path, name in node.parents.items()},
        "command": node.command.shell(),
        **provenance(),
        "template_fingerprint": read_card(node.folder / "model").get("template_fingerprint"),
    }
    write_whole(node.folder / MANIFEST, json.dumps(facts, indent=2) + "\n")
