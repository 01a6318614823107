"""What every benchmark leaves."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_r1.callbacks.console import show_end
from lightning_r1.config.run_folder import provenance


def save(result: Mapping[str, Any], folder: Path) -> Path:
    """Keep the numbers beside the table."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "result.json"
    file.write_text(json.dumps(result, indent=2) + "\n")
    show_end("measured", [("numbers", str(file))])
    return file


def here() -> dict[str, str]:
    """Command, hardware and commit, and all of it in a ``line`` for a table."""
    command = shlex.join(["python", *sys.argv]) if sys.argv and sys.argv[0].endswith("benchmark.py") else "python"
    commit = str(provenance().get("commit", "unknown"))
    return {
        "command": command,
        "hardware": hardware(),
        "commit": commit,
        "line": f"{command} | {hardware()} | commit {commit[:12]}",
    }


def hardware() -> str:
    """The GPU, or the processor with the cores that this process may use."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {len(os.sched_getaffinity(0))} cores"
