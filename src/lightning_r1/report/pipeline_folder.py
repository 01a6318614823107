"""What a pipeline's folder holds: its nodes, how far each is, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_r1.config.run_folder import MANIFEST, SUMMARY, kept_config
from lightning_r1.text.records import read_json


@dataclass(frozen=True)
class NodeFolder:
    """A node, as it stands on disk; nothing but its name and its parents before its turn comes."""

    name: str
    verb: str
    path: Path
    parents: Mapping[str, str]
    """Config path to the node that fills it."""
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]

    @property
    def status(self) -> str:
        """``waiting``, or what its manifest says: ``submitted``, ``running``, ``done``, ``failed``, ``cancelled``."""
        return str(self.manifest.get("status", "waiting"))

    @property
    def trains(self) -> bool:
        """Whether it has curves."""
        return (self.path / "metrics.csv").is_file()

    @property
    def result(self) -> dict[str, Any]:
        """As :func:`lightning_r1.report.stages.stage_tables` wants it."""
        return {"path": str(self.path), "eval": self.summary.get("after") or {}}


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline, as it stands on disk."""

    path: Path
    spec: Mapping[str, Any]
    """Of its config; empty where none was kept."""
    nodes: Mapping[str, NodeFolder]

    @property
    def name(self) -> str:
        """Of the pipeline, or of the user for it: its folder's."""
        return self.path.resolve().name

    @property
    def state(self) -> str:
        """How far it is."""
        done = sum(node.status == "done" for node in self.nodes.values())
        if done == len(self.nodes):
            return f"finished, {done} nodes"
        others = [
            f"{node.name} {node.status}" for node in self.nodes.values() if node.status not in ("done", "waiting")
        ]
        return f"unfinished: {done} of {len(self.nodes)} nodes are done" + (f"; {', '.join(others)}" if others else "")


def is_pipeline(folder: Path) -> bool:
    """Whether it holds nodes."""
    return any("node" in read_json(file) for file in folder.glob(f"*/{MANIFEST}")) or bool(_spec(folder))


def read_pipeline(folder: Path) -> PipelineFolder:
    """Read a pipeline; what its config does not say, the nodes' manifests do."""
    spec = _spec(folder)
    manifests = {file.parent.name: read_json(file) for file in folder.glob(f"*/{MANIFEST}")}
    specs: Mapping[str, Any] = spec.get("nodes") or {}
    parents: dict[str, Mapping[str, str]] = {name: _inputs(node) for name, node in specs.items()}
    if not parents:
        parents = _in_order({
            name: {path: parent["node"] for path, parent in manifest["parents"].items()}
            for name, manifest in manifests.items()
            if name == manifest.get("node")  # a folder that was moved aside has another name
        })  # fmt: skip
    nodes = {}
    for name, needs in parents.items():
        manifest = manifests.get(name, {})
        verb = specs[name].get("verb", "train") if name in specs else _verb(manifest)
        nodes[name] = NodeFolder(name, verb, folder / name, needs, manifest, read_json(folder / name / SUMMARY))
    return PipelineFolder(folder, spec, nodes)


def _spec(folder: Path) -> dict[str, Any]:
    config = kept_config(folder) if (folder / "config.yaml").is_file() else {}
    return config.get("pipeline") or {}


def _inputs(node: Mapping[str, Any]) -> dict[str, str]:
    return {path: source.split("/")[0] for path, source in (node.get("inputs") or {}).items()}


def _verb(manifest: Mapping[str, Any]) -> str:
    """``train`` of ``python recipes/train.py ...``."""
    command = str(manifest.get("command", "")).split()
    return Path(command[1]).stem if len(command) > 1 else "train"


def _in_order(parents: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """Each node behind those it needs; of those that are not there, nothing is known."""
    ordered: dict[str, Mapping[str, str]] = {}
    waiting = {name: {path: need for path, need in needs.items() if need in parents} for name, needs in parents.items()}
    while ready := [name for name, needs in waiting.items() if set(needs.values()) <= ordered.keys()]:
        ordered |= {name: waiting.pop(name) for name in ready}
    return ordered
