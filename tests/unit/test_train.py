"""What ranks do that were started together, before they know each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from helpers.quick import quick_rl, random_base
from lightning_r1 import train as verb
from lightning_r1.config.run_folder import keep_config, write_summary


def test_a_finished_run_is_left_by_every_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one leaves at once: another one would wait for it until its patience ends, and fail."""
    config = quick_rl(tmp_path, random_base(tmp_path / "base"))
    run_dir = Path(config["paths"]["run_dir"])
    keep_config(run_dir, config)

    class Built(Exception):
        pass

    def build(config: Any) -> None:
        raise Built

    monkeypatch.setattr(verb, "build", build)
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        with pytest.raises(Built):
            verb.train(config)
    write_summary(run_dir, {"steps": 3})
    assert verb.train(config) == {}
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert verb.train(config) == {"steps": 3}
