"""What W&B is told of a run besides its numbers: which runs it belongs with, what it reads, and what it leaves.

A training logs as long as its trainer lives; the other verbs say ``with tracked(config, "evaluate") as run: ...``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lightning_r1.callbacks.wandb_artifacts import KINDS, Product
from lightning_r1.config.reading import Config, get
from lightning_r1.config.run_folder import SUMMARY, key_of
from lightning_r1.parallel.collectives import rank
from lightning_r1.text.records import read_json

if TYPE_CHECKING:
    from lightning_r1.callbacks.wandb_log import RunLogger

_MOST_IN_TAG = 64  # characters that W&B takes


def build_run_logger(config: Config, verb: str = "train") -> RunLogger | None:
    """The run's W&B logger, which has been told the config and everything that the run reads; None for ``logger=csv``.

    Args:
        config: resolved.
        verb: that is run.
    """
    options = get(config, "logger.wandb")
    if options is None:
        return None
    from lightning_r1.callbacks.wandb_log import wandb_logger

    described = {**options, "group": group_of(config, verb), "tags": tags_of(config)}
    job_type = options.get("job_type") or get(config, "phase.name") or verb
    run_dir = Path(config["paths"]["run_dir"])
    logger = wandb_logger(run_dir, name=config["name"], **{**described, "job_type": job_type})
    logger.log_hyperparams(dict(config))
    for product in inputs_of(config):
        logger.uses(product)
    return logger


@contextmanager
def tracked(config: Config, verb: str) -> Iterator[RunLogger | None]:
    """A W&B run around a job that is no training, on the first rank; what ends the job ends it."""
    logger = build_run_logger(config, verb) if rank() == 0 else None
    error: BaseException | None = None
    try:
        yield logger
    except BaseException as raised:
        error = raised
        raise
    finally:
        if logger is not None:
            logger.end(error)


def group_of(config: Config, verb: str = "train") -> str:
    """The runs that a run is shown with: what was said, else its pipeline, which is its name's first part; else its
    phase.
    """
    said = get(config, "logger.wandb.group") or os.environ.get("WANDB_RUN_GROUP")
    return said or config["name"].rpartition("/")[0] or get(config, "phase.name") or verb


def tags_of(config: Config) -> list[str]:
    """What a run is looked for by: phase, model, optimizer, adapter, template, and each reward."""
    optimizer = str(get(config, "optim._target_") or "").rpartition(".")[2]
    adapter = "adapter" if get(config, "model.adapter") else None
    names = ("phase.name", "model.name", "teacher.name", "sample.name", "template.name")
    rewards = sorted(get(config, "reward.rewards") or {}) if get(config, "phase.kind") in ("rl", None) else []
    tags = [
        *(get(config, name) for name in names),
        optimizer,
        adapter,
        *rewards,
        *(get(config, "logger.wandb.tags") or ()),
    ]
    return list(dict.fromkeys(str(tag)[:_MOST_IN_TAG] for tag in tags if tag))


def inputs_of(config: Config) -> list[Product]:
    """What finished runs have left and this one reads, by whichever key."""
    own = Path(config["paths"]["run_dir"]).resolve()
    paths = {Path(text).resolve(): None for text in _texts(config) if os.sep in text}
    return [product for path in paths if path.parent != own and (product := product_of(path)) is not None]


def products_of(run_dir: Path) -> list[Product]:
    """What a finished run has left in its folder."""
    return [product for name in KINDS if (product := product_of(Path(run_dir) / name)) is not None]


def tell_products(loggers: Iterable[Any], run_dir: Path) -> None:
    """Tell loggers that keep such records what a finished run has left."""
    for logger in loggers:
        if leaves := getattr(logger, "leaves", None):
            for product in products_of(run_dir):
                leaves(product)


def product_of(path: Path) -> Product | None:
    """What lies at a path, if a finished run has left it there."""
    kept, summary = path.parent / "config.yaml", path.parent / SUMMARY
    if path.name not in KINDS or not (path.exists() and kept.is_file() and summary.is_file()):
        return None
    facts = read_json(summary)
    told: dict[str, Any] = {
        "scores": facts.get("after") or {},
        **{name: facts[name] for name in ("phase", "commit") if name in facts},
    }
    return Product(path, run=yaml.safe_load(kept.read_text())["name"], key=key_of(path.parent), facts=told)


def numbers_in(summary: Mapping[str, Any], under: str) -> dict[str, float]:
    """The numbers of a summary, by path.

    >>> numbers_in({"traces": 3, "rewards": {"accuracy": 0.5}, "model": "mini"}, "sample")
    {'sample/traces': 3, 'sample/rewards/accuracy': 0.5}
    """
    numbers: dict[str, float] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            numbers |= numbers_in(value, f"{under}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[f"{under}/{name}"] = value
    return numbers


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _texts(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value)
