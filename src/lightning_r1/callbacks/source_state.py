"""The source that a run was made by: what differs from its commit, kept with the run.

W&B itself keeps the commit, and no differences unless it may keep the whole program.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

_MOST_BYTES = 10 * 2**20


def source_root() -> str | None:
    """The repository of this package, or of the working directory if the package lies in none."""
    return next(iter(_roots()), None)


def save_sources(run: Any) -> None:
    """Write ``diff.patch`` into a W&B run, and one more for the working directory if it is another repository."""
    for place, root in enumerate(_roots()):
        if differs := difference(Path(root)):
            file = Path(run.dir) / (f"diff_{Path(root).name}.patch" if place else "diff.patch")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(differs[:_MOST_BYTES])
            run.save(str(file), base_path=run.dir, policy="now")


def difference(root: Path) -> bytes:
    """What ``git apply`` turns the commit into; files that git does not know are named in front."""
    unknown = _git(root, "ls-files", "--others", "--exclude-standard").decode(errors="replace").splitlines()
    return "".join(f"# not in git: {name}\n" for name in unknown).encode() + _git(root, "diff", "HEAD")


def _roots() -> list[str]:
    folders = (Path(__file__).parent, Path.cwd())
    found = [_git(folder, "rev-parse", "--show-toplevel").decode().strip() for folder in folders]
    return [root for root in dict.fromkeys(found) if root]


def _git(folder: Path, *arguments: str) -> bytes:
    """What git prints, or nothing where there is no git, or no repository."""
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return b""
