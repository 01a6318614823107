"""Training with an environment, through the real configs: what is learned from, and going on in the same bits."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.quick import quick_rl, random_base
from helpers.runs import coin_evaluation, largest_difference, weights
from lightning_r1.config.build import check
from lightning_r1.config.errors import ConfigError
from lightning_r1.evaluate import evaluate
from lightning_r1.text.records import read_jsonl
from lightning_r1.train import train

TALK = [
    "environment=own",
    "environment.world._target_=helpers.environments.Numbers",
    "environment.budget.max_turns=4",
    "environment.budget.max_reply_tokens=2",
]
MORE = [
    "algo.minibatches_per_rollout=2",
    "algo.num_iterations=2",
    "algo.kl_coef=0.05",
    "trainer.max_steps=8",
    "callbacks.checkpoint.every_n_steps=1",
    "callbacks.checkpoint.keep=9",
    "eval.every_n_steps=0",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_base(tmp_path_factory.mktemp("base"))


def config(output: Path, base: Path, *more: str) -> dict[str, Any]:
    # MORE behind: the world stands in a group of its own
    return quick_rl(output, base, *TALK, *MORE, *more)


def run(config: dict[str, Any], kill_at_call: int) -> None:
    os.environ["KILL_AT_CALL"] = str(kill_at_call)
    torch.set_num_threads(1)
    train(config)


def test_a_run_that_is_killed_in_a_rollout_or_between_its_minibatches_ends_in_the_same_bits(
    base: Path, tmp_path: Path
) -> None:
    train(config(tmp_path / "whole", base))
    whole = tmp_path / "whole" / "coin" / "rl"
    rows = [row for file in sorted((whole / "rollouts").glob("*.jsonl")) for row in read_jsonl(file)]
    assert sum(row["finish_reason"] == "length" for row in rows)
    metrics = (whole / "metrics.csv").read_text().splitlines()
    turns = metrics[0].split(",").index("rollout/turns_mean")
    assert any(float(line.split(",")[turns] or 0) > 1.2 for line in metrics[1:])

    # each turn is a call of the engine: this one is a later turn of the second rollout
    killed = config(tmp_path / "killed", base, "rollout={_target_: helpers.engine.KilledEngine}")
    process = multiprocessing.get_context("forkserver").Process(target=run, args=(killed, 12))
    process.start()
    process.join()
    assert process.exitcode == -9
    folder = tmp_path / "killed" / "coin" / "rl"
    assert not (folder / "model").exists()
    train(killed)
    assert largest_difference(weights(folder), weights(whole)) == 0


def test_a_checkpoint_between_minibatches_keeps_what_was_sampled(base: Path, tmp_path: Path) -> None:
    train(config(tmp_path / "whole", base))
    whole = tmp_path / "whole" / "coin" / "rl"
    for file in (whole / "checkpoints").iterdir():
        if int(file.name.removeprefix("step-")[:7]) > 3:
            file.unlink()
    before = weights(whole)
    (whole / "summary.json").unlink()
    train(config(tmp_path / "whole", base))
    assert largest_difference(weights(whole), before) == 0


def test_an_evaluation_talks_too(base: Path, tmp_path: Path) -> None:
    said = ["environment=own", "environment.world._target_=helpers.environments.Numbers"]
    evaluate(coin_evaluation(tmp_path, base, *said, "environment.budget.max_reply_tokens=2", "name=talking"))
    evaluate(coin_evaluation(tmp_path, base, "name=silent"))
    talking, silent = (
        list(read_jsonl(tmp_path / name / "samples" / "operators.jsonl")) for name in ("talking", "silent")
    )
    assert len(talking) == len(silent)
    assert {one["completion"] for one in talking} != {one["completion"] for one in silent}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("rollout=continuous", "does not stop where a call ends; choose rollout=group"),
        ("environment.budget.max_turns=1", r"environment.budget.max_turns=1: expected >= 2"),
        ("environment.budget.max_reply_tokens=12", r"algo.sampling.max_new_tokens=12 tokens in all"),
        (
            "environment.budget.max_replies=1",
            "max_replies: there is no such key; did you mean environment.budget.max_reply_tokens",
        ),
    ],
)
def test_what_cannot_work_is_said_before(said: str, told: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        check(quick_rl(tmp_path, base, "environment=calculator", "environment.budget.max_reply_tokens=2", said))


def test_what_is_no_environment_is_said(base: Path, tmp_path: Path) -> None:
    said = ["environment=own", "environment.world._target_=helpers.coin.CoinCorpus"]
    with pytest.raises(ConfigError, match=r"helpers.coin.CoinCorpus: expected a class with stops"):
        train(quick_rl(tmp_path, base, *said, "environment.budget.max_reply_tokens=2"))
