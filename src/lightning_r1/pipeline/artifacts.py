"""Content keys: a node's result is known by everything it was made from.

A key hashes the node's resolved config, the keys of its inputs, and the source of the code that the
config names, with everything that code imports. What changes no number (where files lie, how often a
line is printed) is left out; and how many ranks there were, which may be counted only where a node runs.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parents[1]
_LEFT_OUT = ("name", "paths", "callbacks", "logger", "resume", "threads", "debug")
# ranks and what each of them holds: a run may go on with others, and the host that asks may have other GPUs than those
# that work; parallel.mixed_precision does count
_RANKS = (
    "trainer.devices", "trainer.num_nodes", "parallel.strategy", "parallel.replicas", "parallel.cpu_offload",
    "parallel.reshard_after_forward", "parallel.timeout_minutes",
)  # fmt: skip
# named by no config: they make every model, and every node's scores
_ALWAYS = ("lightning_r1.models.load", "lightning_r1.models.tokenizer", "lightning_r1.evaluation.evaluator")
# code that decides no number: what people see and how configs are read
_NO_NUMBERS = ("callbacks", "config", "report")


def content_key(config: Mapping[str, Any], inputs: Mapping[str, str], *, verb: str = "train") -> str:
    """Twelve hex digits.

    Args:
        config: resolved; values that point at inputs may hold anything, their keys count.
        inputs: key of each input, by the config path that it fills.
        verb: what is run; its code counts too.
    """
    kept = {name: value for name, value in config.items() if name not in _LEFT_OUT}
    for path in (*inputs, *_RANKS):
        kept = _without(kept, path.split("."))
    if not any((kept.get("parallel") or {}).values()):
        kept.pop("parallel", None)
    texts = list(_texts(kept))
    # some name files, whose contents count
    files = {path: _digest(path) for path in sorted({text for _, text in texts}) if os.path.isfile(path)}
    targets = (text for name, text in texts if name == "_target_")
    code = code_hash(frozenset((*_ALWAYS, f"lightning_r1.{verb}", *targets)))
    parts = {"verb": verb, "config": kept, "inputs": dict(sorted(inputs.items())), "files": files, "code": code}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _texts(node: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a config, with the key it stands under."""
    if isinstance(node, str):
        yield name, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _texts(value, str(key))
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, name)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def code_hash(targets: frozenset[str]) -> str:
    """Hash of this package's source that the targets need, found by following imports."""
    waiting = {file for target in targets if (file := _source_of(target))}
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        seen.add(file)
        waiting |= set(_imports(file)) - seen
    digest = hashlib.sha256()
    for file in sorted(seen):
        digest.update(f"{file.relative_to(_PACKAGE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _imports(file: Path) -> Iterator[Path]:
    """Files of this package that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (source for name in names if (source := _source_of(name)) and _decides_numbers(source))


def _decides_numbers(file: Path) -> bool:
    return file.relative_to(_PACKAGE).parts[0] not in _NO_NUMBERS


def _source_of(dotted: str) -> Path | None:
    """The file of this package that holds a module, class or function."""
    root, *parts = dotted.split(".")
    if root != _PACKAGE.name:
        return None
    while parts:
        stem = _PACKAGE.joinpath(*parts)
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                return file
        parts.pop()
    return None


def _without(config: Mapping[str, Any], path: list[str]) -> dict[str, Any]:
    first, *rest = path
    if first not in config:
        return dict(config)
    if not rest:
        return {name: value for name, value in config.items() if name != first}
    return {**config, first: _without(config[first], rest)}
