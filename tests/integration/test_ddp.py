"""Two processes train as one: the recipe as a user starts it, over gloo, on this machine alone."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.checkpoints import restart, whole
from helpers.quick import overrides_of, random_base
from helpers.runs import coin_rl, largest_difference, weights
from helpers.slurm import FakeSlurm
from lightning_r1.train import train

ROOT = Path(__file__).parents[2]
STEPS, CUT = 6, 3

# A rollout is two steps, so that the checkpoint of step 3 lies in the middle of one. Groups in which no completion ends
# before the token limit are dead and dropped, so that ranks have different numbers of completions and micro-batches.
SAME_WORK = [
    "rollout._target_=helpers.strike.StruckEngine",  # our engine, until a test says otherwise
    "+reward.rewards.length={_target_: helpers.coin.short_is_good}",
    "algo.num_iterations=2",
    "algo.prompts_per_rollout=8",
    "algo.kl_coef=0.05",
    "algo.reference_refresh_steps=4",
    "algo.entropy_coef=0.01",
    "phase.module.micro_batch_tokens=100",
    # transformers' norms calculate in float32 whatever the model's dtype, so that a shared prompt's gradient, which is
    # added up before them and not behind, differs by 1e-8
    "phase.module.shared_prefix=off",
    "callbacks.checkpoint.every_n_steps=1",
    f"callbacks.checkpoint.keep={STEPS}",
    "+eval.sets.operators.size=9",  # of which one rank gets five
    f"trainer.max_steps={STEPS}",
    "trainer.precision=64-true",  # what rounding leaves then is far below any mistake
]
TWO_RANKS = ["parallel=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


def two_ranks(output: Path, base: Path, *more: str, **how: Any) -> str:
    """The same work by two ranks; returns what was printed."""
    return recipe(overrides_of(coin_rl, output, base, *SAME_WORK, *TWO_RANKS, *more), **how)


def recipe(overrides: list[str], *, status: tuple[int, ...] = (0,), **environment: str) -> str:
    """``python recipes/train.py ...``, which should end with one of these; returns what it printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    plain = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "recipes/train.py"), *overrides],
        env={
            **plain,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
            "OMP_NUM_THREADS": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # the ranks end together
    )
    try:
        said = process.communicate(timeout=600)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"the ranks wait for each other:\n{process.communicate()[0]}")
    assert process.returncode in status, said
    return said


def rows(run_dir: Path) -> list[dict[str, str]]:
    """metrics.csv without clocks and memory."""
    with (run_dir / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "perf/", "memory/"))} for row in table]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights: its completions differ in length, and that is what is rewarded."""
    return random_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def both(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the run of two ranks, and what it printed."""
    output = tmp_path_factory.mktemp("both")
    said = two_ranks(output, base)
    return output / "coin" / "rl", said


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run of one process, with the same prompts a rollout and the same completions a step."""
    output = tmp_path_factory.mktemp("alone")
    train(coin_rl(output, base, *SAME_WORK))
    return output / "coin" / "rl"


def test_two_ranks_end_with_the_weights_of_one_process(both: tuple[Path, str], alone: Path, base: Path) -> None:
    trained, start = weights(alone), load_file(base / "model.safetensors")
    assert all(tensor.dtype == torch.float64 for tensor in trained.values())
    assert largest_difference(trained, start) > 1e-3
    assert largest_difference(weights(both[0]), trained) < 1e-10
    ours, theirs = (whole(folder, STEPS)["state_dict"] for folder in (both[0], alone))
    assert largest_difference(ours, theirs) < 1e-10  # of the reference too


def test_they_share_the_work(both: tuple[Path, str], alone: Path) -> None:
    shares = []
    for step in (1, 3, 5):  # each in the middle of a rollout
        ours, theirs = (whole(folder, step) for folder in (both[0], alone))
        state, expected = ours["lightning_r1"], theirs["lightning_r1"]
        assert (state["world_size"], expected["world_size"]) == (2, 1)
        for name in ("drawn", "rollouts", "tokens", "reference_step"):
            assert state[name] == expected[name]
        first, second = (len(ours["ranks"][rank]["buffer"]["sequences"]["prompt_ids"]) for rank in range(2))
        assert first + second == len(theirs["ranks"][0]["buffer"]["sequences"]["prompt_ids"])
        shares.append((first, second))
    assert all(0 < sum(share) < 64 for share in shares)
    assert any(first != second for first, second in shares)


def test_they_log_what_one_process_logs(both: tuple[Path, str], alone: Path) -> None:
    ours, theirs = rows(both[0]), rows(alone)
    assert len(ours) == len(theirs) == STEPS + 2
    assert_like(ours, theirs)
    for folder in ("rollouts", "evaluations"):
        files = sorted(file.name for file in (alone / folder).iterdir())
        assert files == sorted(file.name for file in (both[0] / folder).iterdir())
        for file in files:
            lines = [sorted(completion_of(line) for line in (run / folder / file).open()) for run in (both[0], alone)]
            assert lines[0] == lines[1]


def assert_like(ours: list[dict[str, str]], theirs: list[dict[str, str]]) -> None:
    """The same numbers, as far as the sampler's log-probabilities are: those are float32."""
    for row, expected in zip(ours, theirs, strict=True):
        assert row.keys() == expected.keys()
        for name in row:
            if row[name] or expected[name]:
                assert float(row[name]) == pytest.approx(float(expected[name]), abs=1e-6), name


def completion_of(line: str) -> str:
    """The part of a record that holds prompt and completion."""
    return line.split('"prompt":')[1].split('"rewards"')[0].split('"correct"')[0]


def test_one_rank_speaks(both: tuple[Path, str]) -> None:
    said = both[1]
    assert said.count("a rollout is 8 prompts") == 1
    assert said.count(" is finished: ") == 1
    assert said.count(f"step     {STEPS}/{STEPS}") == 1
    assert "Traceback" not in said
    assert "Warning" not in said


def test_a_resumed_run_of_two_ranks_ends_in_the_same_bits(both: tuple[Path, str], base: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "coin" / "rl"
    restart(both[0], run_dir, CUT)
    assert f"going on at {CUT}" in two_ranks(tmp_path, base)
    assert largest_difference(weights(run_dir), weights(both[0])) == 0
    ours, theirs = whole(run_dir, STEPS), whole(both[0], STEPS)
    assert largest_difference(ours["state_dict"], theirs["state_dict"]) == 0
    assert largest_difference(ours["optimizer"], theirs["optimizer"]) == 0
    assert len(theirs["optimizer"]) > 3
    assert rows(run_dir) == rows(both[0])


@pytest.mark.parametrize("step", [CUT, 4])
def test_one_process_goes_on_where_two_ranks_stopped(
    step: int, both: tuple[Path, str], alone: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of a rollout and behind one: the rest is that of the process that nothing has disturbed."""
    run_dir = tmp_path / "coin" / "rl"
    restart(both[0], run_dir, step)
    train(coin_rl(tmp_path, base, *SAME_WORK))
    said = " ".join(capsys.readouterr().out.split())
    left = "the 1 minibatch(es) left of the rollout are cut anew" if step == CUT else "nothing is left of the rollout"
    assert f"the checkpoint was written by 2 rank(s) and is read by 1: {left}" in said
    assert largest_difference(weights(run_dir), weights(alone)) < 1e-10
    assert_like(rows(run_dir), rows(alone))


def test_two_ranks_go_on_where_one_process_stopped(alone: Path, base: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "coin" / "rl"
    restart(alone, run_dir, CUT)
    assert "written by 1 rank(s) and is read by 2" in " ".join(two_ranks(tmp_path, base).split())
    assert largest_difference(weights(run_dir), weights(alone)) < 1e-10
    assert_like(rows(run_dir), rows(alone))


def test_one_rank_that_is_signalled_or_killed_in_a_rollout_takes_the_others_along(
    both: tuple[Path, str], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First one rank is signalled, then the other one killed; what is left goes on to the same bits."""
    undisturbed, run_dir = both[0], tmp_path / "coin" / "rl"
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    rarely = "callbacks.checkpoint.every_n_steps=100"
    said = two_ranks(tmp_path, base, rarely, status=(75,), STRIKE="1:3:SIGUSR1")  # the evaluation, and two rollouts
    assert "unfinished: it received SIGUSR1. job 7 is requeued, restart 1." in said
    assert said.count("unfinished:") == 1
    assert [call for call in slurm.asked if "requeue" in call] == ["requeue 7"]
    assert [file.name for file in (run_dir / "checkpoints").glob("step-*") if file.is_dir()] == ["step-0000002"]
    # it notices by itself, or Lightning ends it
    said = two_ranks(tmp_path, base, rarely, status=(1, -signal.SIGKILL), STRIKE="1:2:SIGKILL")
    assert "going on at 2" in said
    assert not (run_dir / "summary.json").exists()
    assert "going on at 2" in two_ranks(tmp_path, base, rarely)
    assert largest_difference(weights(run_dir), weights(undisturbed)) == 0
    assert rows(run_dir) == rows(undisturbed)
