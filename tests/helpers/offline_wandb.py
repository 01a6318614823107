"""What an offline W&B run holds, read from its own file: what ``wandb sync`` would upload."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK, _FILE_HEADER, _HEADER = 32768, 7, struct.Struct("<IHB")  # a LevelDB log behind a header of seven bytes
_FULL, _LAST = 1, 4


def run_folders(run_dir: Path) -> list[Path]:
    """The offline runs of a run folder, by the pattern that the user is told."""
    return sorted(run_dir.glob("wandb/offline-run-*"))


def config_of(folder: Path) -> dict[str, Any]:
    """The run's config."""
    config: dict[str, Any] = {}
    for record in records(folder):
        for update in (*record.run.config.update, *record.config.update):
            config[update.key or "/".join(update.nested_key)] = json.loads(update.value_json)
    return config


def history_of(folder: Path) -> list[dict[str, Any]]:
    """Everything that was logged, one dict a call."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(folder)
        if record.HasField("history")
    ]


def run_of(folder: Path) -> Any:
    """Name, group, tags and so on."""
    return next(record.run for record in records(folder) if record.HasField("run"))


def artifacts_of(folder: Path) -> list[Any]:
    """Artifacts that the run logs, and those that it uses: ``use_after_commit``; no tables."""
    found = [record.artifact for record in records(folder) if record.HasField("artifact")]
    return [artifact for artifact in found if "table" not in artifact.type]


def table_of(folders: Sequence[Path], name: str) -> list[dict[str, Any]]:
    """The rows of a growing table as W&B shows it: what its last addition names, in that order."""
    additions = [row for folder in folders for row in history_of(folder) if f"{name}/path" in row]
    by_address = {
        row[f"{name}/artifact_path"]: file
        for row in additions
        for folder in folders
        if (file := folder / "files" / row[f"{name}/path"]).is_file()
    }
    shown = [*additions[-1][f"{name}/previous_increments_paths"], additions[-1][f"{name}/artifact_path"]]
    tables = [json.loads(by_address[address].read_text()) for address in shown]
    return [dict(zip(table["columns"], row, strict=True)) for table in tables for row in table["data"]]


def records(folder: Path) -> Iterator[Any]:
    """Every record of the run's file."""
    (file,) = folder.glob("run-*.wandb")
    data, place, parts = file.read_bytes(), _FILE_HEADER, b""
    while place + _HEADER.size <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER.size:  # padding: no header is cut in two
            place += left
            continue
        _, length, kind = _HEADER.unpack_from(data, place)
        place += _HEADER.size
        parts += data[place : place + length]
        place += length
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record
