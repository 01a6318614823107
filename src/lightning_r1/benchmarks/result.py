"""What every benchmark leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def save(result: Mapping[str, Any], folder: Path) -> Path:
    """Keep the numbers beside the table."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "result.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    return file
