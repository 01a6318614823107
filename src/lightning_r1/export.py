"""The verb *export*: the model of a run that is not finished, from a checkpoint of any number of ranks.

It needs neither a GPU nor those ranks: a checkpoint's tensors are read one by one into a model in host memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lightning_r1.callbacks.checkpoint import newest_checkpoint
from lightning_r1.callbacks.console import console
from lightning_r1.config.build_policy import build_policy
from lightning_r1.config.card_facts import card_facts
from lightning_r1.config.checks import model_path_exists
from lightning_r1.config.ending import tell_export
from lightning_r1.config.errors import ConfigError
from lightning_r1.config.model_card import write_model_card
from lightning_r1.config.run_folder import SUMMARY, kept_config, provenance
from lightning_r1.models.adapter_state import adapter_weights, check_base
from lightning_r1.models.export import export_adapter, export_model
from lightning_r1.models.live_weights import whole_weights
from lightning_r1.parallel.checkpoint_files import Saved, complete_checkpoints
from lightning_r1.parallel.checkpoint_state import read_parts
from lightning_r1.parallel.checkpoint_strategy import facts_of, source_of


def export(config: Mapping[str, Any]) -> Path:
    """Write ``step-<step>/model`` into the run's folder, and ``step-<step>/adapter`` where one is trained.

    Args:
        config: resolved, with ``run`` and ``step``; see ``conf/export.yaml``.

    Returns:
        The model's folder.

    Raises:
        ConfigError: if there is no run, no such checkpoint, or the run trains no language model.
        ValueError: if an adapter stands on another base than the one that is there now.
    """
    run_dir = Path(config["run"])
    trained = kept_config(run_dir)
    if trained["phase"]["kind"] == "reward_model":
        raise ConfigError(f"run={run_dir}: it trains a reward model, which is exported when the run is finished")
    model_path_exists(trained)
    saved = _checkpoint(run_dir / "checkpoints", config["step"])
    codec, policy = build_policy(trained)
    base = getattr(policy, "base", None)
    check_base(facts_of(saved.path).get("base"), base and base.told())
    read_parts(nn.ModuleDict({"policy": policy}), source_of(saved.path))
    folder = run_dir / f"step-{saved.step:07d}" / "model"
    card = card_facts(trained, _so_far(run_dir, trained, saved.step))
    export_model(policy, codec, folder, card=card, weights=whole_weights(policy.model, keep=True))
    write_model_card(folder, base=trained["model"]["path"])
    if adapter := adapter_weights(policy.model):
        export_adapter(policy, folder.with_name("adapter"), adapter)
    tell_export(trained, folder, saved.step)
    return folder


def _so_far(run_dir: Path, trained: Mapping[str, Any], step: int) -> dict[str, Any]:
    """What the card says of the run at a step: all that the run says itself, where it ended with it."""
    file = run_dir / SUMMARY
    finished = json.loads(file.read_text()) if file.is_file() else {}
    if finished.get("steps") == step:
        return finished
    made_by = {name: finished[name] for name in ("commit", "versions") if name in finished} or provenance()
    return {"phase": trained["phase"]["name"], "model": trained["model"]["name"], "steps": step, **made_by}


def _checkpoint(folder: Path, step: int | None) -> Saved:
    if step is None:
        saved = newest_checkpoint(folder, tell=console.print)
        if saved is None:
            raise ConfigError(f"run: there is no complete checkpoint in {folder}")
        return saved
    complete = {saved.step: saved for saved in complete_checkpoints(folder, tell=console.print)}
    if step not in complete:
        there = ", ".join(map(str, sorted(complete))) or "none"
        raise ConfigError(f"step={step}: there is no complete checkpoint of it in {folder}; there are: {there}")
    return complete[step]
