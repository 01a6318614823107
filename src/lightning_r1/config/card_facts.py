"""What a model's card says of it: data, settings, scores and lineage, kept in ``lightning_r1.json`` beside the weights.

None of it goes into a key: a card is written, completed and read without any number depending on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_r1.config.reading import get
from lightning_r1.config.run_folder import SUMMARY, key_of
from lightning_r1.models.export import read_card
from lightning_r1.models.identity import files_hash
from lightning_r1.text.records import read_json

_SETTINGS = (
    "optim.lr", "schedule.shape", "schedule.warmup_steps", "phase.module.max_grad_norm",
    "algo.prompts_per_rollout", "algo.sampling.group_size", "algo.sampling.temperature",
    "algo.sampling.max_new_tokens", "algo.minibatches_per_rollout", "algo.num_iterations", "algo.objective", "algo.std",
    "algo.clip_low", "algo.clip_high", "algo.kl_coef", "algo.reduction", "data.batch_size", "data.epochs",
    "model.dtype", "model.adapter", "trainer.precision", "parallel.strategy", "seed",
)  # fmt: skip
_OF_DATA = ("path", "folder", "subset", "split", "size", "request", "domain")


def card_facts(config: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of a trained model when it is exported.

    Args:
        config: of its run.
        summary: of its run, as far as it has come: ``phase``, ``model``, ``steps``, ``commit`` and ``versions``,
            maybe ``tokens``, ``seconds``, ``before`` and ``after``.
    """
    kept = ("phase", "model", "steps", "commit", "versions", "tokens", "seconds")
    facts = {name: summary[name] for name in kept if name in summary}
    distills = ".distill." in str(get(config, "phase.module._target_"))
    facts |= {"name": config["name"], "kind": "distill" if distills else config["phase"]["kind"]}
    if key := key_of(Path(config["paths"]["run_dir"])):
        facts["key"] = key
    settings = {path: value for path in _SETTINGS if (value := get(config, path)) is not None}
    if optimizer := get(config, "optim._target_"):
        settings = {"optim": optimizer.rpartition(".")[2], **settings}
    for name in get(config, "reward.rewards") or {}:
        settings[f"reward.weights.{name}"] = (get(config, "reward.weights") or {}).get(name, 1.0)
    return {
        **facts,
        "data": list(sources(config)),
        "settings": settings,
        "scores": {when: summary[when] for when in ("before", "after") if summary.get(when)},
        "lineage": lineage(get(config, "model.path")),
    }


def lineage(path: str | None) -> list[dict[str, Any]]:
    """The models that a phase stands on, from the base to the one that it starts from.

    Args:
        path: of the model that it starts from; None where weights are drawn.
    """
    if path is None:
        return []
    card = read_card(path)
    kept = ("phase", "model", "steps", "commit", "key")
    own = {name: card[name] for name in kept if name in card}
    if "model" not in own:
        own["model"] = str(path) if is_hub_id(str(path)) else Path(path).resolve().name
    if key := own.get("key") or key_of(Path(path).parent):
        own["key"] = key
    return [*card.get("lineage", []), {**own, "weights": files_hash(path)}]


def sources(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a phase learns from: a record for each source of its data, and for its teacher."""
    for name, node in _nodes(config.get("data") or {}, "data"):
        told = {key: node[key] for key in _OF_DATA if isinstance(node.get(key), str | int)}
        place = told.pop("path", None) or told.pop("folder", None)
        kind = str(node["_target_"]).rpartition(".")[2]
        if kind.endswith("DataModule") and place is None:
            continue
        yield {"name": name, "reader": kind, **told, **(_place(str(place)) if place else {})}
    if teacher := get(config, "teacher.path"):
        own = lineage(teacher)[-1]
        yield {"name": "teacher", "made_by": {name: own[name] for name in ("model", "phase", "weights") if name in own}}


def _place(place: str) -> dict[str, Any]:
    """Where a source lies, without the folders of this machine, and which run of this project made it."""
    path = Path(place)
    if not path.exists():
        hub = re.fullmatch(r"hf://datasets/([^/]+/[^/]+)/.*", place)
        return {"hub": hub[1] if hub else place} if hub or is_hub_id(place) else {"file": path.name}
    found: dict[str, Any] = {"file": path.name}
    for folder in (path, path.parent):
        summary = read_json(folder / SUMMARY)
        made = summary.get("made_from") or summary
        if made_by := {name: made[name] for name in ("job", "model", "phase", "step", "weights") if name in made}:
            key = key_of(folder)
            return {**found, "made_by": made_by | ({"job_key": key} if key else {})}
    return found


def _nodes(node: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Everything in a config of data that is built, with its name."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield name, node
        for key, value in node.items():
            yield from _nodes(value, key)


def is_hub_id(path: str) -> bool:
    """Whether it is a name on the hub and no folder here."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path)) and not Path(path).exists()
