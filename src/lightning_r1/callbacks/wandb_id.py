"""Which W&B run a folder's run is."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

_PART = re.compile(r"(?:offline-)?run-(?P<time>\d{8}_\d{6})-(?P<id>.+)")
"""W&B's folder for a part of a run."""


def run_id(run_dir: Path, name: str) -> str:
    """The id of the folder's run, made once: another run of the same name is another one, also in W&B.

    A run that was begun when ids were no more than names goes on under the one that it has.
    """
    folder = run_dir / "wandb"
    file = folder / "run_id"
    if not (kept := file.read_text().strip() if file.is_file() else ""):
        begun = [match for part in folder.glob("*run-*") if (match := _PART.fullmatch(part.name))]
        latest = max(begun, key=lambda match: match["time"], default=None)
        made = f"{re.sub(r'[^A-Za-z0-9_.-]', '-', name)[-100:]}-{secrets.token_hex(4)}"
        kept = latest["id"] if latest else made
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{kept}\n")
    return kept
