"""Held-out evaluation: when, under which names, what it leaves, and that training does not notice it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.accelerators.cpu import CPUAccelerator
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.strategies import Strategy

from helpers.console import on_a_terminal, said
from helpers.engine import ScriptedEngine
from helpers.phases import SCRIPT, fit, scripted_grpo
from helpers.prompts import number_prompt
from helpers.quick import quick_rl, random_base
from helpers.ranks import on_ranks
from helpers.runs import largest_difference, weights
from lightning_r1.callbacks import evaluation as evaluation_module
from lightning_r1.callbacks.checkpoint import StepCheckpoints
from lightning_r1.callbacks.console import ConsoleProgress
from lightning_r1.callbacks.evaluation import HeldOutEvaluation
from lightning_r1.config.build import build
from lightning_r1.evaluation import evaluator
from lightning_r1.models.codec import Codec
from lightning_r1.modules.grpo import GRPO
from lightning_r1.parallel.checkpoint_strategy import DataParallelStrategy, OneDeviceStrategy
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.suite import RewardSuite
from lightning_r1.rollout.group import GroupEngine
from lightning_r1.text.records import read_jsonl
from lightning_r1.train import quiet, train
from lightning_r1.types import Sampling

SETS = {"aime": ["1", "2"], "easy": ["2"]}
NAMES = {
    "pass@1_error",
    *(f"{metric}{end}" for metric in ("pass@1", "pass@3", "cons@3") for end in ("", "_low", "_high")),
    "ungraded_fraction",
    "length_mean",
    "think_length_mean",
    "truncated_fraction",
    "reflection_rate",
    "format_fraction",
}


class MemoryLogger(Logger):
    """Remembers the evaluations that it was given, as (step, numbers)."""

    name = version = "memory"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if any(name.startswith("eval/") for name in metrics):
            self.logged.append((step, metrics))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Not here."""


def held_out(
    codec: Codec, folder: Path, *, engine: Any = None, sets: Mapping[str, list[str]] = SETS, **how: Any
) -> HeldOutEvaluation:
    prompts = {name: [number_prompt(codec, number, number) for number in numbers] for name, numbers in sets.items()}
    return HeldOutEvaluation(
        engine or ScriptedEngine(codec, SCRIPT),
        RewardSuite({"accuracy": Accuracy(codec.template.tags)}),
        prompts,
        sampling=Sampling(group_size=3, max_new_tokens=16),
        folder=folder / "evaluations",
        **how,
    )


def test_before_and_after_under_the_documented_names(
    codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger, evaluation = MemoryLogger(), held_out(codec, tmp_path)
    fit(scripted_grpo(codec), steps=3, folder=tmp_path, callbacks=[evaluation], loggers=[logger])

    (first, before), (last, after) = logger.logged
    assert (first, last) == (0, 3)
    assert (before, after) == (evaluation.before, evaluation.after)
    assert before.keys() == {f"eval/{name}/{metric}" for name in SETS for metric in NAMES}
    # of the two problems' three answers, one and two are right
    assert before["eval/aime/pass@1"] == pytest.approx(1 / 2)
    assert before["eval/aime/pass@3"] == 1
    assert before["eval/easy/pass@1"] == pytest.approx(2 / 3)
    assert before["eval/aime/truncated_fraction"] == pytest.approx(1 / 6)
    shown = said(capsys)
    for step in (0, 3):
        assert f"held-out aime at step {step}: pass@1 0.500 " in shown
        assert f"held-out easy at step {step}: pass@1 0.667 " in shown


@pytest.mark.parametrize(
    ("every", "steps", "expected"), [(0, 4, [0, 4]), (2, 5, [0, 2, 4, 5]), (2, 4, [0, 2, 4]), (1, 3, [0, 1, 2, 3])]
)
def test_evaluations_come_at_the_chosen_steps(
    every: int, steps: int, expected: list[int], codec: Codec, tmp_path: Path
) -> None:
    logger, evaluation = MemoryLogger(), held_out(codec, tmp_path, every_n_steps=every, sets={"a": ["1"]})
    fit(scripted_grpo(codec), steps=steps, folder=tmp_path, callbacks=[evaluation], loggers=[logger])
    assert [step for step, _ in logger.logged] == expected
    assert sorted(path.name for path in (tmp_path / "evaluations").iterdir()) == [f"a-{s:05d}.jsonl" for s in expected]
    # in between, one sample a prompt has to do
    assert ["eval/a/pass@3" in numbers for _, numbers in logger.logged] == [step in (0, steps) for step in expected]
    assert all("eval/a/pass@1" in numbers for _, numbers in logger.logged)


def test_a_line_holds_a_graded_answer(codec: Codec, tmp_path: Path) -> None:
    fit(scripted_grpo(codec), steps=1, folder=tmp_path, callbacks=[held_out(codec, tmp_path)])
    lines = read_jsonl(tmp_path / "evaluations" / "aime-00001.jsonl")
    assert [line["correct"] for line in lines] == [True, False, False, True, True, False]
    assert lines[0] == {
        "prompt_id": "test/1",
        "prompt": "1<think>",
        "completion": "<think>1</think><answer>1</answer>",
        "answer": "1",
        "correct": True,
        "outcome": "ok",
        "finish_reason": "stop",
        "tokens": 6,
        "think_tokens": 1,
        "strict_format": True,
        "reflections": 0,
        "language_share": None,  # it thinks in numbers alone
    }
    assert (lines[2]["completion"], lines[2]["finish_reason"]) == ("<think>;;", "length")
    assert len(read_jsonl(tmp_path / "evaluations" / "easy-00001.jsonl")) == 3


def test_every_evaluation_draws_the_same_randomness_from_the_weights_of_its_step(codec: Codec, tmp_path: Path) -> None:
    engine, versions = ScriptedEngine(codec, SCRIPT), []
    generate = engine.generate

    def watched(*arguments: Any, **how: Any) -> Any:
        assert not engine.asleep
        versions.append(engine.version)
        return generate(*arguments, **how)

    engine.generate = watched  # type: ignore[method-assign]
    evaluation = held_out(codec, tmp_path, engine=engine, every_n_steps=1, sets={"a": ["1", "2"]}, seed=5)
    fit(scripted_grpo(codec), steps=2, folder=tmp_path, callbacks=[evaluation])
    assert versions == [0, 1, 2]
    assert len({tuple(seeds) for _, _, seeds in engine.calls}) == 1
    assert engine.asleep


def drawing_grpo(codec: Codec, **algorithm: Any) -> tuple[GRPO, GroupEngine]:
    """A phase that draws at random wherever one can: dropout, and completions from the model itself."""
    module = scripted_grpo(codec, **algorithm)
    for layer in module.policy.model.base_model.layers:
        layer.self_attn.attention_dropout = 0.5
    module.engine = GroupEngine(module.policy, codec)
    return module, module.engine


def test_training_does_not_notice_it(codec: Codec, tmp_path: Path) -> None:
    modules = []
    for name in ("with", "without"):
        module, engine = drawing_grpo(codec)
        callbacks = [held_out(codec, tmp_path, engine=engine, every_n_steps=1)] if name == "with" else []
        fit(module, steps=4, folder=tmp_path, callbacks=callbacks)
        modules.append(module)
    assert largest_difference(*(module.state_dict() for module in modules)) == 0


def test_modes_gradients_and_generators_are_as_they_were(codec: Codec, tmp_path: Path) -> None:
    module, engine = drawing_grpo(codec, kl_coef=0.1)
    evaluation = held_out(codec, tmp_path, engine=engine)
    seen = []

    class Around(L.Callback):
        """Stands on both sides of the evaluation."""

        state_key = property(id)  # type: ignore[assignment]

        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            modes = {name: part.training for name, part in pl_module.named_modules()}
            seen.append((modes, torch.get_rng_state().tolist(), random.getstate(), torch.is_grad_enabled()))

    fit(module, steps=1, folder=tmp_path, callbacks=[Around(), evaluation, Around()])
    before, after = seen
    assert before == after
    modes, _, _, gradients = after
    assert gradients
    assert modes["policy"]
    assert not modes["reference"]


def test_the_numbers_from_before_survive_an_interruption(codec: Codec, tmp_path: Path) -> None:
    logger = MemoryLogger()

    def run(steps: int, resume: Path | None = None) -> HeldOutEvaluation:
        evaluation = held_out(codec, tmp_path, sets={"a": ["1", "2"]})
        checkpoints = StepCheckpoints(tmp_path / "checkpoints", every_n_steps=1, keep=9)
        fit(
            scripted_grpo(codec), steps=steps, folder=tmp_path, callbacks=[evaluation, checkpoints],
            loggers=[logger], resume=resume,
        )  # fmt: skip
        return evaluation

    first = run(2)
    second = run(4, resume=tmp_path / "checkpoints" / "step-0000002.ckpt")
    assert second.before == first.before != {}
    assert [step for step, _ in logger.logged] == [0, 2, 4]


def test_a_run_that_was_interrupted_after_its_last_step_has_its_last_numbers(tmp_path: Path) -> None:
    base = random_base(tmp_path / "base")
    config = quick_rl(tmp_path, base, "callbacks.checkpoint.every_n_steps=1")
    summary = train(config)
    assert summary["before"].keys() == summary["after"].keys() != set()
    kept = weights(tmp_path / "coin" / "rl")
    (tmp_path / "coin" / "rl" / "summary.json").unlink()
    again = train(config)
    assert (again["before"], again["after"]) == (summary["before"], summary["after"])
    assert largest_difference(weights(tmp_path / "coin" / "rl"), kept) == 0


def test_every_evaluation_has_a_bar_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet()
    on_a_terminal(monkeypatch)
    run = build(quick_rl(tmp_path, random_base(tmp_path / "base"), "eval.every_n_steps=2"))
    (console,) = (callback for callback in run.trainer.callbacks if isinstance(callback, ConsoleProgress))  # type: ignore[attr-defined]
    bars = []
    evaluate = evaluation_module.evaluate

    def watched(*arguments: Any, **how: Any) -> Any:
        result = evaluate(*arguments, **how)
        assert console.progress is not None
        bars.append({task.description: task.completed for task in console.progress.tasks}["evaluate"])
        return result

    monkeypatch.setattr(evaluation_module, "evaluate", watched)
    run.trainer.fit(run.module, run.datamodule)
    # eight problems: four samples of each before and after, one in between
    assert bars == [32, 8, 32]
    assert console.progress is None


def test_the_first_rank_writes_for_all(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    modules = [scripted_grpo(codec) for _ in range(2)]
    evaluations = [held_out(codec, tmp_path, sets={"a": ["1", "2"]}) for _ in range(2)]
    loggers = [MemoryLogger() for _ in range(2)]

    def start(number: int) -> dict[str, float]:
        trainer = SimpleNamespace(global_step=0, is_global_zero=number == 0, loggers=[loggers[number]])
        evaluations[number].on_train_start(trainer, modules[number])  # type: ignore[arg-type]
        return evaluations[number].before

    works = [lambda number=number: start(number) for number in range(2)]
    first, second = on_ranks(monkeypatch, [evaluation_module, evaluator], works)
    assert first == second
    assert first["eval/a/pass@1"] == pytest.approx(1 / 2)
    assert [len(logger.logged) for logger in loggers] == [1, 0]
    lines = read_jsonl(tmp_path / "evaluations" / "a-00000.jsonl")
    assert [line["prompt_id"] for line in lines] == ["test/1"] * 3 + ["test/2"] * 3
    assert said(capsys).count("held-out a at step 0") == 1


@pytest.mark.parametrize("strategy", [OneDeviceStrategy, DataParallelStrategy])
def test_the_last_evaluation_finds_the_model_where_it_was_trained(
    strategy: type[Strategy], codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning moves it to the host's memory when training ends, where a GPU's work would take hours."""
    moved = []
    monkeypatch.setattr(GRPO, "cpu", lambda module: moved.append(module))
    trained = strategy()
    trained.connect(module := scripted_grpo(codec))
    trained.accelerator, trained.cluster_environment = CPUAccelerator(), LightningEnvironment()
    trained.optimizers = [torch.optim.AdamW(module.policy.parameters())]
    trained.teardown()
    assert moved == []
    assert len(trained.optimizers) == 1
    module.cpu()  # what others want of it, it does
    assert moved == [module]
