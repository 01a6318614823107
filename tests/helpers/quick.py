"""Whole runs in half a second, through the real configs: a base with random weights, a few steps, few problems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import runs
from helpers.models import tiny_policy
from helpers.prompts import mini_codec
from helpers.runs import coin_rl
from lightning_r1.models.export import export_model


def random_base(folder: Path) -> Path:
    """A base that knows nothing, for tests in which nothing has to be learned; its samples differ."""
    return export_model(tiny_policy(initializer_range=0.02), mini_codec(), folder, card={})


def quick_rl(output: Path, base: Path, *overrides: str) -> dict[str, Any]:
    """Config of three steps on the coin task, evaluated on eight problems."""
    return coin_rl(
        output, base, "trainer.max_steps=3", "algo.prompts_per_rollout=2", "algo.sampling.group_size=4",
        "+reward.rewards.length={_target_: helpers.coin.short_is_good}", "+eval.sets.operators.size=8", *overrides,
    )  # fmt: skip


def overrides_of(make: Callable[..., Any], *arguments: Any, **options: Any) -> list[str]:
    """The command line behind a config of :mod:`helpers.runs`: ``overrides_of(coin_rl, output, base)``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "compose_config", lambda config_name, overrides: overrides)
        return make(*arguments, **options)
