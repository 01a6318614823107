"""A graph of nodes as Slurm jobs: submitted at once, each behind those it needs, and followed to the end.

A node's manifest holds the number of its job. The same command again finds jobs that wait or run, takes what is
finished as done, and submits the rest: following can stop and begin again at any time.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_r1.callbacks.console import console
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import JOB_LOGS
from lightning_r1.config.run_folder import SUMMARY
from lightning_r1.parallel.shared_disk import appears
from lightning_r1.pipeline.graph import Node, make_room, read_result, write_manifest
from lightning_r1.pipeline.slurm import Job, Slurm

RESOURCES = ("partition", "account", "time", "nodes", "gpus_per_node", "options")
_APPEARS_S = 60.0  # within which a file that another node wrote is seen here


@dataclass
class Graph:
    """Where each node stands."""

    nodes: dict[str, Node]
    job: dict[str, str] = field(default_factory=dict)
    """Number of the job that makes it, while there is one."""
    fresh: set[str] = field(default_factory=set)
    """Nodes whose job was submitted by this command."""
    status: dict[str, str] = field(default_factory=dict)
    """``cached`` or ``done``; else what became of it."""

    def good(self, name: str) -> bool:
        """Whether its result is there."""
        return self.status.get(name) in ("cached", "done")

    def below(self, name: str) -> list[str]:
        """Everything that needs it, directly or not, in order."""
        found = {name}
        for node in self.nodes.values():
            if found & set(node.parents.values()):
                found.add(node.name)
        return [other for other in self.nodes if other in found - {name}]


def options_of(node: Node, spec: Mapping[str, Any], cluster: Mapping[str, Any]) -> list[str]:
    """For sbatch: of the cluster, unless said otherwise for the verb, unless said otherwise for the node.

    Args:
        node: whose job it is.
        spec: the pipeline.
        cluster: see ``conf/cluster/slurm.yaml``.

    Raises:
        ConfigError: for a resource that is none.
    """
    said = {name: cluster[name] for name in RESOURCES}
    for where, more in (
        (f"cluster.verbs.{node.command.verb}", cluster["verbs"].get(node.command.verb)),
        (f"pipeline.nodes.{node.name}.resources", spec["nodes"][node.name].get("resources")),
    ):
        for name, value in (more or {}).items():
            if name not in RESOURCES:
                raise ConfigError(f"{where}.{name}: there is no such resource; choose from {', '.join(RESOURCES)}")
            said[name] = [*said[name], *value] if name == "options" else value
    flags = [
        f"--{name.replace('_', '-')}={value}" for name, value in said.items() if name != "options" and value is not None
    ]
    return [*flags, *said["options"]]


def submit(nodes: Sequence[Node], spec: Mapping[str, Any], cluster: Mapping[str, Any], slurm: Slurm) -> Graph:
    """Submit every node that is neither there nor on its way.

    Raises:
        ConfigError: if sbatch refuses a job, or a job of another configuration is at work in a node's folder.
    """
    graph = Graph({node.name: node for node in nodes})
    options = {node.name: options_of(node, spec, cluster) for node in nodes}
    with _alone(nodes[0].folder.parent):
        queue = slurm.jobs()
        for node in nodes:
            if _at_hand(graph, node, queue, slurm):
                continue
            make_room(node)
            logs = node.folder / JOB_LOGS
            logs.mkdir(parents=True, exist_ok=True)
            after = [graph.job[parent] for parent in dict.fromkeys(node.parents.values()) if parent in graph.job]
            graph.job[node.name] = slurm.submit(
                node.command, name=_name(node), options=options[node.name], log=logs / "job-%j.out", after=after
            )
            graph.fresh.add(node.name)
            write_manifest(node, status="submitted", job=graph.job[node.name])
    return graph


def _at_hand(graph: Graph, node: Node, queue: Mapping[str, Job], slurm: Slurm) -> bool:
    """Whether a node is made already, or a job of an earlier command is about to make it."""
    made = node.manifest
    job = queue.get(str(made.get("job")))
    if job is not None and not job.name.startswith(_name(node).rpartition(".")[0]):
        job = None  # numbers begin anew one day
    if node.cached:
        graph.status[node.name] = "cached"
        return True
    if made.get("key") == node.key and (node.folder / SUMMARY).is_file() and not (job and job.live):
        write_manifest(node, status="done", seconds=job.seconds if job else None, job=made.get("job"))
        graph.status[node.name] = "done"
        return True
    if job is None or not job.live:
        return False
    if made["key"] != node.key:
        raise ConfigError(
            f"pipeline.nodes.{node.name}: job {job.id} is still at work in {node.folder}, made from something else; "
            f"wait for it, or end it: scancel {job.id}"
        )
    if not graph.fresh & set(node.parents.values()):
        graph.job[node.name] = job.id
        return True
    # it waits for a job of its parent that is no more
    slurm.cancel([job.id])
    return False


def follow(graph: Graph, slurm: Slurm, *, poll_s: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Tell each job's states until all have ended; what needs a failed node is cancelled.

    Args:
        graph: submitted.
        slurm: where.
        poll_s: seconds between two looks.
        sleep: waits so long.
    """
    told: dict[str, str] = {}
    while graph.job:
        try:
            queue = slurm.jobs()
        except RuntimeError as error:  # a busy controller, for a while: jobs are none the worse for it
            _tell(told, "Slurm", f"does not answer ({error}); it is asked again")
            sleep(poll_s)
            continue
        told.pop("Slurm", None)
        for name, number in list(graph.job.items()):
            job = queue.get(number)
            if job is not None and job.live:
                _tell(told, name, f"job {number}  {job.state.lower()}  {job.reason.strip('()')}")
            elif name in graph.job:  # not cancelled a moment ago
                _end(graph, name, job, slurm)
        if graph.job:
            sleep(poll_s)


def _tell(told: dict[str, str], name: str, what: str) -> None:
    if told.get(name) != what:
        told[name] = what
        console.print(f"{time.strftime('%H:%M:%S')}  {name:>20} │ {what}", markup=False, soft_wrap=True)


def _end(graph: Graph, name: str, job: Job | None, slurm: Slurm) -> None:
    """A job ended: its node is done, or everything that needs it is cancelled."""
    node, number = graph.nodes[name], graph.job.pop(name)
    state = job.state if job else "no longer known to Slurm"
    if job is None or job.state == "COMPLETED":
        if appears((node.folder / SUMMARY).is_file, node.folder, seconds=_APPEARS_S if job else 0):
            write_manifest(node, status="done", seconds=job.seconds if job else None, job=number)
            graph.status[name] = "done"
            _tell({}, name, f"job {number}  done")
            return
        state += ", and left no summary"
    graph.status[name] = f"failed: job {number} is {state}; see {node.folder / JOB_LOGS / f'job-{number}.out'}"
    write_manifest(node, status="failed", job=number)
    lost = [other for other in graph.below(name) if other in graph.job]
    slurm.cancel([graph.job[other] for other in lost])
    for other in lost:
        number = graph.job.pop(other)
        graph.status[other] = f"cancelled: job {number} needs {name}, which failed"
        write_manifest(graph.nodes[other], status="cancelled", job=number)
    for one in (name, *lost):
        _tell({}, one, graph.status[one])


def results_of(graph: Graph) -> dict[str, Any]:
    """What ``summary.json`` holds of each node whose result is there."""
    return {name: read_result(node, graph.status[name]) for name, node in graph.nodes.items() if graph.good(name)}


def _name(node: Node) -> str:
    """Of a job: pipeline, node and key."""
    return f"{node.folder.parent.name}.{node.name}.{node.key}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two commands at once do not submit a node twice.

    Raises:
        ConfigError: if another one is submitting.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".submit.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"pipeline: another process is submitting into {folder}; start it again later") from error
        except OSError as error:
            console.print(f"{folder} cannot be locked ({error}): start this pipeline once at a time", soft_wrap=True)
        yield
