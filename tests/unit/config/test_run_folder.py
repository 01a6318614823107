"""A run's folder is taken again by the same run, on other ranks too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lightning_r1.config.errors import ConfigError
from lightning_r1.config.run_folder import keep_config, kept_config, take_folder


def config(run_dir: Path, *, seed: int = 0, devices: int = 1, strategy: str = "auto") -> dict[str, Any]:
    return {
        "name": "run", "resume": "auto", "seed": seed, "paths": {"run_dir": str(run_dir)},
        "trainer": {"devices": devices, "num_nodes": devices}, "parallel": {"strategy": strategy},
    }  # fmt: skip


def test_other_ranks_and_another_strategy_may_go_on_and_another_run_may_not(tmp_path: Path) -> None:
    keep_config(tmp_path, config(tmp_path))
    (tmp_path / "metrics.csv").write_text("begun")
    assert kept_config(tmp_path) == config(tmp_path)
    assert take_folder(config(tmp_path, devices=4, strategy="fsdp")) is None
    with pytest.raises(ConfigError, match=r"holds a run with another seed \(0 there, 1 here\)"):
        take_folder(config(tmp_path, seed=1))


def test_a_wholly_other_run_is_told_in_few_words(tmp_path: Path) -> None:
    keep_config(tmp_path, config(tmp_path))
    (tmp_path / "metrics.csv").write_text("begun")
    other = config(tmp_path) | {"prompt": "x" * 1000} | dict.fromkeys("abcde", 1)
    with pytest.raises(ConfigError, match=r"prompt \(None there, x{100} \.\.\. here\), .*, and 2 more that differ\."):
        take_folder(other)


def test_its_servers_may_be_on_other_nodes(tmp_path: Path) -> None:
    """Those of a job that is requeued are."""
    keep_config(tmp_path, config(tmp_path) | {"rollout": {"base_urls": ["http://n3:23422"], "at_once": 64}})
    (tmp_path / "metrics.csv").write_text("begun")
    moved = config(tmp_path) | {"rollout": {"base_urls": ["http://n7:23422", "http://n8:23424"], "at_once": 64}}
    assert take_folder(moved) is None
