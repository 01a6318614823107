"""A run's folder: which run it holds, and what is written when the run is finished.

A folder belongs to one run, known by its ``config.yaml``. Started again, the run goes on in it; once
there is a ``summary.json``, it is finished.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from lightning_r1.callbacks.console import console
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import JOB_LOGS
from lightning_r1.text.records import read_json, write_whole

SUMMARY = "summary.json"
MANIFEST = "manifest.json"
"""What a node of a pipeline was made from."""
# none of it changes a number but by rounding, except for answers that were left out because a reward failed, and for
# which completions share a minibatch where other ranks go on
_MAY_CHANGE = (
    "resume", "logger", "callbacks", "threads", "paths", "debug", "reward.workers", "reward.stop_at",
    "parallel", "trainer.devices", "trainer.num_nodes",
    # where servers are: a job that is requeued gets other nodes, one that is submitted again another port
    "rollout.base_url", "rollout.base_urls", "rollout.nccl_address", "rollout.api_key_env",
    "rollout.start_s", "rollout.timeout_s", "rollout.sync_s",
)  # fmt: skip


_TOLD, _LONGEST_VALUE = 4, 100  # of differences, in one message


def take_folder(config: Mapping[str, Any], *, may_change: Sequence[str] = ()) -> dict[str, Any] | None:
    """See that the run folder can be ours; :func:`keep_config` makes it so.

    Args:
        config: resolved, with ``name``, ``resume`` and ``paths.run_dir``.
        may_change: keys, with dots, that may differ when the run goes on, besides those that never
            change a number.

    Returns:
        The summary if the folder holds this run finished, else None.

    Raises:
        ConfigError: if it holds another run.
    """
    run_dir = Path(config["paths"]["run_dir"])
    if config["resume"] == "never":
        move_aside(run_dir)
    kept = run_dir / "config.yaml"
    # a run that left nothing but its config did not begin: its folder is anybody's
    if kept.is_file() and {file.name for file in run_dir.iterdir()} - {kept.name, JOB_LOGS}:
        changed = _changed(yaml.safe_load(kept.read_text()), config, {*_MAY_CHANGE, *may_change})
        if changed:
            more = f", and {len(changed) - _TOLD} more that differ" if len(changed) > _TOLD else ""
            raise ConfigError(
                f"name={config['name']}: {run_dir} holds a run with another {', '.join(changed[:_TOLD])}{more}. Choose "
                "another name=, or resume=never to begin anew (the old folder is moved aside)"
            )
        summary = run_dir / SUMMARY
        if summary.is_file():
            return json.loads(summary.read_text())
    return None


def keep_config(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.yaml``: the folder holds this run from now on. Before that, a mistake leaves no trace."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))


def kept_config(run_dir: Path) -> dict[str, Any]:
    """What :func:`keep_config` wrote.

    Raises:
        ConfigError: if the folder holds no run.
    """
    kept = run_dir / "config.yaml"
    if not kept.is_file():
        raise ConfigError(f"run={run_dir}: there is no run in it, for it has no config.yaml")
    return yaml.safe_load(kept.read_text())


def write_summary(run_dir: Path, summary: Mapping[str, Any]) -> None:
    """Finish a run: write ``summary.json``, whole or not at all."""
    write_whole(run_dir / SUMMARY, json.dumps(summary, indent=2) + "\n")


def key_of(run_dir: Path) -> str | None:
    """Of what a pipeline's node was made from; None for a run of no pipeline."""
    return read_json(run_dir / MANIFEST).get("key")


def provenance() -> dict[str, Any]:
    """``commit`` of the source, with a + if files differ from it, and ``versions`` of what it stands on."""
    here = Path(__file__).parents[1]
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        commit += "+" if _git(here, "status", "--porcelain", "--", ".") else ""
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    names = ("lightning-r1", "torch", "transformers", "lightning")
    return {"commit": commit, "versions": {name: version(name) for name in names}}


def move_aside(run_dir: Path) -> None:
    """Make room for a run that begins anew; what is there is kept under another name."""
    if not (run_dir / "config.yaml").is_file():
        return
    number = 1
    while (aside := run_dir.with_name(f"{run_dir.name}.old{number}")).exists():
        number += 1
    run_dir.rename(aside)
    console.print(f"{run_dir} is moved to {aside}", soft_wrap=True)


def _changed(before: Any, after: Any, ignored: set[str], path: str = "") -> list[str]:
    """Paths at which two configs differ, leaving out the ignored ones."""
    if path in ignored:
        return []
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            difference
            for key in {**before, **after}
            for difference in _changed(before.get(key), after.get(key), ignored, f"{path}.{key}" if path else str(key))
        ]
    return [] if before == after else [f"{path} ({_brief(before)} there, {_brief(after)} here)"]


def _brief(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} ..."


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
