"""Reading a resolved config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]
JOB_LOGS = "slurm"
"""Folder in a run's folder with what its jobs print."""


def get(config: Config, path: str) -> Any:
    """``get(config, "algo.sampling.group_size")``, or None where there is nothing."""
    node: Any = config
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node
