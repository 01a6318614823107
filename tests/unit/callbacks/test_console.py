"""What a person sees while a phase trains: lines in a file, bars on a terminal, completions in a table."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest

from helpers.console import on_a_terminal, said
from helpers.phases import fit, scripted_grpo
from helpers.prompts import number_prompt
from lightning_r1.callbacks import console as console_module
from lightning_r1.callbacks.console import ConsoleProgress, show_completions
from lightning_r1.models.codec import Codec
from lightning_r1.modules.grpo import GRPO
from lightning_r1.rewards.accuracy import Accuracy
from lightning_r1.types import Completion, Group, Outcome, RewardScore, ScoredGroup


def grpo(codec: Codec, **algorithm: Any) -> GRPO:
    return scripted_grpo(codec, rewards={"accuracy": Accuracy(codec.template.tags)}, **algorithm)


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (10, [5]), (0, [5])]
)
def test_a_line_every_so_many_steps_and_at_the_end(
    every: int, expected: list[int], codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(grpo(codec), steps=5, folder=tmp_path, callbacks=[ConsoleProgress(every_n_steps=every)])
    assert [int(step) for step in re.findall(r"step (\d+)/5 ", said(capsys))] == expected


def test_a_line_says_what_was_logged(codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = grpo(codec, kl_coef=0.01)
    fit(module, steps=1, folder=tmp_path, callbacks=[ConsoleProgress(every_n_steps=1)])
    latest = module.latest
    expected = (
        "step 1/1 "
        "reward 0.50 accuracy 0.50 "  # three of six are right
        "thinking 1.2 "  # 1 + 0 + 2 and 0 + 3 + 1 tokens of six completions
        f"truncated 0.17 entropy {latest['policy/entropy']:.2f} kl {latest['policy/kl_ref']:.4f} "
        f"grad {latest['optim/grad_norm']:.2f} lr 1.0e-03 "
    )
    assert re.search(re.escape(expected) + r"[\d.]+ steps/s", said(capsys))


def test_a_step_without_a_rollout_shows_the_latest_ones_numbers(
    codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = grpo(codec, minibatches_per_rollout=3)
    fit(module, steps=2, folder=tmp_path, callbacks=[ConsoleProgress(every_n_steps=2)])
    assert "rollout/reward_mean" not in module.latest
    assert "step 2/2 reward 0.50 accuracy 0.50" in said(capsys)


def test_a_file_gets_no_bars(codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = ConsoleProgress(every_n_steps=1)
    fit(grpo(codec), steps=2, folder=tmp_path, callbacks=[progress])
    assert progress.progress is None
    out = capsys.readouterr().out
    assert out.count("\n") == 2  # each line stays one, however long
    assert "\x1b" not in out


class Watch(L.Callback):
    """Remembers the bars of each step: what, how many, of how many."""

    def __init__(self, progress: ConsoleProgress) -> None:
        self.progress = progress
        self.seen: list[dict[str, tuple[float, float | None]]] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        assert self.progress.progress is not None
        tasks = self.progress.progress.tasks
        self.seen.append({task.description: (task.completed, task.total) for task in tasks})


def test_a_terminal_has_a_bar_for_everything_long(
    codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    progress = ConsoleProgress()
    watch = Watch(progress)
    # one completion a forward, so that there is something to wait for
    module = grpo(codec, minibatches_per_rollout=2, kl_coef=0.01)
    module.micro_batch_tokens = 10
    fit(module, steps=3, folder=tmp_path, callbacks=[progress, watch])

    assert [bars["steps"] for bars in watch.seen] == [(1, 3), (2, 3), (3, 3)]
    for bars in watch.seen:
        assert bars.keys() == {"steps", "rollout", "score", "update"}
        assert bars["rollout"] == (6, 6)
        assert bars["score"] == (6, 6)
        assert bars["update"] == (3, 3)
    assert progress.progress is None


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_bar_stays_a_bar_however_much_is_told_beside_it(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch, width=width)
    progress = ConsoleProgress()
    progress.progress = console_module._bars()
    progress.latest = dict.fromkeys(console_module.COLUMNS, 0.5)
    progress._report("evaluate", 131, 996)
    progress._report("steps", 12_345, 200_000)
    terminal.file = io.StringIO()
    terminal.print(progress.progress.get_renderable())
    first, second = terminal.file.getvalue().splitlines()
    assert re.match(r" *evaluate \S{24} +131/996", re.sub(r"\x1b\[[\d;]*m", "", first))
    assert re.match(r" *steps \S{24} +12345/200000 -:--:-- reward 0.50", re.sub(r"\x1b\[[\d;]*m", "", second))


def test_bars_are_gone_before_an_error_is_told(codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    progress = ConsoleProgress()

    class Fail(L.Callback):
        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            assert progress.progress is not None
            raise RuntimeError("the loss is not finite")

    with pytest.raises(RuntimeError, match="not finite"):
        fit(grpo(codec), steps=3, folder=tmp_path, callbacks=[progress, Fail()])
    assert progress.progress is None
    assert terminal.file.getvalue().endswith("\x1b[2K")  # type: ignore[attr-defined]


def test_other_ranks_say_nothing(codec: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    progress, module = ConsoleProgress(every_n_steps=1), grpo(codec)
    trainer: Any = SimpleNamespace(is_global_zero=False, global_step=1, max_steps=2)
    progress.on_train_start(trainer, module)
    progress.on_train_batch_end(trainer, module, None, None, 0)
    progress.teardown(trainer, module, "fit")
    assert said(capsys) == ""


def scored(codec: Codec, question: str, texts: list[str], *columns: tuple[str, list[RewardScore]]) -> ScoredGroup:
    completions = tuple(Completion((1,), (0.0,), "stop", text) for text in texts)
    group = Group(number_prompt(codec, question, 1), completions)
    return ScoredGroup(group, tuple(0.0 for _ in texts), dict(columns))


def test_completions_are_shown_with_what_each_reward_gave(codec: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    group = scored(
        codec,
        "4?2",
        ["<think>first</think>", "second"],
        ("accuracy", [RewardScore(1.0), RewardScore(0.0)]),
        ("format", [RewardScore(0.0, Outcome.WRONG_FORMAT), RewardScore(1.0)]),
        ("tests", [RewardScore(math.nan, Outcome.TIMEOUT), RewardScore(1.0)]),
    )
    show_completions([group], step=7)
    shown = said(capsys)
    for words in ("completions at step 7 ", "4?2", "<think>first</think>", "accuracy 1.00", "format 0.00 "):
        assert words in shown
    assert "tests nan (timeout)" in shown  # what is no honest reward says so
    assert "second" not in shown


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (3, 3), (9, 4)])
def test_so_many_completions_are_shown(
    count: int, expected: int, codec: Codec, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = [scored(codec, f"q{place}", ["text"], ("a", [RewardScore(1.0)])) for place in range(4)]
    show_completions(groups, step=1, count=count)
    shown = said(capsys)
    assert [f"q{place}" in shown for place in range(4)] == [place < expected for place in range(4)]


@pytest.mark.parametrize("text", ["[bold]loud[/bold]", "[/]", "a[0] = b[1]", ":smile: [link=x]y[/link]"])
def test_a_completion_is_shown_as_it_was_written(text: str, codec: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    show_completions([scored(codec, text, [text], ("a", [RewardScore(1.0)]))], step=1)
    assert said(capsys).count(text) == 2


def test_a_long_completion_is_shown_whole(codec: Codec, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(str(number) for number in range(200))
    show_completions([scored(codec, "q", [text], ("a", [RewardScore(1.0)]))], step=1)
    cells = [line.split("│")[2].strip() for line in capsys.readouterr().out.splitlines() if line.count("│") == 4]
    assert "".join(cells) == text
