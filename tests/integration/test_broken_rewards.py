"""Runs whose reward hangs, crashes or lies: the right message, a whole checkpoint, and the repaired run goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.quick import overrides_of, quick_rl, random_base
from lightning_r1.config.compose import compose_config
from lightning_r1.rewards.base import RewardError
from lightning_r1.train import train

ROOT = Path(__file__).parents[2]
FAULTS = {
    "hangs": ("timeout", "no answer after 1 s"),
    "raises": ("crash", "KeyError: 'solution'"),
    "exits": ("crash", "the worker left with exit status 7"),
    "nan": ("crash", "returned nan"),
    "text": ("crash", "returned a str, not a number"),
    "none": ("unscorable", "look at the golds of the data"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def fault(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file; the reward has the fault that is named in it."""
    return tmp_path_factory.mktemp("fault") / "fault"


def own_reward(output: Path, base: Path, fault: Path) -> list[str]:
    return [
        *overrides_of(quick_rl, output, base), "eval.sets={}", "callbacks.checkpoint.every_n_steps=1",
        "reward.workers.timeout_s=1",
        f"+reward.rewards.mine={{_target_: helpers.rewards.broken_while, marker: {fault}}}",
    ]  # fmt: skip


def config(output: Path, base: Path, fault: Path) -> dict[str, Any]:
    return compose_config("train", own_reward(output, base, fault))


@pytest.fixture(scope="module")
def whole(base: Path, fault: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which nothing was broken."""
    output = tmp_path_factory.mktemp("whole")
    train(config(output, base, fault))
    return output / "coin" / "rl"


def stopped_before_its_last_step(whole: Path, output: Path) -> Path:
    run_dir = output / "coin" / "rl"
    shutil.copytree(whole, run_dir)
    shutil.rmtree(run_dir / "model")
    (run_dir / "summary.json").unlink()
    for file in (run_dir / "checkpoints").glob("*0000003*"):
        file.unlink()
    return run_dir


def checkpoints(run_dir: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run_dir / "checkpoints").iterdir()}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_reward_ends_the_run_and_the_repaired_one_goes_on(
    name: str, whole: Path, base: Path, fault: Path, tmp_path: Path
) -> None:
    (kind, detail), run_dir = FAULTS[name], stopped_before_its_last_step(whole, tmp_path)
    left = checkpoints(run_dir)
    assert left
    fault.write_text(name)
    try:
        with pytest.raises(RewardError) as caught:
            train(config(tmp_path, base, fault))
    finally:
        fault.unlink()
    said = str(caught.value)
    assert said.startswith(f"reward.rewards.mine: 8 of 8 completions ended in {kind} (reward.stop_at.{kind}=0.5)")
    assert detail in said
    assert said.endswith("then give the same command again: it goes on from the newest checkpoint")
    assert "\n" not in said
    assert checkpoints(run_dir) == left

    train(config(tmp_path, base, fault))
    again, before = ((folder / "model" / "model.safetensors").read_bytes() for folder in (run_dir, whole))
    assert again == before


def test_a_batch_of_the_wrong_length_ends_the_run(whole: Path, base: Path, fault: Path, tmp_path: Path) -> None:
    batch = "+reward.rewards.batch={_target_: helpers.rewards.ShortBatch}"
    with pytest.raises(RewardError, match=r"^reward\.rewards\.batch: score_batch gave 7 verdicts for 8 items$"):
        train(compose_config("train", [*own_reward(tmp_path, base, fault), batch]))


def test_the_command_says_it_in_one_line(whole: Path, base: Path, fault: Path, tmp_path: Path) -> None:
    stopped_before_its_last_step(whole, tmp_path)
    fault.write_text("hangs")
    try:
        done = subprocess.run(
            [sys.executable, str(ROOT / "recipes" / "train.py"), *own_reward(tmp_path, base, fault)],
            env={
                **{name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"},
                "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")]),
            },
            capture_output=True,
            text=True,
        )
    finally:
        fault.unlink()
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: reward.rewards.mine: 8 of 8 completions ended in timeout (reward.stop_at" in done.stderr
