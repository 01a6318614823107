"""Evaluation during training: when it happens, under which names, and what it leaves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers.engine import ScriptedEngine
from helpers.models import tiny_policy
from helpers.prompts import number_prompt
from lightning_r1.callbacks.evaluation import HeldOutEvaluation
from lightning_r1.evaluation.intervals import share_interval
from lightning_r1.models.codec import Codec
from lightning_r1.modules.phase import Phase
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.text.records import read_jsonl
from lightning_r1.types import Sampling

RIGHT, WRONG = "ab</think><answer>{}</answer><eos>", "ab</think><answer>9</answer><eos>"
SCRIPT = {"1": [RIGHT.format(1)] * 3 + [WRONG], "2": [RIGHT.format(2)] + [WRONG] * 3}
SHARES = ("pass@1", "pass@4", "cons@4")
NAMES = {f"{share}{end}" for share in SHARES for end in ("", "_low", "_high")} | {
    "pass@1_error", "length_mean", "think_length_mean", "truncated_fraction", "format_fraction", "reflection_rate",
    "ungraded_fraction", "language_share",
}  # fmt: skip
OF_ONE_SAMPLE = {name for name in NAMES if "@4" not in name}


@pytest.fixture
def logged() -> list[tuple[int, dict[str, float]]]:
    return []


@pytest.fixture
def trainer(logged: list[tuple[int, dict[str, float]]]) -> Any:
    logger = SimpleNamespace(log_metrics=lambda numbers, step: logged.append((step, numbers)))
    return SimpleNamespace(global_step=0, max_steps=10, is_global_zero=True, loggers=[logger])


@pytest.fixture
def module(codec: Codec) -> Phase:
    return Phase(policy=tiny_policy(), codec=codec, optimizer=lambda named: None, schedule=lambda *a, **k: None)  # type: ignore


@pytest.fixture
def callback(codec: Codec, tmp_path: Path) -> HeldOutEvaluation:
    return HeldOutEvaluation(
        ScriptedEngine(codec, SCRIPT),
        RewardSuite({"accuracy": Accuracy(codec.template.tags)}),
        {"twos": [number_prompt(codec, question, question) for question in "12"]},
        sampling=Sampling(group_size=4, temperature=0.6, top_p=0.95),
        folder=tmp_path,
        every_n_steps=4,
    )


def test_before_and_after(
    callback: HeldOutEvaluation, trainer: Any, module: Phase, logged: Any, tmp_path: Path
) -> None:
    callback.on_train_start(trainer, module)
    trainer.global_step = 10
    callback.on_fit_end(trainer, module)
    assert [step for step, _ in logged] == [0, 10]
    for numbers in (callback.before, callback.after, logged[0][1], logged[1][1]):
        assert set(numbers) == {f"eval/twos/{name}" for name in NAMES}
        assert numbers["eval/twos/pass@1"] == 0.5
        assert (numbers["eval/twos/pass@1_low"], numbers["eval/twos/pass@1_high"]) == share_interval([0.75, 0.25])
        assert numbers["eval/twos/cons@4"] == 0.5  # the first question's vote is right, the second's wrong
        assert numbers["eval/twos/language_share"] == 1
    for step in (0, 10):
        records = read_jsonl(tmp_path / f"twos-{step:05d}.jsonl")
        assert [record["correct"] for record in records] == [True, True, True, False, True, False, False, False]
        assert {"prompt_id", "prompt", "completion", "answer", "tokens", "finish_reason"} <= records[0].keys()


def test_during_training_one_sample_is_enough(
    callback: HeldOutEvaluation, trainer: Any, module: Phase, logged: Any
) -> None:
    for step in range(1, 11):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, module, None, None, step)
    assert [step for step, _ in logged] == [4, 8]
    assert set(logged[0][1]) == {f"eval/twos/{name}" for name in OF_ONE_SAMPLE}
    assert logged[0][1]["eval/twos/pass@1"] == 1  # the first of each question


def test_a_resumed_run_knows_what_was_before(callback: HeldOutEvaluation, trainer: Any, module: Phase) -> None:
    trainer.global_step = 5
    callback.load_state_dict({"before": {"eval/twos/pass@1": 0.1}})
    callback.on_train_start(trainer, module)
    assert callback.before == {"eval/twos/pass@1": 0.1}
    assert callback.state_dict() == {"before": {"eval/twos/pass@1": 0.1}, "owed": 0}
