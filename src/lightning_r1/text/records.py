"""Files of records: JSON and JSON lines, whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Write a file, whole or not at all; its folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one object a line, atomically."""
    write_whole(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file."""
    # not splitlines(): a text may hold characters that it takes for ends of lines
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
