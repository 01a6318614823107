"""A run that is signalled, wherever it is, saves, says so by its status, and goes on to the same bits."""

from __future__ import annotations

import csv
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.quick import random_base
from helpers.runs import coin_rl, largest_difference, weights
from helpers.strike import strike, strike_in_sampling
from lightning_r1.callbacks.checkpoint import AtomicCheckpointIO, newest_checkpoint
from lightning_r1.callbacks.evaluation import Evaluation
from lightning_r1.modules.phase import Phase
from lightning_r1.parallel.interruption import Interrupted
from lightning_r1.rewards.suite import Scoring
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.train import train

STEPS = 6
# A rollout is two steps and a checkpoint four, so that none is due where the signals come. The engine is asked for the
# evaluation before (call 1), the rollouts before steps 1, 3, 5 (2, 3, 5), the evaluations after step 3 and the last.
RUN = [
    "algo.num_iterations=2",
    "algo.prompts_per_rollout=4",
    "algo.sampling.group_size=4",
    "algo.kl_coef=0.05",
    "algo.reference_refresh_steps=4",
    "model.dropout=0.1",
    "eval.every_n_steps=3",
    "+eval.sets.operators.size=8",
    "callbacks.checkpoint.every_n_steps=4",
    "+reward.rewards.length={_target_: helpers.coin.short_is_good}",
    f"trainer.max_steps={STEPS}",
]
Blow = Callable[[pytest.MonkeyPatch], Any]

MOMENTS: dict[str, tuple[Blow, int]] = {
    "loading": (lambda patch: strike(patch, Phase, "configure_optimizers"), 0),
    "evaluation before": (lambda patch: strike_in_sampling(patch, GroupEngine, call=1), 0),
    "first rollout": (lambda patch: strike_in_sampling(patch, GroupEngine, call=2), 0),
    "rollout": (lambda patch: strike_in_sampling(patch, GroupEngine, call=3), 2),
    "rewards": (lambda patch: strike(patch, Scoring, "result", call=3), 2),
    "update": (lambda patch: strike(patch, Phase, "_step", call=2), 2),
    "preempted update": (lambda patch: strike(patch, Phase, "_step", call=3, number=signal.SIGTERM), 3),
    "Ctrl-C in an update": (lambda patch: strike(patch, Phase, "_step", call=3, number=signal.SIGINT), 3),
    "evaluation": (lambda patch: strike_in_sampling(patch, GroupEngine, call=4, number=signal.SIGTERM), 3),
    "checkpointing": (lambda patch: strike(patch, AtomicCheckpointIO, "save_checkpoint"), 4),
    "last update": (lambda patch: strike(patch, Phase, "_step", call=STEPS), STEPS),
    "evaluation after": (lambda patch: strike_in_sampling(patch, GroupEngine, call=6), STEPS),
}


def config(output: Path, base: Path, *more: str) -> dict[str, Any]:
    return coin_rl(output, base, *RUN, *more)


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    """metrics.csv without clocks and memory."""
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    clocks = ("time/", "perf/", "memory/")
    return [{k: v for k, v in row.items() if v and not k.startswith(clocks)} for row in rows]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole")
    train(config(output, base))
    return output / "coin" / "rl"


def assert_same_end(run_dir: Path, whole: Path) -> None:
    assert largest_difference(weights(run_dir), weights(whole)) == 0
    assert rows_of(run_dir) == rows_of(whole)
    for folder in ("rollouts", "evaluations"):
        assert {file.name: file.read_text() for file in (run_dir / folder).iterdir()} == {
            file.name: file.read_text() for file in (whole / folder).iterdir()
        }
    ours, theirs = (
        torch.load(folder / "checkpoints" / f"step-{STEPS:07d}.ckpt", weights_only=True) for folder in (run_dir, whole)
    )
    assert largest_difference(ours["state_dict"], theirs["state_dict"]) == 0
    for name in ("drawn", "rollouts", "tokens", "reference_step"):
        assert ours["lightning_r1"][name] == theirs["lightning_r1"][name]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_loses_nothing(
    moment: str, base: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blow, saved_at = MOMENTS[moment]
    run_dir = tmp_path / "coin" / "rl"
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)}
    left = interrupted(monkeypatch, config(tmp_path, base), blow)
    assert left.told
    assert left.requeue is (moment != "Ctrl-C in an update")
    assert {number: signal.getsignal(number) for number in before} == before
    assert not (run_dir / "summary.json").exists()
    saved = newest_checkpoint(run_dir / "checkpoints", tell=pytest.fail)
    assert (saved.step if saved else 0) == saved_at
    assert train(config(tmp_path, base))["steps"] == STEPS
    assert_same_end(run_dir, whole)


def test_a_run_is_finished_that_was_signalled_behind_its_last_step(
    base: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strike(monkeypatch, Phase, "export")
    assert train(config(tmp_path, base))["steps"] == STEPS
    assert_same_end(tmp_path / "coin" / "rl", whole)


def interrupted(monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], blow: Blow) -> Interrupted:
    """A run into which this blow goes."""
    with monkeypatch.context() as patch:
        blow(patch)
        with pytest.raises(Interrupted) as left:
            train(config)
    return left.value


def test_interrupted_again_and_again(base: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for blow in (
        lambda patch: strike(patch, Phase, "_step"),
        lambda patch: strike(patch, Phase, "_step", call=3),
        lambda patch: strike_in_sampling(patch, GroupEngine, call=1),
    ):
        interrupted(monkeypatch, config(tmp_path, base), blow)
    train(config(tmp_path, base))
    assert_same_end(tmp_path / "coin" / "rl", whole)


def test_an_interrupted_evaluation_is_made_up_for_before_the_next_step(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(monkeypatch, config(tmp_path, base), lambda patch: strike_in_sampling(patch, GroupEngine, call=4))
    done: list[int] = []
    monkeypatch.setattr(Evaluation, "_log", lambda callback, trainer, numbers, step: done.append(step))
    # while it is made up for
    interrupted(monkeypatch, config(tmp_path, base), lambda patch: strike_in_sampling(patch, GroupEngine, call=1))
    assert done == []
    interrupted(monkeypatch, config(tmp_path, base), lambda patch: strike(patch, Phase, "_step"))
    assert done == [3]


def test_a_second_ctrl_c_does_not_wait(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strike(monkeypatch, Phase, "_step", number=signal.SIGINT)
    strike(monkeypatch, Phase, "_step", number=signal.SIGINT)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as left:
        train(config(tmp_path, base))
    assert not isinstance(left.value, SystemExit) or left.value.code != 0
    assert newest_checkpoint(tmp_path / "coin" / "rl" / "checkpoints", tell=pytest.fail) is None


def test_what_lightning_stops_is_not_finished(base: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=f"stopped at step 0 of {STEPS}|stopped at step 1 of {STEPS}"):
        train(config(tmp_path, base, "+trainer.max_time={seconds: 0}"))
