"""What the first comments of ``conf/experiment`` say: the command, the hardware that it wants, what it takes there.

::

    #   command   python recipes/train.py experiment=r1_7b/cold_start
    #   hardware  8 H100 of 80 GB                (2 nodes of 8 H100; 4 nodes of 8 H100, and 4 nodes that serve)
    #   memory    37 GiB of each GPU, ...
    #   time      15 h for 1,000 steps, ...
    #   metric    not yet run
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_r1.config.compose import CONF
from lightning_r1.config.errors import ConfigError

EXPERIMENTS = CONF / "experiment"
_LINE = re.compile(r"^#   (\w+) +(.+)$", flags=re.MULTILINE)
_HARDWARE = re.compile(r"(?:(\d+) nodes of )?(\d+) (A100|H100|H200|L40S|RTX 4090)(?:, and (\d+) nodes that serve)?")


@dataclass(frozen=True, slots=True)
class Header:
    """What an experiment's first comment says."""

    experiment: str
    command: str
    gpu: str
    nodes: int
    """That train."""
    devices: int
    """Of a node."""
    servers: int
    """Nodes that serve."""
    gib: float
    """Of a GPU."""
    hours: float
    """For 1,000 steps."""

    @property
    def overrides(self) -> list[str]:
        """Of the command."""
        return [word for word in shlex.split(self.command) if "=" in word and not word.startswith(("VLLM", "-"))]


def read_header(name: str) -> Header:
    """Parse the first comment of an experiment.

    Args:
        name: see :func:`presets`.

    Raises:
        ValueError: if a line is missing, or begins with something else.
    """
    lines = dict(_LINE.findall(presets()[name].read_text(encoding="utf-8")))
    hardware = _HARDWARE.match(lines.get("hardware", ""))
    memory, hours = (re.match(r"([\d,.]+)", lines.get(word, "")) for word in ("memory", "time"))
    if not (hardware and memory and hours and "command" in lines):
        raise ValueError(f"conf/experiment/{name}.yaml: its header has to tell command, hardware, memory and time")
    return Header(
        experiment=name,
        command=lines["command"],
        gpu=hardware[3].replace(" ", "").lower(),
        nodes=int(hardware[1] or 1),
        devices=int(hardware[2]),
        servers=int(hardware[4] or 0),
        gib=float(memory[1].replace(",", "")),
        hours=float(hours[1].replace(",", "")),
    )


def presets() -> dict[str, Path]:
    """The experiments for real models by name: those that are no miniature, and no part of others."""
    files = {file.relative_to(EXPERIMENTS).with_suffix("").as_posix(): file for file in EXPERIMENTS.rglob("*.yaml")}
    return {name: files[name] for name in sorted(files) if not name.startswith(("mini_", "base/"))}


def chosen(experiments: Sequence[str] | None) -> dict[str, Path]:
    """Some experiments, all where none are named.

    Raises:
        ConfigError: for one that there is not.
    """
    known = presets()
    for name in experiments or ():
        if name not in known:
            raise ConfigError(f"benchmark.experiments: {name!r} is none; choose from {', '.join(known)}")
    return {name: known[name] for name in experiments or known}
