"""A run whose reward lies by being constant ends with the right message, its checkpoint intact; a healthy one runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.console import said
from helpers.quick import overrides_of, quick_rl, random_base
from helpers.runs import coin_rl
from lightning_r1.callbacks.checkpoint import newest_checkpoint
from lightning_r1.train import train

ROOT = Path(__file__).parents[2]


def test_a_lying_reward_ends_the_run_and_an_honest_one_goes_on_from_there(tmp_path: Path) -> None:
    base, mended = random_base(tmp_path / "base"), tmp_path / "mended"
    overrides = [
        "trainer.max_steps=9", "callbacks.watchdog.constant_reward.stop_after=4",
        "callbacks.watchdog.all_truncated=null",  # what knows nothing never stops
        "reward.rewards.accuracy._target_=helpers.rewards.lies_until", f"+reward.rewards.accuracy.mended={mended}",
        "~reward.rewards.format", "~reward.weights.format", "~reward.rewards.length",
    ]  # fmt: skip
    command = [
        sys.executable, str(ROOT / "recipes" / "train.py"), *overrides_of(quick_rl, tmp_path, base, *overrides),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert done.returncode == 2, done.stderr
    words = "every reward is 0.5, for 4 rollouts now; look at rollouts/ and the reward function: is an answer found, "
    assert f"error: watchdog: the run was ended at step 4 by constant_reward: {words}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "watchdog at step 3: constant_reward every reward is 0.5, for 3 rollouts now" in done.stdout
    run_dir = tmp_path / "coin" / "rl"
    assert not (run_dir / "summary.json").exists()
    saved = newest_checkpoint(run_dir / "checkpoints", tell=pytest.fail)
    assert saved is not None
    assert saved.step == 4
    assert torch.load(saved.path, weights_only=True)["lightning_r1"]["rollouts"] == 4

    mended.touch()
    summary = train(quick_rl(tmp_path, base, *overrides))
    assert summary["steps"] == 9
    rows = (run_dir / "metrics.csv").read_text().splitlines()
    names = rows[0].split(",")
    marks = [row.split(",")[names.index("watchdog/constant_reward")] for row in rows[1:]]
    assert [mark for mark in marks if mark] == ["1.0", "0.0"]


def test_a_healthy_run_is_left_in_peace(base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(coin_rl(tmp_path, base_model, "trainer.max_steps=40"))
    assert "watchdog" not in said(capsys)
    assert "watchdog" not in (tmp_path / "coin" / "rl" / "metrics.csv").read_text().splitlines()[0]
