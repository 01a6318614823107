"""The rule for problems whose answers are programs: somebody has to run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.reading import Config, get

_READERS = ("codeforces", "apps", "livecodebench", "mbpp")


def programs_have_a_grader(config: Config) -> None:
    """Problems that nobody can grade would be worth the same for everybody."""
    if _asks_for_programs(get(config, "data")) and get(config, "phase.kind") in (None, "rl"):
        _check_rewards(config)
    for name, node in (get(config, "eval.sets") or {}).items():
        if _asks_for_programs(node) and not get(config, "eval.code"):
            raise ConfigError(
                f"eval.code={get(config, 'eval.code')}: the answers of eval={name} are programs; give it "
                "_target_: lightning_r1.rewards.code.CodeTests, or leave the set out"
            )


def _check_rewards(config: Config) -> None:
    rewards = get(config, "reward.rewards") or {}
    graders = [name for name, reward in rewards.items() if _may_grade(str(reward.get("_target_")))]
    if rewards and not graders:
        raise ConfigError(
            "data: its answers are programs, and no reward runs them; choose reward=rules_and_code, or add a reward "
            "with _target_: lightning_r1.rewards.code.CodeTests"
        )
    required = get(config, "sample.require")
    if required and not set(graders) & set(required):
        raise ConfigError(
            f"sample.require={dict(required)}: the answers of data are programs, of which wrong ones would be kept; "
            f"add +sample.require.{graders[0]}=1.0"
        )


def _may_grade(target: str) -> bool:
    """What is not ours may well."""
    return target.endswith(".CodeTests") or not target.startswith("lightning_r1.")


def _asks_for_programs(node: Any) -> bool:
    parts = [part for part in (node, get(node, "rows")) if isinstance(part, Mapping)]
    return any(part.get("kind") == "code" or part.get("reader") in _READERS for part in parts)
