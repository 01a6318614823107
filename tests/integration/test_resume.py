"""Kill the run anywhere, start it again, and it ends in the same bits."""

import csv
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.runs import coin_rl, largest_difference, weights
from lightning_r1.train import train

STEPS = 12
ROOT = Path(__file__).parents[2]

# Two passes of two minibatches: a rollout is four steps, so that checkpoints fall into the middle of one.
# Dropout is on, the reference is refreshed twice, groups are dropped, the last minibatches are off policy.
EVERYTHING_ON = [
    "algo.num_iterations=2",
    "algo.minibatches_per_rollout=2",
    "algo.kl_coef=0.05",
    "algo.reference_refresh_steps=4",
    "algo.prompts_per_rollout=4",
    "algo.sampling.group_size=4",
    "algo.entropy_coef=0.01",
    "model.dropout=0.1",
    "eval.every_n_steps=5",
    "callbacks.checkpoint.every_n_steps=1",
    f"callbacks.checkpoint.keep={STEPS}",
    "+reward.rewards.length={_target_: helpers.coin.short_is_good}",
    f"trainer.max_steps={STEPS}",
]


def config(base_model: Path, output: Path, name: str) -> dict[str, Any]:
    return coin_rl(output, base_model, *EVERYTHING_ON, f"name={name}")


def resume(config: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    train(config)


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    """metrics.csv without clocks and memory."""
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "perf/", "memory/"))} for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("resume")
    train(config(base_model, output, "whole"))
    return output / "whole"


@pytest.fixture(scope="module")
def processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lightning_r1.train"])
    return context


def test_the_run_has_all_of_it(uninterrupted: Path) -> None:
    rows = rows_of(uninterrupted)
    steps = [int(row["step"]) for row in rows if row["policy/loss"]]
    assert steps == list(range(1, STEPS + 1))
    assert [int(row["step"]) for row in rows if row["progress/rollouts"]] == [1, 5, 9]
    # the reference was refreshed: right after it, the KL to it is 0 again
    kl = {int(row["step"]): float(row["policy/kl_ref"]) for row in rows if row["policy/kl_ref"]}
    assert kl[4] > 2 * kl[5]
    assert len(list((uninterrupted / "checkpoints").glob("*.ckpt"))) == STEPS


@pytest.mark.parametrize("step", range(1, STEPS))
def test_a_new_process_goes_on_to_the_same_bits(
    step: int, uninterrupted: Path, base_model: Path, tmp_path: Path, processes: Any
) -> None:
    run_dir = tmp_path / "whole"
    (run_dir / "checkpoints").mkdir(parents=True)
    for file in (uninterrupted / "checkpoints").glob(f"step-{step:07d}.ckpt*"):
        shutil.copy(file, run_dir / "checkpoints")
    shutil.copy(uninterrupted / "metrics.csv", run_dir)
    process = processes.Process(target=resume, args=(config(base_model, tmp_path, "whole"),))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert largest_difference(weights(run_dir), weights(uninterrupted)) == 0
    assert rows_of(run_dir) == rows_of(uninterrupted)
    last = f"checkpoints/step-{STEPS:07d}.ckpt"
    ours, theirs = (torch.load(folder / last, weights_only=True) for folder in (run_dir, uninterrupted))
    assert_same(ours["optimizer_states"], theirs["optimizer_states"])
    assert_same(ours["lr_schedulers"], theirs["lr_schedulers"])
    assert_same(ours["state_dict"], theirs["state_dict"])
    # what steps that were not made would have needed: the buffer, and how old the reference is
    assert_same(*({k: v for k, v in state["lightning_r1"].items() if k != "seconds"} for state in (ours, theirs)))


@pytest.mark.parametrize("optimizer", [["optim=adamw"], ["optim=adamw8bit", "optim.min_8bit_size=256"]], ids=str)
def test_bfloat16_with_masters_and_shared_prompts_goes_on_to_the_same_bits(
    base_model: Path, tmp_path: Path, optimizer: list[str]
) -> None:
    said = ["model.dtype=bfloat16", "trainer.precision=bf16-true", "phase.module.shared_prefix=on", *optimizer]
    said.append("optim.lr=1e-5")

    def run(folder: str) -> dict[str, Any]:
        return coin_rl(tmp_path / folder, base_model, *EVERYTHING_ON, *said, "eval.sets={}", "name=whole")

    train(run("one"))
    whole, again = (tmp_path / folder / "whole" for folder in ("one", "two"))
    (again / "checkpoints").mkdir(parents=True)
    for file in (whole / "checkpoints").glob("step-0000006.ckpt*"):
        shutil.copy(file, again / "checkpoints")
    shutil.copy(whole / "metrics.csv", again)
    train(run("two"))
    last = f"checkpoints/step-{STEPS:07d}.ckpt"
    ours, theirs = (torch.load(folder / last, weights_only=True) for folder in (again, whole))
    states = ours["optimizer_states"][0]["state"].values()
    assert {state["master"].dtype for state in states} == {torch.float32}
    assert any("exp_avg_codes" in state for state in states) == ("optim=adamw8bit" in optimizer)
    assert_same(ours["optimizer_states"], theirs["optimizer_states"])
    assert_same(ours["state_dict"], theirs["state_dict"])


def test_a_kill_at_random_moments_changes_nothing(uninterrupted: Path, base_model: Path, tmp_path: Path) -> None:
    command = [
        sys.executable, str(ROOT / "recipes" / "train.py"), *overrides_of(base_model, tmp_path, "whole"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    rng = random.Random(time.time_ns())
    run_dir = tmp_path / "whole"
    for kill in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        # wait until the run is under way, then strike somewhere in its steps
        reached = kill * 3 + 1
        while not list((run_dir / "checkpoints").glob(f"step-{reached:07d}.ckpt")) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (run_dir / "summary.json").exists()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert largest_difference(weights(run_dir), weights(uninterrupted)) == 0
    assert rows_of(run_dir) == rows_of(uninterrupted)


def test_a_truncated_newest_checkpoint_is_passed_over(
    uninterrupted: Path, base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "whole"
    shutil.copytree(uninterrupted / "checkpoints", run_dir / "checkpoints")
    newest = run_dir / "checkpoints" / f"step-{STEPS:07d}.ckpt"
    newest.write_bytes(newest.read_bytes()[:1000])
    train(config(base_model, tmp_path, "whole"))
    said = " ".join(capsys.readouterr().out.split())
    assert f"step-{STEPS:07d}.ckpt is passed over: it has 1000 bytes of" in said
    assert f"going on at {STEPS - 1}" in said
    assert largest_difference(weights(run_dir), weights(uninterrupted)) == 0


def overrides_of(base_model: Path, output: Path, name: str) -> list[str]:
    """The command line that composes the same config."""
    seen: list[str] = []

    def remember(config_name: str, overrides: list[str]) -> dict[str, Any]:
        seen.extend(overrides)
        return {}

    import helpers.runs

    compose, helpers.runs.compose_config = helpers.runs.compose_config, remember  # type: ignore[assignment]
    try:
        config(base_model, output, name)
    finally:
        helpers.runs.compose_config = compose
    return seen


def assert_same(one: Any, other: Any) -> None:
    """Equal to the last bit, all the way down."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other
