"""What a page may name of ours: keys and choices of the config, paths, modules."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from helpers.pages import ROOT
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.schema import accepted, locate

CONF = ROOT / "conf"
GROUPS = {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {"hydra"}
FREE = ("reward.rewards", "reward.weights", "reward.routes", "data.sources", "data.weights", "eval.sets")
FREE += ("pipeline.nodes", "cluster.verbs", "benchmark.shapes", "data.rows.tasks", "samples", "eval.samples")
"""Keys below which names are the user's own."""
FILES = ("json", "jsonl", "csv", "md", "py", "yaml", "html", "png", "parquet", "txt", "safetensors", "sh", "sbatch")
FOLDERS = ("conf", "src", "recipes", "sbatch", "tests")
LOGS = ("rollout", "policy", "optim", "perf", "time", "memory", "progress", "watchdog")
_SEGMENT = r"[A-Za-z_]\w*"
_KEY = re.compile(rf"[~+]{{0,2}}({_SEGMENT}(?:\.[\w*]+)+)(?:=.*)?")
_CHOICE = re.compile(r"\+?([a-z_]+(?:/[a-z_]+)*)(?:@[\w.]+)?=(.+)")


@cache
def known_keys() -> frozenset[str]:
    """Every key of every file of ``conf``, and what the constructors that it names accept besides."""
    found: set[str] = set()
    for file in CONF.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        fields = yaml.safe_load(text) or {}
        if not isinstance(fields, Mapping):
            continue
        parts = [part for part in file.relative_to(CONF).parent.parts if part != "base"]
        if "@package _global_" in text.partition("\n")[0]:
            parts = []
        found |= set(_keys(fields, ".".join(parts)))
    return frozenset(found | {re.sub(r"^model\.", "teacher.", key) for key in found})


def _keys(node: Mapping[str, Any], prefix: str) -> Iterator[str]:
    if "_target_" in node:
        with contextlib.suppress(ConfigError, ValueError):  # of a library that is not installed here
            yield from (free(f"{prefix}.{name}") for name in accepted(locate(str(node["_target_"])))[0])
    for key, value in node.items():
        if key == "defaults":
            continue
        path = f"{prefix}.{key}" if prefix else str(key)
        yield free(path)
        if isinstance(value, Mapping):
            yield from _keys(value, path)


def free(key: str) -> str:
    """A key with ``*`` for what its user names."""
    for prefix in FREE:
        key = re.sub(rf"^{re.escape(prefix)}\.[^.]+", f"{prefix}.*", key)
    return key


def faults(text: str, written: set[str]) -> Iterator[str]:
    """What a piece of code names of ours that does not exist, with the nearest thing that does.

    Args:
        text: what stands in backquotes.
        written: files that the page lets its reader write.
    """
    for word in text.split():
        if _is_key(word):
            yield from _key_faults(word)
        elif match := _CHOICE.fullmatch(word):
            yield from _choice_faults(match[1], match[2], written)
    for path in re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./*-]*", text):
        own = "..." in path or re.search(r"(^|/)[A-Z]+\b(?!\.md)", path) or path in written  # the reader's
        if not own and not any(ROOT.glob(path.rstrip("/"))):
            yield f"{path}: there is no such file; {nearest(path, map(str, _files()))}"
    for name in re.findall(rf"^(?:{'|'.join(LOGS)})/\w+$", text):
        if not re.search(rf"{name}\b|[\"']{name.partition('/')[2]}[\"']", _source()):
            yield f"{name}: nothing is logged under this name; look into a run's metrics.csv"
    for path in re.findall(r"(?<![\w/.-])lightning_r1(?:\.\w+)+(?![\w/-])", text):
        if not _exists(path):
            yield f"{path}: there is no such name in the package; say where it is"


def _is_key(word: str) -> bool:
    match = _KEY.fullmatch(word)
    if not match or match[1].rpartition(".")[2] in FILES:
        return False
    return match[1].partition(".")[0] in GROUPS | _top_level()


@cache
def _top_level() -> frozenset[str]:
    return frozenset(key.partition(".")[0] for key in known_keys() if "." in key) - {"hydra"}


def _key_faults(word: str) -> Iterator[str]:
    match = _KEY.fullmatch(word)
    assert match is not None
    key = free(match[1])
    if word.startswith("+") or key in known_keys():
        return
    if key.endswith(".*") and any(known.startswith(key[:-2]) for known in known_keys()):
        return
    yield f"{match[1]}: there is no such key in conf/; {nearest(key, known_keys())}"


def _choice_faults(group: str, chosen: str, written: set[str]) -> Iterator[str]:
    folder = CONF / group
    if group.partition("/")[0] not in GROUPS or not folder.is_dir():
        return
    choices = {str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml")}
    choices |= {Path(file).stem for file in written if Path(file).parent == Path("conf") / group}
    for choice in re.split(r"[|,]", chosen.strip("[]")):
        if re.fullmatch(r"[a-z]\w*(/\w+)*", choice) and choice not in choices | {"null"}:
            yield f"{group}={choice}: there is no conf/{group}/{choice}.yaml; {nearest(choice, choices)}"


def nearest(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "take it out"


@cache
def _files() -> tuple[Path, ...]:
    return tuple(
        file.relative_to(ROOT) for folder in FOLDERS for file in (ROOT / folder).rglob("*") if file.suffix != ".pyc"
    )


@cache
def _source() -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))


def _exists(path: str) -> bool:
    parts = path.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:size]))
        except ImportError:
            continue
        for name in parts[size:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False
