"""Rules about plain values: what no constructor's signature says, because no constructor is given it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get
from lightning_r1.config.schema import describe, fits

KINDS: dict[str, Any] = {
    "seed": int,
    "threads": int | None,
    "resume": Literal["auto", "never"],
    "samples": int | None,
    "limit": int | None,
    "save_every": int,
    "rescore": bool,
    "compare": str | None,
    "dry": bool,
    "workers": int,
    "model.path": str | None,
    "teacher.path": str | None,
    "eval.every_n_steps": int,
    "callbacks.checkpoint.every_n_steps": int,
    "callbacks.checkpoint.keep": int,
    "callbacks.checkpoint.asynchronous": bool,
    "callbacks.requeue.margin_s": float,
    "callbacks.requeue.max_hours": float | None,
    "callbacks.requeue.poll_s": float,
    "callbacks.requeue.max_restarts": int,
    "callbacks.rollouts.every": int,
    "callbacks.rollouts.table_rows": int,
    "callbacks.console.every_n_steps": int,
    "sample.prompts_a_part": int,
    "sample.max_total": int | None,
    "teach.top_k": int,
    "teach.temperature": float,
    "teach.max_tokens": int,
    "teach.micro_batch_tokens": int,
    "teach.traces_a_shard": int,
}
"""The kind of each."""


def plain_values_are_of_their_kind(config: Config) -> None:
    """Said before anything calculates with them."""
    for key, kind in KINDS.items():
        parent, _, last = key.rpartition(".")
        node = get(config, parent) if parent else config
        if isinstance(node, dict) and last in node and not fits(node[last], kind):
            raise ConfigError(f"{key}={node[last]!r}: expected {describe(kind)}")


def threads_are_one_at_least(config: Config) -> None:
    """Torch's own choice is null."""
    threads = get(config, "threads")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads={threads}: expected at least 1, or null for torch's own choice")


PLAIN_RULES: list[Callable[[Config], None]] = [plain_values_are_of_their_kind, threads_are_one_at_least]
