"""Models, traces, pairs and lessons as W&B artifacts: where each comes from, and which runs read it.

Whoever made a thing and whoever reads it describe it in the same bytes, so that W&B knows both as the same version:
its graph of runs and artifacts is that of the runs here, whichever of them was online, and without asking a server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = {"model": "model", "traces.jsonl": "traces", "pairs.jsonl": "pairs", "lessons": "lessons"}
"""What a run leaves in its folder for others, with its type in W&B."""


@dataclass(frozen=True)
class Product:
    """What a finished run has left in its folder.

    Example: ``Product(Path("outputs/mini/base/model"), run="mini/base", key="0c1d2e3f4a5b")``
    """

    path: Path
    run: str
    """The name of the run that made it."""
    key: str | None = None
    """Of everything it was made from, if a pipeline made it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Scores, commit and the like."""

    @property
    def name(self) -> str:
        """In W&B: ``mini-base-model``."""
        return re.sub(r"[^A-Za-z0-9_.-]", "-", f"{self.run}-{KINDS[self.path.name]}")


def make_artifact(product: Product, *, upload: bool) -> Any:
    """Describe a product: the summary of its run, and itself.

    Args:
        product: whose run is finished.
        upload: put its files in; else only their address, unread, whatever their size.
    """
    import wandb

    artifact = wandb.Artifact(
        product.name, type=KINDS[product.path.name], metadata={"key": product.key, **product.facts}
    )
    path = product.path.resolve()
    artifact.add_file(str(path.parent / "summary.json"))  # tells apart what lies at the same address at another time
    if not upload:
        artifact.add_reference(path.as_uri(), name=path.name, checksum=False)
    elif path.is_dir():
        artifact.add_dir(str(path), name=path.name, policy="immutable")
    else:
        artifact.add_file(str(path), name=path.name, policy="immutable")
    return artifact
