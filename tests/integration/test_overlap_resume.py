"""Overlapped rollouts and the queue of dynamic sampling: exact resume after every step, ranks in step, and learning."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.checkpoints import restart
from helpers.checkpoints import whole as whole_checkpoint
from helpers.quick import overrides_of, random_base
from helpers.runs import coin_rl, largest_difference, weights
from helpers.strike import strike
from integration.test_ddp import TWO_RANKS, recipe
from lightning_r1.modules.phase import Phase
from lightning_r1.parallel.interruption import Interrupted
from lightning_r1.train import train

STEPS = 8
OVERLAP = ["algo.overlap_rollouts=true", "algo.sampler_correction=truncate"]
QUEUE = [
    "algo.dead_groups=refill",
    "algo.keep_surplus=true",
    "algo.max_queue_age=2",
    "algo.sampler_correction=truncate",
]
RUN = [
    "algo.num_iterations=2",
    "algo.prompts_per_rollout=8",
    "algo.sampling.group_size=2",
    "algo.kl_coef=0.05",
    "model.dropout=0.1",
    "eval.every_n_steps=3",
    "+eval.sets.operators.size=5",
    "+reward.rewards.lucky={_target_: helpers.coin.lucky}",
    "callbacks.checkpoint.every_n_steps=1",
    f"callbacks.checkpoint.keep={STEPS}",
    f"trainer.max_steps={STEPS}",
]
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")  # it has
KINDS = {"overlap": OVERLAP, "queue": QUEUE, "both": [*OVERLAP, *QUEUE]}


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    """metrics.csv without clocks and memory."""
    with (run_dir / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "perf/", "memory/"))} for row in rows]


def column(run_dir: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows_of(run_dir) if row.get(name)]


def own(run_dir: Path, step: int, rank: int = 0) -> dict[str, Any]:
    """What a rank had at a step that no other had."""
    return whole_checkpoint(run_dir, step)["ranks"][rank]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the runs that nothing interrupts."""
    folders = {}
    for kind, overrides in KINDS.items():
        output = tmp_path_factory.mktemp(kind)
        train(coin_rl(output, base, *RUN, *overrides))
        folders[kind] = output / "coin" / "rl"
    return folders


def test_the_runs_have_all_of_it(whole: dict[str, Path]) -> None:
    assert column(whole["overlap"], "rollout/staleness_mean") == [0, 2, 2, 2]
    assert max(column(whole["queue"], "rollout/queued_groups")) > 0
    assert max(column(whole["queue"], "rollout/staleness_mean")) > 0
    assert any(0 < age < 2 for age in column(whole["both"], "rollout/staleness_mean")[1:])
    # what is in flight is in the checkpoint as data, and the last rollout has none behind it
    assert [bool(own(whole["overlap"], step)["flight"]) for step in range(1, STEPS + 1)] == [True] * 6 + [False] * 2
    assert any(own(whole["queue"], step)["queue"] for step in range(1, STEPS))


@pytest.mark.parametrize(
    ("kind", "step"), [*(("both", step) for step in range(1, STEPS)), ("overlap", 2), ("overlap", 3), ("queue", 2)]
)
def test_a_resumed_run_ends_in_the_same_bits(
    kind: str, step: int, whole: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "coin" / "rl"
    restart(whole[kind], run_dir, step)
    train(coin_rl(tmp_path, base, *RUN, *KINDS[kind]))
    assert largest_difference(weights(run_dir), weights(whole[kind])) == 0
    assert rows_of(run_dir) == rows_of(whole[kind])


def test_a_signal_while_a_rollout_is_in_flight_loses_nothing(
    whole: dict[str, Path], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run_dir = coin_rl(tmp_path, base, *RUN, *OVERLAP), tmp_path / "coin" / "rl"
    with monkeypatch.context() as patch:
        strike(patch, Phase, "_step", call=3)
        with pytest.raises(Interrupted):
            train(config)
    assert own(run_dir, 3)["flight"]
    train(config)
    assert largest_difference(weights(run_dir), weights(whole["overlap"])) == 0
    assert rows_of(run_dir) == rows_of(whole["overlap"])


def test_evaluation_is_of_the_newest_weights_and_disturbs_nothing(
    whole: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    train(coin_rl(tmp_path, base, *RUN, *OVERLAP, "eval.every_n_steps=0"))
    run_dir = tmp_path / "coin" / "rl"
    assert largest_difference(weights(run_dir), weights(whole["overlap"])) == 0
    # the same weights evaluated by a run that does not overlap, in the middle of a rollout
    trained = tmp_path / "alone"
    middle = torch.load(whole["overlap"] / "checkpoints" / "step-0000003.ckpt", weights_only=True)["state_dict"]
    lines = (whole["overlap"] / "evaluations" / "operators-00003.jsonl").read_text()
    shutil.copytree(base, trained)
    from safetensors.torch import save_file

    policy = {name.removeprefix("policy.model."): tensor.contiguous() for name, tensor in middle.items()
              if name.startswith("policy.model.")}  # fmt: skip
    save_file(policy, trained / "model.safetensors", metadata={"format": "pt"})
    train(coin_rl(tmp_path / "again", trained, *RUN[:-1], "trainer.max_steps=1", "eval.sampling.group_size=1"))
    again = (tmp_path / "again" / "coin" / "rl" / "evaluations" / "operators-00000.jsonl").read_text()
    assert again == lines


def test_two_ranks_overlap_and_resume_in_the_same_bits(base: Path, tmp_path: Path) -> None:
    said = [*RUN[:-1], *KINDS["both"], "trainer.max_steps=6", *TWO_RANKS]
    recipe(overrides_of(coin_rl, tmp_path / "whole", base, *said))
    whole = tmp_path / "whole" / "coin" / "rl"
    first, second = (own(whole, 3, rank)["flight"] for rank in range(2))
    ids = [{group["prompt"]["id"] for group in part["groups"]} for part in (first, second)]
    assert ids[0]
    assert len(first["groups"]) == len(second["groups"])
    assert ids[0].isdisjoint(ids[1])
    for step in (2, 3):
        run_dir = tmp_path / str(step) / "coin" / "rl"
        restart(whole, run_dir, step)
        recipe(overrides_of(coin_rl, tmp_path / str(step), base, *said))
        assert largest_difference(weights(run_dir), weights(whole)) == 0
        assert rows_of(run_dir) == rows_of(whole)


def test_it_learns_from_rollouts_that_are_one_behind(base_model: Path, tmp_path: Path) -> None:
    summary = train(coin_rl(tmp_path, base_model, *OVERLAP, *QUEUE[:2]))
    assert 0.25 < summary["before"]["eval/operators/pass@1"] < 0.65
    assert summary["after"]["eval/operators/pass@1"] > 0.95
