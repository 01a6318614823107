"""Rollouts on record: what the files hold, what the logger's table holds, what is shown and when."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers.logger import Logger

from helpers.console import said
from helpers.phases import SCRIPT, fit, long_is_good, scripted_grpo
from helpers.ranks import on_ranks
from lightning_r1.callbacks import rollouts
from lightning_r1.callbacks.checkpoint import StepCheckpoints
from lightning_r1.callbacks.rollouts import RolloutRecorder
from lightning_r1.models.codec import Codec
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.rewards.format import Format
from lightning_r1.text.records import read_jsonl
from lightning_r1.types import Completion, Prompt


class TableLogger(Logger):
    """A logger that has tables, and remembers them."""

    name = version = "tables"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[str, list[str], list[list[Any]]]] = []

    def grow_table(self, name: str, columns: list[str], rows: list[list[Any]], *, step: int) -> None:
        assert all(row[0] == step for row in rows)
        self.tables.append((name, columns, rows))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Not here."""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Not here."""


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def record(codec: Codec, folder: Path, *, steps: int, loggers: Any = (), **how: Any) -> RolloutRecorder:
    """Train for so many steps under a recorder; ``how`` is of the recorder and the module."""
    options = {name: how.pop(name) for name in ("every", "show_at_steps", "table_rows") if name in how}
    recorder = RolloutRecorder(folder / "rollouts", **{"show_at_steps": (), **options})
    fit(scripted_grpo(codec, **how), steps=steps, folder=folder, callbacks=[recorder], loggers=loggers)
    return recorder


def test_a_line_holds_a_completion_and_what_each_reward_gave(codec: Codec, tmp_path: Path) -> None:
    tags = codec.template.tags
    record(codec, tmp_path, steps=2, rewards={"accuracy": Accuracy(tags), "format": Format(tags)})

    lines = read_jsonl(tmp_path / "rollouts" / "00002.jsonl")
    by_text = {(line["prompt"], line["completion"]): line for line in lines}
    right = by_text["1<think>", "<think>1</think><answer>1</answer>"]
    cut = by_text["1<think>", "<think>;;"]
    # rewards of the first group are 1 + 1, 0 + 0, 0 + 0: mean 2/3, standard deviation sqrt(4/3)
    deviation = (4 / 3) ** 0.5 + 1e-4
    assert right.pop("advantage") == pytest.approx((2 - 2 / 3) / deviation)
    assert cut["advantage"] == pytest.approx(-2 / 3 / deviation)
    assert right == {
        "step": 2,
        "prompt_id": "test/1",
        "domain": "reasoning",
        "prompt": "1<think>",
        "completion": "<think>1</think><answer>1</answer>",
        "rewards": {"accuracy": 1.0, "format": 1.0},
        "outcomes": {"accuracy": "ok", "format": "ok"},
        "reward": 2.0,
        "finish_reason": "stop",
        "tokens": 6,
        "policy_version": 1,  # the weights after step 1 wrote it, and step 2 learned from it
    }
    assert (cut["reward"], cut["finish_reason"], cut["tokens"]) == (0.0, "length", 2)
    assert cut["outcomes"] == {"accuracy": "wrong_format", "format": "wrong_format"}
    bare = by_text["2<think>", "<think></think><answer>2</answer>"]
    assert bare["rewards"] == {"accuracy": 1.0, "format": 0.0}  # right, without any thinking


def test_every_completion_of_every_rollout_is_there(codec: Codec, tmp_path: Path) -> None:
    record(codec, tmp_path, steps=3)
    assert files(tmp_path / "rollouts") == ["00001.jsonl", "00002.jsonl", "00003.jsonl"]
    expected = sorted(
        (f"test/{question}", "<think>" + text.removesuffix("<eos>")) for question in SCRIPT for text in SCRIPT[question]
    )
    for step, name in enumerate(files(tmp_path / "rollouts"), start=1):
        lines = read_jsonl(tmp_path / "rollouts" / name)
        assert sorted((line["prompt_id"], line["completion"]) for line in lines) == expected
        assert {line["step"] for line in lines} == {step}
        for line in lines:
            assert line["reward"] == line["rewards"]["length"] == line["tokens"]


def test_what_could_not_be_scored_is_null_and_never_zero(codec: Codec, tmp_path: Path) -> None:
    def moody(prompt: Prompt, completion: Completion) -> float | None:
        if ";" in completion.text:
            return None
        return 1 / (len(completion.token_ids) - 5)  # divides by zero where there are five tokens

    record(codec, tmp_path, steps=1, rewards={"moody": moody, "length": long_is_good})

    lines = {line["completion"]: line for line in read_jsonl(tmp_path / "rollouts" / "00001.jsonl")}
    outcomes = {text: (line["rewards"]["moody"], line["outcomes"]["moody"]) for text, line in lines.items()}
    assert outcomes["<think>;;"] == (None, "unscorable")
    assert outcomes["<think></think><answer>2</answer>"] == (None, "crash")
    assert outcomes["<think>1</think><answer>1</answer>"] == (1.0, "ok")
    unscored = lines["<think>;;"]
    assert (unscored["rewards"]["length"], unscored["reward"], unscored["advantage"]) == (2.0, None, 0.0)
    # any reader of JSON can read it
    assert "NaN" not in (tmp_path / "rollouts" / "00001.jsonl").read_text()


@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, ["00001", "00002", "00003", "00004", "00005"]),
        (2, ["00001", "00003", "00005"]),
        (3, ["00001", "00004"]),
        (0, []),
    ],
)
def test_every_so_many_rollouts(every: int, expected: list[str], codec: Codec, tmp_path: Path) -> None:
    record(codec, tmp_path, steps=5, every=every)
    assert files(tmp_path / "rollouts") == [f"{name}.jsonl" for name in expected]


def test_a_rollout_of_several_steps_is_recorded_once(codec: Codec, tmp_path: Path) -> None:
    record(codec, tmp_path, steps=5, minibatches_per_rollout=2)
    steps = [read_jsonl(tmp_path / "rollouts" / name)[0]["step"] for name in files(tmp_path / "rollouts")]
    assert steps == [1, 3, 5]


@pytest.mark.parametrize("at", [2, 3])
def test_a_run_that_goes_on_records_what_it_makes_again_in_the_same_files(
    at: int, codec: Codec, tmp_path: Path
) -> None:
    def run(folder: Path, steps: int, resume: Path | None = None) -> None:
        callbacks = [
            RolloutRecorder(folder / "rollouts", show_at_steps=()),
            StepCheckpoints(folder / "checkpoints", every_n_steps=1, keep=9),
        ]
        module = scripted_grpo(codec, minibatches_per_rollout=2)
        fit(module, steps=steps, folder=folder, callbacks=callbacks, resume=resume)

    run(tmp_path / "whole", 6)
    run(tmp_path / "resumed", 4)
    later = files(tmp_path / "resumed" / "rollouts")[(at + 1) // 2 :]
    for name in later:
        (tmp_path / "resumed" / "rollouts" / name).write_text("of the steps that are made again")
    run(tmp_path / "resumed", 6, resume=tmp_path / "resumed" / "checkpoints" / f"step-{at:07d}.ckpt")

    contents = [
        {path.name: path.read_text() for path in (tmp_path / name / "rollouts").iterdir()}
        for name in ("whole", "resumed")
    ]
    assert len(contents[0]) == 3
    assert contents[0] == contents[1]


def test_the_table_holds_some_completions_of_each_rollout(codec: Codec, tmp_path: Path) -> None:
    logger = TableLogger()
    record(codec, tmp_path, steps=3, table_rows=2, loggers=[logger])

    assert [key for key, _, _ in logger.tables] == ["completions"] * 3
    assert [[row[0] for row in rows] for _, _, rows in logger.tables] == [[1, 1], [2, 2], [3, 3]]
    # the first of each prompt: rows are spread over the rollout
    lines = [
        read_jsonl(tmp_path / "rollouts" / name)[place] for name in files(tmp_path / "rollouts") for place in (0, 3)
    ]
    for row, line in zip((row for _, _, rows in logger.tables for row in rows), lines, strict=True):
        cells = dict(zip(logger.tables[0][1], row, strict=True))
        same = {"step": "step", "group": "prompt_id", "reward": "reward", "advantage": "advantage", "tokens": "tokens"}
        same |= {name: name for name in ("prompt", "completion", "finish_reason")}
        rewards = {f"reward/{name}": value for name, value in line["rewards"].items()}
        assert cells == {name: line[there] for name, there in same.items()} | rewards | {"outcome": "ok"}


@pytest.mark.parametrize(("most", "updates", "kept"), [(100, 1, [1, 2, 3, 4, 5]), (2, 1, [1, 4]), (2, 2, [1, 5])])
def test_a_long_run_has_some_of_its_rollouts_in_the_table(
    most: int, updates: int, kept: list[int], codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "MOST_INCREMENTS", most)
    logger = TableLogger()
    record(codec, tmp_path, steps=5, table_rows=1, loggers=[logger], minibatches_per_rollout=updates)
    assert [rows[0][0] for _, _, rows in logger.tables] == kept


@pytest.mark.parametrize(("updates", "steps"), [(1, (1, 3)), (2, (1, 3)), (2, (2,)), (2, (4,)), (1, ())])
def test_completions_are_shown_at_the_chosen_steps(
    updates: int, steps: tuple[int, ...], codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(codec, tmp_path, steps=4, show_at_steps=list(steps), minibatches_per_rollout=updates)
    shown = said(capsys)
    assert [step for step in range(1, 5) if f"completions at step {step} " in shown] == list(steps)
    # one of each prompt, as it was answered first
    assert shown.count("<think>1</think>") == shown.count("length 6.00") == len(steps)
    assert shown.count("<think></think>") == shown.count("length 5.00") == len(steps)


def test_completions_are_shown_where_none_are_recorded(
    codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(codec, tmp_path, steps=2, every=0, show_at_steps=[2])
    assert "completions at step 2 " in said(capsys)


def test_the_first_rank_writes_for_all(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # each rank's rollout is made alone, and only recording it is done together
    modules = [scripted_grpo(codec, {question: SCRIPT[question]}) for question in SCRIPT]
    recorders = [RolloutRecorder(tmp_path / "rollouts", show_at_steps=[1]) for _ in modules]
    for module in modules:
        fit(module, steps=1, folder=tmp_path)

    def record_rank(number: int) -> None:
        trainer = SimpleNamespace(global_step=1, max_steps=1, is_global_zero=number == 0, loggers=[])
        recorders[number].on_train_batch_end(trainer, modules[number], None, None, 0)  # type: ignore[arg-type]

    on_ranks(monkeypatch, [rollouts], [lambda number=number: record_rank(number) for number in range(2)])
    lines = read_jsonl(tmp_path / "rollouts" / "00001.jsonl")
    assert [line["prompt_id"] for line in lines] == ["test/1"] * 3 + ["test/2"] * 3
    assert said(capsys).count("completions at step 1 ") == 1
